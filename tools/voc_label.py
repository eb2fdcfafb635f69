#!/usr/bin/env python3
"""Turn the annotations of a VOCdevkit into Darknet's labels and list files.

    python tools/voc_label.py VOCdevkit --sets 2012:train,2012:val,2007:train,2007:val,2007:test
    python tools/voc_label.py my_images --sets train,val --names my.names

Writes labels/*.txt beside Annotations/, and lists (2007_train.txt, train.txt, ...) beside the devkit. A set
without a year belongs to a folder that itself holds Annotations, ImageSets and JPEGImages.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from darknet_compat.cfg import read_names
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.labels import Tally, image_paths, label_voc, read_image_set, write_lists

SETS = "2012:train,2012:val,2007:train,2007:val,2007:test"
NAMES = Path(__file__).resolve().parent.parent / "data" / "voc.names"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devkit", type=Path, help="the VOCdevkit, or a single folder in its form")
    parser.add_argument("--sets", default=SETS, metavar="[YEAR:]SET,...", help=f"image sets to label (default {SETS})")
    parser.add_argument("--names", type=Path, default=NAMES, help="classes, one a line (default: the 20 of VOC)")
    parser.add_argument("--keep-difficult", action="store_true", help="label objects marked difficult too")
    parser.add_argument("--out", type=Path, help="folder for the lists (default: the one that holds the devkit)")
    args = parser.parse_args()
    try:
        for line in label(args):
            print(line)
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def label(args: argparse.Namespace) -> list[str]:
    """Write labels and lists; the lines to print come back."""
    devkit = args.devkit.resolve()
    names = read_names(args.names)
    sets = []
    for name in args.sets.split(","):
        year, _, image_set = name.rpartition(":")
        folder = devkit / f"VOC{year}" if year else devkit
        if not (folder / "Annotations").is_dir():
            raise DataError(
                f"{folder / 'Annotations'}: no such folder; expected VOC annotations there for the set {name}"
            )
        identities = read_image_set(folder, image_set)
        sets.append((folder, year or devkit.name, image_set, identities, image_paths(folder, identities)))
    total = Tally()
    for folder, year, image_set, identities, _ in sets:
        bar = tqdm(identities, desc=f"{year} {image_set}", unit=" images", disable=None)
        total += label_voc(folder, bar, names, args.keep_difficult)
    if not total.kept:
        raise DataError(
            f"{devkit}: no object has a class of {args.names}; classes found: {counted(total.unknown) or 'none'}"
        )
    lists = write_lists(args.out or devkit.parent, [(year, name, images) for _, year, name, _, images in sets])
    return [*report(total), "lists: " + ", ".join(map(str, lists))]


def report(total: Tally) -> list[str]:
    """What was labelled and what was left out."""
    lines = [f"{total.images} images, {total.kept.total()} objects: {counted(total.kept)}"]
    if total.difficult:
        lines.append(f"left out: {total.difficult} difficult objects (--keep-difficult keeps them)")
    if total.unknown:
        lines.append(f"left out, their class is not in the names: {counted(total.unknown)}")
    lines += [f"warning: {line}" for line in total.outside[:10]]
    if len(total.outside) > 10:
        lines.append(f"warning: {len(total.outside) - 10} more boxes reach out of their images")
    return lines


def counted(names: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items(), key=lambda pair: -pair[1])[:30])


if __name__ == "__main__":
    sys.exit(main())
