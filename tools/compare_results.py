#!/usr/bin/env python3
"""Compare two folders of result files: AP side by side, matched boxes, greatest differences, worst images.

example: python tools/compare_results.py results.darknet results.port --devkit VOCdevkit
"""

from __future__ import annotations

import argparse
import sys

from darknet_compat.cfg import read_names
from darknet_compat.errors import DarknetError
from darknet_compat.evaluate.annotations import read_labels, read_voc
from darknet_compat.evaluate.compare import compare, format_comparison
from darknet_compat.evaluate.results import comp4_ids, read_comp4
from darknet_compat.stock import find_stock


def main() -> int:
    """Read both folders, compare, print. 1 where something cannot be read or a class has no file."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog=__doc__.strip().split("\n")[-1], allow_abbrev=False
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
    options = parser.parse_args()
    try:
        given = read_names(find_stock(options.names or "data/voc.names")) if options.names or not options.data else None
        if options.devkit:
            truths = read_voc(options.devkit, options.year, options.image_set, given)
        elif options.data:
            truths = read_labels(options.data, given)
        else:
            truths = None
        names = truths.names if truths else given
        images = truths.images if truths else sorted({*comp4_ids(options.a, names), *comp4_ids(options.b, names)})
        a, b = read_comp4(options.a, names, images), read_comp4(options.b, names, images)
    except DarknetError as error:
        print(f"compare_results: {error}", file=sys.stderr)
        return 1
    print(f"A: {options.a}\nB: {options.b}\n")
    print(format_comparison(compare(a, b, truths, options.metric), a, b, options.worst))
    for path in (*a.missing, *b.missing):
        print(f"compare_results: {path}: no such file", file=sys.stderr)
    return 1 if a.missing or b.missing else 0


if __name__ == "__main__":
    sys.exit(main())
