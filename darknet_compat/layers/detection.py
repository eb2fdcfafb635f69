"""[detection]: YOLOv1's head, its boxes and its loss.

Source: ``src/detection_layer.c``.

The input is a flat vector: side*side*classes values of the classes, cell by cell; side*side*num confidences, cell by
cell and in a cell box by box; side*side*num*4 numbers of the boxes in the same order: x, y within the cell, w, h.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..boxes import iou
from .base import Shape, register
from .head import Boxes, Head, HeadLoss, with_delta

if TYPE_CHECKING:
    from ..export.graph import Graph


RANDOM_IMAGES = 64000  # forward_detection_layer: with random=1 a box is drawn until so many were seen
MOST_RMSE = 20.0


class DetectionFigures(NamedTuple):
    """What Darknet prints of a mini-batch; means over the cells with an object, NaN where there is none."""

    cost: Tensor
    """The sum of delta^2."""
    avg_iou: Tensor
    """Mean IOU of the truths with the boxes that are responsible for them."""
    pos_cat: Tensor
    """Mean value of the truths' classes."""
    all_cat: Tensor
    """Mean value of all classes in these cells."""
    pos_obj: Tensor
    """Mean confidence of the responsible boxes."""
    any_obj: Tensor
    """Mean confidence of all boxes."""
    count: Tensor  # type: ignore[assignment]  # tuple.count is not used
    """The number of cells with an object."""


@register("detection")
class Detection(Head):
    """YOLOv1's head. Its values are the input's, the classes perhaps through a softmax; :meth:`boxes` says the rest."""

    options = {
        "coords": 1,
        "classes": 1,
        "rescore": 0,
        "num": 1,
        "side": 7,
        "softmax": 0,
        "sqrt": 0,
        # for the loss
        "coord_scale": 1.0,
        "forced": 0,
        "object_scale": 1.0,
        "noobject_scale": 1.0,
        "class_scale": 1.0,
        # for the loader of images
        "jitter": 0.2,
        # which Darknet reads and does not use
        "reorg": 0,
    }
    pjreddie = {"max": 90, "random": 0}
    alexeyab = {"max": 200, "random": 0.0, "resize": 1.0}

    finds_boxes = True
    Figures = DetectionFigures
    columns = ("avg_iou", "pos_cat", "all_cat", "pos_obj", "any_obj", "count")
    stretches = True
    resizable = False

    def shape(self) -> Shape:
        o = self.o
        for name in ("num", "classes", "side", "max"):
            self.at_least(name, 1)
        if o.coords != 4:  # get_detection_detections takes four, whatever coords says
            raise self.section.error(f"coords is {o.coords}; expected 4", "coords")
        expected = o.side**2 * (5 * o.num + o.classes)
        if self.input.outputs != expected:
            raise self.section.error(
                f"the layer before gives {self.input.outputs} values; "
                f"expected output={expected} in the layer before: side*side*(5*num+classes)"
            )
        return self.input

    def row(self) -> str:
        return "Detection Layer"

    def forward(self, raw: Tensor) -> Tensor:
        """The input; with ``softmax`` the classes of each cell through one (forward_detection_layer on the CPU)."""
        if not self.o.softmax:
            return raw
        classes, rest = self._parts(raw.flatten(1), 1)
        classes = classes.unflatten(1, (-1, self.o.classes)).softmax(2).flatten(1)
        return torch.cat([classes, rest], 1).reshape(raw.shape)

    def _parts(self, values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """The classes, and what stands behind them."""
        count = self.o.side**2 * self.o.classes
        classes, rest = values.split([count, values.shape[dim] - count], dim)
        return classes, rest

    def boxes(self, output: Tensor, thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None) -> Boxes:
        """What the output says (get_detection_detections): boxes, confidences and probabilities.

        Returns xywh (N, B, 4) relative to the network's input, cell by cell, and prob (N, B, classes), confidence times
        the class's value, 0 where it is not over ``thresh``. The objectness (N, B) is the confidence as it is, which
        may be under 0. ``hier`` and ``class_map`` are not looked at.
        """
        o = self.o
        classes, rest = self._parts(output.flatten(1), 1)
        confidence, box = rest.split([o.side**2 * o.num, o.side**2 * o.num * 4], 1)
        prob = confidence.unflatten(1, (-1, o.num, 1)) * classes.unflatten(1, (-1, 1, o.classes))
        prob = torch.where(prob > thresh, prob, 0)
        x, y, w, h = box.unflatten(1, (o.side, o.side, o.num, 4)).unbind(-1)
        column = torch.arange(o.side, device=output.device)[:, None]
        row = column[:, None]
        w, h = (w * w, h * h) if o.sqrt else (w, h)
        xywh = torch.stack([(x + column) / o.side, (y + row) / o.side, w, h], -1)
        return Boxes(xywh.flatten(1, 3), confidence, prob.flatten(1, 2))

    def loss(self, raw: Tensor, truth: Tensor, seen: int | Tensor) -> HeadLoss:
        """The loss of the values that enter, in float32 (forward_detection_layer).

        ``truth`` (N, T, 5) holds rows x, y, w, h, class, relative to the image; an image's rows end at the first x of
        0. The first of a cell counts, as ``fill_truth_region`` has it; one whose centre is outside of the image, or
        whose class is none, is passed over. The gradient is minus Darknet's delta; the loss's value is the cost that
        it prints. With ``random=1`` the responsible box is drawn by torch's random numbers until ``seen`` is 64,000.
        """
        o = self.o
        with torch.autocast(raw.device.type, enabled=False), torch.no_grad():
            cells = o.side**2
            values = self(raw.float()).flatten(1)
            classes, confidence, box = values.split([cells * o.classes, cells * o.num, cells * o.num * 4], 1)
            classes = classes.unflatten(1, (cells, -1))
            confidence, box = confidence.unflatten(1, (cells, -1)), box.unflatten(1, (cells, -1, 4))
            has, rows = self._grid(truth.float())
            place, size = rows[..., :2], rows[..., 2:4]
            goal = (rows[..., 4:5].long() == torch.arange(o.classes, device=raw.device)) & has[..., None]

            sizes = box[..., 2:].square() if o.sqrt else box[..., 2:]
            out = torch.cat([box[..., :2] / o.side, sizes], -1)
            real = torch.cat([place / o.side, size], -1)[:, :, None]
            overlap = iou(out, real).nan_to_num(nan=0)
            best = self._responsible(out, real, overlap, seen)
            mine = (best[..., None] == torch.arange(o.num, device=raw.device)) & has[..., None]
            of_best = overlap.gather(2, best[..., None]).squeeze(2)

            sure = overlap if o.rescore else torch.ones_like(overlap)
            delta_confidence = torch.where(mine, o.object_scale * (sure - confidence), -o.noobject_scale * confidence)
            wanted = torch.cat([place, size.sqrt() if o.sqrt else size], -1)[:, :, None]
            delta_box = torch.where(mine[..., None], o.coord_scale * (wanted - box), 0)
            delta_classes = torch.where(has[..., None], o.class_scale * (goal.float() - classes), 0)
            delta = torch.cat([one.flatten(1) for one in (delta_classes, delta_confidence, delta_box)], 1)
            count = has.sum()
            figures = DetectionFigures(
                cost=delta.square().sum(),
                avg_iou=(of_best * has).sum() / count,
                pos_cat=(classes * goal).sum() / count,
                all_cat=(classes * has[..., None]).sum() / (count * o.classes),
                pos_obj=(confidence * mine).sum() / count,
                any_obj=confidence.mean(),
                count=count,
            )
        return HeadLoss(with_delta(raw, delta.reshape_as(raw).to(raw.dtype), figures.cost), figures)

    def _grid(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Which cells have an object (N, cells), and its row: x, y within the cell, w, h, class (N, cells, 5)."""
        side = self.o.side
        column, row = (truth[..., 0] * side).trunc(), (truth[..., 1] * side).trunc()
        listed = (truth[..., 0] != 0).cumprod(1) != 0
        inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        named = (truth[..., 4] >= 0) & (truth[..., 4] < self.o.classes)
        taking = listed & inside & named
        cell = torch.where(taking, row * side + column, side * side).long()
        # Of several truths the smallest number; a column more for those that take none.
        number = torch.arange(truth.shape[1], device=truth.device).expand_as(cell)
        first = number.new_full((len(truth), side * side + 1), truth.shape[1])
        first = first.scatter_reduce(1, cell, number, "amin")[:, :-1]
        has = first < truth.shape[1]
        chosen = first.clamp_max(truth.shape[1] - 1)
        rows = truth.gather(1, chosen[..., None].expand(-1, -1, 5))
        within = torch.stack([rows[..., 0] * side, rows[..., 1] * side], -1)
        return has, torch.cat([within - within.trunc(), rows[..., 2:]], -1) * has[..., None]

    def _responsible(self, out: Tensor, real: Tensor, overlap: Tensor, seen: int | Tensor) -> Tensor:
        """(N, cells): the box that answers for the truth: the highest IOU, or of none the nearest; with ``forced`` by
        the truth's size; with ``random`` any at first."""
        o = self.o
        if o.forced:
            if o.num < 2:
                raise self.section.error("forced=1 takes the second box of a cell; expected num=2 or more", "forced")
            best = (real[..., 0, 2] * real[..., 0, 3] < 0.1).long()
        else:
            rmse = (out - real).square().sum(-1).sqrt().clamp_max(MOST_RMSE)
            best = torch.where((overlap > 0).any(2), overlap.argmax(2), rmse.argmin(2))
        if not o.random:
            return best
        drawn = torch.randint(o.num, best.shape, device=best.device)
        early = seen < RANDOM_IMAGES
        if isinstance(early, Tensor):
            return torch.where(early, drawn, best)
        return drawn if early else best

    def line(self, figures: DetectionFigures) -> str:
        """The line that Darknet prints (forward_detection_layer)."""
        _, avg_iou, pos_cat, all_cat, pos_obj, any_obj, count = figures
        line = (
            f"Detection Avg IOU: {avg_iou:f}, Pos Cat: {pos_cat:f}, All Cat: {all_cat:f}, Pos Obj: {pos_obj:f}, "
            f"Any Obj: {any_obj:f}, count: {count:.0f}"
        )
        # 0/0 on Darknet's processors is a NaN with its sign set, and C prints that sign.
        return line.replace("nan", "-nan")

    def totals(self, figures: Sequence[DetectionFigures]) -> dict[str, float]:
        """Of the mini-batches those without a truth have no say, but for ``any_obj``."""
        rows = torch.tensor(list(figures), dtype=torch.float64)
        count = rows[:, -1:]
        means = torch.where(count > 0, rows * count, 0).sum(0) / count.sum()
        found = dict(zip(DetectionFigures._fields[1:-1], means[1:-1].tolist(), strict=True))
        return {**found, "any_obj": float(rows[:, 5].mean()), "count": int(count.sum())}

    def average_mirrored(self, output: Tensor, mirrored: Tensor) -> Tensor:
        """The output: ``valid2`` makes nothing of the mirrored image's."""
        return output

    def graph(self, graph: Graph, x: str) -> dict[str, str]:
        o, cells = self.o, self.o.side**2
        values = graph.node("Flatten", x)
        ends = [0, cells * o.classes, cells * (o.classes + o.num), cells * (o.classes + 5 * o.num)]
        classes, confidence, box = (graph.part(values, 1, *some) for some in pairwise(ends))
        classes = graph.reshape(classes, 0, cells, 1, o.classes)
        classes = graph.node("Softmax", classes, axis=3) if o.softmax else classes
        probabilities = graph.node("Mul", classes, graph.reshape(confidence, 0, cells, o.num, 1))
        probabilities = graph.node("Relu", probabilities)  # what is under 0 is under every threshold
        box = graph.reshape(box, 0, cells, o.num, 4)
        cell = torch.arange(cells)
        column_row = graph.constant(torch.stack([cell % o.side, cell // o.side], 1)[None, :, None], "cells")
        xy = graph.node("Add", graph.part(box, 3, 0, 2), column_row)
        wh = graph.part(box, 3, 2, 4)
        wh = graph.node("Mul", wh, wh) if o.sqrt else wh
        boxes = graph.node("Concat", graph.times(xy, 1 / o.side), wh, axis=3)
        return {
            "boxes": graph.reshape(boxes, 0, -1, 4),
            "probabilities": graph.reshape(probabilities, 0, -1, o.classes),
        }
