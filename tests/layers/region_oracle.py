"""The region layer once more: one number at a time, in plain Python and doubles.

A second reference beside libdarknet, for what that cannot be asked: more than 30 truths, truths outside the image,
classes that are none. Slow, and meant to be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Options:
    """Options of [region], by Darknet's names; ``tree`` and ``map`` are what their files hold."""

    anchors: list
    classes: int
    softmax: int = 0
    thresh: float = 0.5
    rescore: int = 0
    bias_match: int = 0
    coord_scale: float = 1
    object_scale: float = 1
    noobject_scale: float = 1
    class_scale: float = 1
    max: int = 30
    tree: object = None
    map: list | None = None


@dataclass
class Sums:
    iou: float = 0
    recall: int = 0
    probability: float = 0
    objectness: float = 0
    any_objectness: float = 0
    boxes: int = 0
    classes: int = 0


@dataclass
class PlainLoss:
    output: np.ndarray
    delta: np.ndarray
    sums: Sums = field(default_factory=Sums)

    @property
    def gradient(self):
        """Of the loss in the raw map: minus delta, through the logistic where there is one."""
        slope = np.ones_like(self.output)
        for plane in (0, 1, 4):
            y = self.output[:, :, plane]
            slope[:, :, plane] = y * (1 - y)
        return -self.delta * slope

    @property
    def figures(self):
        s = self.sums

        def mean(total, count):
            return total / count if count else math.nan

        return {
            "cost": float((self.delta**2).sum()),
            "avg_iou": mean(s.iou, s.boxes),
            "avg_class": mean(s.probability, s.classes),
            "obj": mean(s.objectness, s.boxes),
            "no_obj": s.any_objectness / self.output[:, :, 4].size,
            "avg_recall": mean(s.recall, s.boxes),
            "count": s.boxes,
        }


def logistic(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def box_iou(a, b):
    def shared(i):
        low = max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2)
        high = min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2)
        return high - low

    if shared(0) < 0 or shared(1) < 0:
        return 0.0
    both = shared(0) * shared(1)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def activate(o, planes):
    """planes (num, 5 + classes, h, w) of one image -> the same, activated."""
    out = planes.astype(np.float64)
    groups = [range(o.classes)]
    if o.tree is not None:
        groups = [np.flatnonzero(o.tree.group == g) for g in range(o.tree.groups)]
    for n, row, column in np.ndindex(out.shape[0], *out.shape[2:]):
        box = out[n, :, row, column]
        for plane in (0, 1, 4):
            box[plane] = logistic(box[plane])
        if o.tree is None and not o.softmax:
            box[5:] = [logistic(v) for v in box[5:]]
            continue
        for group in groups:
            at = [5 + i for i in group]
            e = np.exp(box[at] - box[at].max())
            box[at] = e / e.sum()
    return out


def path_up(tree, number):
    while number >= 0:
        yield number
        number = tree.parent[number]


def plain_loss(o, map, truth, seen):
    """What forward_region_layer leaves, for a raw map (N, num*(5+classes), h, w) and truth (N, T, 5)."""
    num = len(o.anchors) // 2
    planes = np.asarray(map).reshape(len(map), num, 5 + o.classes, *map.shape[2:])
    result = PlainLoss(np.stack([activate(o, p) for p in planes]), np.zeros(planes.shape))
    for output, delta, rows in zip(result.output, result.delta, np.asarray(truth, np.float64), strict=True):
        listed = []
        for row in rows[: o.max]:
            if row[0] == 0:
                break
            listed.append(row)
        one_image(o, output, delta, listed, seen, result.sums)
    return result


def one_image(o, output, delta, truths, seen, sums):
    if o.tree is not None:
        for truth in truths:
            if truth[0] > 100000 and truth[1] > 100000:
                class_only(o, output, delta, int(truth[4]), sums)
                return
    num, _, h, w = output.shape

    def predicted(n, row, column):
        x, y, tw, th = output[n, :4, row, column]
        return [
            (column + x) / w,
            (row + y) / h,
            math.exp(tw) * o.anchors[2 * n] / w,
            math.exp(th) * o.anchors[2 * n + 1] / h,
        ]

    for n, row, column in np.ndindex(num, h, w):
        objectness = output[n, 4, row, column]
        sums.any_objectness += objectness
        best = max((box_iou(predicted(n, row, column), truth) for truth in truths), default=0)
        if not max(best, 0) > o.thresh:
            delta[n, 4, row, column] = -o.noobject_scale * objectness
        if seen < 12800:
            delta[n, :4, row, column] = 0.01 * (np.array([0.5, 0.5, 0, 0]) - output[n, :4, row, column])

    opened = set()
    for truth in truths:
        x, y, tw, th, number = truth
        column, row = int(x * w), int(y * h)
        if not (-1 < x * w < w and -1 < y * h < h):
            continue
        best, n = 0, 0
        for candidate in range(num):
            size = [o.anchors[2 * candidate] / w, o.anchors[2 * candidate + 1] / h]
            if not o.bias_match:
                size = predicted(candidate, row, column)[2:]
            fit = box_iou([0, 0, *size], [0, 0, tw, th])
            if fit > best:
                best, n = fit, candidate
        values, change = output[n, :, row, column], delta[n, :, row, column]
        iou = box_iou(predicted(n, row, column), truth)
        goal = [
            x * w - column,
            y * h - row,
            math.log(tw * w / o.anchors[2 * n]),
            math.log(th * h / o.anchors[2 * n + 1]),
        ]
        change[:4] = o.coord_scale * (2 - tw * th) * (goal - values[:4])
        change[4] = o.object_scale * ((iou if o.rescore else 1) - values[4])
        sums.boxes += 1
        sums.classes += 1
        sums.iou += iou
        sums.recall += iou > 0.5
        sums.objectness += values[4]
        number = int(number)
        if o.map is not None:
            number = o.map[number] if 0 <= number < len(o.map) else -1
        if 0 <= number < o.classes:
            train_class(o, values[5:], change[5:], number, (n, row, column) in opened, sums)
            opened.add((n, row, column))


def train_class(o, p, change, number, opened, sums):
    """``opened``: an earlier truth trained the classes of this slot."""
    if o.tree is not None:
        probability = 1
        for node in path_up(o.tree, number):
            probability *= p[node]
            group = o.tree.group == o.tree.group[node]
            change[group] = -o.class_scale * p[group]
            change[node] = o.class_scale * (1 - p[node])
        sums.probability += probability
    elif not o.softmax and opened and change[0] != 0:
        change[number] = o.class_scale * (1 - p[number])
    else:
        change[:] = -o.class_scale * p
        change[number] = o.class_scale * (1 - p[number])
        sums.probability += p[number]


def class_only(o, output, delta, number, sums):
    delta[:, 4] = -o.noobject_scale * output[:, 4]
    best, slot = 0, (0, 0, 0)
    for n, row, column in np.ndindex(output.shape[0], *output.shape[2:]):
        p = output[n, 4, row, column]
        for node in path_up(o.tree, number):
            p *= output[n, 5 + node, row, column]
        if p > best:
            best, slot = p, (n, row, column)
    n, row, column = slot
    train_class(o, output[n, 5:, row, column], delta[n, 5:, row, column], number, False, sums)
    delta[n, 4, row, column] = 0
    sums.classes += 1
