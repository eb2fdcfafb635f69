"""The verb ``detector calc_anchors``: anchors from the labels of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_label_rule


def add(detector_verbs: Any) -> None:
    """Make the verb known to ``detector``."""
    parser = detector_verbs.add_parser(
        "calc_anchors",
        help="compute anchors from the labels of a data set",
        description="k-means on 1 - IOU over the boxes of the train list, as the network sees them. Prints the average "
        "IOU and the line for the cfg: in cells for [region], in pixels with -v3.",
        epilog="example: %(prog)s cfg/voc.data -num_of_clusters 5 -width 416 -height 416",
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", help=".data file; its train list names the images")
    parser.add_argument(
        "-num_of_clusters", "--num_of_clusters", type=int, default=5, metavar="N", help="number of anchors (default 5)"
    )
    parser.add_argument("-width", "--width", type=int, default=416, help="width of the network's input (default 416)")
    parser.add_argument(
        "-height", "--height", type=int, default=416, help="height of the network's input (default 416)"
    )
    parser.add_argument(
        "-stride", "--stride", type=int, default=32, help="pixels per cell of the network's last map (default 32)"
    )
    parser.add_argument(
        "-letter_box", "--letter_box", type=int, choices=(0, 1), nargs="?", const=1, default=1,
        help="how the network will see images; 1: fitted into its input (default), 0: stretched, as in AlexeyAB's",
    )  # fmt: skip
    add_label_rule(parser)
    parser.add_argument("-v3", "--v3", action="store_true", help="print pixels, as the [yolo] sections of v3 have them")
    parser.add_argument(
        "-show", "--show", type=_image, nargs="?", const=Path("cloud.png"), metavar="FILE.png",
        help="draw the boxes with the anchors (alone: into cloud.png)",
    )  # fmt: skip
    parser.set_defaults(run=calc_anchors)


def _image(text: str) -> Path:
    """argparse type: the name of an image. Any other word behind -show is no part of it, as in AlexeyAB's program."""
    if Path(text).suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text} is no image's name; expected FILE.png")
    return Path(text)


def calc_anchors(options: argparse.Namespace) -> int:
    """AlexeyAB's ``src/detector.c, calc_anchors``."""
    from ..anchors import calc_anchors as run
    from ..anchors import cfg_line, draw
    from ..errors import DataError

    if options.stride < 1:
        raise DataError(f"-stride is {options.stride}; expected 1 or more")
    found = run(
        options.data, num_of_clusters=options.num_of_clusters, width=options.width, height=options.height,
        letter_box=bool(options.letter_box), program=options.program,
    )  # fmt: skip
    print(f"{len(found.boxes)} boxes in {found.images} images, {options.num_of_clusters} clusters")
    print(f"avg IoU = {100 * found.average:.2f} %")
    print(cfg_line(found.anchors, None if options.v3 else options.stride))
    if options.show:
        draw(options.show, found.boxes, found.anchors, found.average)
        print(f"image: {options.show}")
    return 0
