"""The verbs that run a network over the ``valid`` list: valid, valid2, map, recall.

Source: ``examples/detector.c, validate_detector, validate_detector_flip, validate_detector_recall``; AlexeyAB's
``src/detector.c, validate_detector_map``; ``examples/yolo.c, validate_yolo, validate_yolo_recall``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .arguments import EXAMPLE, add_letter_box, add_network, add_tiles, bar, fraction, load
from .several import Verb, add_gpus

if TYPE_CHECKING:
    from ..detect import Detections


def add(verbs: Any) -> None:
    """Make the verbs known to ``detector``."""
    forms = (
        "one comp4 file per class (eval=voc), coco_results.json (eval=coco) or imagenet-detection.txt (eval=imagenet)"
    )
    parser = add_valid(verbs, "detector", forms)
    add_letter_box(parser)
    add_tiles(parser)
    what = "as valid, with the output for the mirrored image averaged in, as Darknet does it"
    parser = add_valid(verbs, "detector", forms, "valid2", what, valid2)
    add_letter_box(parser)

    parser = verbs.add_parser(
        "map",
        help="AlexeyAB's mAP table over the valid list",
        description="Detect in the images of the valid list, compare the boxes with the label files, and print "
        "AlexeyAB's table. It is not voc_eval: docs/scores.md says how the two differ.",
        epilog=f"example: %(prog)s cfg/voc.data {EXAMPLE['detector']} -points 11",
        allow_abbrev=False,
    )
    add_network(parser)
    add_letter_box(parser)
    add_tiles(parser)
    parser.add_argument("-thresh", "--thresh", type=fraction, default=0.25, help="of TP, FP and F1 (default .25)")
    parser.add_argument("-iou_thresh", "--iou_thresh", type=fraction, default=0.5, help="lowest IOU (default .5)")
    parser.add_argument(
        "-points", "--points", type=int, choices=(0, 11, 101), default=0, help="0: area; 11: VOC 2007; 101: COCO"
    )
    add_gpus(parser, map_)

    add_recall(verbs, "detector", "Images are stretched and boxes suppressed by objectness over IOU .4")


def add_valid(
    verbs: Any,
    family: str,
    forms: str,
    name: str = "valid",
    what: str = "write Darknet's result files for the images of DATA's valid list",
    run: Verb | None = None,
) -> argparse.ArgumentParser:
    """Make ``valid``, or one like it, known to a family of verbs. ``forms``: the files that it writes."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=f"Run over the valid list and {what.split(',')[0].replace('as valid', 'write result files')}: "
        f"{forms}, in the folder that results= names.",
        epilog=f"example: %(prog)s cfg/voc.data {EXAMPLE[family]}",
        allow_abbrev=False,
    )
    add_network(parser)
    parser.add_argument("-out", "--out", metavar="PREFIX", help="prefix of the result files' names")
    parser.add_argument(
        "-resume", "--resume", action="store_true",
        help="go on with a run that was stopped or killed: what it has found is kept beside the result files",
    )  # fmt: skip
    add_gpus(parser, run or valid)
    return parser


def add_recall(verbs: Any, family: str, boxes: str) -> None:
    """Make ``recall`` known to a family of verbs. ``boxes``: which ones it takes."""
    parser = verbs.add_parser(
        "recall",
        help="Darknet's recall over the valid list",
        description="For each image of the valid list: proposals, truths found, their IOU and recall so far. "
        f"{boxes}, as in Darknet.",
        epilog=f"example: %(prog)s cfg/voc.data {EXAMPLE[family]}",
        allow_abbrev=False,
    )
    add_network(parser)
    add_gpus(parser, recall)


def valid(options: argparse.Namespace, mirrored: bool = False) -> int:
    from ..detect.validate import validate

    detector = load(options)
    paths = validate(detector, out=options.out, mirrored=mirrored, resume=options.resume, progress=_timed)
    more = f" ... {paths[-1].name}" if len(paths) > 1 else ""
    print(f"{len(detector.valid_images())} images: {paths[0]}{more}")
    return 0


def valid2(options: argparse.Namespace) -> int:
    return valid(options, mirrored=True)


def map_(options: argparse.Namespace) -> int:
    from ..detect.scores import mean_average_precision
    from ..evaluate.darknet_map import format_map

    detector = load(options)
    table = mean_average_precision(
        detector, thresh=options.thresh, iou_thresh=options.iou_thresh, points=options.points, progress=_timed
    )
    geometry = "letterboxed" if detector.letter_box else "stretched"
    print(f"images {geometry} to {detector.network.width} x {detector.network.height}")
    print(format_map(table))
    return 0


def recall(options: argparse.Namespace) -> int:
    from ..detect.scores import recall as measure
    from ..evaluate.darknet_map import recall_lines

    print("\n".join(recall_lines(measure(load(options)))))
    return 0


def _timed(found: Iterable[Detections], total: int) -> Iterator[Detections]:
    start = time.perf_counter()
    yield from bar(found, total)
    seconds = time.perf_counter() - start
    print(f"Total Detection Time: {seconds:f} Seconds, {total / seconds:.1f} images/s", file=sys.stderr)
