"""The verbs ``detector ...``: test, and those of the other files of this folder; and the short form ``detect``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output import complain
from .arguments import EXAMPLE, TypedImages, add_letter_box, add_network, add_tiles, bar, fraction, load
from .several import add_gpus

if TYPE_CHECKING:
    from ..detect import Detections
    from ..detect.detector import DataDetector
    from ..detect.results import LabelFiles


def add(verbs: Any) -> None:
    """Make ``detector``, its verbs and ``detect`` known to the command line."""
    from . import anchors, train, valid, video

    parser = verbs.add_parser("detector", help="detect, train, validate and score with a detection network")
    parser.set_defaults(verbs="detector")
    detector = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))
    nms = "default .45"
    _add_trees(add_test(detector, f"cfg/voc.data {EXAMPLE['detector']}", "default .5; AlexeyAB's Darknet: .25", nms))
    for family in (valid, train, anchors):
        family.add(detector)
    video.add(detector, "detector", "default .5; AlexeyAB's Darknet: .25")

    thresh = "default .5; AlexeyAB's Darknet: .24"
    parser = add_test(verbs, EXAMPLE["detect"], thresh, nms, "detect", data=False)
    _add_trees(parser)
    parser.set_defaults(verbs="detector", data="cfg/coco.data", short=True)


def _add_trees(parser: argparse.ArgumentParser) -> None:
    add_letter_box(parser)
    add_tiles(parser)
    parser.add_argument(
        "-hier", "--hier", type=fraction, default=0.5,
        help="with a tree of classes: name a subclass only above this probability (default .5)",
    )  # fmt: skip


def add_test(
    verbs: Any, example: str, thresh: str, nms: str, name: str = "test", data: bool = True
) -> argparse.ArgumentParser:
    """Make ``test``, or its short form, known to a family of verbs, whose thresholds the two texts say."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help="detect in images, print and draw the detections" if data else "detector test with cfg/coco.data",
        description="Detect in images. One image: prints each class and its probability, and draws predictions.jpg. "
        "Many: writes one JSON file, and with -out a drawing of each. None: reads paths from standard input, one per "
        "line, and handles each as a single image.",
        epilog=f"example: %(prog)s {example} dog.jpg",
        allow_abbrev=False,
    )
    add_network(parser, data)
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="image, folder, pattern, or .txt list of paths")
    parser.add_argument("-thresh", "--thresh", type=fraction, help=f"lowest probability shown ({thresh})")
    parser.add_argument("-nms", "--nms", type=fraction, help=f"highest IOU of two boxes of a class ({nms}; 0: off)")
    parser.add_argument(
        "-out", "--out", type=_out, metavar="FOLDER",
        help="folder for the drawings (one image: default here); or NAME.json, for the detections as AlexeyAB's "
        "Darknet writes them",
    )  # fmt: skip
    parser.add_argument("-json", "--json", metavar="FILE", help="detections as JSON (many: default predictions.json)")
    parser.add_argument(
        "-ext_output", "--ext_output", action="store_true", help="print boxes too (many images: print the detections)"
    )
    parser.add_argument(
        "-save_labels", "--save_labels", action="store_true",
        help="write a label file for each image, where AlexeyAB's Darknet reads it; files that exist are kept",
    )  # fmt: skip
    parser.add_argument(
        "-overwrite", "--overwrite", action="store_true", help="with -save_labels: replace files that exist"
    )
    parser.add_argument(
        "-skip", "--skip", action="store_true",
        help="skip images that cannot be read, with a warning for each, and exit with 1 at the end (default: stop at "
        "the first, and write the detections before it)",
    )  # fmt: skip
    parser.set_defaults(short=False)
    add_gpus(parser, test, typed=True)
    return parser


def _out(text: str) -> str:
    """argparse type: a folder to write to, or a .json file. The name of another file is a slip."""
    from ..images import SUFFIXES

    if Path(text).suffix.lower() in (".txt", *SUFFIXES) and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is a file's name; expected a folder for drawings, or NAME.json for the detections"
        )
    return text


def _is_json(out: str | None) -> bool:
    return out is not None and Path(out).suffix.lower() == ".json" and not Path(out).is_dir()


def test(options: argparse.Namespace) -> int:
    """``test_detector``, ``test_yolo``; 1 where an image could not be read, or a label file stood there already."""
    from ..image_files import find_images

    paths = find_images(options.images)  # before torch is loaded, which takes a second
    detector = load(options)
    from ..defaults import DETECT
    from ..detect.results import LabelFiles

    labels = LabelFiles(options.overwrite) if options.save_labels else None
    result = options.out if _is_json(options.out) else None
    asked = {
        "thresh": DETECT[detector.network.program].thresh if options.short and options.thresh is None
        else options.thresh,
        "nms": options.nms, "out": None if result else options.out, "json": options.json, "result": result,
        "save_labels": labels,
    }  # fmt: skip
    if "hier" in options:
        asked["hier"] = options.hier
    if not options.images:
        return _typed(options, detector, labels, asked)
    return _listed(options, detector, labels, asked, len(paths))


def _listed(
    options: argparse.Namespace, detector: DataDetector, labels: LabelFiles | None, asked: dict[str, Any], total: int
) -> int:
    """Images that the command names, of which there are ``total``."""
    from ..detect.images import detect_images

    one = total == 1
    if one and asked["out"] is None:
        asked["out"] = ""
    if not one and asked["json"] is None and asked["result"] is None:
        asked["json"] = "predictions.json"
    lines = partial(_print_found, detector=detector, ext_output=options.ext_output)
    show = lines if one or options.ext_output else bar
    found = detect_images(detector, options.images, skip=options.skip, progress=show, **asked)
    if not one:
        boxes = sum(int((detections.prob > 0).sum()) for detections in found)
        files = " and ".join(asked[name] for name in ("json", "result") if asked[name] is not None)
        drawn = f", drawings: {asked['out']}" if asked["out"] else ""
        print(f"{len(found)} images, {boxes} detections: {files}{drawn}")
    if len(found) < total:
        print(f"{total - len(found)} of {total} images could not be read", file=sys.stderr)
    return int(_say_kept(labels) or len(found) < total)


def _typed(
    options: argparse.Namespace, detector: DataDetector, labels: LabelFiles | None, asked: dict[str, Any]
) -> int:
    """Images whose paths come from standard input, as both programs take them: one by one."""
    from ..detect.images import detect_each

    typed = TypedImages(options.command)

    def paths() -> Iterator[str]:
        for path in typed:
            yield path
            typed.failed |= _say_kept(labels)

    if asked["out"] is None:
        asked["out"] = ""
    for detections in detect_each(detector, paths(), refused=typed.refused, **asked):
        print(detector.printed(detections, typed.seconds, options.ext_output), end="")
    return int(typed.failed)


def _say_kept(labels: LabelFiles | None) -> bool:
    """Name the label files that stayed as they were, if any did; they are forgotten then."""
    if labels is None or not labels.kept:
        return False
    first, more = labels.kept[0], len(labels.kept) - 1
    what = f"{first}: it is there, and stays" if not more else f"{first} and {more} more: they are there, and stay"
    complain(f"{what}; -overwrite replaces label files")
    labels.kept = []
    return True


def _print_found(
    found: Iterable[Detections], total: int, detector: DataDetector, ext_output: bool
) -> Iterator[Detections]:
    start = time.perf_counter()
    for detections in found:
        print(detector.printed(detections, time.perf_counter() - start, ext_output), end="")
        yield detections
        start = time.perf_counter()
