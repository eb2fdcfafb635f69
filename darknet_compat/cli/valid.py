"""The verbs that run a network over the ``valid`` list: valid, valid2, map, recall.

Source: ``examples/detector.c, validate_detector, validate_detector_flip, validate_detector_recall``; AlexeyAB's
``src/detector.c, validate_detector_map``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from .arguments import add_letter_box, add_network, fraction, load, run_settings, wants_letter_box


def add(verbs: Any) -> None:
    """Make the verbs known to the command line."""
    for name, run, what in (
        ("valid", valid, "write Darknet's result files for the images of DATA's valid list"),
        ("valid2", valid2, "as valid, with the output for the mirrored image averaged in, as Darknet does it"),
    ):
        parser = verbs.add_parser(
            name,
            help=what,
            description=f"Run over the valid list and {what.split(',')[0].replace('as valid', 'write result files')}: "
            "one comp4 file per class (eval=voc), coco_results.json (eval=coco) or imagenet-detection.txt "
            "(eval=imagenet), in the folder that results= names.",
            epilog=f"example: darknet-compat detector {name} cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights",
            allow_abbrev=False,
        )
        add_network(parser)
        add_letter_box(parser)
        parser.add_argument("-out", "--out", metavar="PREFIX", help="start of the result files' names")
        parser.set_defaults(run=run)

    parser = verbs.add_parser(
        "map",
        help="AlexeyAB's mAP table over the valid list",
        description="Detect in the images of the valid list, hold the boxes against the label files, and print "
        "AlexeyAB's table. It is not voc_eval: docs/scores.md says how the two differ.",
        epilog="example: darknet-compat detector map cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights -points 11",
        allow_abbrev=False,
    )
    add_network(parser)
    add_letter_box(parser)
    parser.add_argument("-thresh", "--thresh", type=fraction, default=0.25, help="for TP, FP and F1 (default .25)")
    parser.add_argument("-iou_thresh", "--iou_thresh", type=fraction, default=0.5, help="least IOU (default .5)")
    parser.add_argument(
        "-points", "--points", type=int, choices=(0, 11, 101), default=0, help="0: area; 11: VOC 2007; 101: COCO"
    )
    parser.set_defaults(run=map_)

    parser = verbs.add_parser(
        "recall",
        help="Darknet's recall over the valid list",
        description="For each image of the valid list: proposals, truths found, their IOU and recall so far. "
        "Images are stretched and boxes suppressed by objectness over IOU .4, as in Darknet.",
        epilog="example: darknet-compat detector recall cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights",
        allow_abbrev=False,
    )
    add_network(parser)
    parser.set_defaults(run=recall)


def _images(options: argparse.Namespace) -> tuple[Any, list[str]]:
    """The .data file, and its valid list."""
    from ..cfg import read_data, read_list
    from ..stock import find_stock

    data = read_data(find_stock(options.data))
    return data, read_list(find_stock(data.source("valid", "data/train.list")))


def _progress(found: Iterator[Any], total: int) -> Iterator[Any]:
    from tqdm import tqdm

    start = time.perf_counter()
    yield from tqdm(found, total=total, unit="image", disable=None)
    seconds = time.perf_counter() - start
    print(f"Total Detection Time: {seconds:f} Seconds, {total / seconds:.1f} images/s", file=sys.stderr)


def valid(options: argparse.Namespace, mirrored: bool = False) -> int:
    data, paths = _images(options)
    # These load torch, so they come after the first that can be wrong; in the other verbs too.
    from ..detect import detect_files
    from ..detect.defaults import VALID
    from ..detect.results import ResultFiles, coco_image_id
    from ..labels import image_ids
    from ..stock import find_stock
    from ..tree import read_map

    kind = data.get("eval", "voc")
    if kind not in ResultFiles.PREFIX:
        raise data.error("eval", f"eval is {kind!r}; expected one of {', '.join(ResultFiles.PREFIX)}")
    listed = data.source("valid", "data/train.list")
    if kind == "voc":
        image_ids(paths, listed)
    elif kind == "coco" and len({coco_image_id(path) for path in paths}) < len(paths):
        warnings.warn(f"{listed}: images share an image id, the number in the name of a COCO file", stacklevel=1)
    network, names = load(options)
    head = network.detector
    asked = read_map(data.get("map")) if data.get("map") else None
    if asked and max(asked) >= head.o.classes:
        raise data.error("map", f"the map asks for class {max(asked)}; expected 0 to {head.o.classes - 1}")
    classes = len(asked) if asked and head.chooses_classes else head.o.classes
    expected = ResultFiles.CLASSES.get(kind, classes)
    if classes != expected:
        raise data.error("eval", f"{classes} classes would be written; expected the {expected} of eval={kind}")
    source = find_stock(data.source("names", "data/names.list"))
    with ResultFiles(data.get("results", "results"), kind, names, options.out, source) as files:
        found = detect_files(
            network, paths, letter_box=wants_letter_box(options, network), mirrored=mirrored, relative=False,
            map=asked, **VALID[network.program]._asdict(), **run_settings(options, network, len(paths)),
        )  # fmt: skip
        for detections in _progress(found, len(paths)):
            files.add(detections)
    print(f"{len(paths)} images: {files.paths[0]}" + (f" ... {files.paths[-1].name}" if len(files.paths) > 1 else ""))
    return 0


def valid2(options: argparse.Namespace) -> int:
    return valid(options, mirrored=True)


def map_(options: argparse.Namespace) -> int:
    data, paths = _images(options)
    from ..detect import detect_files
    from ..detect.defaults import MAP, MAP_HIER
    from ..detect.scores import map_of
    from ..evaluate.annotations import read_difficult, read_label_files
    from ..evaluate.darknet_map import format_map

    network, names = load(options)
    letter_box = wants_letter_box(options, network)
    truths = read_label_files(paths, len(names))
    difficult = read_difficult(data, paths, len(names))
    found = detect_files(
        network, paths, letter_box=letter_box, hier=MAP_HIER, **MAP[network.program]._asdict(),
        **run_settings(options, network, len(paths)),
    )  # fmt: skip
    table = map_of(
        _progress(found, len(paths)), names, truths, difficult,
        thresh=options.thresh, iou_thresh=options.iou_thresh, points=options.points,
    )  # fmt: skip
    print(f"images {'letterboxed' if letter_box else 'stretched'} to {network.width} x {network.height}")
    print(format_map(table))
    return 0


def recall(options: argparse.Namespace) -> int:
    _, paths = _images(options)
    from ..detect.scores import recall_of
    from ..evaluate.darknet_map import recall_lines

    network, _ = load(options)
    table = recall_of(network, paths, **run_settings(options, network, len(paths)))
    print("\n".join(recall_lines(table)))
    return 0
