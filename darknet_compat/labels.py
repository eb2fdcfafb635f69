"""Darknet's label files: where they stand, what is in them, and how VOC annotations become them.

A label file has one line ``class x y w h`` per object: the index of the class, then the centre
and the size of the box as parts of the image's width and height.
"""

from __future__ import annotations

import codecs
import os
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .cfg.data import MAX_LIST_BYTES
from .cfg.reader import read_text
from .errors import DataError
from .files import regular_file, whole_file

SMALLEST = 0.001  # src/data.c, fill_truth_detection: a box narrower or lower than this part of the image is dropped
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
# AlexeyAB's src/utils.c, replace_image_to_label: of these folders the first word, once each, and a suffix at the end.
ALEXEYAB_FOLDERS = (
    "/images/train2017/", "/images/val2017/", "/images/train2014/", "/images/val2014/", "/JPEGImages/",
)  # fmt: skip
ALEXEYAB_SUFFIX = re.compile(r"\.(jpe?g|JPE?G|png|PNG|bmp|BMP|ppm|PPM|tiff|TIFF)\Z")
# VOC's own image sets, and the years that have them; Darknet's scripts/voc_label.py joins these in train.txt.
VOC_YEARS = frozenset(map(str, range(2005, 2013)))
VOC_SETS = frozenset({"train", "val", "trainval", "test"})
MOST = 1e9  # a number of pixels in an annotation; sums and products of such numbers stay exact
XML_START = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>")
# What programs on Windows write under the older name: the code page that holds more characters.
CODE_PAGES = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}


def basecfg(path: str) -> str:
    """The image id of a path in result files (``src/utils.c, basecfg``): what follows the last /, up to the first dot.

    Darknet names the snapshots of a cfg by the same rule.
    """
    return path.rsplit("/", 1)[-1].split(".", 1)[0]


def image_ids(images: Sequence[str], where: str, rule: Callable[[str], object] = basecfg) -> list[Any]:
    """The id of each of ``images`` by ``rule``: what a result file names them by, and nothing else.

    ``where``: the list that the images stand in. Raises DataError where two images have one id or where an id is
    empty, for then the file could not say which image a box belongs to. Blanks around an id do not count.
    """
    ids = [rule(image) for image in images]
    first: dict[object, str] = {}
    for image, identity in zip(images, ids, strict=True):
        bare = identity.strip() if isinstance(identity, str) else identity
        if bare == "":
            raise DataError(f"{where}: {image} has no name before its first dot, its image id; rename the image")
        if first.get(bare) == image:
            raise DataError(f"{where}: {image} is listed twice; remove one of the lines")
        if bare in first:
            raise DataError(
                f"{where}: {image} has the image id {identity!r}, as {first[bare]} has, and result files name "
                "images by that alone; rename one, or take it out of the list"
            )
        first[bare] = image
    return ids


def label_path(image: str, program: str = "pjreddie") -> str:
    """The label file that a program reads for an image; the image's own path where none belongs to it.

    pjreddie's puts ``labels`` for the first ``images``, ``JPEGImages`` and ``raw`` anywhere in the path
    (``src/data.c, fill_truth_detection``). For AlexeyAB's the file stands beside the image, but for the folders of VOC
    and COCO (``src/utils.c, replace_image_to_label``).
    """
    if program != "alexeyab":
        for word, instead in REPLACEMENTS:
            image = image.replace(word, instead, 1)
        return image
    if not ALEXEYAB_SUFFIX.search(image.strip(" \t")):
        return image
    for folder in ALEXEYAB_FOLDERS:
        for slashed in (folder, folder.replace("/", "\\")):
            image = image.replace(slashed, re.sub("JPEGImages|images", "labels", slashed), 1)
    return ALEXEYAB_SUFFIX.sub(".txt", image.strip(" \t"))


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """The objects of a label file, float64 (objects, 5): class, x, y, w, h; no object gives (0, 5).

    Blank lines are left out. Raises DataError where a line does not hold five finite numbers, and OSError where
    there is no file.
    """
    rows = []
    for number, line in enumerate(_label_lines(path), 1):
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


@dataclass
class Labels:
    """The objects of all images of a list, and what was wrong with their label files."""

    objects: np.ndarray
    """float64, in training float32, (total, 5): class, x, y, w, h."""
    starts: np.ndarray
    """int64 (images + 1): image i has the rows starts[i] to starts[i + 1]."""
    missing: list[str] = field(default_factory=list)
    """Label files that do not exist."""
    bad: list[str] = field(default_factory=list)
    """One line for each bad one of a label file: "file:line: what"."""

    def __getitem__(self, index: int) -> np.ndarray:
        return self.objects[self.starts[index] : self.starts[index + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def most(self) -> int:
        """Of the objects of one image."""
        return int(np.diff(self.starts).max())

    def join(self, other: Labels) -> Labels:
        """Of these images, and then of the others."""
        return Labels(
            np.concatenate([self.objects, other.objects.astype(self.objects.dtype)]),
            np.concatenate([self.starts, self.starts[-1] + other.starts[1:]]),
            [*self.missing, *other.missing],
            [*self.bad, *other.bad],
        )

    def bad_lines(self) -> str:
        """The first bad line, and how many there are: how an error about them begins."""
        return f"{self.bad[0]}; bad lines in all: {len(self.bad)}"

    def warn_of_missing(self) -> None:
        """One warning for all label files that do not exist."""
        if self.missing:
            warnings.warn(
                f"{self.missing[0]}: no such label file; {len(self.missing)} of {len(self)} images have none and "
                "are taken to show no object",
                stacklevel=3,
            )


def class_labels(classes: np.ndarray) -> Labels:
    """Of images that show a class each (N,), and nobody knows where."""
    objects = np.zeros((len(classes), 5), np.float32)
    objects[:, 0] = classes
    return Labels(objects, np.arange(len(classes) + 1))


def read_all_labels(
    images: Iterable[str], classes: int | None, class_only: int = 0, program: str = "pjreddie"
) -> Labels:
    """The sound objects in the label files of ``images``; what is missing or bad is listed beside them.

    ``program`` says where the files stand: :func:`label_path`.

    Sound is a line ``class x y w h`` with a class below ``classes`` (None: any) and the rest in 0..1.
    ``class_only``: how many classes there are for objects at x = y = 0, which have a class and no place, as YOLO9000
    has them. Without a tree Darknet would write outside its memory for one, and AlexeyAB's loader leaves them out: so
    there it is 0, and they are bad lines.
    """
    found = Labels(np.zeros((0, 5)), np.zeros(1, np.int64))
    rows = [_sound_objects(image, label_path(image, program), classes, class_only, found) for image in images]
    found.starts = np.cumsum([0, *map(len, rows)])
    found.objects = np.concatenate([found.objects, *rows])
    return found


def _sound_objects(image: str, path: str, classes: int | None, class_only: int, found: Labels) -> np.ndarray:
    nothing = np.zeros((0, 5))
    if path == image:
        found.bad.append(f"{image}: no label file belongs to an image of this name; Darknet knows .jpg and .png")
        return nothing
    try:
        objects = read_labels(path)
    except FileNotFoundError:
        found.missing.append(path)
        return nothing
    except OSError as error:
        found.bad.append(f"{path}: cannot read the label file: {error.strerror}")
        return nothing
    except DataError as error:
        found.bad.append(str(error))
        return nothing
    names, boxes = objects[:, 0], objects[:, 1:]
    inside: Any = ((boxes >= 0) & (boxes <= 1)).all(1)  # an array, as there are two dimensions
    has_place = (boxes[:, :2] != 0).any(1)
    placed = has_place | (class_only > 0)
    most = np.where(has_place | (class_only == 0), np.inf if classes is None else classes, class_only)
    known = (names >= 0) & (names < most) & (names == names.round())
    good = known & inside & placed
    for row in np.flatnonzero(~good):
        if not known[row]:
            last = "" if most[row] == np.inf else int(most[row]) - 1
            what = f"class {names[row]:g}, expected one of 0..{last}, for classes count from 0"
        elif not inside[row]:
            what = "a box outside of 0..1; x, y, w, h are parts of the image's width and height"
        else:
            what = (
                "x = y = 0 marks an object without a place, which only a network with a tree can learn, and not in "
                "AlexeyAB's program"
            )
        found.bad.append(f"{path}:{_line_number(path, int(row))}: {what}")
    sound: np.ndarray = objects[good]
    return sound


def _line_number(path: str, row: int) -> int:
    return [number for number, line in enumerate(_label_lines(path), 1) if line.strip()][row]


def _label_lines(path: str | os.PathLike[str]) -> list[str]:
    with regular_file(path, "utf-8", "replace") as file:
        return file.read().splitlines()


@dataclass(frozen=True)
class VocObject:
    """One ``<object>`` of a VOC annotation; the box is xmin, ymin, xmax, ymax in pixels from 1."""

    name: str
    difficult: bool
    box: tuple[float, float, float, float]


@dataclass
class Tally:
    """What became of the objects of a VOC devkit."""

    images: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    difficult: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    """One line for each box that reaches out of its image."""

    def __iadd__(self, other: Tally) -> Tally:
        self.images += other.images
        self.kept += other.kept
        self.difficult += other.difficult
        self.unknown += other.unknown
        self.outside += other.outside
        return self


def parse_xml(path: str | os.PathLike[str]) -> ElementTree.Element:
    """The root of an annotation's XML, in any encoding that Python knows.

    A document type is refused: with the entities that it may declare, a kilobyte of text can stand for gigabytes.
    Raises DataError, in one line.
    """
    try:
        with regular_file(path) as file:
            data = file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; every name in ImageSets needs its annotation") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation: {error.strerror}") from None
    # Decoded here, since the XML parser knows UTF-8, UTF-16 and single bytes only.
    text = _decode_xml(data, path)
    if "<!DOCTYPE" in text:
        line = text[: text.index("<!DOCTYPE")].count("\n") + 1
        raise DataError(f"{path}:{line}: a document type; expected plain elements, as VOC annotations have them")
    try:
        return ElementTree.XML(text.encode(), ElementTree.XMLParser(encoding="utf-8"))
    except ElementTree.ParseError as error:
        line, column = error.position
        what = str(error).split(":")[0]
        raise DataError(f"{path}:{line}: not well-formed XML at column {column + 1}: {what}") from None


def _decode_xml(data: bytes, path: str | os.PathLike[str]) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        start, encoding = b"", "utf-16"
    else:
        data = data.removeprefix(codecs.BOM_UTF8)
        found = XML_START.match(data)
        start, encoding = (found[0], found[1].decode("ascii", "replace")) if found else (b"", "utf-8")
    try:
        name = codecs.lookup(encoding).name
        name = CODE_PAGES.get(name, name)
        # One that reads its own declaration otherwise is no encoding of this file, nor of any XML.
        known = start.decode(name) == start.decode("ascii", "replace")
    except (LookupError, UnicodeError):
        known = False
    if not known:
        raise DataError(f"{path}:1: encoding={encoding[:40]!r} is unknown, or not that of this file; save it as utf-8")
    try:
        text = data.decode(name)
        text.encode()
    except UnicodeError as error:
        place = f"byte {error.start}" if isinstance(error, UnicodeDecodeError) else "the text"
        raise DataError(f"{path}: {place} is not valid {name}, the encoding of this file; save it as utf-8") from None
    return text


def read_voc(path: str | os.PathLike[str]) -> tuple[int, int, list[VocObject]]:
    """Width, height and objects of a VOC annotation file.

    An object without ``<difficult>`` is not difficult. Raises DataError, with the file and the line or the element,
    where the XML is damaged, or lacks the size, a name or a corner, or where a box has no width or height.
    """
    root = parse_xml(path)
    width, height = (int(number(root, f"size/{side}", path)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise DataError(
            f"{path}: <size> says {width} x {height}; expected the image's width and height in pixels, both over 0"
        )
    objects = []
    for index, element in enumerate(root.iter("object"), 1):
        where = f"{path}: object {index}"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{where}: <name> is missing; expected the class")
        difficult = number(element, "difficult", where) if element.find("difficult") is not None else 0
        ends = ("xmin", "ymin", "xmax", "ymax")
        left, top, right, bottom = (number(element, f"bndbox/{end}", where) for end in ends)
        # A box of one point passes, as in Darknet's script; load_data_detection drops it for its size.
        if right < left or bottom < top:
            corners = ", ".join(f"{value:g}" for value in (left, top, right, bottom))
            raise DataError(
                f"{where}: <bndbox> is {corners}; expected xmin, ymin, xmax, ymax with xmin <= xmax, ymin <= ymax"
            )
        objects.append(VocObject(name, difficult == 1, (left, top, right, bottom)))
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
    if not abs(value) < MOST:
        raise DataError(f"{where}: <{path}> is {text.strip()[:40]!r}; expected a number under {MOST:g}")
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


def label_line(number: int, box: Iterable[float]) -> str:
    """The line of an object of class ``number``, without its end; ``box`` is x, y, w, h."""
    return " ".join(map(str, (number, *box)))


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
                tally.outside.append(f"{path}: {thing.name} at {corners} reaches out of the {width} x {height} image")
            tally.kept[thing.name] += 1
            lines.append(label_line(names.index(thing.name), darknet_box(width, height, thing.box)))
    return lines


def label_voc(folder: Path, identities: Iterable[str], names: Sequence[str], keep_difficult: bool = False) -> Tally:
    """Write ``labels/<identity>.txt`` beside the ``Annotations`` of one VOC year.

    Objects marked difficult are left out, as Darknet's ``scripts/voc_label.py`` does, unless ``keep_difficult``.
    Objects of other classes than ``names`` are left out and counted. An image without objects gets an empty file.
    """
    tally = Tally()
    (folder / "labels").mkdir(exist_ok=True)
    for identity in identities:
        lines = voc_lines(folder / "Annotations" / f"{identity}.xml", names, keep_difficult, tally)
        (folder / "labels" / f"{identity}.txt").write_text("".join(f"{line}\n" for line in lines))
        tally.images += 1
    return tally


def read_image_set(folder: Path, image_set: str) -> list[str]:
    """The image names in ``ImageSets/Main/<image_set>.txt`` of one VOC year, one a line; they may hold blanks.

    Raises DataError where there is no such file, or no name in it.
    """
    path = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    if not path.exists():
        here = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise DataError(f"{path}: no such file; sets there: {', '.join(here[:8]) or 'none'}")
    lines = read_text(path, DataError, MAX_LIST_BYTES).split("\n")
    identities = [line.strip() for line in lines if line.strip()]
    if not identities:
        raise DataError(f"{path}: the file is empty; expected one image name per line")
    return identities


def image_paths(folder: Path, identities: Sequence[str], named: str | None = None) -> list[str]:
    """The paths of images of one VOC year as they shall stand in a list file.

    ``named`` is the folder's path as it is to be written, where that is not ``folder``. Raises DataError where an
    image is missing, or where Darknet would look for its labels in another place than ``labels``.
    """
    named = str(folder) if named is None else named
    try:
        inside = sorted(os.listdir(folder / "JPEGImages"), reverse=True)
    except OSError as error:
        raise DataError(f"{folder / 'JPEGImages'}: {error.strerror}; expected the folder of the images") from None
    files = {Path(name).stem: name for name in inside}
    images = []
    for identity in identities:
        if identity not in files:
            raise DataError(
                f"{folder / 'JPEGImages' / identity}.jpg: no such image, but its name is in ImageSets; expected "
                "names without suffix, one a line"
            )
        image = f"{named}/JPEGImages/{files[identity]}"
        labels = f"{named}/labels/{identity}.txt"
        if label_path(image) != labels:
            raise DataError(
                f"{image}: Darknet would look for the labels in {label_path(image)}, not in {labels}; it replaces "
                'the first "images" and "raw" of a path and knows .jpg, .png, .JPG, .JPEG: rename what is in the way'
            )
        images.append(image)
    return images


def write_lists(out: Path, sets: Sequence[tuple[str, str, Sequence[str]]]) -> list[Path]:
    """Write the list files that Darknet's ``scripts/voc_label.py`` writes; their paths come back.

    ``sets`` holds year, image set and images. Each gives ``<year>_<image set>.txt``. Where all are VOC's own sets,
    ``train.txt`` holds all but those called test, and ``train.all.txt`` all, year by year. Of other sets nobody knows
    which are for training, and a list of that name would train on the images that shall measure it.
    """
    sets = sorted(sets, key=lambda one: one[0])
    lists = {f"{year}_{image_set}.txt": images for year, image_set, images in sets}
    if all(year in VOC_YEARS and image_set in VOC_SETS for year, image_set, _ in sets):
        lists["train.txt"] = [one for _, image_set, images in sets if image_set != "test" for one in images]
        lists["train.all.txt"] = [one for _, _, images in sets for one in images]
    written = [out / name for name, images in lists.items() if images]
    for path in written:
        with whole_file(path, "w") as file:
            file.writelines(f"{image}\n" for image in lists[path.name])
    return written
