"""The verbs ``report`` and ``compare``: a page of a training, and trainings side by side."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_device, bar, chosen_device, count, fraction, positive


def add(verbs: Any) -> None:
    """Make the verbs known to the command line."""
    parser = verbs.add_parser(
        "report",
        help="make one page about a training run: data, loss, scores, detections beside truth",
        description="Scores the weights of a training run on its valid list, draws their detections, and writes all of "
        "it on one page with the commands that made it. Run it in the folder in which training was started.",
        epilog="example: %(prog)s cells/backup",
        allow_abbrev=False,
    )
    parser.add_argument("training", metavar="RUN", help="the folder that -backup or backup= named, or FOLDER/NAME")
    parser.add_argument("-out", "--out", metavar="FOLDER", help="folder of the page (default RUN/NAME.report)")
    parser.add_argument("-weights", "--weights", metavar="WEIGHTS", help="to score (default: those at the end)")
    parser.add_argument(
        "-devkit", "--devkit", metavar="VOCdevkit", help="score against VOC annotations (default: label files)"
    )
    parser.add_argument("-year", "--year", default="2007", help="year of the devkit (2007)")
    parser.add_argument("-image-set", "--image-set", metavar="SET", default="test", help="its image set (test)")
    parser.add_argument("-metric", "--metric", choices=("voc07", "area"), default="voc07", help="11-point, or area")
    parser.add_argument(
        "-thresh", "--thresh", type=fraction, help="lowest probability drawn (default: as detector test)"
    )
    parser.add_argument("-images", "--images", type=count, default=8, metavar="N", help="images to draw (default 8)")
    parser.add_argument(
        "-beside", "--beside", metavar="FILE", action="append", default=[],
        help="other scores, from voc_eval -json, to show as one more column",
    )  # fmt: skip
    parser.add_argument("-batch", "--batch", type=positive, default=8, help="most images per forward pass (default 8)")
    add_device(parser, "where the network runs: cuda (default where there is one), cpu, cuda:1 ...")
    parser.set_defaults(run=report)

    parser = verbs.add_parser(
        "compare",
        help="show training runs side by side: settings that differ, losses, scores",
        description="Prints what differs between training runs, their figures, and the scores in their reports, and "
        "writes a page with their curves.",
        epilog="example: %(prog)s runs/a runs/b",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of training runs, or FOLDER/NAME")
    parser.add_argument("-out", "--out", metavar="FILE.html", default="compare.html", help="(default %(default)s)")
    parser.set_defaults(run=compare)


def report(options: argparse.Namespace) -> int:
    from ..report import report as run

    done = run(
        options.training, out=options.out, weights=options.weights, devkit=options.devkit, year=options.year,
        image_set=options.image_set, metric=options.metric, thresh=options.thresh, images=options.images,
        batch=options.batch, device=chosen_device(options), beside=options.beside, progress=bar,
    )  # fmt: skip
    for value, name in done.tiles:
        print(f"{value} {name}")
    print(f"open {done.page}")
    return 0


def compare(options: argparse.Namespace) -> int:
    from ..report import compare as run

    print("\n".join(run(options.runs, options.out).lines()))
    print(f"\nopen {options.out}")
    return 0
