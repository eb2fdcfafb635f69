"""Images of a classifier's scores: bars of its classes, and the matrix of what it takes for what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from .plots import BLUE, INK, ORANGE, PALE, new_figure, save_figure

if TYPE_CHECKING:
    from .classes import ClassScores

MOST_BARS = 60  # of more classes the worst are shown
MOST_NAMED = 40  # of more classes a matrix has no room for their names
MOST_COUNTED = 20  # nor for the numbers in its cells


def draw_classes(scores: ClassScores, path: str | os.PathLike[str]) -> None:
    """A bar for each class, top-1 and top-k, the best on top, and top-1 of all as a line (PNG)."""
    rows = sorted(scores.rows(), key=lambda row: (row[2] / row[1], row[3] / row[1]))
    shown = rows[:MOST_BARS]
    figure = new_figure(7.5, 0.27 * len(shown) + 1.6)
    panel = figure.subplots()
    places = range(len(shown))
    if scores.top > 1:
        panel.barh(
            places, [row[3] / row[1] for row in shown], color="white", edgecolor=BLUE, height=0.72, linewidth=0.9
        )
    panel.barh(places, [row[2] / row[1] for row in shown], color=BLUE, height=0.72)
    for place, (_, images, right, *_) in zip(places, shown, strict=True):
        panel.text(1.02, place, f"{right / images:.3f} of {images:,}", va="center", fontsize=9, color=INK)
    panel.axvline(scores.top1, color=ORANGE, linewidth=1.6, linestyle="--")
    panel.set_yticks(places, [scores.names[row[0]] for row in shown], fontsize=9.5)
    panel.set(xlim=(0, 1), ylim=(-0.6, len(shown) - 0.4), xticks=np.arange(0, 1.01, 0.2))
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    part = f"the {len(shown)} worst of {len(rows)} classes" if len(shown) < len(rows) else f"{len(rows)} classes"
    outlined = f", outlined: within the top {scores.top}" if scores.top > 1 else ""
    figure.suptitle(f"{_headline(scores)}\n{part}, filled: top 1{outlined}, dashed: top 1 of all images", fontsize=11)
    save_figure(figure, path)


def draw_confusion(scores: ClassScores, path: str | os.PathLike[str]) -> None:
    """The matrix of truth (rows) and likeliest class (columns), each row in parts of its images (PNG)."""
    cells, present = scores.confusion(), scores.present
    count = len(present)
    parts = cells / np.maximum(cells.sum(1, keepdims=True), 1)
    side = min(max(0.42 * count + 2.2, 6.3), 14.0)
    figure = new_figure(side + 1, side)
    panel = figure.subplots()
    # The root of the part: one confusion in a hundred should be seen.
    drawn = panel.imshow(np.sqrt(parts), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if count <= MOST_NAMED:
        names = [scores.names[number] for number in present.tolist()]
        panel.set_xticks(range(count), names, rotation=90, fontsize=9)
        panel.set_yticks(range(count), names, fontsize=9)
    if count <= MOST_COUNTED:
        for row, column in zip(*np.nonzero(cells), strict=True):
            colour = "white" if parts[row, column] > 0.4 else INK
            panel.text(column, row, f"{cells[row, column]:,}", ha="center", va="center", fontsize=8.5, color=colour)
    counted = "" if count <= MOST_NAMED else ", by its place in confusion.csv from 0"
    panel.set_xlabel(f"likeliest class{counted}", fontsize=10)
    panel.set_ylabel(f"class{counted}", fontsize=10)
    panel.tick_params(color=PALE)
    bar = figure.colorbar(drawn, ax=panel, shrink=0.7, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]))
    bar.ax.set_yticklabels(["0", ".01", ".1", ".25", ".5", "1"])
    bar.set_label("part of the row's images", fontsize=9)
    figure.suptitle(f"{_headline(scores)}; {count} classes that occur", fontsize=11)
    save_figure(figure, path)


def _headline(scores: ClassScores) -> str:
    more = f", top {scores.top}: {scores.topk:.4f}" if scores.top > 1 else ""
    without = int((scores.truth < 0).sum())
    left = f", {without:,} of them without a class" if without else ""
    return f"Top 1: {scores.top1:.4f}{more} of {len(scores.truth):,} images{left}"
