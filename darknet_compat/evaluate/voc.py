"""PASCAL VOC's average precision, as py-faster-rcnn's voc_eval computes it, to the last printed digit.

What that means: widths and heights are xmax - xmin + 1; a detection looks at the one truth of its class it overlaps
most (the first of equals) and is right where that IOU is strictly greater than the threshold; a truth marked difficult
makes it count neither way; the second detection of a truth is wrong. Everything in float64.

Equal probabilities are put in order by ``numpy.argsort(-prob)``, numpy's default sort, which keeps no order among
equals. The same call on the same numbers gives the same order, so it is the call used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .annotations import Truths
from .pairs import first_best, pair_up
from .results import Detections

Metric = Literal["voc07", "area"]
METRIC_WORDS = {"voc07": "11-point", "area": "area under the curve"}


@dataclass(frozen=True)
class ClassScore:
    """One class. n detections in falling order of probability.

    ``ap`` is None where it has no value: no truths that count, or no result file (then ``detections`` is None too).
    """

    name: str
    ap: float | None
    truths: int  # those that count: not difficult
    difficult: int
    detections: int | None
    row: NDArray[np.int64]  # (n,) row of Detections
    truth: NDArray[np.int64]  # (n,) row of Truths it overlaps most; -1: none of its class in the image
    overlap: NDArray[np.float64]  # (n,) IOU with it; -inf without one
    right: NDArray[np.bool_]  # (n,) true positive
    ignored: NDArray[np.bool_]  # (n,) on a difficult truth: counts neither way
    recall: NDArray[np.float64]  # (n,)
    precision: NDArray[np.float64]  # (n,)


@dataclass(frozen=True)
class Scores:
    """The table of a run. ``mean`` is over the classes that have an AP, NaN where none has."""

    metric: Metric
    iou: float
    classes: list[ClassScore]

    @property
    def mean(self) -> float:
        values = [score.ap for score in self.classes if score.ap is not None]
        return float(np.mean(values)) if values else float("nan")

    @property
    def absent(self) -> list[str]:
        """The classes without a result file."""
        return [score.name for score in self.classes if score.detections is None]


def voc_ap(recall: NDArray[np.float64], precision: NDArray[np.float64], metric: Metric = "voc07") -> float:
    """Average precision of a curve (n,), (n,) in falling order of probability.

    "voc07": the mean of the greatest precision at recall >= 0, .1 … 1. "area": the area under the curve after each
    precision was raised to the greatest that follows it.
    """
    if metric == "voc07":
        # Greatest precision from each point on; recall never falls, so "recall >= t" is a tail.
        tail = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        total = 0.0
        # The sum in the reference's order, and its points: .1 * 3 is a little more than .3.
        for value in tail[np.searchsorted(recall, np.arange(0.0, 1.1, 0.1), side="left")]:
            total += value / 11.0
        return float(total)
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([0.0], precision, [0.0]))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1]))


def pixel_iou(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """IOU of corner boxes (P, 4) and (P, 4) in whole pixels: a box from 3 to 3 is one pixel wide."""
    width = np.maximum(np.minimum(left[:, 2], right[:, 2]) - np.maximum(left[:, 0], right[:, 0]) + 1.0, 0.0)
    height = np.maximum(np.minimum(left[:, 3], right[:, 3]) - np.maximum(left[:, 1], right[:, 1]) + 1.0, 0.0)
    inside = width * height
    # Written in the reference's order of operations: its last bit decides at the threshold.
    union = (
        (left[:, 2] - left[:, 0] + 1.0) * (left[:, 3] - left[:, 1] + 1.0)
        + (right[:, 2] - right[:, 0] + 1.0) * (right[:, 3] - right[:, 1] + 1.0)
        - inside
    )
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes turned inside out may have no union
        iou: NDArray[np.float64] = inside / union
    return iou


def score_class(truths: Truths, detections: Detections, class_id: int, metric: Metric, iou: float) -> ClassScore:
    """Score one class. ``iou``: the overlap that a right detection exceeds."""
    rows = detections.of_class(class_id)
    order = np.argsort(-detections.prob[rows])
    row = order + rows.start
    mine = np.flatnonzero(truths.class_id == class_id)
    counted = int(np.count_nonzero(~truths.difficult[mine]))

    pairs = pair_up(detections.image[row], truths.image[mine])
    overlaps = pixel_iou(detections.box[row[pairs.left]], truths.box[mine[pairs.right]])
    best, overlap = first_best(pairs, overlaps, len(row))
    truth = np.full(len(row), -1)
    truth[best >= 0] = mine[best[best >= 0]]

    hit = overlap > iou
    ignored = hit.copy()
    ignored[hit] = truths.difficult[truth[hit]]
    claims = np.flatnonzero(hit & ~ignored)
    # Rows stand in falling order of probability, so the first to claim a truth has it.
    _, first = np.unique(truth[claims], return_index=True)
    right = np.zeros(len(row), dtype=bool)
    right[claims[first]] = True

    true_so_far = np.cumsum(right, dtype=np.float64)
    false_so_far = np.cumsum(~right & ~ignored, dtype=np.float64)
    recall = true_so_far / counted if counted else np.full(len(row), np.nan)
    precision = true_so_far / np.maximum(true_so_far + false_so_far, np.finfo(np.float64).eps)
    absent = class_id in detections.absent
    return ClassScore(
        name=truths.names[class_id],
        ap=voc_ap(recall, precision, metric) if counted and not absent else None,
        truths=counted,
        difficult=len(mine) - counted,
        detections=None if absent else len(row),
        row=row,
        truth=truth,
        overlap=overlap,
        right=right,
        ignored=ignored,
        recall=recall,
        precision=precision,
    )


def score(truths: Truths, detections: Detections, metric: Metric = "voc07", iou: float = 0.5) -> Scores:
    """Score every class of ``truths.names``. ``detections`` must have been read with the same names and images."""
    classes = [score_class(truths, detections, number, metric, iou) for number in range(len(truths.names))]
    return Scores(metric=metric, iou=iou, classes=classes)


def as_json(scores: Scores) -> dict[str, object]:
    """The table as plain values. What has no value is None; ``mAP`` too where a result file is absent."""
    return {
        "mAP": None if scores.absent or np.isnan(scores.mean) else scores.mean,
        "metric": scores.metric,
        "iou": scores.iou,
        "classes": {
            one.name: {
                "ap": one.ap,
                "truths": one.truths,
                "difficult": one.difficult,
                "detections": one.detections,
            }
            for one in scores.classes
        },
    }


def format_table(scores: Scores) -> str:
    """The table as text, one class per line, with the mean and what it is over."""
    width = max(5, *(len(one.name) for one in scores.classes))
    lines = [f"{'class':<{width}}      AP  truths  difficult  detections"]
    for one in scores.classes:
        ap = "     -" if one.ap is None else f"{one.ap:.4f}"
        detections = "absent" if one.detections is None else str(one.detections)
        lines.append(f"{one.name:<{width}}  {ap}  {one.truths:6d}  {one.difficult:9d}  {detections:>10}")
    scored = sum(one.ap is not None for one in scores.classes)
    mean = "     -" if not scored else f"{scores.mean:.4f}"
    lines.append(
        f"{'mean':<{width}}  {mean}  over {scored} of {len(scores.classes)} classes, "
        f"{METRIC_WORDS[scores.metric]}, IOU > {scores.iou:g}"
    )
    holes = {
        "no result file": scores.absent,
        "no truths to find": [one.name for one in scores.classes if one.detections is not None and one.ap is None],
    }
    lines.extend(f"not in the mean, {why}: {', '.join(names)}" for why, names in holes.items() if names)
    return "\n".join(lines)
