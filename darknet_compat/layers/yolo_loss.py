"""The losses of [yolo]: pjreddie's, and AlexeyAB's, which differ in almost every rule.

Source: ``src/yolo_layer.c, forward_yolo_layer`` of pjreddie's program; ``process_batch, delta_yolo_box,
delta_yolo_class`` of AlexeyAB's, and his ``src/box.c, dx_box_iou``.

Both write down a *delta*: what is added to the gradient buffer, minus the gradient. AlexeyAB's is not the derivative of
any loss, so both are computed as they stand and handed to autograd by :func:`..head.with_delta`. Deltas have the map's
layout, (N, n*(5+classes), h, w), and boxes are numbered anchor*h*w + cell here.

Truths are looked at side by side, and what a later one of a slot changes is found by comparing all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import iou
from ..device import numbers_like
from .head import HeadLoss, focal, with_delta
from .iou_loss import agreement, iou_deltas, ious

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
    trained: Tensor
    """How many times a truth trained a box, and how many of these a box that another truth had trained before."""
    rewritten: Tensor


@dataclass
class Taken:
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
    _same: Tensor | None = None

    @property
    def same(self) -> Tensor:
        """(N, A, A): do both take the same box?"""
        if self._same is None:  # a cached_property has a lock, which torch.compile cannot take
            self._same = (self.slot[:, :, None] == self.slot[:, None]) & self.takes[:, :, None] & self.takes[:, None]
        return self._same

    @property
    def first(self) -> Tensor:
        """(N, A): the number of the first that takes the same box; any where none is taken."""
        return self.same.byte().argmax(2)

    @property
    def last(self) -> Tensor:
        """(N, A): and of the last."""
        return last_true(self.same)


def pjreddie_loss(head: Yolo, raw: Tensor, truth: Tensor) -> HeadLoss:
    """The loss of a raw map, and the figures of the mini-batch."""
    o = head.o
    with torch.no_grad():
        planes, predicted = activated(head, raw)
        truth = ended(truth)
        objectness = planes[:, :, 4].flatten(1)
        best, which = best_truths(predicted, truth, truth[..., 0] != 0)
        delta_obj = torch.where(best > o.ignore_thresh, 0, -objectness)
        taken = assign(head, truth, raw.shape[2:])
        at = rows_at(planes, taken)
        overlap = iou(picked(predicted, taken.slot), taken.truth[..., :4])

        delta = torch.zeros_like(planes)
        if o.truth_thresh < 1:
            # Boxes that fit a truth so well train toward it too, and a truth of the slot only adds its class.
            fits = best > o.truth_thresh
            delta_obj = torch.where(fits, 1 - objectness, delta_obj)
            fitting, says = all_boxes(head, planes, picked(truth, which), fits)
            box = square_deltas(head, says, fitting) * size_scale(fitting.truth)
            classes = one_hot(fitting.known, o.classes).float() - says[..., 5:]
            classes = torch.where((fitting.known >= 0)[..., None], classes, 0)
            delta = map_of(planes, fitting, torch.cat([box, torch.zeros_like(box[..., :1]), classes], 2))
        delta[:, :, 4] = delta_obj.reshape_as(delta[:, :, 4])
        # The box is the last truth's.
        box = picked(square_deltas(head, at, taken) * size_scale(taken.truth), taken.last)
        classes = classes_by_first(at[..., 5:], rows_at(delta, taken)[..., 5:], taken)
        write(delta, taken, torch.cat([box, 1 - at[..., 4:5], classes], 2))

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
    with torch.no_grad():
        planes, predicted = activated(head, raw)
        truth = ended(truth)
        objectness = planes[:, :, 4].flatten(1)
        # A truth of a class that is none is passed over, with a warning in his program.
        known = counted(head, truth)
        best, which = best_truths(predicted, truth, known)
        matched = torch.where((planes[:, :, 5:].amax(2) > MATCH).flatten(1), best, 0)
        delta_obj = -o.obj_normalizer * objectness
        if o.objectness_smooth:
            delta_obj = torch.where(matched > o.ignore_thresh, o.obj_normalizer * (matched - objectness), delta_obj)
        else:
            delta_obj = torch.where(matched > o.ignore_thresh, 0, delta_obj)
        taken = assign(head, torch.where(known[..., None], truth, 0), raw.shape[2:])
        at = rows_at(planes, taken)
        boxes = picked(predicted, taken.slot)
        overlap, overlaps = ious(boxes, taken.truth[..., :4])
        multiplier = head.multipliers[taken.known.clamp_min(0)]

        delta = torch.zeros_like(planes)
        trained = [taken]
        fits = best > o.truth_thresh if o.truth_thresh < 1 else torch.zeros_like(best, dtype=torch.bool)
        if o.truth_thresh < 1:
            # Boxes that fit a truth so well train toward it too.
            goal = best.square() if o.objectness_smooth else torch.ones_like(best)
            delta_obj = torch.where(fits, o.obj_normalizer * (goal - objectness), delta_obj)
            fitting, says = all_boxes(head, planes, picked(truth, which), fits)
            factor = head.multipliers[fitting.known.clamp_min(0)]
            box = _box_deltas(head, says, predicted, fitting, factor)
            own = one_hot(fitting.known, o.classes)
            classes = _first_classes(head, says[..., 5:], own)
            if o.objectness_smooth:
                classes = torch.where(own, factor[..., None] * (goal[..., None] - says[..., 5:]), classes)
            delta = map_of(planes, fitting, torch.cat([box, torch.zeros_like(box[..., :1]), classes], 2))
            trained.append(fitting)
        delta[:, :, 4] = delta_obj.reshape_as(delta[:, :, 4])
        before = rows_at(delta, taken)
        # All truths of a slot add up.
        box = _box_deltas(head, at, boxes, taken, multiplier)
        box = before[..., :4] + taken.same.float() @ torch.where(taken.takes[..., None], box, 0)
        classes = _class_deltas(head, at[..., 5:], before[..., 5:], fits.gather(1, taken.slot), taken)
        object_delta = multiplier * o.obj_normalizer * (1 - at[..., 4])
        if o.objectness_smooth:
            # He sets it only where nothing was set before: the first truth's.
            object_delta = torch.where(before[..., 4] == 0, object_delta.gather(1, taken.first), before[..., 4])
        else:
            object_delta = object_delta.gather(1, taken.last)
        write(delta, taken, torch.cat([box, object_delta[..., None], classes], 2))
        if head.has_own_delta and head.gradient == "true":
            delta[:, :, :4] += true_deltas(head, raw, trained)
        if o.iou_thresh < 1:
            positive = (delta[:, :, 5:] > 0).sum(2, keepdim=True)
            averaged = (positive > 0) & (delta[:, :, 4:5] != 0)
            delta[:, :, :4] = torch.where(averaged, delta[:, :, :4] / positive, delta[:, :, :4])

        count = taken.takes.sum()
        some = count.clamp_min(1)
        squares = delta.square()
        total = squares.sum()
        class_loss = o.obj_normalizer * squares[:, :, 4:].sum()
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
            trained=count + fits.sum(),
            rewritten=(taken.takes & (taken.same.tril(-1).any(2) | fits.gather(1, taken.slot))).sum(),
        )
        delta *= o.delta_normalizer
    return HeadLoss(with_delta(raw, delta.reshape_as(raw), figures.cost), figures)


def activated(head: Yolo, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Activated planes (N, n, 5+classes, h*w), and the boxes (N, n*h*w, 4) that they say."""
    planes = head.planes(head(raw))
    boxes = head.xywh(planes[:, :, : head.coords].permute(0, 3, 4, 1, 2))
    return planes.flatten(3), boxes.permute(0, 3, 1, 2, 4).flatten(1, 3)


def ended(truth: Tensor) -> Tensor:
    """Zeros in the rows behind the first x of 0; on a CPU the rows behind the last image's end are cut off."""
    truth = torch.where((truth[:, :, :1] != 0).cumprod(1) != 0, truth, 0)
    if truth.device.type == "cpu" and not torch.compiler.is_compiling():
        truth = truth[:, : max(int((truth[..., 0] != 0).sum(1).max()), 1)]
    return truth


def counted(head: Yolo, truth: Tensor) -> Tensor:
    """(N, T) bool: the truths that AlexeyAB's program looks at, those whose class there is."""
    number = truth[..., 4].trunc()
    there: Tensor = (truth[..., 0] != 0) & (number >= 0) & (number < head.o.classes)
    return there


def best_truths(predicted: Tensor, truth: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Each box's best IOU (N, B) with a truth that is ``counted``, and that truth's number."""
    # A compiler looks for the best as it computes them, and has no such tensor.
    whole = torch.compiler.is_compiling()
    at_once = len(truth) if whole else max(1, MOST_VALUES // (truth.shape[1] * predicted.shape[1]))
    parts = [
        torch.where(seen[..., None], iou(guess[:, None], real[:, :, None, :4]), 0).nan_to_num_(nan=0).max(1)
        for guess, real, seen in zip(
            predicted.split(at_once), truth.split(at_once), counted.split(at_once), strict=True
        )
    ]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def class_of(head: Yolo, truth: Tensor) -> Tensor:
    """The class of truths (..., 5), through the map; -1 where it is none."""
    number = truth[..., 4].long()
    if head.map is not None:
        number = head.map[torch.where((number >= 0) & (number < len(head.map) - 1), number, -1)]
    return torch.where((number >= 0) & (number < head.o.classes), number, -1)


def assign(head: Yolo, truth: Tensor, grid: torch.Size) -> Taken:
    """Which boxes each truth takes: that of its best anchor of all where it is this head's, and with ``iou_thresh``
    each other anchor of this head that fits."""
    rows, columns = grid
    column, row = head.cells(truth).unbind(-1)
    inside = (truth[..., 0] != 0) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    cell = torch.where(inside, row * columns + column, 0).long()
    sizes = head.anchors / numbers_like(head.anchors, head.image.w, head.image.h)
    shifted, given = F.pad(sizes, (2, 0)), F.pad(truth[:, :, None, 2:4], (2, 0))
    fit = iou(shifted, given)
    # Of equal ones the first; anchor 0 where none overlaps or the IOU is no number.
    best = torch.where(fit > 0, fit, 0).argmax(2)
    place = head.places[best]
    anchor, place, takes = best[..., None], place[..., None], (inside & (place >= 0))[..., None]
    if head.o.iou_thresh < 1:
        _, kinds = ious(shifted, given)
        fit = kinds[head.o.iou_thresh_kind]
        own = torch.arange(len(head.places), device=truth.device) if head.mask is None else head.mask
        more = (fit[..., own] > head.o.iou_thresh) & (own != best[..., None]) & inside[..., None]
        anchor = torch.cat([anchor, own.expand(*best.shape, -1)], 2)
        place = torch.cat([place, head.places[own].expand(*best.shape, -1)], 2)
        takes = torch.cat([takes, more], 2)
    count = anchor.shape[2]
    slot = torch.where(takes, place * (rows * columns) + cell[..., None], 0)
    return Taken(
        truth.repeat_interleave(count, 1),
        class_of(head, truth).repeat_interleave(count, 1),
        anchor.flatten(1),
        slot.flatten(1),
        torch.stack([column, row], -1).repeat_interleave(count, 1),
        takes.flatten(1),
    )


def last_true(rows: Tensor) -> Tensor:
    """(N, A): the number of the last True of each row of (N, A, A); any where there is none."""
    return rows.shape[2] - 1 - rows.flip(2).byte().argmax(2)


def picked(rows: Tensor, number: Tensor) -> Tensor:
    """(N, A, k): of each image's rows (N, R, k) those of the numbers (N, A)."""
    return rows[torch.arange(len(rows), device=rows.device)[:, None], number]


def index_of(slot: Tensor, planes: Tensor) -> tuple[Tensor, Tensor, slice, Tensor]:
    """Where in (N, n, 5+classes, h*w) the boxes of the numbers (N, A) are."""
    image, cells = torch.arange(len(slot), device=slot.device)[:, None], planes.shape[3]
    return image, slot // cells, slice(None), slot % cells


def rows_at(planes: Tensor, taken: Taken) -> Tensor:
    """(N, A, 5+classes): what the boxes that are taken say."""
    return planes[index_of(taken.slot, planes)]


def write(delta: Tensor, taken: Taken, rows: Tensor) -> None:
    """Put ``rows`` (N, A, 5+classes) where they belong. Truths of one slot bring equal rows."""
    # Those that take no slot write to the first truth's of the image that does, what that one writes; or 0 over 0.
    chosen = taken.takes.float().argmax(1, keepdim=True)
    source = torch.where(taken.takes, torch.arange(taken.slot.shape[1], device=delta.device), chosen)
    there = index_of(taken.slot.gather(1, source), delta)
    delta[there] = torch.where(taken.takes.any(1)[:, None, None], picked(rows, source), delta[there])


def one_hot(number: Tensor, classes: int) -> Tensor:
    """(..., classes) bool; all False for -1."""
    return number[..., None] == torch.arange(classes, device=number.device)


def size_scale(truth: Tensor) -> Tensor:
    """(..., 1): by how much more the boxes of small truths count."""
    return (2 - truth[..., 2] * truth[..., 3])[..., None]


def square_deltas(head: Yolo, at: Tensor, taken: Taken) -> Tensor:
    """(N, A, 4): what is missing to the truth in x, y, w, h, as the map has them; ``at`` begins with these."""
    o = head.o
    truth, anchor = taken.truth, head.anchors[taken.anchor]
    size = numbers_like(head.anchors, head.image.w, head.image.h)
    grid = numbers_like(head.anchors, head.input.w, head.input.h)
    centre = head.point(truth) * grid - taken.cell
    side = truth[..., 2:4] * size
    wh = (side / (4 * anchor)).sqrt() if o.new_coords else (side / anchor).log()
    # The goals of rows that are no truths may be infinite.
    return torch.where(taken.takes[..., None], torch.cat([centre, wh], 2) - at[..., :4], 0)


def _box_deltas(head: Yolo, at: Tensor, box: Tensor, taken: Taken, multiplier: Tensor) -> Tensor:
    """(N, A, 4): delta_yolo_box, before truths of one slot add up."""
    o = head.o
    normalizer: Tensor = (o.iou_normalizer * multiplier)[..., None]
    if o.iou_loss == "mse":
        square: Tensor = size_scale(taken.truth) * square_deltas(head, at, taken) * normalizer
        return square
    if head.gradient == "true":
        return torch.zeros_like(at[..., :4])  # true_deltas come in their place
    found = iou_deltas(box, taken.truth[..., :4], o.iou_loss)
    if not o.new_coords:
        found = torch.cat([found[..., :2], found[..., 2:] * at[..., 2:4].exp()], 2)
    found = torch.nan_to_num(found * normalizer, nan=0, posinf=0, neginf=0)
    return found if o.max_delta is None else found.clamp(-o.max_delta, o.max_delta)


def true_deltas(head: Yolo, raw: Tensor, trained: Sequence[Taken]) -> Tensor:
    """Minus the derivative of the IOU losses, iou_normalizer * (1 - IOU) of each truth and box, in the raw map:
    (N, n, coords, h*w). ``-gradient true`` trains by it in the place of :func:`iou_deltas`."""
    o = head.o
    with torch.enable_grad():
        raw = raw.detach().requires_grad_()
        _, predicted = activated(head, raw)
        lost = []
        for taken in trained:
            # What takes no box needs a truth all the same: its derivative must be a number.
            truth = torch.where(taken.takes[..., None], taken.truth[..., :4], 0.5)
            loss = 1 - agreement(picked(predicted, taken.slot), truth, o.iou_loss)
            factor = o.iou_normalizer * head.multipliers[taken.known.clamp_min(0)]
            lost.append((factor * torch.where(taken.takes, loss, 0)).sum())
    (gradient,) = torch.autograd.grad(lost, raw)
    return -head.planes(gradient)[:, :, : head.coords].flatten(3)


def _first_classes(head: Yolo, p: Tensor, own: Tensor) -> Tensor:
    """(N, A, classes): delta_yolo_class of AlexeyAB's, where a slot has none yet; ``own`` is the truth's class."""
    o = head.o
    if o.focal_loss:
        return (own.float() - p) * focal((p * own).sum(2, keepdim=True))
    yes, no = class_goals(head)
    return torch.where(own, (yes - p) * first_multipliers(head), no - p)


def class_goals(head: Yolo) -> tuple[float, float]:
    """Of a truth's class, and of the others."""
    return 1 - head.o.label_smooth_eps / 2, head.o.label_smooth_eps / 2


def first_multipliers(head: Yolo) -> Tensor:
    """(classes,): of the class of the truth that sets all classes."""
    normalizer: float = head.o.cls_normalizer if head.o.counters_per_class else 1
    return head.multipliers * normalizer


def _class_deltas(head: Yolo, p: Tensor, before: Tensor, has: Tensor, taken: Taken) -> Tensor:
    """(N, A, classes): delta_yolo_class of AlexeyAB's. The first truth of a slot sets all classes, unless the slot
    ``has`` deltas ``before``; those after it add their own."""
    yes, _ = class_goals(head)
    own = one_hot(taken.known, head.o.classes) & taken.takes[..., None]
    opener = picked(own, taken.first) & ~has[..., None]
    delta = torch.where(has[..., None], before, _first_classes(head, p, opener))
    # A class that is set already gets the plain delta of its own, with its multiplier alone.
    return torch.where(taken.same.float() @ own.float() > opener, (yes - p) * head.multipliers, delta)


def classes_by_first(
    p: Tensor,
    before: Tensor,
    taken: Taken,
    goals: tuple[float, float] = (1, 0),
    multipliers: Tensor | float = 1,
    first: Tensor | float = 1,
) -> Tensor:
    """(N, A, classes): delta_yolo_class of pjreddie's and delta_gaussian_yolo_class, for slots that have ``before``.

    A truth adds its class where the delta of class 0 is not 0, else it sets all classes anew. So all truths behind a
    slot's first one add, but where class 0 is so far gone that its delta vanishes: at the goal 0 while it was no
    truth's, at 1 while it was. ``multipliers`` are for a class that is added, ``first`` for that of a truth that sets.
    """
    yes, no = goals
    classed = taken.takes & (taken.known >= 0)
    same = taken.same & classed[:, :, None] & classed[:, None]
    earlier = same.tril(-1)
    zero = taken.known == 0
    right_before = zero.gather(1, last_true(earlier))
    opened, p0 = before[..., 0] != 0, p[..., 0]
    again = ((p0 == no) & ~opened & ~(earlier & zero[:, None]).any(2)) | ((p0 == yes) & right_before)
    sets = classed & torch.where(earlier.any(2), again, ~opened)
    stays = ~(same.triu(1) & sets[:, None]).any(2)
    own = one_hot(taken.known, before.shape[2]).float()
    times = (same & stays[:, None]).float() @ own
    setter = (same & (sets & stays)[:, None]).float() @ own
    delta = torch.where((same & sets[:, None]).any(2)[..., None], no - p, before)
    delta = torch.where(setter > 0, (yes - p) * first, delta)
    return torch.where(times > setter, (yes - p) * multipliers, delta)


def all_boxes(head: Yolo, planes: Tensor, truth: Tensor, fits: Tensor) -> tuple[Taken, Tensor]:
    """Every box against the truth (N, n*h*w, 5) that it fits best, where it ``fits``; and what the boxes say."""
    n, cells = planes.shape[1], planes.shape[3]
    number = torch.arange(n * cells, device=planes.device)
    own = torch.arange(n, device=planes.device) if head.mask is None else head.mask
    cell = torch.stack([number % cells % head.input.w, number % cells // head.input.w], -1)
    taken = Taken(
        truth, torch.where(fits, class_of(head, truth), -1), own[number // cells].expand_as(fits),
        number.expand_as(fits), cell.expand(*fits.shape, 2), fits,
    )  # fmt: skip
    return taken, planes.transpose(2, 3).flatten(1, 2)


def map_of(planes: Tensor, boxes: Taken, rows: Tensor) -> Tensor:
    """The rows (N, n*h*w, planes) of :func:`all_boxes`, 0 where a box fits no truth, as ``planes`` lie."""
    rows = torch.where(boxes.takes[..., None], rows, 0)
    lying: Tensor = rows.unflatten(1, (planes.shape[1], planes.shape[3])).transpose(2, 3).contiguous()
    return lying
