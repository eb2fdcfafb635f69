"""Verbs that fetch and prepare data: ``voc_label``, ``coco_label``, ``get_weights`` and ``get_voc``."""

from __future__ import annotations

import argparse
from typing import Any


def add(verbs: Any) -> None:
    """Make the verbs known to the command line."""
    parser = verbs.add_parser(
        "voc_label",
        help="VOC annotations -> Darknet's labels and lists",
        description="Writes labels/*.txt beside Annotations/, and lists (2007_train.txt, train.txt, ...) beside the "
        "devkit. A set without a year belongs to a folder that itself holds Annotations, ImageSets and JPEGImages.",
        epilog="example: %(prog)s cells --sets train,val --names cells.names",
        allow_abbrev=False,
    )
    sets = "2012:train,2012:val,2007:train,2007:val,2007:test"
    parser.add_argument("devkit", metavar="VOCdevkit", help="the VOCdevkit, or a single folder with the same layout")
    parser.add_argument(
        "-sets", "--sets", default=sets, metavar="[YEAR:]SET,...", help=f"image sets to label (default {sets})"
    )
    parser.add_argument(
        "-names", "--names", metavar="FILE", default="data/voc.names", help="classes, one a line (default: VOC's 20)"
    )
    parser.add_argument(
        "-keep-difficult", "--keep-difficult", action="store_true", help="label objects marked difficult too"
    )
    parser.add_argument(
        "-out", "--out", metavar="FOLDER", help="folder for the lists (default: the one that holds the devkit)"
    )
    parser.set_defaults(run=voc_label)

    parser = verbs.add_parser(
        "coco_label",
        help="a COCO instances file -> Darknet's labels, a list and names",
        description="Labels go where Darknet looks for them: coco/images/train2017/x.jpg has "
        "coco/labels/train2017/x.txt. List and names go beside the images: coco/images/train2017.txt and .names. "
        "Classes are in the order of the categories' ids.",
        epilog="example: %(prog)s annotations/instances_train2017.json coco/images/train2017",
        allow_abbrev=False,
    )
    parser.add_argument("instances", metavar="JSON", help="the file of annotations")
    parser.add_argument(
        "images", metavar="FOLDER", help="folder of its images; a part of its path must be named images"
    )
    parser.add_argument("-keep-crowd", "--keep-crowd", action="store_true", help="label groups marked iscrowd too")
    parser.set_defaults(run=coco_label)

    parser = verbs.add_parser(
        "get_weights",
        help="fetch published .weights files, and check each against its cfg",
        description="Fetches published .weights files. Without NAME it lists them, and fetches nothing.",
        epilog="example: %(prog)s yolov2-tiny-voc darknet19_448.conv.23",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="files to fetch (default: list them)")
    parser.add_argument(
        "-dest", "--dest", metavar="FOLDER", default="weights", help="for the files (default %(default)s)"
    )
    _add_mirror(parser)
    parser.set_defaults(run=get_weights, wrong=parser.error)

    parser = verbs.add_parser(
        "get_voc",
        help="fetch PASCAL VOC 2007 and 2012 (2.9 GB)",
        description="Fetches the archives, checks them, and unpacks them to FOLDER/VOCdevkit.",
        epilog="example: %(prog)s data/voc",
        allow_abbrev=False,
    )
    parser.add_argument("dest", metavar="FOLDER", help="folder for the archives and the VOCdevkit")
    parser.add_argument("-years", "--years", default="2007,2012", help="which years (default %(default)s)")
    _add_mirror(parser)
    parser.set_defaults(run=get_voc, wrong=parser.error)


def _add_mirror(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-mirror", "--mirror", metavar="URL", help="another address with files of the same names")


def voc_label(options: argparse.Namespace) -> int:
    """``scripts/voc_label.py``."""
    from ..voc_label import voc_label as run

    lines = run(
        options.devkit, sets=options.sets, names=options.names, keep_difficult=options.keep_difficult, out=options.out
    )
    print("\n".join(lines))
    return 0


def coco_label(options: argparse.Namespace) -> int:
    """What Darknet's ``scripts/get_coco_dataset.sh`` fetches ready-made."""
    from ..coco import coco_label as run

    print("\n".join(run(options.instances, options.images, keep_crowd=options.keep_crowd)))
    return 0


def get_weights(options: argparse.Namespace) -> int:
    """2 for a name that is not known."""
    from ..fetch import PUBLISHED, published_weights
    from ..fetch import get_weights as run

    if unknown := [name for name in options.names if name not in PUBLISHED]:
        options.wrong(f"{unknown[0]}: no published file of that name here; choose from {', '.join(PUBLISHED)}")
    if not options.names:
        print("\n".join(published_weights()))
    for name in options.names:
        print(run(name, options.dest, options.mirror))
    return 0


def get_voc(options: argparse.Namespace) -> int:
    """2 for a year that VOC has not, or not here."""
    from ..fetch import YEARS
    from ..fetch import get_voc as run

    years = options.years.split(",")
    if wrong := set(years) - set(YEARS):
        options.wrong(f"--years: {min(wrong)!r}; expected 2007, 2012 or both")
    devkit = run(options.dest, years, options.mirror)
    print(f"{devkit} is complete; the archives beside it can be deleted")
    print(f"next: darknet-compat voc_label {devkit}")
    return 0
