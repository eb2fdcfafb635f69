"""Two result folders side by side: what a person needs when one port gives 54 and Darknet 56.6.

Boxes of the same image and class are matched greedily: the pair with the greatest IOU first, of equal ones
the pair nearest in probability, down to an IOU of MATCH_IOU. Greedy matching is the same as taking, again and again,
all pairs that are best for both their boxes, and that runs on whole arrays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cfg import read_names
from ..stock import find_stock
from .annotations import Truths, read_truths
from .pairs import pair_up
from .results import Detections, comp4_ids, read_comp4
from .voc import Metric, Scores, pixel_iou, score

MATCH_IOU = 0.5  # two boxes that overlap less are two objects, as scoring has it


@dataclass(frozen=True)
class ClassComparison:
    """One class. Differences are B - A; None where nothing matched."""

    name: str
    detections: tuple[int, int]
    matched: int
    probability: float | None  # greatest |difference|
    corner: float | None  # greatest |difference| of a corner, in pixels
    ap: tuple[float | None, float | None] | None  # None without truths


@dataclass(frozen=True)
class Comparison:
    """Two runs. ``pair_a[i]`` and ``pair_b[i]`` are rows of A and of B that are the same detection."""

    classes: list[ClassComparison]
    pair_a: NDArray[np.int64]
    pair_b: NDArray[np.int64]
    probability: NDArray[np.float64]  # (pairs,) B - A
    corners: NDArray[np.float64]  # (pairs, 4) B - A, in pixels
    weight: NDArray[np.float64]  # (images,) how much the runs differ there: see image_weights
    scores: tuple[Scores, Scores] | None


def match(a: Detections, b: Detections) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ``a`` and rows of ``b`` that are the same detection; sorted by row of ``a``, each row once at most."""
    # Class by class: the pairs of all classes at once would take a gigabyte for 250,000 detections.
    pairs = [_match_class(a, b, class_id) for class_id in range(len(a.names))]
    pair_a, pair_b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(pair_a)
    return pair_a[order], pair_b[order]


def _match_class(a: Detections, b: Detections, class_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows_a, rows_b = a.of_class(class_id), b.of_class(class_id)
    pairs = pair_up(a.image[rows_a], b.image[rows_b])
    left, right = pairs.left + rows_a.start, pairs.right + rows_b.start
    overlap = pixel_iou(_upright(a.box[left]), _upright(b.box[right]))
    keep = overlap > MATCH_IOU
    left, right, overlap = left[keep], right[keep], overlap[keep]
    # Best pairs first; their rank makes every choice below a matter of whole numbers, without ties.
    order = np.lexsort((right, left, np.abs(a.prob[left] - b.prob[right]), -overlap))
    left, right = left[order], right[order]
    chosen_a, chosen_b = [left[:0]], [right[:0]]
    free_a, free_b = np.ones(len(a.prob), dtype=bool), np.ones(len(b.prob), dtype=bool)
    while len(left):
        _, best_of_a = np.unique(left, return_index=True)
        _, best_of_b = np.unique(right, return_index=True)
        chosen = np.intersect1d(best_of_a, best_of_b, assume_unique=True)
        chosen_a.append(left[chosen])
        chosen_b.append(right[chosen])
        free_a[left[chosen]] = False
        free_b[right[chosen]] = False
        free = free_a[left] & free_b[right]
        left, right = left[free], right[free]
    return np.concatenate(chosen_a), np.concatenate(chosen_b)


def _upright(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes (N, 4) with xmin <= xmax and ymin <= ymax.

    Darknet writes a box that lies beside the image with its corners in the other order, and so does not even overlap
    itself (examples/detector.c, print_detector_detections, clips each corner alone).
    """
    return np.concatenate((np.minimum(box[:, :2], box[:, 2:]), np.maximum(box[:, :2], box[:, 2:])), axis=1)


def image_weights(
    a: Detections, b: Detections, pair_a: NDArray[np.int64], pair_b: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How much two runs differ on each image: the sum of absolute differences in probability.

    A detection that one run alone has counts with its whole probability.
    """
    lone_a = np.delete(np.arange(len(a.prob)), pair_a)
    lone_b = np.delete(np.arange(len(b.prob)), pair_b)
    image = np.concatenate((a.image[pair_a], a.image[lone_a], b.image[lone_b]))
    weight = np.concatenate((np.abs(b.prob[pair_b] - a.prob[pair_a]), a.prob[lone_a], b.prob[lone_b]))
    return np.bincount(image, weights=weight, minlength=len(a.images))  # type: ignore[return-value]  # float64, by weights


def compare_folders(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    devkit: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    year: str | int = "2007",
    image_set: str = "test",
    names: str | os.PathLike[str] | None = None,
    metric: Metric = "voc07",
) -> tuple[Detections, Detections, Comparison]:
    """Two folders of result files, and how they compare: with APs where ``devkit`` or ``data`` says the truth.

    ``names``: a file of the classes; None: those of ``data``, or VOC's. Raises :class:`DarknetError` in one line.
    """
    if devkit is None and data is None:
        truths, known = None, read_names(find_stock(os.fspath(names or "data/voc.names")))
        images = sorted({*comp4_ids(a, known), *comp4_ids(b, known)})
    else:
        truths = read_truths(devkit, data, year, image_set, names)
        known, images = truths.names, truths.images
    first, second = read_comp4(a, known, images), read_comp4(b, known, images)
    return first, second, compare(first, second, truths, metric)


def compare(
    a: Detections, b: Detections, truths: Truths | None = None, metric: Metric = "voc07", iou: float = 0.5
) -> Comparison:
    """Compare two runs read with the same names and images; with ``truths`` their APs too."""
    pair_a, pair_b = match(a, b)
    probability = b.prob[pair_b] - a.prob[pair_a]
    corners = b.box[pair_b] - a.box[pair_a]
    scores = None if truths is None else (score(truths, a, metric, iou), score(truths, b, metric, iou))
    classes = []
    for number, name in enumerate(a.names):
        mine = a.class_id[pair_a] == number
        any_matched = bool(mine.any())
        rows_a, rows_b = a.of_class(number), b.of_class(number)
        classes.append(
            ClassComparison(
                name=name,
                detections=(rows_a.stop - rows_a.start, rows_b.stop - rows_b.start),
                matched=int(np.count_nonzero(mine)),
                probability=float(np.abs(probability[mine]).max()) if any_matched else None,
                corner=float(np.abs(corners[mine]).max()) if any_matched else None,
                ap=None if scores is None else (scores[0].classes[number].ap, scores[1].classes[number].ap),
            )
        )
    return Comparison(
        classes=classes,
        pair_a=pair_a,
        pair_b=pair_b,
        probability=probability,
        corners=corners,
        weight=image_weights(a, b, pair_a, pair_b),
        scores=scores,
    )


def format_comparison(result: Comparison, a: Detections, b: Detections, worst: int = 10) -> str:
    """The comparison as text: one line per class, the greatest differences, the ``worst`` images."""
    return "\n".join(
        [*_class_lines(result), "", *_difference_lines(result, a, b), "", *_image_lines(result, a, b, worst)]
    )


def _class_lines(result: Comparison) -> list[str]:
    width = max(5, *(len(one.name) for one in result.classes))
    header = f"{'class':<{width}}  "
    if result.scores is not None:
        header += f"{'AP of A':>7}  {'AP of B':>7}  {'B - A':>7}  "
    header += (
        f"{'in A':>7}  {'in B':>7}  {'matched':>7}  {'only A':>7}  {'only B':>7}  {'max dprob':>9}  {'max dpixel':>10}"
    )
    lines = [header]
    for one in result.classes:
        line = f"{one.name:<{width}}  "
        if one.ap is not None:
            left, right = one.ap
            difference = None if left is None or right is None else right - left
            line += f"{_number(left, '7.4f')}  {_number(right, '7.4f')}  {_number(difference, '+7.4f')}  "
        line += f"{one.detections[0]:7d}  {one.detections[1]:7d}  {one.matched:7d}  "
        line += f"{one.detections[0] - one.matched:7d}  {one.detections[1] - one.matched:7d}  "
        line += f"{_number(one.probability, '9.6f')}  {_number(one.corner, '10.4f')}"
        lines.append(line)
    if result.scores is not None:
        # A mean of other classes on each side would compare nothing: only those that both sides have.
        aps = [one.ap for one in result.classes if one.ap is not None]
        both = [(left, right) for left, right in aps if left is not None and right is not None]
        means = np.mean(both, axis=0) if both else (np.nan, np.nan)
        lines.append(
            f"{'mean':<{width}}  {means[0]:7.4f}  {means[1]:7.4f}  {means[1] - means[0]:+7.4f}  "
            f"over {len(both)} of {len(result.classes)} classes"
        )
    return lines


def _number(value: float | None, form: str) -> str:
    return f"{'-':>{int(form.lstrip('+').split('.')[0])}}" if value is None else f"{value:{form}}"


def _difference_lines(result: Comparison, a: Detections, b: Detections) -> list[str]:
    if not len(result.pair_a):
        return ["no detection of one folder is in the other"]

    def described(pair: int) -> str:
        row_a, row_b = result.pair_a[pair], result.pair_b[pair]
        boxes = " | ".join(
            f"{run.prob[row]:.6f} {' '.join(f'{corner:.2f}' for corner in run.box[row])}"
            for run, row in ((a, row_a), (b, row_b))
        )
        return f"{a.names[a.class_id[row_a]]} on {a.images[a.image[row_a]]}: {boxes}"

    probability = np.abs(result.probability)
    corner = np.abs(result.corners).max(axis=1)
    shift = np.median(result.corners, axis=0)
    lines = [
        f"greatest difference in {what} {each.max():.6f}" + (f"  {described(int(each.argmax()))}" if each.max() else "")
        for what, each in (("probability", probability), ("a corner   ", corner))
    ]
    lines += [
        f"median of B - A: probability {np.median(result.probability):+.6f}, "
        f"xmin {shift[0]:+.4f}, ymin {shift[1]:+.4f}, xmax {shift[2]:+.4f}, ymax {shift[3]:+.4f}",
    ]
    for run, pairs, name in ((a, result.pair_a, "A"), (b, result.pair_b, "B")):
        lone = np.delete(run.prob, pairs)
        most = f", the most probable {lone.max():.6f}" if len(lone) else ""
        lines.append(f"only in {name}: {len(lone)} of {len(run.prob)}{most}")
    return lines


def _image_lines(result: Comparison, a: Detections, b: Detections, worst: int) -> list[str]:
    count = [np.bincount(run.image, minlength=len(a.images)) for run in (a, b)]
    matched = np.bincount(a.image[result.pair_a], minlength=len(a.images))
    order = np.argsort(-result.weight, kind="stable")[:worst]
    order = order[result.weight[order] > 0]
    if not len(order):
        return ["no image differs"]
    width = max(7, *(len(a.images[image]) for image in order))
    return [
        f"{'image':<{width}}  {'weight':>8}  {'only A':>6}  {'only B':>6}  {'matched':>7}",
        *(
            f"{a.images[image]:<{width}}  {result.weight[image]:8.4f}  {count[0][image] - matched[image]:6d}  "
            f"{count[1][image] - matched[image]:6d}  {matched[image]:7d}"
            for image in order
        ),
        "weight: sum of differences in probability; a detection that one side alone has counts with all of it",
    ]
