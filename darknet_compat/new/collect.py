"""Labelled images in the forms that people have them: VOC's XML, COCO's JSON, Darknet's own label files."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..cfg import read_names
from ..coco import read_instances, relative_box
from ..errors import DataError, ImageError
from ..images import SUFFIXES, image_size
from ..labels import darknet_box, label_path, read_image_set, read_labels, read_voc

Form = Literal["voc", "coco", "darknet"]
FORMS: dict[Form, str] = {"voc": "VOC XML", "coco": "COCO JSON", "darknet": "Darknet labels"}
Part = Literal["train", "valid", "test", ""]
# Words that people call the parts of a data set by, in a folder's or a file's name.
PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "valid", "valid": "valid", "validation": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
NAMES = ("*.names", "classes.txt", "_darknet.labels")  # what programs call a list of classes
SHOWN = 3  # files that a message names
UNKNOWN = "objects of classes that are not among the names"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Labelled:
    """An image with its objects."""

    path: str
    """Absolute."""
    name: str
    """The path from the folder that all images are in."""
    objects: np.ndarray
    """float64 (n, 5): class, x, y, w, h, relative to the image."""
    part: Part = ""
    """Of a data set that comes divided, the part; "" where nothing says it."""


@dataclass
class Collection:
    """What :func:`collect` found."""

    form: Form
    names: list[str]
    """Of the classes."""
    images: list[Labelled] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """What was left out, and how often."""


def collect(
    source: str | os.PathLike[str], form: Form | None = None, names: str | os.PathLike[str] | None = None,
    skip: bool = False,
) -> Collection:  # fmt: skip
    """All labelled images under a folder, or those that a COCO JSON file names.

    ``form`` None: VOC XML where there is any, else COCO JSON, else Darknet labels. ``names``, a file of the classes,
    is needed for Darknet labels that come without; of VOC XML it says which classes count, and their order (None: all,
    by the alphabet). ``skip`` leaves out annotations and images that cannot be read, and counts them; without it they
    are an error. Images come in the order of their paths.

    Raises :class:`DataError` in one line.
    """
    root = Path(source).absolute()
    if not os.fspath(source) or not root.exists():  # Path takes an empty name for the present folder
        raise DataError(f"{source}: no such file or folder; expected a folder of labelled images or a COCO JSON file")
    files = _files(root)
    form = form or _form(root, files)
    read = {"voc": _voc, "coco": _coco, "darknet": _darknet}[form]
    found = read(root, files, None if names is None else read_names(names), _Trouble(skip))
    if not found.images:
        raise DataError(f"{source}: no labelled image, of {len(files.images)} images read as {FORMS[form]}")
    if not any(len(image.objects) for image in found.images):
        raise DataError(f"{source}: no object in the labels of {len(found.images)} images; nothing can be learnt")
    # Names stand in a file, one a line; a file of them may have a blank one.
    if names is None and (wrong := [name for name in found.names if "\n" in name or name.strip() != name or not name]):
        raise DataError(
            f"{source}: a class is called {wrong[0]!r}; expected one line, without blanks at its ends, or -names FILE "
            "that says which classes count"
        )
    folder = os.path.commonpath([os.path.dirname(image.path) for image in found.images])
    found.images = [replace(image, name=Path(image.path).relative_to(folder).as_posix()) for image in found.images]
    found.images.sort(key=lambda image: image.path)
    return found


@dataclass(frozen=True)
class _Files:
    """Files under a folder by kind, as paths, sorted."""

    root: Path
    images: list[Path]
    xml: list[Path]
    json: list[Path]


def _files(root: Path) -> _Files:
    folder = root if root.is_dir() else root.parent
    if folder.name == "annotations":  # COCO's: the images stand beside it
        folder = folder.parent
    kinds: dict[str, list[Path]] = {"images": [], ".xml": [], ".json": []}
    for inside, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            kind = "images" if suffix in SUFFIXES else suffix
            if kind in kinds:
                kinds[kind].append(Path(inside, name))
    return _Files(folder, kinds["images"], kinds[".xml"], [root] if root.is_file() else kinds[".json"])


def _form(root: Path, files: _Files) -> Form:
    if root.is_file():
        return "coco"
    if files.xml:
        return "voc"
    if any(_is_instances(path) for path in files.json):
        return "coco"
    return "darknet"


def _is_instances(path: Path) -> bool:
    """Does a file begin as an instances file may? Reading each whole could take minutes."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return head.lstrip().startswith(b"{") and any(
        word in head for word in (b'"images"', b'"annotations"', b'"categories"')
    )


class _Trouble:
    """Files that cannot be read: counted with ``skip``, else one error in the end that names the first."""

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.errors: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Around what reads one image and its objects."""
        try:
            yield
        except (DataError, ImageError) as error:
            self.errors.append(str(error))

    def settle(self, left_out: Counter[str]) -> None:
        """Count what could not be read, or raise."""
        if not self.errors:
            return
        if not self.skip:
            more = f" ({len(self.errors)} such files; -skip leaves them out)"
            raise DataError(f"{self.errors[0]}{more}")
        left_out["images that cannot be read, or whose annotation cannot"] += len(self.errors)


def _voc(root: Path, files: _Files, names: list[str] | None, trouble: _Trouble) -> Collection:
    found = Collection("voc", names or [])
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in files.images:
        by_stem[path.stem].append(path)
    parts = _image_sets(files)
    read: list[tuple[Path, Path, list[tuple[str, Box]]]] = []
    for path in files.xml:
        with trouble.noted():
            width, height, objects = read_voc(path)
            image = _beside(path, by_stem)
            if image is None:
                found.left_out["annotations without an image"] += 1
                continue
            _check_turned(path, (width, height), image)
            kept = [(thing.name, darknet_box(width, height, thing.box)) for thing in objects if not thing.difficult]
            found.left_out["difficult objects"] += len(objects) - len(kept)
            read.append((path, image, kept))
    trouble.settle(found.left_out)
    if names is None:
        found.names = sorted({name for _, _, kept in read for name, _ in kept})
    index = {name: number for number, name in enumerate(found.names)}
    for path, image, kept in read:
        rows = [(index[name], *box) for name, box in kept if name in index]
        found.left_out[UNKNOWN] += len(kept) - len(rows)
        part = parts.get((path.parent.parent, path.stem)) or _part_of_folder(image, files.root)
        found.images.append(_labelled(image, rows, part))
    found.left_out["images without an annotation"] += len(files.images) - len({image for _, image, _ in read})
    return found


def _check_turned(annotation: Path, size: tuple[int, int], image: Path) -> None:
    actual = image_size(image)
    if actual == size[::-1] and actual != size:
        raise DataError(
            f"{annotation}: {size[0]} x {size[1]} pixels, and {image} is {actual[0]} x {actual[1]}: the boxes were "
            "drawn on the image turned as its EXIF note says, and Darknet does not turn it; save the image turned"
        )


def _beside(annotation: Path, by_stem: dict[str, list[Path]]) -> Path | None:
    """The image of an annotation: of one name, and as near as can be: in its folder, or in one beside that."""
    same = by_stem.get(annotation.stem, [])
    if len(same) > 1:
        folder = annotation.parent
        near = [path for path in same if path.parent == folder] or [
            path for path in same if path.parent.parent == folder.parent
        ]
        if len(near) != 1:
            raise DataError(
                f"{annotation}: {len(same)} images could be meant, {same[0]} and {same[1]} among them; expected one "
                "of the same name in the same folder, or in one beside it"
            )
        return near[0]
    return same[0] if same else None


def _image_sets(files: _Files) -> dict[tuple[Path, str], Part]:
    """What ImageSets/Main of a VOC folder says: the part of (folder, stem)."""
    parts: dict[tuple[Path, str], Part] = {}
    for folder in sorted({path.parent.parent for path in files.xml if path.parent.name == "Annotations"}):
        sets = folder / "ImageSets" / "Main"
        for word in ("train", "val", "trainval", "test"):
            if (sets / f"{word}.txt").is_file():
                for identity in read_image_set(folder, word):
                    part = PARTS[word]
                    # val belongs to training where there is a set to test on.
                    if word == "trainval" and not (sets / "test.txt").is_file():
                        continue
                    parts[folder, identity] = part
    return parts


def _part_of_folder(image: Path, root: Path) -> Part:
    """By the names of the folders between the root and the image."""
    words = (_part_of_word(word) for word in image.relative_to(root).parent.parts)
    return next((part for part in words if part), "")


def _part_of_word(word: str) -> Part:
    """train2017 and test_images, too."""
    letters = "".join(letter if letter.isalpha() else " " for letter in word.lower())
    return next((PARTS[part] for part in letters.split() if part in PARTS), "")


def _coco(root: Path, files: _Files, names: list[str] | None, trouble: _Trouble) -> Collection:
    instances = files.json if root.is_file() else [path for path in files.json if _is_instances(path)]
    if not instances:
        raise DataError(f"{root}: no COCO instances file; expected JSON with images, annotations and categories")
    found = Collection("coco", names or [])
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in files.images:
        by_name[path.name].append(path)
    seen: set[Path] = set()
    for path in instances:
        images, classes, objects, left_out = read_instances(path)
        found.left_out += left_out
        if names is None:
            found.names += [name for name in classes if name not in found.names]
        index = {number: found.names.index(name) for number, name in enumerate(classes) if name in found.names}
        part = _part_of_word(path.stem)
        for image in images:
            with trouble.noted():
                file = _named(str(image["file_name"]), path, by_name)
                if file is None:
                    found.left_out["images that the JSON names and that are not there"] += 1
                    continue
                if file in seen:
                    raise DataError(f"{path}: {file} is named twice; expected each image once")
                seen.add(file)
                _check_turned(path, (image["width"], image["height"]), file)
                rows = [
                    (index[number], *relative_box(image, box))
                    for number, box in objects[image["id"]]
                    if number in index
                ]
                found.left_out[UNKNOWN] += len(objects[image["id"]]) - len(rows)
                found.images.append(_labelled(file, rows, part or _part_of_folder(file, files.root)))
    trouble.settle(found.left_out)
    return found


def _named(name: str, json: Path, by_name: dict[str, list[Path]]) -> Path | None:
    """The file of an image's ``file_name``: at the end of whose path that stands."""
    parts = Path(name.replace("\\", "/")).parts
    same = [path for path in by_name.get(parts[-1] if parts else "", []) if path.parts[-len(parts) :] == parts]
    if len(same) > 1:
        # Of several folders the one that the JSON is called after, such as instances_train2017.json.
        same = [path for path in same if path.parent.name in json.stem.split("_")] or same
    if len(same) > 1:
        raise DataError(f"{json}: {name} could be {same[0]} or {same[1]}; expected one such file")
    return same[0] if same else None


def _darknet(root: Path, files: _Files, names: list[str] | None, trouble: _Trouble) -> Collection:
    if names is None:
        names = _found_names(root)
    found = Collection("darknet", names)

    for path in files.images:
        with trouble.noted():
            label = next((file for file in _label_files(path) if file != str(path) and os.path.isfile(file)), None)
            if label is None:
                found.left_out["images without a label file"] += 1
                continue
            image_size(path)
            objects = read_labels(label)
            number = objects[:, 0]
            if ((number < 0) | (number >= len(names)) | (number % 1 != 0)).any():
                raise DataError(f"{label}: a class that is none of 0 to {len(names) - 1}, of which there are names")
            found.images.append(_labelled(path, objects, _part_of_folder(path, files.root)))
    trouble.settle(found.left_out)
    return found


def _label_files(image: Path) -> Iterable[str]:
    """Where the label file may stand: as either program has it (which may name the image itself, for lack of one),
    beside the image, or in labels/ beside its folder."""
    yield label_path(str(image))
    yield label_path(str(image), "alexeyab")
    yield str(image.with_suffix(".txt"))
    yield str(image.parent.parent / "labels" / image.parent.name / f"{image.stem}.txt")
    yield str(image.parent.parent / "labels" / f"{image.stem}.txt")


def _found_names(root: Path) -> list[str]:
    """The names file of Darknet labels that come with one."""
    found = sorted({path for pattern in NAMES for path in root.rglob(pattern)})
    contents = {tuple(read_names(path)) for path in found}
    if len(contents) != 1:
        which = f"{len(found)} that differ: {_some(found)}" if found else "none"
        raise DataError(f"{root}: a file of the classes' names is needed, and there is {which}; -names FILE says it")
    return list(contents.pop())


def _labelled(image: Path, rows: Sequence[Sequence[float]] | np.ndarray, part: Part) -> Labelled:
    return Labelled(str(image), image.name, np.array(rows, np.float64).reshape(-1, 5), part)


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:SHOWN])) + (", ..." if len(paths) > SHOWN else "")
