"""The truth to score against: VOC XML, or Darknet's label files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cfg import DataFile, check_names, read_data, read_list, read_names
from ..errors import DataError, ResultsError
from ..images import image_size
from ..labels import MOST, basecfg, image_ids, parse_xml, read_all_labels, read_image_set
from ..stock import find_stock


@dataclass(frozen=True)
class Truths:
    """Every object of a set of images. T objects, in the order of the images and of their files.

    ``box`` holds xmin, ymin, xmax, ymax in pixels as VOC counts them: the first pixel is 1, and xmax lies inside.
    """

    names: list[str]
    images: list[str]  # ids, as the first column of a result file names them
    paths: list[Path]  # where each image should lie; it need not
    image: NDArray[np.int64]  # (T,) index into images
    class_id: NDArray[np.int64]  # (T,) index into names
    box: NDArray[np.float64]  # (T, 4)
    difficult: NDArray[np.bool_]  # (T,)
    unknown: Counter[str] = field(default_factory=Counter)  # objects of a class that names does not hold


@dataclass(frozen=True)
class LabelBoxes:
    """The lines of many label files. Boxes are centre x, y, width, height, relative to the image (0..1)."""

    image: NDArray[np.int64]  # (T,) index of the image
    class_id: NDArray[np.int64]  # (T,)
    box: NDArray[np.float64]  # (T, 4)


def read_truths(
    devkit: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    year: str | int,
    image_set: str,
    names: str | os.PathLike[str] | None,
    program: str = "pjreddie",
) -> Truths:
    """Those of a devkit, or of a .data file where there is none; ``names`` is a file of the classes.

    None: data/voc.names, or those of ``data``. Raises :class:`DarknetError` with file and line.
    """
    given = None if names is None else read_names(find_stock(os.fspath(names)))
    if devkit is not None:
        return read_voc(devkit, year, image_set, read_names(find_stock("data/voc.names")) if given is None else given)
    if data is None:
        raise ValueError("expected either devkit or data")
    return read_labels(data, given, program)


def read_voc(devkit: str | os.PathLike[str], year: str | int, image_set: str, names: Sequence[str]) -> Truths:
    """The objects of ``devkit/VOC<year>``: ImageSets names the images, ``Annotations/*.xml`` hold the objects.

    Objects of a class that is not in ``names`` are counted in ``unknown`` and left out. A ``devkit`` that itself holds
    the folder Annotations is taken as it is, for sets laid out without a year.
    Raises ResultsError with file and line.
    """
    root = Path(devkit) / f"VOC{year}"
    if not root.is_dir() and (Path(devkit) / "Annotations").is_dir():
        root = Path(devkit)
    if not (root / "Annotations").is_dir():
        raise ResultsError(f"{root / 'Annotations'}: no such folder; expected the XML files of a VOCdevkit there")
    images = image_ids(read_image_set(root, image_set), f"image set {image_set} of {root}", str)
    index = {name: position for position, name in enumerate(names)}
    folder = str(root / "Annotations") + os.sep
    rows: list[tuple[float, ...]] = []
    unknown: Counter[str] = Counter()
    for image, name in enumerate(images):
        path = f"{folder}{name}.xml"
        # The short road reads a sound file; one that is not is read again with care, to say where it is wrong.
        try:
            for thing in parse_xml(path).iterfind("object"):
                label = thing.findtext("name", "").strip()
                class_id = index.get(label)
                if class_id is None:
                    unknown[label] += 1
                    continue
                box: Any = thing.find("bndbox")  # where it is missing, None fails below
                rows.append(
                    (
                        image,
                        class_id,
                        int(thing.findtext("difficult", "0")) != 0,
                        float(box.findtext("xmin")),
                        float(box.findtext("ymin")),
                        float(box.findtext("xmax")),
                        float(box.findtext("ymax")),
                    )
                )
        except (AttributeError, TypeError, ValueError):
            raise _xml_error(path) from None
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    sound = (np.abs(table) < MOST).all(axis=1)
    if not sound.all():
        raise _xml_error(f"{folder}{images[int(table[~sound][0, 0])]}.xml")
    return Truths(
        names=list(names),
        images=images,
        paths=[root / "JPEGImages" / f"{name}.jpg" for name in images],
        image=table[:, 0].astype(np.int64),
        class_id=table[:, 1].astype(np.int64),
        box=np.ascontiguousarray(table[:, 3:]),
        difficult=table[:, 2] != 0,
        unknown=unknown,
    )


def _xml_error(path: str) -> ResultsError:
    """What is wrong with an annotation whose XML is sound, with the line of the object."""
    # ElementTree keeps no lines; the objects stand in the text in the same order.
    pieces = re.split(rb"<object(?=[\s>])", Path(path).read_bytes())
    line = 1 + pieces[0].count(b"\n")
    for number, thing in enumerate(parse_xml(path).iterfind("object")):
        for tag in ("difficult", "bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax"):
            text = thing.findtext(tag, "0" if tag == "difficult" else None)
            if text is None:
                return ResultsError(f"{path}:{line}: this object has no <{tag.split('/')[-1]}>; expected one")
            try:
                sound = abs(int(text) if tag == "difficult" else float(text)) < MOST
            except ValueError:
                sound = False
            if not sound:
                return ResultsError(
                    f"{path}:{line}: <{tag.split('/')[-1]}> is {text[:40]!r}; expected a number under {MOST:g}"
                )
        line += pieces[min(number + 1, len(pieces) - 1)].count(b"\n")
    return ResultsError(f"{path}: cannot be read as a VOC annotation")


def read_label_files(images: Sequence[str], classes: int, program: str = "pjreddie") -> LabelBoxes:
    """The label files of ``images``, checked as training checks them; a missing one is an image without objects.

    ``program`` says where they stand: :func:`..labels.label_path`.

    Raises DataError with file and line where a line is no ``class x y w h`` with a class of 0..classes-1 and a box
    in 0..1, and where every file is missing. Some missing files are one warning.
    """
    labels = read_all_labels(images, classes, program=program)
    if labels.bad:
        raise DataError(f"{labels.bad_lines()}; correct them")
    if len(labels.missing) == len(labels):
        raise DataError(
            f"{labels.missing[0]}: no such label file, and none for any other image of the list; expected one for each"
        )
    labels.warn_of_missing()
    return LabelBoxes(
        image=np.repeat(np.arange(len(labels)), np.diff(labels.starts)),
        class_id=labels.objects[:, 0].astype(np.int64),
        box=np.ascontiguousarray(labels.objects[:, 1:]),
    )


def read_difficult(data: DataFile, images: Sequence[str], classes: int, program: str = "pjreddie") -> LabelBoxes | None:
    """The difficult objects of ``images``, from the label files of the list that ``difficult`` names (AlexeyAB's).

    Line by line it belongs to the ``valid`` list. None without that key; raises DataError as :func:`read_label_files`
    does, and where the lists differ in length.
    """
    path = data.get("difficult")
    if path is None:
        return None
    listed = read_list(path)
    if len(listed) != len(images):
        raise data.error("difficult", f"{len(listed)} lines in it; expected {len(images)}, as in the valid list")
    return read_label_files(listed, classes, program)


def find_images(folder: str | os.PathLike[str], images: Sequence[str]) -> list[Path]:
    """The image of each id in ``folder``, whatever its suffix; ``<id>.jpg`` where there is none.

    An id is what :func:`..labels.basecfg` says, or, as in the image sets of a VOCdevkit, the name without its suffix.
    """
    paths = list(Path(folder).glob("*.*"))
    found = {basecfg(path.name): path for path in paths} | {path.stem: path for path in paths}
    return [found.get(name, Path(folder) / f"{name}.jpg") for name in images]


def read_labels(data: str | os.PathLike[str], names: Sequence[str] | None = None, program: str = "pjreddie") -> Truths:
    """The objects of the ``valid`` list of a .data file, from label files where ``program`` has them.

    ``names`` are taken instead of its own.

    The optional key ``difficult`` (AlexeyAB's) lists, image by image, paths whose label files hold the difficult
    objects. Boxes become pixels as ``detector valid`` counts them: +1, which undoes what VOC's label script took away.
    Raises DataError or ImageError: the images are opened for their sizes only.
    """
    options = read_data(find_stock(os.fspath(data)))
    if names is None:
        names = read_names(find_stock(options.source("names", "data/names.list")))
        check_names(options, names, options.integer("classes", len(names)), options.file)
    valid = options.source("valid", "data/train.list")
    paths = read_list(valid)
    images = image_ids(paths, valid)
    parts = [read_label_files(paths, len(names), program)]
    hard = read_difficult(options, paths, len(names), program)
    if hard is not None:
        parts.append(hard)
    image = np.concatenate([part.image for part in parts])
    size = np.array([image_size(path) for path in paths], dtype=np.float64).reshape(-1, 2)[image]
    relative = np.concatenate([part.box for part in parts])
    centre, half = relative[:, :2] * size, relative[:, 2:] * size / 2
    difficult = np.repeat([False, True][: len(parts)], [len(part.image) for part in parts])
    order = np.argsort(image, kind="stable")
    return Truths(
        names=list(names),
        images=images,
        paths=[Path(path) for path in paths],
        image=image[order],
        class_id=np.concatenate([part.class_id for part in parts])[order],
        box=np.concatenate([centre - half + 1, centre + half + 1], axis=1)[order],
        difficult=difficult[order],
    )
