"""The losses of [yolo]: pjreddie's, and AlexeyAB's, which differ in almost every rule.

Source: ``src/yolo_layer.c, forward_yolo_layer`` of pjreddie's program; ``process_batch, delta_yolo_box,
delta_yolo_class`` of AlexeyAB's, and his ``src/box.c, dx_box_iou``.

Both write down a *delta*: what is added to the gradient buffer, minus the gradient. AlexeyAB's is not the derivative of
any loss, so both are computed as they stand and handed to autograd by :func:`..head.with_delta`. Deltas have the map's
layout, (N, n*(5+classes), h, w), and boxes are numbered anchor*h*w + cell here.

Truths are looked at side by side, and what a later one of a slot changes is found by comparing all pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import iou
from .head import HeadLoss, with_delta
from .iou_loss import iou_deltas, ious

if TYPE_CHECKING:
    from .yolo import Yolo

MATCH = 0.25  # process_batch: the class probability over which a box may be spared its objectness
MOST_VALUES = 2**26  # of one tensor that holds boxes against truths


class Figures(NamedTuple):
    """What pjreddie's program prints of a head and a mini-batch; means over the truths, NaN where there is none."""

    cost: Tensor
    """The sum of delta^2."""
    avg_iou: Tensor
    avg_class: Tensor
    """Mean probability of the truths' classes."""
    obj: Tensor
    """Mean objectness in the truths' slots."""
    no_obj: Tensor
    """Mean objectness of all boxes."""
    recall50: Tensor
    """The share of truths with an IOU over .5, and over .75."""
    recall75: Tensor
    count: Tensor  # type: ignore[assignment]  # tuple.count is not used
    """The number of truths whose best anchor is this head's, an integer."""


class AlexeyABFigures(NamedTuple):
    """What AlexeyAB's program prints of a head and a mini-batch. The losses are per image."""

    cost: Tensor
    avg_iou: Tensor
    """Mean over all boxes that a truth took; 0 where there is none."""
    count: Tensor  # type: ignore[assignment]  # tuple.count is not used
    """How many these are; 1 where there is none, as he prints it."""
    class_loss: Tensor
    iou_loss: Tensor
    total_loss: Tensor


class _Taken(NamedTuple):
    """Which boxes the truths take: A of them per image, in the order in which Darknet writes."""

    truth: Tensor
    """(N, A, 5)"""
    known: Tensor
    """(N, A) the class, through the map; -1 where it is none."""
    anchor: Tensor
    """(N, A) the anchor's number, of all."""
    slot: Tensor
    """(N, A) the box's number, 0 where none is taken."""
    cell: Tensor
    """(N, A, 2) column and row."""
    takes: Tensor
    """(N, A)"""

    @property
    def same(self) -> Tensor:
        """(N, A, A): do both take the same box?"""
        return (self.slot[:, :, None] == self.slot[:, None]) & self.takes[:, :, None] & self.takes[:, None]


def pjreddie_loss(head: Yolo, raw: Tensor, truth: Tensor) -> HeadLoss:
    """The loss of a raw map, and the figures of the mini-batch."""
    o = head.o
    with torch.no_grad():
        planes, predicted = _activated(head, raw)
        truth = _ended(truth)
        objectness = planes[:, :, 4].flatten(1)
        best, which = _best(predicted, truth, truth[..., 0] != 0)
        delta_obj = torch.where(best > o.ignore_thresh, 0, -objectness)
        taken = _assign(head, truth, raw.shape[2:])
        same = taken.same
        image = torch.arange(len(raw), device=raw.device)[:, None]
        at = _rows(planes, taken)
        overlap = iou(predicted[image, taken.slot], taken.truth[..., :4])

        delta = torch.zeros_like(planes)
        goal = _one_hot(taken.known, o.classes)
        if o.truth_thresh < 1:
            # Boxes that fit a truth so well train toward it too, and a truth of the slot only adds its class.
            fits = best > o.truth_thresh
            delta_obj = torch.where(fits, 1 - objectness, delta_obj)
            chosen = truth[image, which]
            first = torch.where(fits, _class(head, chosen), -1)
            delta += _fitting(head, planes, predicted, chosen, first, fits)
            goal = goal | _one_hot(first[image, taken.slot], o.classes)
        # The box is the last truth's, the classes are those of all from the last one on that set them anew.
        number = torch.arange(same.shape[1], device=raw.device)
        last = torch.where(same, number, -1).amax(2)
        box = _square_deltas(head, at, taken) * (2 - taken.truth[..., 2] * taken.truth[..., 3])[..., None]
        stays = ~_set_anew_later(at[..., 5], taken, same)
        together = (same & stays[:, None]).float() @ goal.float() > 0
        classes = torch.where(
            (same & (taken.known >= 0)[:, None]).any(2, keepdim=True), together.float() - at[..., 5:], 0
        )
        _write(delta, taken, torch.cat([box[image, last.clamp_min(0)], 1 - at[..., 4:5], classes], 2))
        delta_obj = delta_obj.reshape_as(planes[:, :, 4])
        delta[:, :, 4] = torch.where(_slots_taken(taken, delta_obj), delta[:, :, 4], delta_obj)

        count = taken.takes.sum()
        of_class = at[..., 5:].gather(2, taken.known.clamp_min(0)[..., None]).squeeze(2)
        figures = Figures(
            cost=delta.square().sum(),
            avg_iou=torch.where(taken.takes, overlap, 0).sum() / count,
            avg_class=torch.where(taken.takes & (taken.known >= 0), of_class, 0).sum() / count,
            obj=(at[..., 4] * taken.takes).sum() / count,
            no_obj=objectness.mean(),
            recall50=(taken.takes & (overlap > 0.5)).sum() / count,
            recall75=(taken.takes & (overlap > 0.75)).sum() / count,
            count=count,
        )
    return HeadLoss(with_delta(raw, delta.reshape_as(raw), figures.cost), figures)


def alexeyab_loss(head: Yolo, raw: Tensor, truth: Tensor) -> HeadLoss:
    """The loss of a raw map, and the figures of the mini-batch; ``delta_normalizer`` counts as in his GPU build."""
    o = head.o
    if o.truth_thresh < 1:
        raise head.section.error(
            "the loss of AlexeyAB's program with truth_thresh under 1 is not built", "truth_thresh"
        )
    with torch.no_grad():
        planes, predicted = _activated(head, raw)
        truth = _ended(truth)
        objectness = planes[:, :, 4].flatten(1)
        # A truth of a class that is none is passed over, with a warning in his program.
        known = (truth[..., 0] != 0) & (truth[..., 4].trunc() >= 0) & (truth[..., 4].trunc() < o.classes)
        best, _ = _best(predicted, truth, known)
        matched = torch.where((planes[:, :, 5:].amax(2) > MATCH).flatten(1), best, 0)
        delta_obj = -o.obj_normalizer * objectness
        if o.objectness_smooth:
            smooth = torch.maximum(o.obj_normalizer * (matched - objectness), delta_obj)
            delta_obj = torch.where(matched > o.ignore_thresh, smooth, delta_obj)
        else:
            delta_obj = torch.where(matched > o.ignore_thresh, 0, delta_obj)
        taken = _assign(head, torch.where(known[..., None], truth, 0), raw.shape[2:])
        same = taken.same
        image = torch.arange(len(raw), device=raw.device)[:, None]
        at = _rows(planes, taken)
        overlap, overlaps = ious(predicted[image, taken.slot], taken.truth[..., :4])
        multiplier = head.multipliers[taken.known.clamp_min(0)]

        delta = torch.zeros_like(planes)
        box = _box_deltas(head, at, predicted[image, taken.slot], taken, multiplier)
        # All truths of a slot add up.
        box = same.float() @ torch.where(taken.takes[..., None], box, 0)
        classes = _class_deltas(head, at[..., 5:], taken, same, multiplier)
        here = delta_obj[image, taken.slot]
        object_delta = multiplier * o.obj_normalizer * (1 - at[..., 4])
        if o.objectness_smooth:
            # He sets it only where nothing was set before: the first truth's.
            number = torch.arange(same.shape[1], device=raw.device)
            first = torch.where(same, number, same.shape[1]).amin(2).clamp_max(same.shape[1] - 1)
            object_delta = torch.where(here == 0, object_delta.gather(1, first), here)
        else:
            number = torch.arange(same.shape[1], device=raw.device)
            last = torch.where(same, number, -1).amax(2).clamp_min(0)
            object_delta = object_delta.gather(1, last)
        if o.iou_thresh < 1:
            positive = (classes > 0).sum(2, keepdim=True)
            box = torch.where((positive > 0) & (object_delta != 0)[..., None], box / positive, box)
        _write(delta, taken, torch.cat([box, object_delta[..., None], classes], 2))
        delta_obj = delta_obj.reshape_as(planes[:, :, 4])
        delta[:, :, 4] = torch.where(_slots_taken(taken, delta_obj), delta[:, :, 4], delta_obj)

        count = taken.takes.sum()
        some = count.clamp_min(1)
        total = delta.square().sum()
        class_loss = o.obj_normalizer * delta[:, :, 4:].square().sum()
        cost = total
        if o.show_details and o.iou_loss != "mse":
            lost = 1 - (overlaps["giou"] if o.iou_loss == "giou" else overlap)
            cost = o.iou_normalizer * torch.where(taken.takes, lost, 0).sum() / some + class_loss
        images = len(raw)
        figures = AlexeyABFigures(
            cost=cost,
            avg_iou=torch.where(taken.takes, overlap, 0).sum() / some,
            count=some,
            class_loss=class_loss / images,
            iou_loss=(total - class_loss) / images,
            total_loss=total / images,
        )
        delta = o.delta_normalizer * delta
    return HeadLoss(with_delta(raw, delta.reshape_as(raw), figures.cost), figures)


def _activated(head: Yolo, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Activated planes (N, n, 5+classes, h*w), and the boxes (N, n*h*w, 4) that they say."""
    planes = head.planes(head(raw))
    boxes = head.xywh(planes[:, :, :4].permute(0, 3, 4, 1, 2))
    return planes.flatten(3), boxes.permute(0, 3, 1, 2, 4).flatten(1, 3)


def _ended(truth: Tensor) -> Tensor:
    """Zeros in the rows behind the first x of 0; on a CPU the rows behind the last image's end are cut off."""
    truth = torch.where((truth[:, :, :1] != 0).cumprod(1) != 0, truth, 0)
    if truth.device.type == "cpu":
        truth = truth[:, : max(int((truth[..., 0] != 0).sum(1).max()), 1)]
    return truth


def _best(predicted: Tensor, truth: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Each box's best IOU (N, B) with a truth that is ``counted``, and that truth's number."""
    at_once = max(1, MOST_VALUES // (truth.shape[1] * predicted.shape[1]))
    parts = [
        torch.where(seen[..., None], iou(guess[:, None], real[:, :, None, :4]), 0).nan_to_num_(nan=0).max(1)
        for guess, real, seen in zip(
            predicted.split(at_once), truth.split(at_once), counted.split(at_once), strict=True
        )
    ]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _class(head: Yolo, truth: Tensor) -> Tensor:
    """The class of truths (..., 5), through the map; -1 where it is none."""
    number = truth[..., 4].long()
    if head.map is not None:
        number = head.map[torch.where((number >= 0) & (number < len(head.map) - 1), number, -1)]
    return torch.where((number >= 0) & (number < head.o.classes), number, -1)


def _assign(head: Yolo, truth: Tensor, grid: torch.Size) -> _Taken:
    """Which boxes each truth takes: that of its best anchor of all where it is this head's, and with ``iou_thresh``
    each other anchor of this head that fits."""
    rows, columns = grid
    column, row = (truth[..., 0] * columns).trunc(), (truth[..., 1] * rows).trunc()
    inside = (truth[..., 0] != 0) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    cell = torch.where(inside, row * columns + column, 0).long()
    sizes = head.anchors / head.anchors.new_tensor([head.image.w, head.image.h])
    shifted, given = F.pad(sizes, (2, 0)), F.pad(truth[:, :, None, 2:4], (2, 0))
    fit = iou(shifted, given)
    # Of equal ones the first; anchor 0 where none overlaps or the IOU is no number.
    best = torch.where(fit > 0, fit, 0).argmax(2)
    place = head.places[best]
    anchor, place, takes = best[..., None], place[..., None], (inside & (place >= 0))[..., None]
    if head.o.iou_thresh < 1:
        _, kinds = ious(shifted, given)
        fit = kinds[head.o.iou_thresh_kind]
        own = torch.arange(len(head.places), device=truth.device) if head.mask is None else head.mask.sort().values
        more = (fit[..., own] > head.o.iou_thresh) & (own != best[..., None]) & inside[..., None]
        anchor = torch.cat([anchor, own.expand(*best.shape, -1)], 2)
        place = torch.cat([place, head.places[own].expand(*best.shape, -1)], 2)
        takes = torch.cat([takes, more], 2)
    count = anchor.shape[2]
    slot = torch.where(takes, place * (rows * columns) + cell[..., None], 0)
    return _Taken(
        truth.repeat_interleave(count, 1),
        _class(head, truth).repeat_interleave(count, 1),
        anchor.flatten(1),
        slot.flatten(1),
        torch.stack([column, row], -1).repeat_interleave(count, 1),
        takes.flatten(1),
    )


def _rows(planes: Tensor, taken: _Taken) -> Tensor:
    """(N, A, 5+classes): what the boxes that are taken say."""
    image = torch.arange(len(planes), device=planes.device)[:, None]
    return planes[image, taken.slot // planes.shape[3], :, taken.slot % planes.shape[3]]


def _write(delta: Tensor, taken: _Taken, rows: Tensor) -> None:
    """Put ``rows`` (N, A, 5+classes) where they belong. Truths of one slot bring equal rows."""
    image = torch.arange(len(delta), device=delta.device)[:, None].expand_as(taken.slot)
    # Those that take no slot write to the first truth's of the image that does, what that one writes; or 0 over 0.
    chosen = taken.takes.float().argmax(1, keepdim=True)
    source = torch.where(taken.takes, torch.arange(taken.slot.shape[1], device=delta.device), chosen)
    slot = taken.slot.gather(1, source)
    rows = rows.gather(1, source[..., None].expand_as(rows))
    old = delta[image, slot // delta.shape[3], :, slot % delta.shape[3]]
    rows = torch.where(taken.takes.any(1)[:, None, None], rows, old)
    delta[image, slot // delta.shape[3], :, slot % delta.shape[3]] = rows


def _slots_taken(taken: _Taken, like: Tensor) -> Tensor:
    """(N, n, h*w): is the box some truth's?"""
    boxes = like[0].numel()
    # One column more, for the truths that take no slot.
    found = torch.zeros(len(like), boxes + 1, dtype=torch.bool, device=like.device)
    return found.scatter(1, torch.where(taken.takes, taken.slot, boxes), True)[:, :-1].reshape_as(like)


def _one_hot(number: Tensor, classes: int) -> Tensor:
    """(..., classes) bool; all False for -1."""
    return number[..., None] == torch.arange(classes, device=number.device)


def _square_deltas(head: Yolo, at: Tensor, taken: _Taken) -> Tensor:
    """(N, A, 4): what is missing to the truth in x, y, w, h, as the map has them."""
    o = head.o
    truth, anchor = taken.truth, head.anchors[taken.anchor]
    size = head.anchors.new_tensor([head.image.w, head.image.h])
    grid = head.anchors.new_tensor([head.input.w, head.input.h])
    centre = truth[..., :2] * grid - taken.cell
    side = truth[..., 2:4] * size
    wh = (side / (4 * anchor)).sqrt() if o.new_coords else (side / anchor).log()
    # The goals of rows that are no truths may be infinite.
    return torch.where(taken.takes[..., None], torch.cat([centre, wh], 2) - at[..., :4], 0)


def _box_deltas(head: Yolo, at: Tensor, box: Tensor, taken: _Taken, multiplier: Tensor) -> Tensor:
    """(N, A, 4): delta_yolo_box, before truths of one slot add up."""
    o = head.o
    normalizer: Tensor = (o.iou_normalizer * multiplier)[..., None]
    if o.iou_loss == "mse":
        scale = (2 - taken.truth[..., 2] * taken.truth[..., 3])[..., None]
        square: Tensor = scale * _square_deltas(head, at, taken) * normalizer
        return square
    found = iou_deltas(box, taken.truth[..., :4], o.iou_loss)
    if not o.new_coords:
        found = torch.cat([found[..., :2], found[..., 2:] * at[..., 2:4].exp()], 2)
    found = torch.nan_to_num(found * normalizer, nan=0, posinf=0, neginf=0)
    return found if o.max_delta is None else found.clamp(-o.max_delta, o.max_delta)


def _class_deltas(head: Yolo, p: Tensor, taken: _Taken, same: Tensor, multiplier: Tensor) -> Tensor:
    """(N, A, classes): delta_yolo_class. The first truth of a slot sets all classes, those after it add their own."""
    o = head.o
    smooth = o.label_smooth_eps
    yes, no = 1 - smooth / 2, smooth / 2
    own = _one_hot(taken.known, o.classes) & taken.takes[..., None]
    number = torch.arange(same.shape[1], device=p.device)
    first = torch.where(same, number, same.shape[1]).amin(2).clamp_max(same.shape[1] - 1)
    opener = own.gather(1, first[..., None].expand_as(own))
    goals = (same.float() @ own.float()) > 0
    added = goals & ~opener
    again = (same.float() @ own.float() > 1) & opener
    delta = torch.where(opener, yes - p, no - p)
    if o.focal_loss:
        true = (p * opener).sum(2, keepdim=True) + 1e-15
        delta = (opener.float() - p) * 0.5 * -(1 - true) * (2 * true * true.log() + true - 1)
    factor = torch.where(opener, head.multipliers * (o.cls_normalizer if o.counters_per_class else 1), 1)
    if o.focal_loss:
        factor = torch.ones_like(factor)
    delta = delta * factor
    # A class that is set already gets the plain delta of its own, with its multiplier alone.
    plain = (yes - p) * head.multipliers
    return torch.where(added | again, plain, delta)


def _set_anew_later(p0: Tensor, taken: _Taken, same: Tensor) -> Tensor:
    """(N, A): does a later truth of the slot set all classes anew?

    Darknet adds a class where the delta of class 0 is not 0: so all truths behind a slot's first one add, but where
    ``p0``, class 0, is so far gone that its delta vanishes: at 0 while it was no goal, at 1 while it was one.
    """
    classed = taken.takes & (taken.known >= 0)
    same = same & classed[:, :, None] & classed[:, None]
    earlier = same.tril(-1)
    zero = (taken.known == 0)[:, None]
    number = torch.arange(same.shape[1], device=p0.device)
    before = torch.where(earlier, number, -1).amax(2, keepdim=True)
    right_before = (earlier & zero & (number == before)).any(2)
    anew = ((p0 == 0) & ~(earlier & zero).any(2)) | ((p0 == 1) & right_before)
    opens = classed & earlier.any(2) & anew
    return (same.triu(1) & opens[:, None]).any(2)


def _fitting(head: Yolo, planes: Tensor, predicted: Tensor, truth: Tensor, known: Tensor, fits: Tensor) -> Tensor:
    """With ``truth_thresh`` under 1: the deltas (N, n, 5+classes, h*w) of boxes toward the truths that they fit."""
    n, cells = planes.shape[1], planes.shape[3]
    number = torch.arange(n * cells, device=planes.device)
    own = torch.arange(n, device=planes.device) if head.mask is None else head.mask
    cell = torch.stack([number % cells % head.input.w, number % cells // head.input.w], -1)
    taken = _Taken(
        truth, known, own[number // cells].expand_as(fits), number.expand_as(fits),
        cell.expand(*fits.shape, 2), fits,
    )  # fmt: skip
    at = planes.transpose(2, 3).flatten(1, 2)
    box = _square_deltas(head, at, taken) * (2 - truth[..., 2] * truth[..., 3])[..., None]
    classes = _one_hot(known, head.o.classes).float() - at[..., 5:]
    rows = torch.cat([box, torch.zeros_like(box[..., :1]), torch.where(fits[..., None], classes, 0)], 2)
    planes_first: Tensor = rows.unflatten(1, (n, cells)).transpose(2, 3)
    return planes_first
