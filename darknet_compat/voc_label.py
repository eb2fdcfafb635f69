"""VOC annotations -> Darknet's label files and lists, as its own ``scripts/voc_label.py`` makes them."""

from __future__ import annotations

import os
from pathlib import Path

from tqdm import tqdm

from .cfg import read_names
from .errors import DataError
from .image_files import make_folder
from .labels import Tally, image_paths, label_voc, read_image_set, write_lists
from .stock import find_stock

SETS = "2012:train,2012:val,2007:train,2007:val,2007:test"


def voc_label(
    devkit: str | os.PathLike[str],
    *,
    sets: str = SETS,
    names: str | os.PathLike[str] = "data/voc.names",
    keep_difficult: bool = False,
    out: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Write labels/*.txt beside Annotations/, and lists (2007_train.txt, train.txt, ...) into ``out``.

    ``devkit`` holds folders called VOC and a year, or is a single folder in their form: a set of ``sets``, between
    commas, has a year before a colon, or none. ``out`` None is the folder that holds the devkit. Objects that are
    marked difficult are left out unless ``keep_difficult``.

    Returns lines that say what was done and what was left out. Raises :class:`DataError` in one line.
    """
    devkit, classes = Path(devkit).resolve(), read_names(find_stock(os.fspath(names)))
    lists_to = Path(out or devkit.parent)
    make_folder(lists_to)
    found = []
    for name in sets.split(","):
        year, _, image_set = name.rpartition(":")
        folder = devkit / f"VOC{year}" if year else devkit
        if not (folder / "Annotations").is_dir():
            raise DataError(
                f"{folder / 'Annotations'}: no such folder; expected VOC annotations there for the set {name}"
            )
        identities = read_image_set(folder, image_set)
        found.append((folder, year or devkit.name, image_set, identities, image_paths(folder, identities)))
    total = Tally()
    for folder, year, image_set, identities, _ in found:
        bar = tqdm(identities, desc=f"{year} {image_set}", unit=" images", disable=None)
        total += label_voc(folder, bar, classes, keep_difficult)
    if not total.kept:
        raise DataError(
            f"{devkit}: no object has a class of {os.fspath(names)}; classes found: {_counted(total.unknown) or 'none'}"
        )
    lists = write_lists(lists_to, [(year, name, images) for _, year, name, _, images in found])
    return [*_report(total), "lists: " + ", ".join(map(str, lists))]


def _report(total: Tally) -> list[str]:
    """What was labelled and what was left out."""
    lines = [f"{total.images} images, {total.kept.total()} objects: {_counted(total.kept)}"]
    if total.difficult:
        lines.append(f"left out: {total.difficult} difficult objects (--keep-difficult keeps them)")
    if total.unknown:
        lines.append(f"left out, their class is not in the names: {_counted(total.unknown)}")
    lines += [f"warning: {line}" for line in total.outside[:10]]
    if len(total.outside) > 10:
        lines.append(f"warning: {len(total.outside) - 10} more boxes reach out of their images")
    return lines


def _counted(names: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items(), key=lambda pair: -pair[1])[:30])
