"""The verbs ``report`` and ``compare``: a page of a training, and trainings side by side."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_device, bar, chosen_device, count, fraction, positive


def add(verbs: Any) -> None:
    """Make the verbs known to the command line."""
    parser = verbs.add_parser(
        "report",
        help="one page of a training: data, loss, scores, detections beside truth",
        description="Scores the weights of a training on its valid list, draws what they find, and writes it all on "
        "one page with the commands that made it. Type it in the folder in which the training was started.",
        epilog="example: %(prog)s cells/backup",
        allow_abbrev=False,
    )
    parser.add_argument("training", metavar="RUN", help="the folder that -backup or backup= named, or FOLDER/NAME")
    parser.add_argument("-out", "--out", metavar="FOLDER", help="for the page and its files (default RUN/NAME.report)")
    parser.add_argument("-weights", "--weights", metavar="WEIGHTS", help="(default: those of the training's end)")
    parser.add_argument(
        "-devkit", "--devkit", metavar="VOCdevkit", help="score against VOC annotations (default: label files)"
    )
    parser.add_argument("-year", "--year", default="2007", help="year of the devkit (2007)")
    parser.add_argument("-image-set", "--image-set", metavar="SET", default="test", help="its image set (test)")
    parser.add_argument("-metric", "--metric", choices=("voc07", "area"), default="voc07", help="11-point, or area")
    parser.add_argument("-thresh", "--thresh", type=fraction, help="draw from here on (default: as detector test)")
    parser.add_argument("-images", "--images", type=count, default=8, metavar="N", help="images to draw (default 8)")
    parser.add_argument(
        "-beside", "--beside", metavar="FILE", action="append", default=[],
        help="what voc_eval -json wrote of something else; a column for it",
    )  # fmt: skip
    parser.add_argument("-batch", "--batch", type=positive, default=8, help="most images per forward pass (default 8)")
    add_device(parser, "where the network runs: cuda (default where there is one), cpu, cuda:1 ...")
    parser.set_defaults(run=report)

    parser = verbs.add_parser(
        "compare",
        help="trainings side by side: settings that differ, losses, scores",
        description="Prints what differs between trainings, their figures, and the scores that their reports have, and "
        "writes a page with their curves.",
        epilog="example: %(prog)s runs/a runs/b",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of trainings, or FOLDER/NAME")
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
