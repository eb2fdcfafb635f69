"""[yolo]: the head of YOLOv3, YOLOv4 and their kin, its boxes and its loss.

Source: ``src/yolo_layer.c`` of both programs; ``src/parser.c, parse_yolo``.

The map is (N, n*(5+classes), h, w): for each of the ``n`` anchors that ``mask`` picks the planes x, y, w, h,
objectness, and one for each class. Boxes are numbered as Darknet lists them: cell by cell, and within a cell anchor by
anchor, (row*w + column)*n + anchor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..cfg import Section
from ..device import numbers_like
from .base import ALEXEYAB, Place, Shape, register
from .head import Boxes, Head, HeadLoss, average_mirrored, check_anchors, fill_anchors, read_class_map
from .iou_loss import KINDS as KINDS_OF_IOU
from .yolo_loss import AlexeyABFigures, Figures, alexeyab_loss, pjreddie_loss

if TYPE_CHECKING:
    from ..export.graph import Graph
    from .gaussian_yolo_loss import GaussianFigures

COLUMNS = ("avg_iou", "class", "obj", "no_obj", "recall50", "recall75", "count")
ALEXEYAB_COLUMNS = ("avg_iou", "class_loss", "iou_loss", "total_loss", "count")


@register("yolo")
class Yolo(Head):
    """The head of YOLOv3 and later. Its values are the activated map; :meth:`boxes` says the rest."""

    options = {
        "classes": 20,
        "num": 1,
        "mask": [int],
        "anchors": [float],
        "map": str,
        # for the loss
        "ignore_thresh": 0.5,
        "truth_thresh": 1.0,
        # for the loader of images
        "jitter": 0.2,
    }
    pjreddie = {"max": 90, "random": 0}
    alexeyab = {
        "max": 200,
        "random": 0.0,
        "scale_x_y": 1.0,
        "new_coords": 0,
        "nms_kind": "default",
        "beta_nms": 0.6,
        # for the loss
        "iou_loss": "mse",
        "iou_normalizer": 0.75,
        "obj_normalizer": 1.0,
        "cls_normalizer": 1.0,
        "delta_normalizer": 1.0,
        "iou_thresh": 1.0,
        "iou_thresh_kind": "iou",
        "max_delta": float,
        "label_smooth_eps": 0.0,
        "counters_per_class": [int],
        "objectness_smooth": 0,
        "focal_loss": 0,
        "show_details": 1,
        # for the loader of images
        "resize": 1.0,
        # for tracking objects through a video
        "embedding_layer": int,
        "sim_thresh": 0.8,
        "track_history_size": 5,
        "track_ciou_norm": 0.01,
        "dets_for_track": 1,
        "dets_for_show": 1,
    }

    finds_boxes = True
    alexeyabs_number = 28
    lists_all = False
    kinds: ClassVar[tuple[str, ...]] = ("default", "greedynms", "diounms")
    """Of suppression."""
    coords: ClassVar[int] = 4
    """Planes of a box."""

    anchors: Tensor
    """(num, 2) widths and heights in pixels of the network's input; further ones where ``mask`` names them."""
    mask: Tensor | None
    """(n,) the numbers of this head's anchors; None for all."""
    places: Tensor
    """(num,) of each anchor its place among this head's, -1 where it is another's."""
    multipliers: Tensor
    """(classes,) by how much a class's deltas are multiplied (``counters_per_class``)."""
    map: Tensor | None

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        num = self.o.num
        if self.program == ALEXEYAB and len(self.o.anchors) > 2 * num:
            # He reads no more than that, and for a mask beyond them whatever stands behind in memory.
            section.warn(f"{len(self.o.anchors)} anchor numbers; expected 2*num = {2 * num}", "anchors")
            num = len(self.o.anchors) // 2
        else:
            check_anchors(section, self.o.anchors, num)
        wrong = next((number for number in self.o.mask if not 0 <= number < num), None)
        if wrong is not None:
            raise section.error(f"mask names anchor {wrong}; expected 0 to {num - 1}", "mask")
        if self.o.nms_kind not in self.kinds:
            raise section.error(f"nms_kind is {self.o.nms_kind!r}; expected {', '.join(self.kinds)}", "nms_kind")
        his = self.program == ALEXEYAB
        self.Figures, self.columns = (AlexeyABFigures, ALEXEYAB_COLUMNS) if his else (Figures, COLUMNS)
        self.rule: Callable[[Any, Tensor, Tensor], HeadLoss] = alexeyab_loss if his else pjreddie_loss
        self.nms_kind, self.beta_nms = self.o.nms_kind, self.o.beta_nms
        self.register_buffer("anchors", self.tensor(num, 2), persistent=False)
        self.register_buffer("mask", torch.tensor(self.o.mask) if self.o.mask else None, persistent=False)
        self.register_buffer("places", torch.tensor(self._places(num)), persistent=False)
        self.register_buffer("multipliers", self.tensor(self.o.classes), persistent=False)
        self._check_loss()
        self.register_buffer("map", read_class_map(section, self.o.map, self.o.classes), persistent=False)

    @property
    def n(self) -> int:
        """Boxes per cell."""
        return len(self.o.mask) or self.o.num

    @property
    def relative_anchors(self) -> Tensor:
        anchors = torch.empty(self.anchors.shape, device="cpu")
        fill_anchors(anchors, self.o.anchors[: anchors.numel()])
        return anchors[self.o.mask or slice(self.n)] / torch.tensor([self.image.w, self.image.h])

    @property
    def own_anchors(self) -> Tensor:
        """Those of :attr:`anchors` that ``mask`` picks, (n, 2)."""
        return self.anchors if self.mask is None else self.anchors[self.mask]

    def constants(self) -> None:
        fill_anchors(self.anchors, self.o.anchors[: self.anchors.numel()])
        self.multipliers.fill_(1)
        counters = torch.tensor(self.o.counters_per_class, dtype=torch.float32).clamp_min(1)
        if len(counters):
            most = float("inf") if self.o.max_delta is None else self.o.max_delta
            self.multipliers.copy_((counters.max() / counters).clamp_max(most))

    def _places(self, num: int) -> list[int]:
        """Of each of ``num`` anchors its place among this head's, -1 where it is another's (int_index)."""
        own = self.o.mask or list(range(self.n))
        return [own.index(anchor) if anchor in own else -1 for anchor in range(num)]

    def _check_loss(self) -> None:
        o = self.o
        for name in ("iou_loss", "iou_thresh_kind"):
            if getattr(o, name) not in KINDS_OF_IOU:
                kinds = ", ".join(KINDS_OF_IOU)
                raise self.section.error(f"{name} is {getattr(o, name)!r}; expected one of {kinds}", name)
        found = len(o.counters_per_class)
        if found not in (0, o.classes):
            raise self.section.error(
                f"{found} numbers in counters_per_class; expected one for each of {o.classes} classes",
                "counters_per_class",
            )

    def shape(self) -> Shape:
        o = self.o
        for name in ("num", "classes", "max"):
            self.at_least(name, 1)
        expected = self.n * (self.coords + 1 + o.classes)
        if self.input.c != expected:
            raise self.section.error(
                f"the layer before gives {self.input.c} channels; expected filters={expected} in the layer before: "
                f"{self.n} anchors * ({self.coords + 1}+classes)"
            )
        return self.input

    @property
    def has_own_delta(self) -> bool:
        return self.program == ALEXEYAB and bool(self.o.iou_loss != "mse")

    @property
    def truth_classes(self) -> int:
        return self.o.classes if self.map is None else len(self.map) - 1

    def row(self) -> str:
        return "yolo"

    def forward(self, raw: Tensor) -> Tensor:
        """The activated map, of the raw map's shape (forward_yolo_layer).

        x, y, objectness and classes pass the logistic, w and h stay. With ``new_coords`` all stay: the convolution
        before has the logistic. ``scale_x_y`` lets x and y reach beyond their cell.
        """
        output = raw if self.o.new_coords else raw.sigmoid()  # all planes, as they lie: no pass over short runs
        parts = []
        for values, before in zip(output.chunk(self.n, 1), raw.chunk(self.n, 1), strict=True):
            parts += [self._scaled(values[:, :2]), before[:, 2:4], values[:, 4:]]
        return torch.cat(parts, 1)

    def planes(self, raw: Tensor) -> Tensor:
        """(N, n*planes, h, w) -> (N, n, planes, h, w)."""
        planes: Tensor = raw.unflatten(1, (self.n, self.coords + 1 + self.o.classes))
        return planes

    def _scaled(self, xy: Tensor) -> Tensor:
        s = self.o.scale_x_y
        return xy if s == 1 else s * xy - 0.5 * (s - 1)

    def boxes(self, output: Tensor, thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None) -> Boxes:
        """What the activated map says (get_yolo_detections): boxes, objectness and probabilities.

        Returns xywh (N, B, 4) relative to the network's input, objectness (N, B), and prob (N, B, classes), which is
        objectness times the class's value. Both are 0 where they are not over ``thresh``. There are no trees here:
        ``hier`` and ``class_map`` are not looked at.
        """
        values = self.planes(output).permute(0, 3, 4, 1, 2)
        return Boxes(*(part.flatten(1, 3) for part in self._found(values, *self._grid(), thresh)))

    def listed(self, output: Tensor, thresh: float, hier: float = 0.5, class_map: Sequence[int] | None = None) -> Boxes:
        """The boxes of an objectness over ``thresh``, and behind an image's last some of no objectness, as many as
        another has more. Waits for the device."""
        planes = self.planes(output)
        shown = (planes[:, :, self.coords].permute(0, 2, 3, 1) > thresh).flatten(1)
        image, number = shown.nonzero().unbind(1)
        cell, anchor = number // self.n, number % self.n
        values = planes.flatten(3)[image, anchor, :, cell]
        columns = self.output.w
        found = self._found(values, cell % columns, cell // columns, self.own_anchors[anchor], thresh)
        place = (shown.cumsum(1) - 1)[image, number]
        most = int(shown.sum(1).max())
        listed = Boxes(*(part.new_zeros(len(output), most, *part.shape[1:]) for part in found))
        for all_of_them, part in zip(listed, found, strict=True):
            all_of_them[image, place] = part
        return listed

    def _grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """Column, row and anchor of the boxes of a map, which lie as (h, w, n)."""
        device = self.anchors.device
        column = torch.arange(self.output.w, device=device)[:, None]
        return column, torch.arange(self.output.h, device=device)[:, None, None], self.own_anchors

    def _found(self, values: Tensor, column: Tensor, row: Tensor, anchors: Tensor, thresh: float) -> Boxes:
        """What the values (..., planes) of boxes say."""
        box, objectness, classes = values.split([self.coords, 1, self.o.classes], -1)
        objectness = torch.where(objectness > thresh, objectness, 0)
        prob = objectness * self._weighed(classes, box)
        prob = torch.where(prob > thresh, prob, 0)
        return Boxes(self._xywh(box, column, row, anchors), objectness[..., 0], prob)

    def _weighed(self, classes: Tensor, box: Tensor) -> Tensor:
        """The classes' values, as far as the planes of their box let them count."""
        return classes

    def xywh(self, box: Tensor) -> Tensor:
        """Boxes (N, h, w, n, 4) from their activated planes, which are last."""
        return self._xywh(box, *self._grid())

    def _xywh(self, box: Tensor, column: Tensor, row: Tensor, anchors: Tensor) -> Tensor:
        """get_yolo_box"""
        rows, columns = self.output.h, self.output.w
        x, y, w, h = box.unbind(-1)
        w, h = (w * w * 4, h * h * 4) if self.o.new_coords else (w.exp(), h.exp())
        anchor_w, anchor_h = anchors.unbind(-1)
        return torch.stack(
            [(x + column) / columns, (y + row) / rows, w * anchor_w / self.image.w, h * anchor_h / self.image.h], -1
        )

    def loss(self, raw: Tensor, truth: Tensor, seen: int | Tensor) -> HeadLoss:
        """The loss of a raw map, in float32: forward_yolo_layer of the program that the network follows.

        ``truth`` (N, T, 5), T at least 1, holds rows x, y, w, h, class, relative to the image; an image's rows end at
        the first x of 0, or after ``max``. The gradient in the map is minus the program's delta; the loss's value is
        the cost that it prints. A truth whose centre is outside the image takes no slot and is not counted; one of a
        class that is none trains its box and objectness only, or with AlexeyAB's program nothing.

        Gives the same bits in every run; waits for no device.
        """
        self.input = self.output = Shape(*raw.shape[1:])  # as variables, where torch.compile makes a program of it
        with torch.autocast(raw.device.type, enabled=False):
            return self.rule(self, raw.float(), truth[:, : self.o.max].float())

    def cells(self, truth: Tensor) -> Tensor:
        """(..., 2): column and row of the cell that a truth (..., 5) falls into, or beyond them all."""
        return (self.point(truth) * numbers_like(self.anchors, self.input.w, self.input.h)).trunc()

    def point(self, truth: Tensor) -> Tensor:
        """(..., 2): where in a truth's box its point is that the map gives."""
        return truth[..., :2]

    def means(self, figures: Figures | GaussianFigures) -> str:
        """The line that pjreddie's program prints, and the first part of a [Gaussian_yolo]'s."""
        f = figures
        line = (
            f"Region {self.index} Avg IOU: {f.avg_iou:f}, Class: {f.avg_class:f}, Obj: {f.obj:f}, "
            f"No Obj: {f.no_obj:f}, .5R: {f.recall50:f}, .75R: {f.recall75:f},  count: {f.count:.0f}"
        )
        # 0/0 on Darknet's processors is a NaN with its sign set, and C prints that sign.
        return line.replace("nan", "-nan")

    def line(self, figures: Figures | AlexeyABFigures) -> str:
        """The line that the program prints (forward_yolo_layer)."""
        if isinstance(figures, Figures):
            return self.means(figures)
        o = self.o
        iou, obj, cls = torch.tensor([o.iou_normalizer, o.obj_normalizer, o.cls_normalizer]).tolist()  # as C's floats
        name = o.iou_loss if o.iou_loss in ("mse", "giou") else "iou"
        losses = f"class_loss = {figures.class_loss:f}, iou_loss = {figures.iou_loss:f}, " if o.show_details else ""
        return (
            f"v3 ({name} loss, Normalizer: (iou: {iou:.2f}, obj: {obj:.2f}, cls: {cls:.2f}) Region {self.index} "
            f"Avg (IOU: {figures.avg_iou:f}), count: {figures.count:.0f}, {losses}total_loss = {figures.total_loss:f} "
        )

    def rewritten(self, figures: Any) -> tuple[float, float]:
        counts = isinstance(figures, AlexeyABFigures)
        return (float(figures.rewritten), float(figures.trained)) if counts else (0, 0)

    def totals(self, figures: Sequence[Figures] | Sequence[AlexeyABFigures]) -> dict[str, float]:
        """Means over the truths of all mini-batches; of ``no_obj`` and of the losses the means of the means."""
        rows = torch.tensor(list(figures), dtype=torch.float64)
        columns = dict(zip(type(figures[0])._fields, rows.unbind(1), strict=True))
        count = columns["count"]

        def mean(values: Tensor) -> float:
            return float(torch.where(count > 0, values * count, 0).sum() / count.sum())

        whole = ("no_obj", "class_loss", "iou_loss", "uc_loss", "total_loss")
        found = {
            name: float(values.mean()) if name in whole else mean(values)
            for name, values in columns.items()
            if name not in ("cost", "count", "trained", "rewritten")
        }
        names = {"avg_class": "class"}
        return {**{names.get(name, name): value for name, value in found.items()}, "count": int(count.sum())}

    def average_mirrored(self, output: Tensor, mirrored: Tensor) -> Tensor:
        return average_mirrored(output, mirrored, self.n)

    def graph(self, graph: Graph, x: str) -> dict[str, str]:
        o, n = self.o, self.n
        height, width = graph.size(x, self)
        planes = graph.reshape(x, 0, n, self.coords + 1 + o.classes, height, width)
        planes = graph.node("Transpose", planes, perm=[0, 1, 3, 4, 2])
        rest = graph.part(planes, 4, self.coords, self.coords + 1 + o.classes)
        rest = rest if o.new_coords else graph.node("Sigmoid", rest)
        box, weight = self._graph_box(graph, planes)
        xy, wh = graph.part(box, 4, 0, 2), graph.part(box, 4, 2, 4)
        xy = xy if o.new_coords else graph.node("Sigmoid", xy)
        if o.scale_x_y != 1:
            xy = graph.plus(graph.times(xy, o.scale_x_y), -0.5 * (o.scale_x_y - 1))
        cells, size = graph.cells(height, width)
        xy = graph.node("Div", graph.node("Add", xy, cells), size)
        wh = graph.times(graph.node("Mul", wh, wh), 4) if o.new_coords else graph.node("Exp", wh)
        anchors = graph.constant(self.own_anchors.reshape(1, n, 1, 1, 2), "anchors")
        wh = graph.node("Div", graph.node("Mul", wh, anchors), graph.image_size(self.image))
        probabilities = graph.node("Mul", graph.part(rest, 4, 1, 1 + o.classes), graph.part(rest, 4, 0, 1))
        if weight is not None:
            probabilities = graph.node("Mul", probabilities, weight)
        boxes = graph.node("Concat", self._graph_centre(graph, xy, wh), wh, axis=4)
        boxes, probabilities = (
            graph.node("Transpose", values, perm=[0, 2, 3, 1, 4]) for values in (boxes, probabilities)
        )
        return {
            "boxes": graph.reshape(boxes, 0, -1, 4),
            "probabilities": graph.reshape(probabilities, 0, -1, o.classes),
        }

    def _graph_box(self, graph: Graph, planes: str) -> tuple[str, str | None]:
        """The raw x, y, w, h, last, and what the probabilities are multiplied by."""
        return planes, None

    def _graph_centre(self, graph: Graph, xy: str, wh: str) -> str:
        """The centre of boxes of the size ``wh``, of the point ``xy`` that the map gives."""
        return xy
