"""AlexeyAB's IOU losses: the overlaps of boxes in their kinds, and his deltas.

Source: his ``src/box.c, box_iou, box_giou, box_diou, box_ciou, dx_box_iou``. The deltas are *not* the derivatives
of the losses they are named after: dw and dh of IOU and GIOU are twice the derivative; DIOU and CIOU add terms of their
own, some with the sign turned, and CIOU's share of w and h lacks its divisor. Networks were trained by them, so they
stay.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..boxes import diou, iou

KINDS = ("iou", "giou", "mse", "diou", "ciou")


def ious(pred: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """IOU of boxes (..., 4) and (..., 4), which broadcast, and by name all kinds; 0 of boxes that share nothing."""
    plain = iou(pred, truth).nan_to_num(nan=0)
    px, py, pw, ph = pred.unbind(-1)
    tx, ty, tw, th = truth.unbind(-1)
    w = torch.maximum(px + pw / 2, tx + tw / 2) - torch.minimum(px - pw / 2, tx - tw / 2)
    h = torch.maximum(py + ph / 2, ty + th / 2) - torch.minimum(py - ph / 2, ty - th / 2)
    area = w * h
    overlap_w = torch.minimum(px + pw / 2, tx + tw / 2) - torch.maximum(px - pw / 2, tx - tw / 2)
    overlap_h = torch.minimum(py + ph / 2, ty + th / 2) - torch.maximum(py - ph / 2, ty - th / 2)
    shared = overlap_w.clamp_min(0) * overlap_h.clamp_min(0)
    union = pw * ph + tw * th - shared
    giou = torch.where(area == 0, plain, plain - (area - union) / area)
    c = w.square() + h.square()
    d = (px - tx).square() + (py - ty).square()
    alike, alpha = _aspect(pw, ph, tw, th, plain)
    ciou = torch.where(c == 0, plain, plain - (d / c + alpha * alike))
    return plain, {"iou": plain, "giou": giou, "mse": plain, "diou": diou(pred, truth, 0.6), "ciou": ciou}


def _aspect(pw: Tensor, ph: Tensor, tw: Tensor, th: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """CIOU's v, how far the aspects are apart, and its weight alpha."""
    v = 4 / math.pi**2 * ((tw / th).atan() - (pw / ph).atan()).square()
    return v, v / (1 - overlap + v + 0.000001)


def agreement(pred: Tensor, truth: Tensor, kind: str) -> Tensor:
    """IOU, GIOU, DIOU or CIOU of boxes (..., 4), for autograd: 1 minus it is the loss that is named after it.

    As published: DIOU has no exponent here, and alpha of CIOU counts as a constant.
    """
    (px, py, pw, ph), (tx, ty, tw, th) = pred.unbind(-1), truth.unbind(-1)
    left, right, top, bottom = px - pw / 2, px + pw / 2, py - ph / 2, py + ph / 2
    t_left, t_right, t_top, t_bottom = tx - tw / 2, tx + tw / 2, ty - th / 2, ty + th / 2
    shared_w = torch.minimum(right, t_right) - torch.maximum(left, t_left)
    shared_h = torch.minimum(bottom, t_bottom) - torch.maximum(top, t_top)
    shared = shared_w.clamp_min(0) * shared_h.clamp_min(0)
    union = pw * ph + tw * th - shared
    overlap = shared / union
    around_w = torch.maximum(right, t_right) - torch.minimum(left, t_left)
    around_h = torch.maximum(bottom, t_bottom) - torch.minimum(top, t_top)
    if kind == "giou":
        return overlap - (1 - union / (around_w * around_h))
    if kind in ("diou", "ciou"):
        apart = (px - tx).square() + (py - ty).square()
        alike, alpha = _aspect(pw, ph, tw, th, overlap)
        penalty = alpha.detach() * alike if kind == "ciou" else 0
        return overlap - apart / (around_w.square() + around_h.square()) - penalty
    return overlap


def iou_deltas(pred: Tensor, truth: Tensor, kind: str) -> Tensor:
    """(..., 4): his delta in x, y, w and h of ``pred``, relative to the image (dx_box_iou)."""
    px, py, pw, ph = pred.unbind(-1)
    tx, ty, tw, th = truth.unbind(-1)
    # delta_yolo_box: against a division by 0.
    pw, ph = torch.where(pw == 0, 1, pw), torch.where(ph == 0, 1, ph)
    top, bottom, left, right = py - ph / 2, py + ph / 2, px - pw / 2, px + pw / 2
    t_top, t_bottom, t_left, t_right = ty - th / 2, ty + th / 2, tx - tw / 2, tx + tw / 2

    height, width = bottom - top, right - left
    shared_h = torch.minimum(bottom, t_bottom) - torch.maximum(top, t_top)
    shared_w = torch.minimum(right, t_right) - torch.maximum(left, t_left)
    shared = shared_w * shared_h
    union = height * width + (t_bottom - t_top) * (t_right - t_left) - shared
    around_w = torch.maximum(right, t_right) - torch.minimum(left, t_left)
    around_h = torch.maximum(bottom, t_bottom) - torch.minimum(top, t_top)
    around = around_w * around_h

    def quotient(x: Tensor, x_delta: Tensor, y: Tensor, y_delta: Tensor) -> Tensor:
        return (y * x_delta - x * y_delta) / (y * y)

    # Of each edge: how the shared area, the union and the area around change with it.
    zero = torch.zeros_like(shared)
    shared_by = [
        torch.where(top > t_top, -shared_w, zero), torch.where(bottom < t_bottom, shared_w, zero),
        torch.where(left > t_left, -shared_h, zero), torch.where(right < t_right, shared_h, zero),
    ]  # fmt: skip
    area_by = [-width, width, -height, height]
    union_by = [area - one for area, one in zip(area_by, shared_by, strict=True)]
    # The sides are swapped as they stand in his.
    around_by = [
        torch.where(top < t_top, -around_w, zero), torch.where(bottom > t_bottom, around_w, zero),
        torch.where(left < t_left, -around_h, zero), torch.where(right > t_right, around_h, zero),
    ]  # fmt: skip
    edges = [
        torch.where(union > 0, quotient(shared, one, union, of_union), zero)
        for one, of_union in zip(shared_by, union_by, strict=True)
    ]
    # Of a box so small that rounding lets its edges fall together he takes one edge for both.
    for first, second, some in ((0, 1, top < bottom), (2, 3, left < right)):
        edges[first] = torch.where(some, edges[first], edges[second])
    apart = (shared_w <= 0) | (shared_h <= 0)
    if kind == "giou":
        terms = [
            quotient(union, of_union, around, of_around)
            for of_union, of_around in zip(union_by, around_by, strict=True)
        ]
        edges = [
            torch.where(apart, term, torch.where(around > 0, edge + term, edge))
            for edge, term in zip(edges, terms, strict=True)
        ]
    by_top, by_bottom, by_left, by_right = edges
    delta = torch.stack([by_left + by_right, by_top + by_bottom, by_right - by_left, by_bottom - by_top], -1)
    if kind not in ("diou", "ciou"):
        return delta

    c = around_w.square() + around_h.square()
    s = (px - tx).square() + (py - ty).square()
    out_left, out_right = (left < t_left).float(), (right > t_right).float()
    out_top, out_bottom = (top < t_top).float(), (bottom > t_bottom).float()
    c_by_x = 2 * around_w * (out_right - out_left)
    c_by_y = 2 * around_h * (out_bottom - out_top)
    c_by_w = 2 * around_w * (0.5 * out_right + 0.5 * out_left)
    c_by_h = 2 * around_h * (0.5 * out_bottom + 0.5 * out_top)
    terms = [
        (2 * (tx - px) * c - c_by_x * s) / (c * c), (2 * (ty - py) * c - c_by_y * s) / (c * c),
        c_by_w * s / (c * c), c_by_h * s / (c * c),
    ]  # fmt: skip
    if kind == "ciou":
        _, alpha = _aspect(pw, ph, tw, th, shared / union)
        turn = 8 / math.pi**2 * ((tw / th).atan() - (pw / ph).atan())
        terms[2] = terms[2] + alpha * turn * ph
        terms[3] = terms[3] - alpha * turn * pw
    term = torch.stack(terms, -1)
    return torch.where(apart[..., None], term, torch.where((c > 0)[..., None], delta + term, delta))
