"""Anchors from labels: k-means with the distance 1 - IOU, as the YOLOv2 paper has it.

The boxes are compared as if they had one centre, so only their width and height count, and as the network sees them:
in pixels of its input. Works on numpy alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cfg import read_data, read_list
from .errors import DataError
from .files import whole_file
from .images import image_size, letterbox_size
from .labels import SMALLEST, read_all_labels
from .stock import find_stock

STARTS = 10
ROUNDS = 300
SHOWN = 20_000  # boxes in the image; more would only darken it


@dataclass(frozen=True)
class Anchors:
    """What :func:`calc_anchors` found."""

    anchors: NDArray[np.float64]
    """(k, 2) widths and heights in pixels of the network's input, by size."""
    average: float
    """The mean IOU of the boxes with their nearest anchors."""
    boxes: NDArray[np.float64]
    """(n, 2) the boxes' sizes in the same pixels."""
    images: int
    """How many images they are of."""


def calc_anchors(
    data: str | os.PathLike[str],
    *,
    num_of_clusters: int = 5,
    width: int = 416,
    height: int = 416,
    letter_box: bool = True,
    program: str = "pjreddie",
) -> Anchors:
    """Anchors for the boxes of the train list of a .data file (AlexeyAB's ``src/detector.c, calc_anchors``).

    His program knows stretched images only; so it does here without ``letter_box``. ``program`` says where label files
    stand: :func:`.labels.label_path`. Raises :class:`DarknetError` with
    file and line.
    """
    for name, value in (("num_of_clusters", num_of_clusters), ("width", width), ("height", height)):
        if value < 1:
            raise DataError(f"-{name} is {value}; expected 1 or more")
    images = read_list(read_data(find_stock(os.fspath(data))).require("train"))
    boxes = network_boxes(images, width, height, letter_box, program)
    anchors, average = kmeans(boxes, num_of_clusters)
    return Anchors(anchors, average, boxes, len(images))


def network_boxes(
    images: Sequence[str], width: int, height: int, letter_box: bool = True, program: str = "pjreddie"
) -> NDArray[np.float64]:
    """Sizes (n, 2), in pixels of a network's input of ``width`` x ``height``, of the boxes labelled in ``images``.

    With ``letter_box`` an image keeps its aspect, as in pjreddie's program: boxes of a wide one lose height. Without,
    it is stretched to the input, as in AlexeyAB's. The images are opened for their sizes only.

    Raises DataError where a label line is bad or no image has a box, and ImageError where an image has no size.
    Label files that are missing are one warning.
    """
    labels = read_all_labels(images, classes=None, program=program)
    if labels.bad:
        raise DataError(f"{labels.bad_lines()}; correct them")
    if not len(labels.objects):
        first = f", the first is {labels.missing[0]}" if labels.missing else ""
        raise DataError(
            f"no box in the labels of {len(images)} images ({len(labels.missing)} label files are missing{first}); "
            "expected a text file beside each image's folder: write them with darknet-compat voc_label"
        )
    labels.warn_of_missing()
    return network_sizes(labels.objects[:, 3:], np.diff(labels.starts), images, width, height, letter_box)


def network_sizes(
    boxes: NDArray[np.float64], counts: Sequence[int] | NDArray[Any], images: Sequence[str], width: int, height: int,
    letter_box: bool = True,
) -> NDArray[np.float64]:  # fmt: skip
    """As :func:`network_boxes` for ``boxes`` (n, 2), widths and heights relative to their images, of which the first
    image has so many as the first of ``counts`` says, and so on.
    """
    sizes = seen_sizes(boxes, counts, map(image_size, images), width, height, letter_box)
    # Training drops smaller boxes too.
    large: np.ndarray = sizes[(sizes >= np.multiply((width, height), SMALLEST)).all(1)]
    return large


def seen_sizes(
    boxes: NDArray[np.float64], counts: Sequence[int] | NDArray[Any], images: Iterable[tuple[int, int]], width: int,
    height: int, letter_box: bool = True,
) -> NDArray[np.float64]:  # fmt: skip
    """The sizes of all ``boxes`` in pixels of the network's input, (n, 2).

    ``images`` are widths and heights, which without ``letter_box`` are not looked at.
    """
    whole = (width, height)
    taken = [letterbox_size(*image, *whole) for image in images] if letter_box else [whole] * len(counts)
    sizes: np.ndarray = boxes * np.repeat(np.reshape(taken, (-1, 2)), counts, axis=0)
    return sizes


def iou(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IOU of each size in ``boxes`` (n, 2) with each in ``anchors`` (k, 2) around one centre; (n, k)."""
    shared = np.minimum(boxes[:, None, 0], anchors[:, 0]) * np.minimum(boxes[:, None, 1], anchors[:, 1])
    overlap: np.ndarray = shared / (boxes.prod(1)[:, None] + anchors.prod(1) - shared)
    return overlap


def spread(boxes: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """First anchors: boxes drawn with a chance that grows with the squared distance from those drawn before."""
    anchors = boxes[random.integers(len(boxes), size=1)]
    nearest = np.ones(len(boxes))
    while len(anchors) < k:
        nearest = np.minimum(nearest, 1 - iou(boxes, anchors[-1:])[:, 0])
        chance = nearest**2
        anchors = np.vstack([anchors, boxes[random.choice(len(boxes), p=chance / chance.sum())]])
    return anchors


def settle(boxes: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, float]:
    """Move each anchor to the mean of the boxes nearest to it, until none changes sides; with the average IOU.

    The mean is not the best point for this distance, so the sides can change in a circle: there is a last round.
    """
    overlap = iou(boxes, anchors)
    for _ in range(ROUNDS):
        sides = overlap.argmax(1)
        count = np.bincount(sides, minlength=len(anchors))
        sums = [np.bincount(sides, boxes[:, axis], len(anchors)) for axis in (0, 1)]
        means = np.stack(sums, 1) / np.maximum(count, 1)[:, None]
        anchors = np.where(count[:, None] > 0, means, anchors)
        overlap = iou(boxes, anchors)
        if np.array_equal(overlap.argmax(1), sides):
            break
    return anchors, float(overlap.max(1).mean())


def kmeans(boxes: np.ndarray, k: int, seed: int = 0) -> tuple[np.ndarray, float]:
    """``k`` anchors for ``boxes`` (n, 2), sorted by area, in the boxes' unit, and their average IOU (0..1).

    The best of several starts; one seed gives one result. Raises DataError with fewer than ``k`` different boxes.
    """
    different = len(np.unique(boxes, axis=0))
    if not 1 <= k <= different:
        raise DataError(f"{k} clusters asked for, but the labels hold boxes of {different} different sizes")
    random = np.random.default_rng(seed)
    anchors, average = max((settle(boxes, spread(boxes, k, random)) for _ in range(STARTS)), key=lambda run: run[1])
    return anchors[anchors.prod(1).argsort(kind="stable")], average


def cfg_line(anchors: np.ndarray, stride: int | None) -> str:
    """The ``anchors = `` line of a cfg for ``anchors`` (k, 2) in pixels of the network's input.

    In cells of ``stride`` pixels, as [region] has them, or in whole pixels, as [yolo] has them, with None.
    """
    if stride is None:
        return "anchors = " + ", ".join(f"{w:.0f},{h:.0f}" for w, h in anchors)
    return "anchors = " + ", ".join(f"{w / stride:.4f},{h / stride:.4f}" for w, h in anchors)


def draw(path: Path, boxes: np.ndarray, anchors: np.ndarray, average: float) -> None:
    """Draw ``boxes`` (n, 2), coloured by their nearest anchor, and ``anchors`` (k, 2), in pixels, to a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), dpi=120, layout="constrained")
    axes = figure.subplots()
    some = boxes if len(boxes) <= SHOWN else boxes[np.random.default_rng(0).choice(len(boxes), SHOWN, replace=False)]
    axes.scatter(some[:, 0], some[:, 1], c=iou(some, anchors).argmax(1), cmap="tab10", s=6, alpha=0.4, linewidths=0)
    axes.scatter(
        anchors[:, 0], anchors[:, 1], marker="X", s=120, c="black", edgecolors="white", linewidths=1.2, zorder=3
    )
    for w, h in anchors:
        label = axes.annotate(f"{w:.0f} x {h:.0f}", (w, h), (8, 8), textcoords="offset points", weight="bold", zorder=4)
        label.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5})
    axes.set(
        xlim=(0, None),
        ylim=(0, None),
        xlabel="width, pixels of the network's input",
        ylabel="height",
        title=f"{len(boxes)} boxes, {len(anchors)} anchors, average IOU {100 * average:.1f} %",
    )
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    with whole_file(path) as file:
        figure.savefig(file, format="png")
