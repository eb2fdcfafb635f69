"""Result files: Darknet's comp4 form, one file per class, read with care and speed."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cfg.data import MAX_LIST_BYTES
from ..cfg.reader import read_text
from ..errors import ResultsError
from ..labels import basecfg

PREFIX = "comp4_det_test_"  # examples/detector.c, validate_detector


@dataclass(frozen=True)
class Detections:
    """All detections of a result folder. D rows, class by class, each class in the order of its file.

    ``box`` holds xmin, ymin, xmax, ymax in pixels as VOC counts them (the first pixel is 1).
    """

    names: list[str]
    images: list[str]
    image: NDArray[np.int64]  # (D,) index into images
    class_id: NDArray[np.int64]  # (D,) index into names, never falling
    prob: NDArray[np.float64]  # (D,)
    box: NDArray[np.float64]  # (D, 4)
    missing: list[Path]  # files that were looked for in vain
    absent: list[int]  # classes that have no result for that reason

    def of_class(self, class_id: int) -> slice:
        """The rows of one class."""
        start, stop = np.searchsorted(self.class_id, [class_id, class_id + 1])
        return slice(int(start), int(stop))


def find_prefix(folder: str | os.PathLike[str], names: Sequence[str]) -> str:
    """What stands before the class name in the result files of ``folder``: Darknet's ``comp4_det_test_``, or another's.

    Raises ResultsError where the folder holds no result file of any class, or those of two runs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; expected result files like {PREFIX}{names[0]}.txt in it")
    stems = [path.stem for path in folder.glob("*.txt")]
    count: dict[str, int] = {}
    for name in names:
        for stem in stems:
            if stem.endswith(name):
                prefix = stem[: len(stem) - len(name)]
                count[prefix] = count.get(prefix, 0) + 1
    if not count:
        raise ResultsError(
            f"{folder}: no result file of any of the {len(names)} classes; expected files like {PREFIX}{names[0]}.txt"
        )
    if PREFIX in count:
        return PREFIX
    most = max(count.values())
    likely = sorted(prefix for prefix, files in count.items() if files == most)
    if len(likely) > 1:
        raise ResultsError(
            f"{folder}: two sets of result files, {likely[0]}*.txt and {likely[1]}*.txt; expected one set in a folder"
        )
    return likely[0]


def read_comp4(folder: str | os.PathLike[str], names: Sequence[str], images: Sequence[str]) -> Detections:
    """The detections of a folder of result files: one file per class, lines of ``id prob xmin ymin xmax ymax``.

    ``images`` are the ids that may occur; they may hold blanks. An id with a dot (a VOCdevkit names its annotations so)
    is also known by what stands before its first dot, as Darknet writes it, where that means one image.
    A class whose file is missing goes to ``absent``; an empty file is a class without detections. Raises ResultsError
    with file and line for a line that is not six fields, a number that is none or not finite, and an id that ``images``
    does not hold.
    """
    prefix = find_prefix(folder, names)
    index = _index(images)
    image, numbers, count, missing, absent = [], [], [], [], []
    for class_id, name in enumerate(names):
        path = Path(folder) / f"{prefix}{name}.txt"
        if not path.exists():
            missing.append(path)
            absent.append(class_id)
            count.append(0)
            continue
        of_image, of_numbers = read_class_file(path, index)
        image.append(of_image)
        numbers.append(of_numbers)
        count.append(len(of_image))
    table = np.concatenate(numbers)
    return Detections(
        names=list(names),
        images=list(images),
        image=np.concatenate(image),
        class_id=np.repeat(np.arange(len(names)), count),
        prob=np.ascontiguousarray(table[:, 0]),
        box=np.ascontiguousarray(table[:, 1:]),
        missing=missing,
        absent=absent,
    )


def _index(images: Sequence[str]) -> dict[str, int]:
    """Place of each id, as read from a line, in ``images``."""
    short = [basecfg(name).strip() for name in images]
    count = Counter(short)
    index = {name: position for position, name in enumerate(short) if count[name] == 1}
    return index | {name.strip(): position for position, name in enumerate(images)}


def comp4_ids(folder: str | os.PathLike[str], names: Sequence[str]) -> list[str]:
    """Every image id that occurs in the result files of ``folder``, sorted. For folders without a list of images."""
    prefix = find_prefix(folder, names)
    ids: set[str] = set()
    for name in names:
        path = Path(folder) / f"{prefix}{name}.txt"
        if path.exists():
            lines = read_text(path, ResultsError, MAX_LIST_BYTES).split("\n")
            ids.update(line.rsplit(None, 5)[0].strip() for line in lines if line and not line.isspace())
    return sorted(ids)


def read_class_file(path: Path, index: dict[str, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One result file: image (n,) through ``index``, and prob, xmin, ymin, xmax, ymax (n, 5)."""
    text = read_text(path, ResultsError, MAX_LIST_BYTES)
    fields = text.split()
    if _is_plain(text, len(fields)):
        # 250,000 lines in a fifth of a second: no list per line.
        ids = fields[0::6]
        del fields[0::6]
        try:
            image = np.fromiter(map(index.__getitem__, ids), np.int64, len(ids))
            numbers = np.fromiter(map(float, fields), np.float64, len(fields)).reshape(-1, 5)
        except (KeyError, ValueError):
            return _read_by_line(path, text, index)
        if np.isfinite(numbers).all():
            return image, numbers
    return _read_by_line(path, text, index)


def _is_plain(text: str, fields: int) -> bool:
    """Whether every line is six fields with one blank between them and ``\\n`` at its end, as ``%s %f`` prints them."""
    characters = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
    blanks = characters[characters <= ord(" ")]
    if len(blanks) % 6 or len(blanks) != fields or not text.endswith("\n"):
        return False
    blanks = blanks.reshape(-1, 6)
    return bool((blanks[:, 5] == ord("\n")).all() and (blanks[:, :5] == ord(" ")).all())


def _read_by_line(path: Path, text: str, index: dict[str, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same with any blanks, in ids too, and with a word for what is wrong."""
    image: list[int] = []
    numbers: list[list[float]] = []
    for number, line in enumerate(text.split("\n"), 1):
        # From the right, since the first field is a name.
        fields = line.rsplit(None, 5)
        if not fields:
            continue
        where = f"{path}:{number}: {line.strip()!r}"
        if len(fields) != 6:
            raise ResultsError(f"{where}: {len(fields)} fields; expected six: id prob xmin ymin xmax ymax")
        numbers.append(parse_numbers(fields[1:], where))
        name = fields[0].strip()
        if name not in index:
            raise ResultsError(f"{where}: image {name} is not in the image set; expected results of that set only")
        image.append(index[name])
    return np.array(image, dtype=np.int64), np.array(numbers, dtype=np.float64).reshape(-1, 5)


def parse_numbers(fields: Sequence[str], where: str) -> list[float]:
    """``fields`` as finite numbers. Raises ResultsError that starts with ``where`` and names the field."""
    numbers = []
    for text in fields:
        try:
            number = float(text)
        except ValueError:
            raise ResultsError(f"{where}: {text!r} is no number") from None
        if not math.isfinite(number):
            raise ResultsError(f"{where}: {text!r} is not finite; expected a number")
        numbers.append(number)
    return numbers
