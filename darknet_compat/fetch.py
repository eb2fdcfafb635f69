"""What others have published: weights of Darknet's author, and the images of PASCAL VOC."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .download import DownloadError, download
from .errors import WeightsError
from .stock import find_stock

WEIGHTS_ADDRESSES = ("https://data.pjreddie.com/files", "https://pjreddie.com/media/files")
VOC_ADDRESSES = ("http://host.robots.ox.ac.uk/pascal/VOC/voc{year}", "https://data.pjreddie.com/files")
YEARS = "2007", "2012"


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


@dataclass(frozen=True)
class Archive:
    """A tar file of the VOC challenge, with its size in bytes and its md5 sum."""

    file: str
    year: int
    size: int
    md5: str


ARCHIVES = (
    Archive("VOCtrainval_06-Nov-2007.tar", 2007, 460_032_000, "c52e279531787c972589f7e41ab4ae64"),
    Archive("VOCtest_06-Nov-2007.tar", 2007, 451_020_800, "b6e924de25625d8de591ea690078ad9f"),
    Archive("VOCtrainval_11-May-2012.tar", 2012, 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd"),
)


def published_weights() -> list[str]:
    """A line for each file that :func:`get_weights` knows: its name, size and what it is."""
    sizes = {name: f"{one.size / 1e6:.0f} MB" if one.size else "" for name, one in PUBLISHED.items()}
    return [f"{name:22} {sizes[name]:>7}  {one.what} (cfg/{one.cfg}.cfg)" for name, one in PUBLISHED.items()]


def get_weights(name: str, dest: str | os.PathLike[str] = "weights", mirror: str | None = None) -> str:
    """Fetch a published file into the folder ``dest``, and check it against its cfg; what it holds comes back.

    ``name`` is one of :data:`PUBLISHED`, ``mirror`` another place that has the files by the same names.

    Raises :class:`DownloadError` and :class:`WeightsError` in one line.
    """
    one = PUBLISHED[name]
    addresses = (mirror,) if mirror else WEIGHTS_ADDRESSES
    path = download([f"{address}/{one.file}" for address in addresses], Path(dest) / one.file, one.size)
    # torch takes a second to load: not before there is something to check.
    from .weights import load_network

    network = load_network(find_stock(f"cfg/{one.cfg}.cfg"), path)
    filled = [layer.index for layer in network.layers if layer.numbers() and layer.index < (one.layers or 1 << 30)]
    if network.report is None or network.report.loaded != filled:
        loaded = len(network.report.loaded) if network.report else 0
        raise WeightsError(
            f"{path}: the numbers fill {loaded} layers of {one.cfg}.cfg; expected {len(filled)}; "
            "delete the file and run the same command again"
        )
    return str(network.report)


def get_voc(dest: str | os.PathLike[str], years: Sequence[str] = YEARS, mirror: str | None = None) -> Path:
    """Fetch PASCAL VOC (2.9 GB), check the archives, and unpack them to ``dest``/VOCdevkit, which comes back.

    ``mirror`` is another place that has the archives by the same names. Raises :class:`DownloadError` in one line.
    """
    for archive in ARCHIVES:
        if str(archive.year) in years:
            _unpack(archive, Path(dest), (mirror,) if mirror else VOC_ADDRESSES)
    return Path(dest) / "VOCdevkit"


def _unpack(archive: Archive, dest: Path, addresses: tuple[str, ...]) -> None:
    urls = [f"{address.format(year=archive.year)}/{archive.file}" for address in addresses]
    path = download(urls, dest / archive.file, archive.size, archive.md5)
    try:
        with tarfile.open(path) as tar:
            # "data" refuses members that would land outside the folder; Pythons before 3.10.12 do not have it.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tqdm(tar, desc=f"unpacking {archive.file}", unit=" files", disable=None):
                tar.extract(member, dest)
    except (tarfile.TarError, OSError) as error:
        raise DownloadError(f"{path}: cannot be unpacked: {error}") from None
