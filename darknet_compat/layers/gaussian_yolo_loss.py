"""The loss of [Gaussian_yolo]: as AlexeyAB's [yolo], where it does not differ.

Source: AlexeyAB's ``src/gaussian_yolo_layer.c, forward_gaussian_yolo_layer, delta_gaussian_yolo_box,
delta_gaussian_yolo_class, averages_gaussian_yolo_deltas``.

The uncertainties always train by the likelihood of the truth, whatever the loss of the boxes is. What else differs from
his [yolo]: a second truth of a slot adds its class by pjreddie's rule; objectness is always the last truth's; the
targets of ``objectness_smooth`` are squared, and bring classes; boxes are averaged over classes without
``iou_thresh`` too; ``max_delta`` holds for mse too; the cost is the sum of squares.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .head import HeadLoss, with_delta
from .iou_loss import iou_deltas, ious
from .yolo_loss import (
    MATCH,
    Taken,
    activated,
    all_boxes,
    assign,
    best_truths,
    class_goals,
    classes_by_first,
    counted,
    ended,
    first_multipliers,
    map_of,
    one_hot,
    picked,
    rows_at,
    size_scale,
    square_deltas,
    true_deltas,
    write,
)

if TYPE_CHECKING:
    from .gaussian_yolo import GaussianYolo

SIGMA = 0.3  # sigma_const: what an uncertainty is at least, in the likelihood
EPSILON = 1e-9


class GaussianFigures(NamedTuple):
    """What the program prints of a head and a mini-batch: means over the truths, NaN where there is none.

    The losses are per image.
    """

    cost: Tensor
    """The sum of delta^2."""
    avg_iou: Tensor
    """Of IOU with ``iou_loss=mse``, else of GIOU; ``recall50`` and ``recall75`` count by it."""
    avg_class: Tensor
    obj: Tensor
    no_obj: Tensor
    """Mean objectness of all boxes."""
    recall50: Tensor
    recall75: Tensor
    count: Tensor  # type: ignore[assignment]  # tuple.count is not used
    class_loss: Tensor
    iou_loss: Tensor
    """Of x and y with their uncertainties, as he sums it up."""
    uc_loss: Tensor
    """Of w and h with theirs."""
    total_loss: Tensor


def gaussian_loss(head: GaussianYolo, raw: Tensor, truth: Tensor) -> HeadLoss:
    """The loss of a raw map, and the figures of the mini-batch; ``delta_normalizer`` counts as in his GPU build."""
    o = head.o
    with torch.no_grad():
        planes, predicted = activated(head, raw)
        truth = ended(truth)
        objectness = planes[:, :, 8].flatten(1)
        known = counted(head, truth)
        best, which = best_truths(predicted, truth, known)
        matched = torch.where((planes[:, :, 9:].amax(2) > MATCH).flatten(1), best, 0) > o.ignore_thresh
        fits = best > o.truth_thresh
        goal = best.square() if o.objectness_smooth else torch.zeros_like(best)
        delta_obj = o.obj_normalizer * (torch.where(matched, goal, 0) - objectness)
        if not o.objectness_smooth:
            delta_obj = torch.where(matched, 0, delta_obj)
            goal = goal + 1
        delta_obj = torch.where(fits, o.obj_normalizer * (goal - objectness), delta_obj)
        taken = assign(head, torch.where(known[..., None], truth, 0), raw.shape[2:])
        at = rows_at(planes, taken)
        boxes = picked(predicted, taken.slot)
        multiplier = head.multipliers[taken.known.clamp_min(0)]

        delta = torch.zeros_like(planes)
        trained = [taken]
        if o.objectness_smooth or o.truth_thresh < 1:
            # Boxes that match a truth train toward its class, those that fit it toward the whole of it.
            near = (fits | matched) if o.objectness_smooth else fits
            found, says = all_boxes(head, planes, picked(truth, which), near)
            own = one_hot(found.known, o.classes)
            yes, no = class_goals(head)
            classes = torch.where(own, (yes - says[..., 9:]) * first_multipliers(head), no - says[..., 9:])
            factor = head.multipliers[found.known.clamp_min(0)]
            if o.objectness_smooth:
                smooth = factor[..., None] * (goal[..., None] - says[..., 9:])
                classes = torch.where(own & fits[..., None], smooth, classes)
            fitting = replace(found, takes=fits)
            box = torch.where(fits[..., None], _box_deltas(head, says, predicted, fitting, factor), 0)
            delta = map_of(planes, found, torch.cat([box, torch.zeros_like(box[..., :1]), classes], 2))
            trained.append(fitting)
        delta[:, :, 8] = delta_obj.reshape_as(delta[:, :, 8])
        before = rows_at(delta, taken)
        # All truths of a slot add up.
        box = _box_deltas(head, at, boxes, taken, multiplier)
        box = before[..., :8] + taken.same.float() @ torch.where(taken.takes[..., None], box, 0)
        object_delta = (multiplier * o.obj_normalizer * (1 - at[..., 8])).gather(1, taken.last)
        classes = classes_by_first(
            at[..., 9:], before[..., 9:], taken, class_goals(head), head.multipliers, first_multipliers(head)
        )
        write(delta, taken, torch.cat([box, object_delta[..., None], classes], 2))
        if head.has_own_delta and head.gradient == "true":
            delta[:, :, :8] += true_deltas(head, raw, trained)
        delta[:, :, :8] /= (delta[:, :, 9:] > 0).sum(2, keepdim=True).clamp_min(1)

        count = taken.takes.sum()
        overlap, overlaps = ious(boxes, taken.truth[..., :4])
        overlap = overlap if o.iou_loss == "mse" else overlaps["giou"]
        of_class = at[..., 9:].gather(2, taken.known.clamp_min(0)[..., None]).squeeze(2)
        squares = delta.square()
        total, images = squares.sum(), len(raw)
        figures = GaussianFigures(
            cost=total,
            avg_iou=torch.where(taken.takes, overlap, 0).sum() / count,
            avg_class=torch.where(taken.takes, of_class, 0).sum() / count,
            obj=(at[..., 8] * taken.takes).sum() / count,
            no_obj=objectness.mean(),
            recall50=(taken.takes & (overlap > 0.5)).sum() / count,
            recall75=(taken.takes & (overlap > 0.75)).sum() / count,
            count=count,
            class_loss=squares[:, :, 8:].sum() / images,
            iou_loss=squares[:, :, :4].sum() / images,
            uc_loss=squares[:, :, 4:8].sum() / images,
            total_loss=total / images,
        )
        delta *= o.delta_normalizer
    return HeadLoss(with_delta(raw, delta.reshape_as(raw), figures.cost), figures)


def _box_deltas(head: GaussianYolo, at: Tensor, box: Tensor, taken: Taken, multiplier: Tensor) -> Tensor:
    """(N, A, 8): delta_gaussian_yolo_box, before truths of one slot add up."""
    o = head.o
    mean, sigma = at[..., :8:2], at[..., 1:8:2]
    off = square_deltas(head, mean, taken) / sigma
    density = (off.square() / -2).exp() / (math.sqrt(2 * math.pi) * (sigma + SIGMA))
    weight = 0.5 * density / (density + EPSILON) * size_scale(taken.truth)
    by_mean = weight * off / sigma
    by_sigma = o.uc_normalizer * weight * (off.square() / sigma - 1 / (sigma + SIGMA))
    if head.has_own_delta and head.gradient == "true":
        by_mean = torch.zeros_like(by_mean)  # true_deltas come in their place
    elif o.iou_loss != "mse":
        xy, wh = iou_deltas(box, taken.truth[..., :4], o.iou_loss).split(2, -1)
        by_mean = torch.cat([xy - head.away * wh, wh * mean[..., 2:].exp()], -1)
    by_mean = o.iou_normalizer * multiplier[..., None] * by_mean
    found = torch.nan_to_num(torch.stack([by_mean, by_sigma], -1).flatten(-2), nan=0, posinf=0, neginf=0)
    return found if o.max_delta is None else found.clamp(-o.max_delta, o.max_delta)
