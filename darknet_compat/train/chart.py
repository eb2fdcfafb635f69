"""The image of a training: loss, learning rate and scores over the batches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ..files import whole_file

POINTS = 3000  # of a curve; more do not show in 1000 pixels
INK, GREY, BLUE, GREEN, ORANGE, LIME = "#1c2430", "#9aa5b1", "#0b5cad", "#18794e", "#b45309", "#65a30d"


def draw_chart(
    path: str | os.PathLike[str], columns: Mapping[str, Sequence[float]], title: str, scores: Mapping[str, str]
) -> None:
    """Write a PNG of ``columns``: batch, loss, avg_loss, rate and ``scores``, one value a batch.

    ``scores``: columns of one or two scores, NaN where none was measured, and what they are called. The loss axis is
    logarithmic. Light and opaque, to be read in print and on a dark screen alike.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    batch, loss, avg, rate = (np.asarray(columns[name], float) for name in ("batch", "loss", "avg_loss", "rate"))
    shown = np.unique(np.linspace(0, len(batch) - 1, min(POINTS, len(batch))).astype(int))
    marker = "." if len(batch) == 1 else None  # a line of one point cannot be seen

    figure = Figure(figsize=(9, 6), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top, bottom = axes
    top.plot(batch[shown], loss[shown], color=GREY, marker=marker, linewidth=0.8, label="loss")
    now = f"average, now {avg[-1]:.3g}"
    top.plot(batch[shown], avg[shown], color=BLUE, marker=marker, linewidth=2, label=now)
    top.set_yscale("log")
    top.set_ylabel("loss per image")
    top.set_title(f"{title}: batch {int(batch[-1])}", color=INK, fontsize=13)
    measured = [np.flatnonzero(~np.isnan(np.asarray(columns[name], float))) for name in scores]
    if any(map(len, measured)):
        right = top.twinx()
        for (name, called), scored, colour in zip(scores.items(), measured, (GREEN, LIME), strict=False):
            score = np.asarray(columns[name], float)[scored]
            right.plot(
                batch[scored], 100 * score, color=colour, marker="o", linewidth=2,
                label=f"{called}, now {100 * score[-1]:.1f} %, best {100 * score.max():.1f} %",
            )  # fmt: skip
        right.set_ylim(0, 100)
        right.set_ylabel(f"{', '.join(scores.values())}, %", color=GREEN)
        right.tick_params(colors=GREEN)
    # Above the curves, which end anywhere.
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    bottom.plot(batch[shown], rate[shown], color=ORANGE, marker=marker, linewidth=2)
    bottom.set_ylabel("rate")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("batch")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        axis.grid(True, which="major", color="#dfe4ea", linewidth=0.8)
        axis.tick_params(colors=INK)
        axis.set_axisbelow(True)
        axis.margins(x=0.01)
    top.yaxis.set_major_formatter(LogFormatter())
    top.yaxis.set_minor_formatter(LogFormatter())
    with whole_file(path) as file:
        figure.savefig(file, format="png")
