"""Images that explain a table of APs: curves, bars, a contact sheet. matplotlib is loaded when one is drawn.

All have an opaque white ground and dark ink, so that they read the same in print and on a dark screen;
what colour says, a line style, a place or a word says too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DarknetError, ResultsError
from ..files import whole_file
from .annotations import Truths
from .results import Detections
from .voc import METRIC_WORDS, Scores, pixel_iou

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE, BLUE, GREEN, ORANGE = "#1a1a1a", "#8c8c8c", "#1f5fa8", "#0b7a4b", "#c4500a"
ACROSS, ROWS = 6, 2  # tiles of each half of the contact sheet


@dataclass(frozen=True)
class Tile:
    """One crop of the contact sheet. Boxes are corners in pixels, the first pixel is 1; None: there is none."""

    image: int
    caption: str
    truth: NDArray[np.float64] | None
    detection: NDArray[np.float64] | None
    focus: NDArray[np.float64]  # what the crop is around


def draw_curves(scores: Scores, path: str | os.PathLike[str]) -> None:
    """Precision over recall of every class, one small panel each, on one page (PNG)."""
    columns = min(5, len(scores.classes)) if len(scores.classes) <= 30 else 10
    rows = math.ceil(len(scores.classes) / columns)
    figure = new_figure(max(2.1 * columns, 6.3), 2.1 * rows + 0.9)  # 6.3: the headline must fit
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, one in zip(panels.flat, scores.classes, strict=False):
        if one.ap is None:
            why = "no result file" if one.detections is None else "no truths"
            panel.text(0.5, 0.5, why, ha="center", va="center", color=INK, fontsize=9)
        else:
            envelope = np.maximum.accumulate(one.precision[::-1])[::-1]
            recall, envelope = np.append(0.0, one.recall), np.append(envelope[:1], envelope)
            panel.plot(one.recall, one.precision, color=PALE, linewidth=0.7)
            panel.plot(recall[: len(envelope)], envelope, color=BLUE, linewidth=1.6)
            panel.fill_between(recall[: len(envelope)], envelope, color=BLUE, alpha=0.15, linewidth=0, step="pre")
        panel.set_title(one.name if one.ap is None else f"{one.name}  {one.ap:.4f}", fontsize=10, pad=4)
        panel.set(xlim=(0, 1), ylim=(0, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        panel.set_xticklabels(["0", ".5", "1"])
        panel.set_yticklabels(["0", ".5", "1"])
        panel.grid(color="#dddddd", linewidth=0.6)
    # The last row may be short: a column's numbers stand below its lowest panel.
    for panel in panels.flat[max(len(scores.classes) - columns, 0) : len(scores.classes)]:
        panel.tick_params(labelbottom=True)
    for panel in panels.flat[len(scores.classes) :]:
        panel.set_visible(False)
    figure.suptitle(_headline("Precision over recall", scores, columns > 3), fontsize=12)
    figure.supxlabel("recall · thin grey: precision as counted · thick blue: the greatest from there on", fontsize=10)
    figure.supylabel("precision", fontsize=10)
    save_figure(figure, path)


def draw_bars(scores: Scores, path: str | os.PathLike[str]) -> None:
    """A bar per class, the best on top, and the mean as a line (PNG)."""
    ordered = sorted(scores.classes, key=lambda one: -1.0 if one.ap is None else one.ap)
    figure = new_figure(7.5, 0.27 * len(ordered) + 1.3)
    panel = figure.subplots()
    places = range(len(ordered))
    panel.barh(places, [one.ap or 0.0 for one in ordered], color=BLUE, height=0.72)
    for place, one in zip(places, ordered, strict=True):
        if one.ap is None:
            text = "no result file" if one.detections is None else "no truths"
        else:
            text = f"{one.ap:.4f}"
        # In a column of their own: beside the bars the line of the mean would cross them.
        panel.text(1.02, place, text, va="center", fontsize=9.5, color=INK)
    if not math.isnan(scores.mean):
        panel.axvline(scores.mean, color=ORANGE, linewidth=1.6, linestyle="--")
        panel.text(scores.mean, len(ordered) - 0.35, "mean", ha="center", va="bottom", fontsize=9, color=ORANGE)
    panel.set_yticks(places, [one.name for one in ordered], fontsize=10)
    panel.set(xlim=(0, 1), ylim=(-0.6, len(ordered) - 0.4), xticks=np.arange(0, 1.01, 0.2))
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_headline("Average precision", scores, one_line=False), fontsize=12)
    save_figure(figure, path)


def draw_contact_sheet(
    scores: Scores, truths: Truths, detections: Detections, path: str | os.PathLike[str]
) -> str | None:
    """The most probable false positives, and the largest objects that nothing found, as crops on one page (PNG).

    Only images that exist are used. Returns None, or in words why there is nothing to draw.
    """
    present = np.array([path.is_file() for path in truths.paths])
    if not present.any():
        return f"no images in {truths.paths[0].parent}"
    wrong = _false_positives(scores, truths, detections, present)
    missed = _misses(scores, truths, detections, present)
    halves = [("False positives, the most probable first", wrong), ("Missed objects, the largest first", missed)]
    halves = [(title, tiles) for title, tiles in halves if tiles]
    if not halves:
        return "no false positive and no miss"
    from ..images import load_image

    rows = [math.ceil(len(tiles) / ACROSS) for _, tiles in halves]
    figure = new_figure(2.1 * ACROSS, 2.45 * sum(rows) + 0.45 * len(rows) + 0.5)
    parts = figure.subfigures(len(halves), 1, squeeze=False, height_ratios=rows)[:, 0]
    for part, (title, tiles), count in zip(parts, halves, rows, strict=True):
        part.suptitle(title, fontsize=12, x=0.01, ha="left", weight="bold")
        panels = part.subplots(count, ACROSS, squeeze=False)
        for panel in panels.flat:
            panel.set_axis_off()
        for panel, tile in zip(panels.flat, tiles, strict=False):
            _draw_tile(panel, tile, load_image(truths.paths[tile.image]), truths.images[tile.image])
    figure.supxlabel("green, solid: truth · orange, dashed: detection", fontsize=10)
    save_figure(figure, path)
    return None


def _false_positives(scores: Scores, truths: Truths, detections: Detections, present: NDArray[np.bool_]) -> list[Tile]:
    row = np.concatenate([one.row[~one.right & ~one.ignored] for one in scores.classes])
    truth = np.concatenate([one.truth[~one.right & ~one.ignored] for one in scores.classes])
    overlap = np.concatenate([one.overlap[~one.right & ~one.ignored] for one in scores.classes])
    here = present[detections.image[row]]
    row, truth, overlap = row[here], truth[here], overlap[here]
    tiles = []
    for worst in np.argsort(-detections.prob[row], kind="stable")[: ACROSS * ROWS].tolist():
        box, image = detections.box[row[worst]], int(detections.image[row[worst]])
        name = truths.names[detections.class_id[row[worst]]]
        shown = truth[worst] if overlap[worst] > 0.1 else None
        if overlap[worst] > scores.iou:
            why = "second box"
        elif shown is not None:
            why = f"IOU {overlap[worst]:.2f}"
        else:
            shown = _other_object(box, image, truths, scores.iou)
            why = "nothing there" if shown is None else f"is {truths.names[truths.class_id[shown]]}"
        tiles.append(
            Tile(
                image=image,
                caption=f"{name} {detections.prob[row[worst]]:.2f}: {why}",
                truth=None if shown is None else truths.box[shown],
                detection=box,
                focus=box,
            )
        )
    return tiles


def _other_object(box: NDArray[np.float64], image: int, truths: Truths, iou: float) -> int | None:
    """The truth of whatever class that the box is really on."""
    near = np.flatnonzero(truths.image == image)
    overlaps = pixel_iou(np.broadcast_to(box, (len(near), 4)), truths.box[near])
    if not len(near) or overlaps.max() <= iou:
        return None
    return int(near[overlaps.argmax()])


def _misses(scores: Scores, truths: Truths, detections: Detections, present: NDArray[np.bool_]) -> list[Tile]:
    missed = ~truths.difficult & present[truths.image]
    best_overlap = np.full(len(missed), -np.inf)
    best_row = np.full(len(missed), -1)
    for number, one in enumerate(scores.classes):
        if one.detections is None:
            missed &= truths.class_id != number
            continue
        missed[one.truth[one.right]] = False
        with_truth = np.flatnonzero(one.truth >= 0)
        # In rising order of IOU, so that the greatest is written last.
        with_truth = with_truth[np.argsort(one.overlap[with_truth], kind="stable")]
        best_overlap[one.truth[with_truth]] = one.overlap[with_truth]
        best_row[one.truth[with_truth]] = one.row[with_truth]
    candidates = np.flatnonzero(missed)
    size = truths.box[candidates, 2:] - truths.box[candidates, :2] + 1
    tiles = []
    for truth in candidates[np.argsort(-size.prod(axis=1), kind="stable")[: ACROSS * ROWS]].tolist():
        near = best_overlap[truth] > 0.1
        why = f"best IOU {best_overlap[truth]:.2f}" if near else "nothing near"
        tiles.append(
            Tile(
                image=int(truths.image[truth]),
                caption=f"{truths.names[truths.class_id[truth]]}: {why}",
                truth=truths.box[truth],
                detection=detections.box[best_row[truth]] if near else None,
                focus=truths.box[truth],
            )
        )
    return tiles


def _draw_tile(panel: Axes, tile: Tile, image: NDArray[np.uint8], name: str) -> None:
    height, width = image.shape[:2]
    centre = (tile.focus[:2] + tile.focus[2:]) / 2
    # A square around the box with as much again about it; at least 100 pixels, moved inside the image.
    side = min(max(1.7 * float((tile.focus[2:] - tile.focus[:2]).max()), 100.0), float(max(width, height)))
    left = float(np.clip(centre[0] - side / 2, min(0, width - side), max(0, width - side)))
    top = float(np.clip(centre[1] - side / 2, min(0, height - side), max(0, height - side)))
    panel.imshow(image, extent=(0, width, height, 0), interpolation="bilinear")
    panel.set(xlim=(left, left + side), ylim=(top + side, top))
    for box, colour, style in ((tile.truth, GREEN, "-"), (tile.detection, ORANGE, "--")):
        if box is not None:
            x, y = (
                [box[0] - 1, box[2], box[2], box[0] - 1, box[0] - 1],
                [box[1] - 1, box[1] - 1, box[3], box[3], box[1] - 1],
            )
            panel.plot(x, y, color="white", linewidth=3.6, solid_joinstyle="miter")
            panel.plot(x, y, color=colour, linewidth=2, linestyle=style)
    panel.set_title(f"{tile.caption}\n{name}", fontsize=8.5, pad=3, color=INK)


def _headline(what: str, scores: Scores, one_line: bool) -> str:
    scored = sum(one.ap is not None for one in scores.classes)
    mean = "without a value" if math.isnan(scores.mean) else f"{scores.mean:.4f}"
    return (
        f"{what}: mAP {mean} over {scored} of {len(scores.classes)} classes"
        f"{', ' if one_line else chr(10)}{METRIC_WORDS[scores.metric]}, IOU > {scores.iou:g}"
    )


def new_figure(width: float, height: float) -> Figure:
    """A page of so many inches. Raises :class:`DarknetError` where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DarknetError("images need matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    try:
        with whole_file(path) as file:
            figure.savefig(file, format="png", facecolor="white")
    except OSError as error:
        raise ResultsError(f"{path}: cannot write: {error.strerror}") from None


def draw_all(
    scores: Scores, truths: Truths, detections: Detections, folder: str | os.PathLike[str], say: Callable[[str], None]
) -> None:
    """Write precision_recall.png, ap.png and contact_sheet.png to ``folder``; ``say`` gets a line for each."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot make the folder: {error.strerror}") from None
    draw_curves(scores, folder / "precision_recall.png")
    say(f"{folder / 'precision_recall.png'}")
    draw_bars(scores, folder / "ap.png")
    say(f"{folder / 'ap.png'}")
    sheet = folder / "contact_sheet.png"
    why_not = draw_contact_sheet(scores, truths, detections, sheet)
    say(f"{sheet}" if why_not is None else f"{sheet} left out: {why_not}")
