"""The tables of AlexeyAB's ``detector map`` and of Darknet's ``detector recall``, from detections and label boxes.

``map`` is not voc_eval (docs/scores.md says by how much the two differ):

- boxes are relative to the image and real-valued (no +1), in float32 as in the C program;
- objects that voc_eval knows to be difficult are none at all, unless a list names them;
- a class without truths counts as 0 in the mean.

Source: AlexeyAB ``src/detector.c, validate_detector_map``; pjreddie ``examples/detector.c, validate_detector_recall``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .annotations import LabelBoxes
from .pairs import first_best, pair_up


@dataclass(frozen=True)
class MapClass:
    """One class of the ``map`` table. ``right`` and ``wrong`` are its TP and FP above the confidence threshold."""

    name: str
    ap: float
    truths: int
    detections: int
    right: int
    wrong: int


@dataclass(frozen=True)
class MapTable:
    """What ``detector map`` prints. Fractions are 0..1; those of nothing at all are 0 (the C program prints nan)."""

    classes: list[MapClass]
    thresh: float
    iou_thresh: float
    points: int
    detections: int
    truths: int
    right: int
    wrong: int
    average_iou: float  # the sum over TP, divided by TP + FP

    @property
    def mean(self) -> float:
        """mAP over all classes, those without truths included."""
        return sum(one.ap for one in self.classes) / len(self.classes)

    @property
    def precision(self) -> float:
        return _fraction(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return _fraction(self.right, self.truths)

    @property
    def f1(self) -> float:
        return _fraction(2 * self.precision * self.recall, self.precision + self.recall)


@dataclass(frozen=True)
class RecallTable:
    """What ``detector recall`` counts, for each of P images."""

    proposals: NDArray[np.int64]  # (P,) boxes above the objectness threshold
    total: NDArray[np.int64]  # (P,) truths
    correct: NDArray[np.int64]  # (P,) truths that some proposal overlaps by more than the IOU threshold
    iou: NDArray[np.float64]  # (P,) sum over the truths of the best IOU


def _fraction(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@np.errstate(over="ignore", invalid="ignore")  # a width is e to the power of a value of the map, so it may be infinite
def relative_iou(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """IOU of centre boxes (P, 4) and (P, 4), as ``src/box.c, box_iou`` in its order of operations; float32."""

    def overlap(axis: int) -> NDArray[np.float32]:
        left_half, right_half = left[:, axis + 2] / 2, right[:, axis + 2] / 2
        low = np.maximum(left[:, axis] - left_half, right[:, axis] - right_half)
        return np.minimum(left[:, axis] + left_half, right[:, axis] + right_half) - low

    width, height = overlap(0), overlap(1)
    inside = np.where((width < 0) | (height < 0), np.float32(0), width * height)
    union = left[:, 2] * left[:, 3] + right[:, 2] * right[:, 3] - inside
    meets = (inside != 0) & (union != 0)
    return np.where(meets, inside / np.where(meets, union, np.float32(1)), np.float32(0))


def detector_map(
    names: Sequence[str],
    image: NDArray[np.integer],
    class_id: NDArray[np.integer],
    prob: NDArray[np.floating],
    box: NDArray[np.floating],
    truths: LabelBoxes,
    difficult: LabelBoxes | None = None,
    *,
    thresh: float = 0.25,
    iou_thresh: float = 0.5,
    points: int = 0,
) -> MapTable:
    """AlexeyAB's table for D detections after NMS.

    ``image`` (D,), ``class_id`` (D,), ``prob`` (D,) > 0, ``box`` (D, 4) centre x, y, width, height relative to the
    image. The order is that in which Darknet stores detections (image, box, class): of several detections
    of one truth, the first stored is the TP at ``thresh``, and equal probabilities keep their order in the AP.
    ``difficult`` objects take the detections that only they meet out of the AP, but not out of FP at ``thresh``.
    ``points``: 0 area, 11 PASCAL VOC 2007, 101 COCO.
    """
    classes = len(names)
    box = np.asarray(box, dtype=np.float32).reshape(-1, 4)
    prob = np.asarray(prob, dtype=np.float32)
    truth, overlap = _best_truth(image, class_id, box, truths, classes, iou_thresh)
    matched = truth >= 0
    counted = np.ones(len(prob), dtype=bool)
    if difficult is not None:
        counted = matched | (_best_truth(image, class_id, box, difficult, classes, iou_thresh)[0] < 0)

    claims = np.flatnonzero(matched)
    _, first = np.unique(truth[claims], return_index=True)
    stored_first = np.zeros(len(prob), dtype=bool)
    stored_first[claims[first]] = True
    above = prob > np.float32(thresh)
    right, wrong = above & stored_first, above & ~stored_first

    rows = []
    for number, name in enumerate(names):
        mine = np.flatnonzero((class_id == number) & counted)
        mine = mine[np.argsort(-prob[mine], kind="stable")]
        truth_count = int(np.count_nonzero(truths.class_id == number))
        rows.append(
            MapClass(
                name=name,
                ap=_average_precision(truth[mine], truth_count, points),
                truths=truth_count,
                detections=len(mine),
                right=int(np.count_nonzero(right & (class_id == number))),
                wrong=int(np.count_nonzero(wrong & (class_id == number))),
            )
        )
    return MapTable(
        classes=rows,
        thresh=thresh,
        iou_thresh=iou_thresh,
        points=points,
        detections=int(np.count_nonzero(counted)),
        truths=len(truths.class_id),
        right=int(np.count_nonzero(right)),
        wrong=int(np.count_nonzero(wrong)),
        average_iou=_fraction(float(overlap[right].sum(dtype=np.float64)), int(np.count_nonzero(above))),
    )


def _best_truth(
    image: NDArray[np.integer],
    class_id: NDArray[np.integer],
    box: NDArray[np.float32],
    truths: LabelBoxes,
    classes: int,
    iou_thresh: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each detection the truth of its image and class it overlaps most, -1 if by no more than ``iou_thresh``."""
    pairs = pair_up(image * classes + class_id, truths.image * classes + truths.class_id)
    overlaps = relative_iou(box[pairs.left], truths.box[pairs.right].astype(np.float32))
    truth, overlap = first_best(pairs, overlaps, len(box))
    return np.where(overlap > np.float32(iou_thresh), truth, -1), overlap


def _average_precision(truth: NDArray[np.int64], truths: int, points: int) -> float:
    """AP of one class; ``truth`` (n,) is what each detection met, in falling order of probability."""
    if not len(truth) or not truths:
        return 0.0
    meets = np.flatnonzero(truth >= 0)
    _, first = np.unique(truth[meets], return_index=True)
    right = np.zeros(len(truth), dtype=bool)
    right[meets[first]] = True
    true_so_far = np.cumsum(right)
    recall = true_so_far / truths
    precision = true_so_far / np.arange(1, len(truth) + 1)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    if points:
        at = np.searchsorted(recall, np.arange(points) / (points - 1), side="left")
        return float(np.append(best_from, 0.0)[at].sum() / points)
    # The C program takes the best precision from the detection before the step on; since a right detection never
    # lowers the precision, that is the best from the step on.
    return float((np.diff(recall, prepend=0.0) * best_from).sum())


def format_map(table: MapTable) -> str:
    """The table in the lines that AlexeyAB's program prints."""
    lines = [f" detections_count = {table.detections}, unique_truth_count = {table.truths}  "]
    lines.extend(
        f"class_id = {number}, name = {one.name}, ap = {one.ap * 100:.2f}%   \t (TP = {one.right}, FP = {one.wrong}) "
        for number, one in enumerate(table.classes)
    )
    empty = [one.name for one in table.classes if not one.truths]
    if empty:
        lines.append(f"\n no truths, counted as ap = 0 in the mean: {', '.join(empty)}")
    lines.append(
        f"\n for conf_thresh = {table.thresh:.2f}, precision = {table.precision:.2f}, recall = {table.recall:.2f}, "
        f"F1-score = {table.f1:.2f} "
    )
    lines.append(
        f" for conf_thresh = {table.thresh:.2f}, TP = {table.right}, FP = {table.wrong}, "
        f"FN = {table.truths - table.right}, average IoU = {table.average_iou * 100:.2f} % "
    )
    way = f"used {table.points} Recall-points " if table.points else "used Area-Under-Curve for each unique Recall "
    lines.append(f"\n IoU threshold = {table.iou_thresh * 100:.0f} %, {way}")
    mean = table.mean
    lines.append(
        f" mean average precision (mAP@{table.iou_thresh:.2f}) = {mean:.6f}, or {mean * 100:.2f} % ",
    )
    return "\n".join(lines)


def recall_counts(
    image: NDArray[np.integer],
    objectness: NDArray[np.floating],
    box: NDArray[np.floating],
    truths: LabelBoxes,
    images: int,
    *,
    thresh: float = 0.001,
    iou_thresh: float = 0.5,
) -> RecallTable:
    """Darknet's recall, whatever the class: ``image`` (D,), ``objectness`` (D,) after NMS by it, ``box`` (D, 4)
    centre x, y, width, height relative to the image, for images 0 … ``images`` - 1."""
    proposed = np.asarray(objectness, dtype=np.float32) > np.float32(thresh)
    image = np.asarray(image)[proposed]
    box = np.asarray(box, dtype=np.float32).reshape(-1, 4)[proposed]
    pairs = pair_up(truths.image, image)
    overlaps = relative_iou(box[pairs.right], truths.box[pairs.left].astype(np.float32))
    _, best = first_best(pairs, overlaps, len(truths.image))
    best = np.maximum(best, 0)
    return RecallTable(
        proposals=np.bincount(image, minlength=images),
        total=np.bincount(truths.image, minlength=images),
        correct=np.bincount(truths.image[best > np.float32(iou_thresh)], minlength=images),
        iou=np.bincount(truths.image, weights=best, minlength=images),  # type: ignore[arg-type]  # float64, by weights
    )


def recall_lines(table: RecallTable) -> list[str]:
    """One line per image, each with the figures so far, as Darknet prints them."""
    total, correct = np.cumsum(table.total), np.cumsum(table.correct)
    proposals, iou = np.cumsum(table.proposals), np.cumsum(table.iou)
    return [
        f"{number:5d} {correct[number]:5d} {total[number]:5d}\tRPs/Img: {proposals[number] / (number + 1):.2f}\t"
        f"IOU: {100 * _fraction(iou[number], total[number]):.2f}%\t"
        f"Recall:{100 * _fraction(correct[number], total[number]):.2f}%"
        for number in range(len(total))
    ]
