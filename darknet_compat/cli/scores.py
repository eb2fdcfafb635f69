"""Verbs that score result files: ``voc_eval``, ``coco_eval``, ``compare_results``. They load no torch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import ResultsError
from .arguments import add_label_rule


def add(verbs: Any) -> None:
    """Make the verbs known to the command line."""
    parser = verbs.add_parser(
        "voc_eval",
        help="VOC average precision of comp4 result files, as py-faster-rcnn's voc_eval computes it",
        description="Score a folder of result files (one per class, lines of: id prob xmin ymin xmax ymax) against "
        "VOC annotations or Darknet labels, and print AP per class and mAP. The exit code is 1 if a class has no file.",
        epilog="example: %(prog)s --results results --devkit VOCdevkit --year 2007 --image-set test",
        allow_abbrev=False,
    )
    parser.add_argument("-results", "--results", metavar="DIR", required=True, help="folder of the result files")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument(
        "-devkit", "--devkit", metavar="VOCdevkit", help="VOC annotations: the folder that holds VOC2007"
    )
    truth.add_argument("-data", "--data", metavar="DATA", help="Darknet labels: a .data file with valid= and names=")
    add_label_rule(parser)
    parser.add_argument("-year", "--year", default="2007", help="year of the devkit (2007)")
    parser.add_argument("-image-set", "--image-set", metavar="SET", default="test", help="image set (test)")
    parser.add_argument(
        "-names", "--names", metavar="FILE", help="names of the classes (data/voc.names, or those of DATA)"
    )
    parser.add_argument("-metric", "--metric", choices=("voc07", "area"), default="voc07", help="11-point, or area")
    parser.add_argument("-iou", "--iou", type=float, default=0.5, help="IOU that a right box must exceed (.5)")
    parser.add_argument(
        "-padilla", "--padilla", action="store_true", help="-results holds one text file per image instead"
    )
    parser.add_argument("-to-padilla", "--to-padilla", metavar="DIR", help="also write one text file per image here")
    parser.add_argument("-json", "--json", metavar="FILE", help="write the table as JSON")
    parser.add_argument("-plots", "--plots", metavar="DIR", help="draw curves, bars and a contact sheet here")
    parser.add_argument("-images", "--images", metavar="DIR", help="images for the contact sheet (JPEGImages)")
    parser.set_defaults(run=voc_eval)

    parser = verbs.add_parser(
        "coco_eval",
        help="COCO's AP and AR of a results JSON (needs the extra coco)",
        description="Score a COCO results JSON against COCO annotations: AP, AP50, AP75, AP by size, AR.",
        epilog="example: %(prog)s --results coco_results.json --annotations instances_val2014.json",
        allow_abbrev=False,
    )
    parser.add_argument("-results", "--results", metavar="JSON", required=True)
    parser.add_argument("-annotations", "--annotations", metavar="JSON", required=True)
    parser.add_argument("-json", "--json", metavar="FILE", help="write the figures as JSON")
    parser.set_defaults(run=coco_eval)

    parser = verbs.add_parser(
        "compare_results",
        help="compare two folders of result files",
        description="Print APs side by side, matched boxes, greatest differences, worst images. The exit code is 1 if "
        "a class has no file.",
        epilog="example: %(prog)s results.darknet results.port --devkit VOCdevkit",
        allow_abbrev=False,
    )
    parser.add_argument("a", metavar="A", help="folder of result files")
    parser.add_argument("b", metavar="B", help="another, of the same images")
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument("-devkit", "--devkit", metavar="VOCdevkit", help="VOC annotations, for the APs")
    truth.add_argument("-data", "--data", metavar="DATA", help="a .data file instead, with Darknet's labels")
    parser.add_argument("-year", "--year", default="2007", help="year of the devkit (2007)")
    parser.add_argument("-image-set", "--image-set", metavar="SET", default="test", help="image set (test)")
    parser.add_argument(
        "-names", "--names", metavar="FILE", help="names of the classes (data/voc.names, or those of DATA)"
    )
    parser.add_argument("-metric", "--metric", choices=("voc07", "area"), default="voc07", help="11-point, or area")
    parser.add_argument("-worst", "--worst", type=int, default=10, metavar="N", help="images to list (10)")
    parser.set_defaults(run=compare_results)


def voc_eval(options: argparse.Namespace) -> int:
    """Score, print, and write what was asked for. 1 where a class has no result file."""
    from ..evaluate.padilla import write_padilla
    from ..evaluate.voc import as_json, format_table
    from ..evaluate.voc_eval import voc_eval as run

    done = run(
        options.results, devkit=options.devkit, data=options.data, year=options.year, image_set=options.image_set,
        names=options.names, metric=options.metric, iou=options.iou, padilla=options.padilla, images=options.images,
        program=options.program,
    )  # fmt: skip
    print(format_table(done.scores))
    for name, count in sorted(done.truths.unknown.items()):
        _say(f"objects of class {name!r} left out, since the names do not hold it: {count}")
    missing = done.detections.missing
    if missing:
        _say(f"result files that do not exist: {len(missing)}, the first {missing[0]}")
    if options.json:
        _write_json(options.json, as_json(done.scores))
    if options.to_padilla:
        write_padilla(done.detections, options.to_padilla)
    if options.plots:
        from ..evaluate.plots import draw_all

        draw_all(done.scores, done.truths, done.detections, options.plots, _say)
    return 1 if done.scores.absent else 0


def coco_eval(options: argparse.Namespace) -> int:
    """Score a COCO results JSON."""
    from ..evaluate.coco import coco_scores, format_coco

    scores = coco_scores(options.results, options.annotations)
    print(format_coco(scores))
    if options.json:
        _write_json(options.json, scores)
    return 0


def compare_results(options: argparse.Namespace) -> int:
    """1 where a class has no result file."""
    from ..evaluate.compare import compare_folders, format_comparison

    a, b, found = compare_folders(
        options.a, options.b, devkit=options.devkit, data=options.data, year=options.year,
        image_set=options.image_set, names=options.names, metric=options.metric,
    )  # fmt: skip
    print(f"A: {options.a}\nB: {options.b}\n")
    print(format_comparison(found, a, b, options.worst))
    for path in (*a.missing, *b.missing):
        _say(f"{path}: no such file")
    return 1 if a.missing or b.missing else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _write_json(path: str, content: object) -> None:
    from ..files import whole_file

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise ResultsError(f"{path}: cannot write: {error.strerror}") from None
