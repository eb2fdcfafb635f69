"""The images that a classifier is trained on, and their classes: files of a list or a folder, or tar shards.

Nothing here takes more than seconds for the 1.28 million images of ImageNet, but for reading the headers of shards and
the names in folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..cfg import DataFile
from ..cfg.sections import printable
from ..classify.labels import LabelRule, PathClasses, match_labels, path_classes
from ..errors import DataError
from ..image_files import SHARD, check_some, listed_images
from ..processes import ALONE, Processes
from ..stock import find_stock
from .shards import ShardImages
from .sources import ImageFiles

TRAIN = "data/train.list"  # Darknet's, where the .data file names none
MOST_SHARDS = 10**6
NUMBERS = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")


def training_images(data: DataFile, processes: Processes = ALONE) -> ImageFiles:
    """The images that ``train=`` of a .data file names.

    It names a list of paths; or a folder with a folder for each class; or tar shards (``shards.py``): one, several as
    ``train-{000..146}.tar``, or a list of such lines. Of the files of a list some are looked for
    (:func:`.check_some`). Of ``processes`` the first lists a folder, and each reads a part of the shards. Raises
    :class:`DataError` where there is none, or one of these is not there.
    """
    given = data.source("train", TRAIN)
    if given.endswith(SHARD):
        return ShardImages(_numbered([given]), processes)
    paths = processes.from_first(lambda: listed_images(find_stock(given)))
    if not paths[0].endswith(SHARD):
        images = ImageFiles(paths)
        check_some(images, given)
        return images
    other = next((path for path in paths if not path.endswith(SHARD)), None)
    if other is not None:
        raise DataError(
            f"{printable(given)}: {printable(other)} is no {SHARD} file, and the first line names one; expected images "
            "or shards, not both"
        )
    return ShardImages(_numbered(paths), processes)


def _numbered(given: Sequence[str]) -> list[str]:
    """Each path, or the ones that a ``{000..146}`` in it stands for, as in a shell."""
    paths = []
    for path in given:
        found = NUMBERS.search(path)
        if not found:
            paths.append(path)
            continue
        first, last = found.groups()
        if not 0 <= int(last) - int(first) < MOST_SHARDS:
            raise DataError(
                f"{printable(path)}: the numbers go from {first} to {last}; expected them to rise, and to stand for "
                f"{MOST_SHARDS:,} shards or fewer"
            )
        digits = max(len(first), len(last)) if first[0] == "0" else 1
        numbers = range(int(first), int(last) + 1)
        paths += [f"{path[: found.start()]}{number:0{digits}}{path[found.end() :]}" for number in numbers]
    return paths


def image_classes(images: ImageFiles, labels: Sequence[str], rule: LabelRule, file: str) -> PathClasses:
    """The classes of the images that ``file`` names, by their paths (:func:`path_classes`).

    Shards may say them too, in a ``.cls`` beside each image: the number of its class in the order of the labels. Then
    "path" takes that, and a label in the path may not contradict it. One warning tells of shards that each hold few of
    the classes. Raises :class:`DataError`.
    """
    if not isinstance(images, ShardImages):
        return path_classes(images, labels, rule, file)
    given = images.classes if rule == "path" else None
    if given is None:
        found = path_classes(images, labels, rule, file)
    else:
        found = _given_classes(images, given, labels)
    images.warn_of_few_classes(found.first())
    return found


def _given_classes(images: ImageFiles, classes: np.ndarray, labels: Sequence[str]) -> PathClasses:
    wrong = np.flatnonzero(classes >= len(labels))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(
            f"{printable(images[index])}: its .cls says class {classes[index]}; expected one of "
            f"0..{len(labels) - 1}, as there are {len(labels)} labels"
        )
    matched = match_labels(images, labels)
    number = np.diff(matched.starts)
    owner = np.repeat(np.arange(len(images)), number)
    agrees = number == 0
    agrees[owner[matched.classes == classes[owner]]] = True
    if not agrees.all():
        index = int(np.flatnonzero(~agrees)[0])
        one, other = labels[classes[index]], labels[matched[index][0]]
        raise DataError(
            f"{printable(images[index])}: its .cls says class {classes[index]}, which is {one!r} in the order of the "
            f"labels, and the path holds {other!r}, class {matched[index][0]}; expected labels= in the order that the "
            "shards count in (many shards of ImageNet count its labels sorted), or -labels folder"
        )
    return PathClasses(images, np.arange(len(images) + 1), classes)
