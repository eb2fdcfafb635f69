"""The verb ``export``: a network into other formats, and back into Darknet's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .arguments import add_numerics


def add(verbs: Any) -> None:
    """Make the verb known to the command line."""
    parser = verbs.add_parser(
        "export",
        help="write a network as .onnx, .pt2 or .safetensors; and the last two as .weights again",
        description="Write a network in the format that OUT's suffix names: .onnx for OpenCV, ONNX Runtime and "
        "OpenVINO; .pt or .pt2 for torch.export; .safetensors; .weights or .cfg for Darknet. WEIGHTS is a .weights "
        "file with its CFG, or an exported .pt, .pt2 or .safetensors file alone: these hold the cfg.",
        epilog="examples: %(prog)s cfg/yolov2-voc.cfg yolov2-voc.weights yolov2-voc.onnx -nms; "
        "%(prog)s yolov2-voc.safetensors yolov2-voc.weights",
        allow_abbrev=False,
    )
    parser.add_argument("cfg", metavar="CFG", nargs="?")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument(
        "-dynamic", "--dynamic", action="store_true", help=".onnx: any batch, height and width; .pt2: any batch"
    )
    parser.add_argument(
        "-nms", "--nms", action="store_true", help=".onnx: add non-maximum suppression (over .005, IOU up to .45)"
    )
    add_numerics(parser)
    parser.set_defaults(run=export)


def export(options: argparse.Namespace) -> int:
    from ..errors import ExportError
    from ..export import export as write
    from ..export import read_export
    from ..weights import load_network

    exported = Path(options.weights).suffix.lower() in (".pt", ".pt2", ".safetensors")
    if exported != (options.cfg is None):
        expected = "WEIGHTS OUT, since that file holds its cfg" if exported else "CFG WEIGHTS OUT"
        raise ExportError(f"{options.weights}: expected {expected}")
    if exported:
        network = read_export(options.weights)
    else:
        network = load_network(options.cfg, options.weights, numerics=options.numerics, program=options.program)
        report = network.report
        print(report, file=sys.stderr)
        if report and report.kept:
            raise ExportError(
                f"{options.weights}: the file ends before layer {report.kept[0]}; expected the numbers of all "
                "layers, since the others would be random"
            )
    write(network, options.out, dynamic=options.dynamic, nms=options.nms)
    print(f"{options.out}: {Path(options.out).stat().st_size:,} bytes")
    return 0
