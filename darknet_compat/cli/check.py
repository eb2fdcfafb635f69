"""The verb ``check``: a data set, looked through before it is trained on."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_label_rule, bar, positive, table


def add(verbs: Any) -> None:
    """Make the verb known to the command line."""
    parser = verbs.add_parser(
        "check",
        help="look for mistakes in a data set before training",
        description="Decodes every image and reads every label file of the train and the valid list. Prints the "
        "objects of each class, their sizes at the network's input, what is wrong, and what to do. Exits with 1 for an "
        "error.",
        epilog="example: %(prog)s cells/cells.data -cfg cells/cells.cfg -show cells.png",
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", help=".data file: train=, valid=, names=")
    parser.add_argument("-cfg", "--cfg", metavar="CFG", help="the network: its input, its heads, its program")
    parser.add_argument("-size", "--size", type=positive, default=416, help="input size without CFG (default 416)")
    add_label_rule(parser)
    parser.add_argument("-json", "--json", metavar="FILE", help="write all results as JSON")
    parser.add_argument("-show", "--show", metavar="FILE.png", help="draw counts, sizes and places")
    parser.set_defaults(run=check)


def check(options: argparse.Namespace) -> int:
    """1 where something is an error."""
    from ..check import check as run
    from ..check import draw, write_json
    from ..image_files import check_file

    for file in (options.json, options.show):
        if file:
            check_file(file)
    found = run(options.data, options.cfg, size=options.size, program=options.program, progress=bar)
    counts = [part.counts(len(found.names)).tolist() for part in found.parts]
    rows = [
        ("images", [len(part.images) for part in found.parts]),
        ("without objects", [part.empty for part in found.parts]),
        *((name, [count[index] for count in counts]) for index, name in enumerate(found.names)),
    ]
    print("\n".join(table([part.name for part in found.parts], rows)))
    sizes = ", ".join(f"{text}: {count}" for text, count in found.size_counts())
    print(f"shorter side in pixels at {found.width} x {found.height}: {sizes}")
    for problem in found.problems:
        print(problem)
    if not found.problems:
        print("nothing is wrong")
    if options.json:
        write_json(found, options.json)
    if options.show:
        draw(found, options.show)
    return 0 if found.sound else 1
