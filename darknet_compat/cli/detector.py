"""The verbs ``detector ...``: test, and those of the other files of this folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import EXAMPLE, add_letter_box, add_network, bar, fraction, load

if TYPE_CHECKING:
    from ..detect import Detections


def add(verbs: Any) -> None:
    """Make ``detector`` and its verbs known to the command line."""
    from . import anchors, train, valid

    parser = verbs.add_parser("detector", help="detect, train, validate and score with a detection network")
    parser.set_defaults(verbs="detector")
    detector = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))
    parser = add_test(detector, "detector", "default .5; of AlexeyAB's program .25", "default .45")
    add_letter_box(parser)
    parser.add_argument("-hier", "--hier", type=fraction, default=0.5, help="how sure a tree must be (default .5)")
    for family in (valid, train, anchors):
        family.add(detector)


def add_test(verbs: Any, family: str, thresh: str, nms: str) -> argparse.ArgumentParser:
    """Make ``test`` known to a family of verbs, whose thresholds the two texts say."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "test",
        help="detect in images, draw and list what is found",
        description="Detect in images. One: prints each class and its probability, and draws predictions.jpg. "
        "Many: writes one JSON file, and with -out a drawing of each.",
        epilog=f"example: darknet-compat {family} test cfg/voc.data {EXAMPLE[family]} dog.jpg",
        allow_abbrev=False,
    )
    add_network(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image, folder, pattern, or .txt list of paths")
    parser.add_argument("-thresh", "--thresh", type=fraction, help=f"least probability ({thresh})")
    parser.add_argument("-nms", "--nms", type=fraction, help=f"most IOU of two boxes ({nms}; 0: off)")
    parser.add_argument(
        "-out", "--out", type=_folder, metavar="FOLDER", help="folder for the drawings (one image: default here)"
    )
    parser.add_argument("-json", "--json", metavar="FILE", help="detections as JSON (many: default predictions.json)")
    parser.add_argument(
        "-skip", "--skip", action="store_true",
        help="pass over images that cannot be read, with a warning each, and exit with 1 at the end (default: stop at "
        "the first; what was found before it is written)",
    )  # fmt: skip
    parser.set_defaults(run=test)
    return parser


def _folder(text: str) -> str:
    """argparse type: a folder to write to. AlexeyAB's -out names a JSON file, so that a file's name is a slip."""
    from ..images import SUFFIXES

    if Path(text).suffix.lower() in (".json", ".txt", *SUFFIXES) and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file's name; expected a folder (-json FILE writes detections)")
    return text


def test(options: argparse.Namespace) -> int:
    """``test_detector``, ``test_yolo``; 1 where ``-skip`` passed over an image."""
    from ..image_files import find_images

    paths = find_images(options.images)  # before torch is loaded, which takes a second
    from ..detect.images import detect_images

    one = len(paths) == 1
    detector = load(options)
    out = options.out or ("" if one else None)
    file = options.json or (None if one else "predictions.json")
    hier = {"hier": options.hier} if "hier" in options else {}
    lines = partial(_print_found, program=detector.network.program)
    found = detect_images(
        detector, options.images, thresh=options.thresh, nms=options.nms, **hier, out=out, json=file,
        skip=options.skip, progress=lines if one else bar,
    )  # fmt: skip
    if not one:
        boxes = sum(int((detections.prob > 0).sum()) for detections in found)
        drawn = f", drawings: {out}" if out else ""
        print(f"{len(found)} images, {boxes} detections: {file}{drawn}")
    if len(found) < len(paths):
        print(f"{len(paths) - len(found)} of {len(paths)} images could not be read", file=sys.stderr)
    return 1 if len(found) < len(paths) else 0


def _print_found(found: Iterable[Detections], total: int, program: str) -> Iterator[Detections]:
    start = time.perf_counter()
    for detections in found:
        print(f"{detections.path}: Predicted in {time.perf_counter() - start:f} seconds.")
        print("".join(f"{line}\n" for line in detections.lines(program)), end="")
        yield detections
