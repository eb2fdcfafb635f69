"""Which image files words stand for, and the files that are written about them."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from .cfg import read_list
from .cfg.sections import printable
from .errors import DarknetError, DataError, ImageError, ResultsError
from .files import whole_file
from .images import SUFFIXES
from .stock import find_stock

Result = TypeVar("Result")
SHARD = ".tar"
LISTS = (".txt", ".list")  # of the files that hold paths
CHECKED = 1000  # files of a list that are looked for before the start: all would take minutes on a slow disk


def find_images(given: Sequence[str]) -> list[str]:
    """The image paths that words stand for, in order: images, folders, patterns, .txt and .list lists.

    Raises :class:`ImageError` where one stands for nothing.
    """
    found: list[str] = []
    for text in given:
        name = find_stock(text)
        path = Path(name)
        if text and path.is_dir():  # an empty name is no folder, though Path takes it for the present one
            inside = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise ImageError(f"{text}: no image in this folder; expected files ending in {', '.join(SUFFIXES)}")
            found += inside
        elif path.suffix in LISTS and path.is_file():
            found += read_list(path)
        elif text and path.exists():
            found.append(name)
        elif matches := sorted(glob.glob(text, recursive=True)):
            found += matches
        else:
            raise ImageError(f"{text}: no such image, folder or list, and no file matches it as a pattern")
    return found


def listed_images(path: str) -> list[str]:
    """The image paths in a list file, or those of a folder with a folder for each class. Raises :class:`DataError`."""
    if path.endswith(SHARD):
        raise DataError(
            f"{printable(path)}: a tar file; expected a list or a folder of images: only train= takes shards"
        )
    return folder_images(path) if os.path.isdir(path) else read_list(path)


def check_some(images: Sequence[str], given: str) -> None:
    """Look for up to :data:`CHECKED` of the images that the list ``given`` names, from the first to the last.

    Raises :class:`DataError` where one is not there.
    """
    looked = np.unique(np.linspace(0, len(images) - 1, CHECKED).astype(int)).tolist()
    absent = [images[index] for index in looked if not os.path.isfile(images[index])]
    if absent:
        raise DataError(
            f"{printable(absent[0])}: no such image; {len(absent):,} of {len(looked):,} images that were looked for "
            f"are missing, of the {len(images):,} in {printable(given)}; its paths are relative to the current folder, "
            f"{os.getcwd()}"
        )


def folder_images(folder: str) -> list[str]:
    """The images ``FOLDER/CLASS/IMAGE`` of a folder, by name. Raises :class:`DataError` where it holds none."""
    found = []
    try:
        with os.scandir(folder) as inside:
            classes = sorted(entry.path for entry in inside if entry.is_dir())
        for path in classes:
            with os.scandir(path) as inside:
                found += sorted(entry.path for entry in inside if entry.name.lower().endswith(SUFFIXES))
    except OSError as error:
        raise DataError(f"{printable(str(error.filename))}: cannot read the folder: {error.strerror}") from None
    if not found:
        raise DataError(
            f"{printable(folder)}: no image in the {len(classes)} folders in it; expected images as "
            f"{printable(folder)}/CLASS/IMAGE.jpg, or a list of their paths"
        )
    return found


def make_folder(folder: Path) -> None:
    """Make a folder to write to, where there is none. Raises :class:`ResultsError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: {error.strerror}; expected a folder to write to") from None


def check_file(path: str | os.PathLike[str]) -> None:
    """Hours of work should not end where they cannot be written: makes the folder of a file to come, or raises."""
    make_folder(Path(path).parent)
    if Path(path).is_dir():
        raise ResultsError(f"{path}: a folder; expected a file's name")


def check_written(written: Iterable[str | os.PathLike[str]], read: Iterable[str]) -> None:
    """Hours of work should not lose what they came from: raises :class:`ResultsError` where a file is ``read`` too."""
    sources = {os.path.realpath(path) for path in read}
    for path in written:
        if os.path.realpath(path) in sources:
            raise ResultsError(
                f"{path}: the command reads this file too, and would overwrite it; expected another -out or -json"
            )


def kept_results(
    run: Callable[[Callable[[ImageError], None]], Iterable[Result]],
    files: Mapping[str, Callable[[list[Result]], None]],
    skip: bool,
) -> list[Result]:
    """The results of ``run``, which is given what takes the error of an image that cannot be read; and their ``files``:
    what writes each.

    With ``skip`` such an image is passed over with a warning. Else it raises :class:`ImageError`, when what was found
    before it is written. So it is before any other error that is one line, and before Ctrl-C.
    """

    def unreadable(error: ImageError) -> None:
        if not skip:
            raise ImageError(f"{error}; or add -skip to pass over such images")
        pass_over(error)

    found: list[Result] = []
    problem: DarknetError | KeyboardInterrupt | None = None
    try:
        for one in run(unreadable):
            found.append(one)
    except (DarknetError, KeyboardInterrupt) as error:
        problem = error
    # What was found before the problem is worth keeping; nothing at all is no reason to write over older results.
    if found or not problem:
        for write in files.values():
            write(found)
    if problem:
        kept = f"; what was found in {len(found)} images before it stands in {' and '.join(files)}"
        raise type(problem)(f"{problem}{kept if files and found else ''}") from problem
    return found


def pass_over(error: DarknetError) -> None:
    """Warn of an image that is left out."""
    warnings.warn(f"{error}; skipped", stacklevel=3)


def results_one_by_one(
    paths: Iterable[str],
    run: Callable[[str], Iterable[Result]],
    files: Mapping[str, Callable[[list[Result]], None]],
    refused: Callable[[DarknetError], None],
) -> Iterator[Result]:
    """What ``run`` gives of each path; the next is not asked for before. At the end, whatever it is, the ``files`` of
    :func:`kept_results` are written, if there is a result. ``refused`` takes the error of an image that cannot be read,
    or whose own files cannot be written, and the next one follows.
    """
    found: list[Result] = []
    try:
        for path in paths:
            try:
                for one in run(find_stock(path)):
                    found += [one] if files else []
                    yield one
            except (ImageError, ResultsError) as error:
                refused(error)
    finally:
        if found:
            for write in files.values():
                write(found)


@contextlib.contextmanager
def written_or_said(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises :class:`ResultsError` in one line where the file cannot be written meanwhile."""
    try:
        yield
    except OSError as error:
        raise ResultsError(f"{os.fspath(path)}: {error.strerror}; the file was not written") from None


def write_objects(objects: Sequence[Mapping[str, object]], path: str | os.PathLike[str]) -> None:
    """One JSON list, an object per image, in UTF-8; the file is written whole or not at all.

    A byte of a path that is no UTF-8 becomes ``\\udcXX``, from which :func:`os.fsencode` makes the byte again.
    """
    text = json.dumps(list(objects), indent=1, ensure_ascii=False)
    with written_or_said(path), whole_file(path) as file:
        file.write(f"{text}\n".encode("utf-8", "backslashreplace"))
