"""Darknet's label files: where they stand, what is in them, and how VOC annotations become them.

A label file has one line ``class x y w h`` per object: the index of the class, then the centre
and the size of the box as parts of the picture's width and height.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import DataError
from .files import whole_file

SMALLEST = 0.001  # src/data.c, fill_truth_detection: a box narrower or lower than this part of the picture is dropped
# src/data.c, fill_truth_detection: each word is replaced once, the first time that it stands in the path.
REPLACEMENTS = (
    ("images", "labels"),
    ("JPEGImages", "labels"),
    ("raw", "labels"),
    (".jpg", ".txt"),
    (".png", ".txt"),
    (".JPG", ".txt"),
    (".JPEG", ".txt"),
)


def label_path(picture: str) -> str:
    """The label file that Darknet reads for a picture (``src/data.c, fill_truth_detection``)."""
    for word, instead in REPLACEMENTS:
        picture = picture.replace(word, instead, 1)
    return picture


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """The objects of a label file, float64 (objects, 5): class, x, y, w, h; no object gives (0, 5).

    Blank lines are left out. Raises DataError where a line does not hold five finite numbers, and OSError where
    there is no file.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 5 or not np.isfinite(row).all():
            raise DataError(f"{path}:{number}: {line.strip()[:80]!r}; expected 5 numbers: class x y w h")
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


@dataclass(frozen=True)
class VocObject:
    """One ``<object>`` of a VOC annotation; the box is xmin, ymin, xmax, ymax in pixels from 1."""

    name: str
    difficult: bool
    box: tuple[float, float, float, float]


@dataclass
class Tally:
    """What became of the objects of a VOC devkit."""

    pictures: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    difficult: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    """One line for each box that reaches out of its picture."""

    def __iadd__(self, other: Tally) -> Tally:
        self.pictures += other.pictures
        self.kept += other.kept
        self.difficult += other.difficult
        self.unknown += other.unknown
        self.outside += other.outside
        return self


def read_voc(path: str | os.PathLike[str]) -> tuple[int, int, list[VocObject]]:
    """Width, height and objects of a VOC annotation file.

    An object without ``<difficult>`` is not difficult. Raises DataError, with the file and the line or the element,
    where the XML is damaged, or lacks the size, a name or a corner, or where a box has no width or height.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(f"{path}:{line}: no well-formed XML at column {column + 1}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; every name in ImageSets needs its annotation") from None
    width, height = (int(number(root, f"size/{side}", path)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise DataError(
            f"{path}: <size> says {width} x {height}; expected the picture's width and height in pixels, both over 0"
        )
    objects = []
    for index, element in enumerate(root.iter("object"), 1):
        where = f"{path}: object {index}"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{where}: <name> is missing; expected the class")
        difficult = number(element, "difficult", where) if element.find("difficult") is not None else 0
        box = tuple(number(element, f"bndbox/{end}", where) for end in ("xmin", "ymin", "xmax", "ymax"))
        # A box of one point passes, as in Darknet's script; load_data_detection drops it for its size.
        if box[2] < box[0] or box[3] < box[1]:
            corners = ", ".join(f"{value:g}" for value in box)
            raise DataError(
                f"{where}: <bndbox> is {corners}; expected xmin, ymin, xmax, ymax with xmin <= xmax, ymin <= ymax"
            )
        objects.append(VocObject(name, difficult == 1, box))
    return width, height, objects


def number(element: ElementTree.Element, path: str, where: str | os.PathLike[str]) -> float:
    """The number in the element ``path`` below ``element``."""
    text = element.findtext(path)
    if text is None:
        raise DataError(f"{where}: <{path}> is missing; expected a number")
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{where}: <{path}> is {text.strip()[:40]!r}; expected a number")
    return value


def darknet_box(width: int, height: int, box: Sequence[float]) -> tuple[float, float, float, float]:
    """x, y, w, h of a label line from a VOC box (``scripts/voc_label.py, convert``).

    VOC counts pixels from 1 and both ends belong to the box; Darknet takes 1 from the centre and leaves the size
    at xmax - xmin. Its ``valid`` adds the 1 again. The order of the operations is the script's, to the last bit.
    """
    xmin, ymin, xmax, ymax = box
    across, down = 1.0 / width, 1.0 / height
    x, y = (xmin + xmax) / 2.0 - 1, (ymin + ymax) / 2.0 - 1
    return x * across, y * down, (xmax - xmin) * across, (ymax - ymin) * down


def voc_lines(path: Path, names: Sequence[str], keep_difficult: bool, tally: Tally) -> list[str]:
    """The label lines of one VOC annotation; what is left out is counted in ``tally``."""
    width, height, objects = read_voc(path)
    lines = []
    for thing in objects:
        if thing.name not in names:
            tally.unknown[thing.name] += 1
        elif thing.difficult and not keep_difficult:
            tally.difficult += 1
        else:
            if min(thing.box) < 0 or thing.box[2] > width or thing.box[3] > height:
                corners = ", ".join(f"{value:g}" for value in thing.box)
                tally.outside.append(f"{path}: {thing.name} at {corners} reaches out of the {width} x {height} picture")
            tally.kept[thing.name] += 1
            lines.append(" ".join(map(str, (names.index(thing.name), *darknet_box(width, height, thing.box)))))
    return lines


def label_voc(folder: Path, identities: Iterable[str], names: Sequence[str], keep_difficult: bool = False) -> Tally:
    """Write ``labels/<identity>.txt`` beside the ``Annotations`` of one VOC year.

    Objects marked difficult are left out, as Darknet's ``scripts/voc_label.py`` does, unless ``keep_difficult``.
    Objects of other classes than ``names`` are left out and counted. A picture without objects gets an empty file.
    """
    tally = Tally()
    (folder / "labels").mkdir(exist_ok=True)
    for identity in identities:
        lines = voc_lines(folder / "Annotations" / f"{identity}.xml", names, keep_difficult, tally)
        (folder / "labels" / f"{identity}.txt").write_text("".join(f"{line}\n" for line in lines))
        tally.pictures += 1
    return tally


def read_image_set(folder: Path, image_set: str) -> list[str]:
    """The picture names in ``ImageSets/Main/<image_set>.txt`` of one VOC year."""
    path = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    try:
        identities = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        here = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise DataError(f"{path}: no such file; sets there: {', '.join(here[:8]) or 'none'}") from None
    if not identities:
        raise DataError(f"{path}: the file is empty; expected one picture name per line")
    return identities


def picture_paths(folder: Path, identities: Sequence[str], named: str | None = None) -> list[str]:
    """The paths of pictures of one VOC year as they shall stand in a list file.

    ``named`` is the folder's path as it is to be written, where that is not ``folder``. Raises DataError where a
    picture is missing, or where Darknet would look for its labels in another place than ``labels``.
    """
    named = str(folder) if named is None else named
    files = {Path(name).stem: name for name in sorted(os.listdir(folder / "JPEGImages"), reverse=True)}
    pictures = []
    for identity in identities:
        if identity not in files:
            raise DataError(f"{folder / 'JPEGImages' / identity}.jpg: no such picture, but its name is in ImageSets")
        picture = f"{named}/JPEGImages/{files[identity]}"
        labels = f"{named}/labels/{identity}.txt"
        if label_path(picture) != labels:
            raise DataError(
                f"{picture}: Darknet would look for the labels in {label_path(picture)}, not in {labels}; it replaces "
                'the first "images" and "raw" of a path and knows .jpg, .png, .JPG, .JPEG: rename what is in the way'
            )
        pictures.append(picture)
    return pictures


def write_lists(out: Path, sets: Sequence[tuple[str, str, Sequence[str]]]) -> list[Path]:
    """Write the list files that Darknet's ``scripts/voc_label.py`` writes; their paths come back.

    ``sets`` holds year, image set and pictures. Each gives ``<year>_<image set>.txt``; ``train.txt`` holds all but
    those called test, ``train.all.txt`` all, year by year.
    """
    sets = sorted(sets, key=lambda one: one[0])
    lists = {f"{year}_{image_set}.txt": pictures for year, image_set, pictures in sets}
    lists["train.txt"] = [one for _, image_set, pictures in sets if image_set != "test" for one in pictures]
    lists["train.all.txt"] = [one for _, _, pictures in sets for one in pictures]
    written = [out / name for name, pictures in lists.items() if pictures]
    for path in written:
        with whole_file(path, "w") as file:
            file.writelines(f"{picture}\n" for picture in lists[path.name])
    return written
