"""Boxes: IOU, non-maximum suppression, corners and centres, from the network's input back to the image.

Source: ``src/box.c`` and ``src/region_layer.c, correct_region_boxes``. A box is (x, y, w, h) with x, y at its centre,
relative to the image unless said otherwise. Everything is batched and runs on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .images import letterbox_size


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) and (..., 4), which broadcast -> (...) (src/box.c, box_iou).

    In Darknet's order of operations: float32 boxes give its result to the bit. Two boxes without area give NaN.
    """
    ax, ay, aw, ah = a.unbind(-1)
    bx, by, bw, bh = b.unbind(-1)
    w = _overlap(ax, aw, bx, bw).clamp_min_(0)
    h = _overlap(ay, ah, by, bh).clamp_min_(0)
    intersection = w.mul_(h)
    return intersection.div_((aw * ah + bw * bh).sub_(intersection))


def diou(a: Tensor, b: Tensor, beta: float) -> Tensor:
    """IOU less (d/c)^beta, of boxes as in :func:`iou` (AlexeyAB's src/box.c, box_diounms; box_diou has beta .6).

    d is the squared distance of the centres, c the squared diagonal of the smallest box around both. As in his
    program, boxes that share nothing have an IOU of 0, those without area too.
    """
    ax, ay, aw, ah = a.unbind(-1)
    bx, by, bw, bh = b.unbind(-1)
    c = _span(ax, aw, bx, bw).square() + _span(ay, ah, by, bh).square()
    d = (ax - bx).square() + (ay - by).square()
    # pow works on doubles in C.
    return iou(a, b).nan_to_num(nan=0) - torch.where(c == 0, 0, (d / c).double().pow(beta)).float()


def _span(x1: Tensor, w1: Tensor, x2: Tensor, w2: Tensor) -> Tensor:
    left = torch.minimum(x1 - w1 / 2, x2 - w2 / 2)
    return torch.maximum(x1 + w1 / 2, x2 + w2 / 2) - left


def _overlap(x1: Tensor, w1: Tensor, x2: Tensor, w2: Tensor) -> Tensor:
    left = torch.maximum(x1 - w1 / 2, x2 - w2 / 2)
    return torch.minimum(x1 + w1 / 2, x2 + w2 / 2).sub_(left)


def corners(boxes: Tensor) -> Tensor:
    """(x, y, w, h) -> (left, top, right, bottom), in the last dimension."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def centres(boxes: Tensor) -> Tensor:
    """(left, top, right, bottom) -> (x, y, w, h), in the last dimension."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + last) / 2, last - first], -1)


def unletterbox(
    boxes: Tensor,
    images: Sequence[tuple[int, int]],
    net: tuple[int, int],
    *,
    relative: bool = True,
    letter_box: bool = True,
) -> Tensor:
    """Boxes relative to the network's input -> boxes on each image (src/region_layer.c, correct_region_boxes).

    ``boxes`` (N, B, 4); ``images`` the N widths and heights; ``net`` the width and height of the network's input.
    ``relative``: to the image's size, else in its pixels. ``letter_box=False``: the image had been stretched
    over the whole input. Returns float32 (N, B, 4).
    """
    rows = []
    for w, h in images:
        # Of a sliver not a pixel may be left, and something has to be divided by.
        new_w, new_h = (max(side, 1) for side in (letterbox_size(w, h, *net) if letter_box else net))
        # What is a float in C is rounded to one; the rest is double there.
        scale = [float(np.float32(new) / np.float32(size)) for new, size in zip((new_w, new_h), net, strict=True)]
        offset = [(size - new) / 2 / size for new, size in zip((new_w, new_h), net, strict=True)]
        grow = [float(np.float32(size) / np.float32(new)) for new, size in zip((new_w, new_h), net, strict=True)]
        rows.append([*offset, *scale, *grow, *((1, 1) if relative else (w, h))])
    table = torch.tensor(rows, dtype=torch.float64, device=boxes.device).reshape(-1, 1, 8)
    offset, scale, grow, size = table.split(2, -1)
    centre = ((boxes[..., :2] - offset) / scale).float() * size.float()
    return torch.cat([centre, boxes[..., 2:].float() * grow.float() * size.float()], -1)


# By what a box falls besides its IOU.
NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")
GREEDY_BETA = 0.6  # box_diou
# Values of one tensor that compares boxes with boxes: those of an untrained network may be tens of thousands.
MOST_VALUES = 2**24


def nms_sort(
    boxes: Tensor,
    objectness: Tensor,
    prob: Tensor,
    thresh: float,
    kind: str = "default",
    beta: float = GREEDY_BETA,
) -> tuple[Tensor, Tensor]:
    """Per class, a box falls where its IOU with a kept box of higher probability is over ``thresh``.

    ``boxes`` (N, B, 4), ``objectness`` (N, B), ``prob`` (N, B, classes), 0 where a box is not of the class.
    ``kind``, one of AlexeyAB's, says what counts for the IOU (src/box.c, diounms_sort): "greedynms" :func:`diou` with
    .6, "diounms" with ``beta``, "default" and "cornersnms" the IOU itself.

    Returns ``prob`` with 0 for every box that fell, and ``order`` (N, B): the boxes' numbers in the sequence that
    Darknet leaves them in, and prints them in. Boxes of objectness 0 take no part and come last in ``order``.

    The result is that of src/box.c, do_nms_sort, ties included: its sort is stable, and each class starts from the
    sequence that the class before left. With ``prob`` = objectness[..., None] it is do_nms_obj.
    """
    order = _without_empty(objectness)
    positive = prob > 0
    taking_part = (positive.any(-1) & (objectness != 0)).gather(1, order)
    most = int(taking_part.sum(1).max())
    if most == 0:
        return prob, order
    order = order.gather(1, (~taking_part).long().argsort(dim=1, stable=True))
    rows, rest = order[:, :most], order[:, most:]
    valid = torch.arange(most, device=prob.device) < taking_part.sum(1, keepdim=True)
    p = prob.gather(1, _wide(rows, prob)) * valid[..., None]

    penalty = {"greedynms": GREEDY_BETA, "diounms": float(np.float32(beta))}.get(kind)  # beta_nms is a float in C
    pairs = _pairs(boxes.gather(1, _wide(rows, boxes)), thresh, penalty)
    step = max(MOST_VALUES // max(len(pairs), 1), 1)  # classes at a time
    alive = torch.cat([_keep(pairs, p, slice(k, k + step)) for k in range(0, p.shape[2], step)], 2)
    kept = torch.where(alive | ~valid[..., None], prob.gather(1, _wide(rows, prob)), 0)

    # The sequence after the last class: by its probability, ties by the class before, and so on.
    _, rank = torch.unique(p.flip(-1).flatten(0, 1), dim=0, return_inverse=True)
    rows_in_order = rows.gather(1, rank.reshape_as(rows).argsort(dim=1, descending=True, stable=True))
    return prob.scatter(1, _wide(rows, prob), kept), torch.cat([rows_in_order, rest], 1)


def _wide(rows: Tensor, values: Tensor) -> Tensor:
    return rows[..., None].expand(-1, -1, values.shape[-1])


def _without_empty(objectness: Tensor) -> Tensor:
    """The sequence (N, B) after do_nms_sort has put the boxes of objectness 0 behind: the last fills the first hole."""
    here = objectness != 0
    index = torch.arange(here.shape[1], device=here.device).expand(here.shape)
    front = index < here.sum(1, keepdim=True)
    holes = torch.where(front & ~here, index, here.shape[1]).sort(1).values
    movers = here & ~front
    number = movers.flip(1).cumsum(1).flip(1) - 1
    place = torch.where(movers, holes.gather(1, number.clamp_min(0)), torch.where(here, index, index + here.shape[1]))
    return place.argsort(1)


def _pairs(boxes: Tensor, thresh: float, penalty: float | None) -> Tensor:
    """Boxes (N, K, 4) of which one makes the other fall -> (M, 2), their numbers among all N*K, the smaller first."""
    images, count = boxes.shape[:2]
    flat, found = boxes.flatten(0, 1), []
    step = max(MOST_VALUES // (images * count), 1)
    for first in range(0, count, step):
        over = iou(boxes[:, first : first + step, None], boxes[:, None]) > thresh
        image, i, j = over.triu_(1 + first).nonzero().unbind(1)
        pairs = torch.stack([image * count + first + i, image * count + j], 1)
        if penalty is not None:  # which only takes away, so that no other pair can be over
            pairs = pairs[diou(flat[pairs[:, 0]], flat[pairs[:, 1]], penalty) > thresh]
        found.append(pairs)
    return torch.cat(found)


def _keep(pairs: Tensor, p: Tensor, some: slice) -> Tensor:
    """Which probabilities of some classes survive.

    ``p`` (N, K, classes), its boxes in the sequence before the first sort -> bool (N, K, some classes).
    """
    rows = p.flatten(0, 1)
    mine = rows[:, some]
    positive = mine > 0
    i, j = pairs.unbind(1)
    pair, k = (positive[i] & positive[j]).nonzero().unbind(1)
    i, j = i[pair], j[pair]
    # The pair's two probabilities, by their numbers as they lie in memory; i and j are those of their boxes.
    classes = mine.shape[1]
    flat, positive = mine.flatten(), positive.flatten()
    first, second = i * classes + k, j * classes + k
    # Of two boxes the more probable one wins; of two equal ones the one that stood first after the class before.
    wins = flat[first] > flat[second]
    tied = (flat[first] == flat[second]).nonzero().squeeze(1)
    one, other = rows[i[tied]], rows[j[tied]]
    numbers = torch.arange(rows.shape[1], device=p.device)
    decides = torch.where((one != other) & (numbers < some.start + k[tied, None]), numbers, -1).amax(1, keepdim=True)
    wins[tied] = ((decides < 0) | (one > other).gather(1, decides.clamp_min(0))).squeeze(1)
    winner, loser = torch.where(wins, first, second), torch.where(wins, second, first)
    # A box falls where a winner over it stands. From the top of each chain downward this settles, one link a round.
    alive = positive
    while True:
        now = positive.clone()
        now[loser[alive[winner]]] = False
        if torch.equal(now, alive):
            return alive.reshape(*p.shape[:2], classes)
        alive = now
