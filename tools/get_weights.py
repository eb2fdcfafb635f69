#!/usr/bin/env python3
"""Fetch published .weights files, and check each against its cfg.

python tools/get_weights.py                                   # lists them, fetches nothing
python tools/get_weights.py yolov2-tiny-voc darknet19_448.conv.23
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from darknet_compat.download import download
from darknet_compat.errors import DarknetError, WeightsError

ADDRESSES = ("https://data.pjreddie.com/files", "https://pjreddie.com/media/files")


@dataclass(frozen=True)
class Published:
    """A file that Darknet's author published."""

    file: str
    cfg: str
    size: int | None
    """Bytes, where they are known for certain; the check against the cfg finds a wrong length all the same."""
    what: str
    layers: int | None = None
    """How many layers of the cfg the file holds, where not all."""


PUBLISHED = {
    "yolov2-voc": Published("yolov2-voc.weights", "yolov2-voc", 202_704_260, "YOLOv2, 20 classes of VOC"),
    "yolov2-tiny-voc": Published("yolov2-tiny-voc.weights", "yolov2-tiny-voc", 63_471_556, "Tiny YOLOv2, VOC"),
    "yolov2": Published("yolov2.weights", "yolov2", 203_934_260, "YOLOv2, 80 classes of COCO"),
    "yolov2-tiny": Published("yolov2-tiny.weights", "yolov2-tiny", 44_948_600, "Tiny YOLOv2, COCO"),
    "darknet19_448.conv.23": Published(
        "darknet19_448.conv.23", "darknet19_448", 79_327_120, "start of a YOLOv2 training", layers=23
    ),
    "yolov3": Published("yolov3.weights", "yolov3", 248_007_048, "YOLOv3, COCO"),
    "yolov3-spp": Published("yolov3-spp.weights", "yolov3-spp", 252_209_544, "YOLOv3-SPP, COCO"),
    "yolov3-tiny": Published("yolov3-tiny.weights", "yolov3-tiny", 35_434_956, "Tiny YOLOv3, COCO"),
    "darknet53.conv.74": Published(
        "darknet53.conv.74", "darknet53", 162_482_580, "start of a YOLOv3 training", layers=74
    ),
    "darknet19": Published("darknet19.weights", "darknet19", None, "ImageNet classifier"),
    "darknet19_448": Published("darknet19_448.weights", "darknet19_448", None, "the same at 448 x 448"),
    "darknet": Published("darknet.weights", "darknet", None, "Darknet reference classifier"),
    "tiny": Published("tiny.weights", "tiny", None, "Tiny Darknet classifier"),
    "resnet18": Published("resnet18.weights", "resnet18", None, "ImageNet classifier"),
    "resnet34": Published("resnet34.weights", "resnet34", None, "ImageNet classifier"),
    "resnet50": Published("resnet50.weights", "resnet50", None, "ImageNet classifier"),
    "resnet101": Published("resnet101.weights", "resnet101", None, "ImageNet classifier"),
    "resnet152": Published("resnet152.weights", "resnet152", None, "ImageNet classifier"),
    "densenet201": Published("densenet201.weights", "densenet201", None, "ImageNet classifier"),
    "darknet53": Published("darknet53.weights", "darknet53", None, "ImageNet classifier"),
    "extraction": Published("extraction.weights", "extraction", None, "ImageNet classifier"),
    "alexnet": Published("alexnet.weights", "alexnet", None, "ImageNet classifier"),
    "vgg-16": Published("vgg-16.weights", "vgg-16", None, "ImageNet classifier"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; none: list them")
    parser.add_argument("--dest", type=Path, default=Path("weights"), help="folder (default %(default)s)")
    parser.add_argument("--mirror", metavar="URL", help="another place that holds the files by the same names")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in PUBLISHED]:
        parser.error(f"{unknown[0]}: no published file of that name here; choose from {', '.join(PUBLISHED)}")
    if not args.names:
        print(listing())
    try:
        for name in args.names:
            print(get(PUBLISHED[name], args.dest, (args.mirror,) if args.mirror else ADDRESSES))
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def listing() -> str:
    """A line for each file."""
    sizes = {name: f"{one.size / 1e6:.0f} MB" if one.size else "" for name, one in PUBLISHED.items()}
    return "\n".join(f"{name:22} {sizes[name]:>7}  {one.what} (cfg/{one.cfg}.cfg)" for name, one in PUBLISHED.items())


def get(one: Published, dest: Path, addresses: tuple[str, ...]) -> str:
    """Fetch and check one file; the line to print comes back."""
    path = download([f"{address}/{one.file}" for address in addresses], dest / one.file, one.size)
    # torch takes a second to load: not before there is something to check.
    from darknet_compat import load_network
    from darknet_compat.stock import find_stock

    network = load_network(find_stock(f"cfg/{one.cfg}.cfg"), path)
    filled = [layer.index for layer in network.layers if layer.numbers() and layer.index < (one.layers or 1 << 30)]
    if network.report.loaded != filled:
        raise WeightsError(
            f"{path}: the numbers fill {len(network.report.loaded)} layers of {one.cfg}.cfg; expected {len(filled)}; "
            "delete the file and run the same command again"
        )
    return str(network.report)


if __name__ == "__main__":
    sys.exit(main())
