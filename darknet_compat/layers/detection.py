"""[detection]: YOLOv1's head, its boxes.

Source: ``src/detection_layer.c``.

The input is a flat vector: side*side*classes values of the classes, cell by cell; side*side*num confidences, cell by
cell and in a cell box by box; side*side*num*4 numbers of the boxes in the same order: x, y within the cell, w, h.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .base import Shape, register
from .head import Boxes, Head

if TYPE_CHECKING:
    from ..export.graph import Graph


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
