"""Verbs about a network itself: ``net`` prints its table, ``partial`` cuts its .weights file."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .arguments import add_program


def add(verbs: Any) -> None:
    """Make the verbs known to the command line."""
    parser = verbs.add_parser(
        "net",
        help="print a network's layers: shapes, BFLOPs, parameters, memory, receptive field",
        description="Print the table that Darknet prints, and per layer: parameters, MiB of output per image, and "
        "the width of the receptive field in pixels.",
        epilog="example: %(prog)s cfg/yolov2-voc.cfg",
        allow_abbrev=False,
    )
    parser.add_argument("cfg", metavar="CFG")
    add_program(parser)
    parser.set_defaults(run=net)

    parser = verbs.add_parser(
        "partial",
        help="cut a .weights file after its first layers",
        description="Write the first LAYERS layers of WEIGHTS to OUT, with 0 images seen, as darknet partial does.",
        epilog="example: %(prog)s cfg/darknet19_448.cfg darknet19_448.weights darknet19_448.conv.23 23",
        allow_abbrev=False,
    )
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("layers", metavar="LAYERS", type=int)
    add_program(parser)
    parser.set_defaults(run=partial)


def net(options: argparse.Namespace) -> int:
    from ..cfg import read_cfg
    from ..network import Network
    from ..stock import find_stock

    network = Network(read_cfg(find_stock(options.cfg)), device="meta", program=options.program)
    print(f"{network.table()}\n{network.follows}")
    return 0


def partial(options: argparse.Namespace) -> int:
    from ..weights import partial as run

    report = run(options.cfg, options.weights, options.out, options.layers, program=options.program)
    print(report, file=sys.stderr)
    print(f"{options.out}: layers 0 to {options.layers - 1}", file=sys.stderr)
    return 0
