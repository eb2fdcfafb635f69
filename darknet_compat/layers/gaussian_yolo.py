"""[Gaussian_yolo]: AlexeyAB's head that also says how uncertain each number of a box is.

Source: AlexeyAB's ``src/gaussian_yolo_layer.c``; ``src/parser.c, parse_gaussian_yolo``.

As [yolo], with nine planes before the classes: x, that of its uncertainty, y, w and h likewise, objectness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cfg import Section
from ..device import numbers_like
from .base import ALEXEYAB, Place, register
from .gaussian_yolo_loss import GaussianFigures, gaussian_loss
from .yolo import COLUMNS, Yolo

if TYPE_CHECKING:
    from ..export.graph import Graph

# Where in a box the point lies that the map gives: what its centre is away from there, in sizes of the box.
POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}
GAUSSIAN_COLUMNS = (*COLUMNS, "class_loss", "iou_loss", "uc_loss", "total_loss")
# Options of [yolo] that its parser does not read.
NOT_READ = (
    *("new_coords", "focal_loss", "show_details", "embedding_layer", "sim_thresh", "track_history_size"),
    *("track_ciou_norm", "dets_for_track", "dets_for_show"),
)


@register("Gaussian_yolo")
class GaussianYolo(Yolo):
    """The head of Gaussian YOLOv3. Its values are the activated map."""

    only = ALEXEYAB
    alexeyab = {name: default for name, default in Yolo.alexeyab.items() if name not in NOT_READ} | {
        "yolo_point": "center",
        # for the loss
        "uc_normalizer": 1.0,
    }
    alexeyabs_number = 29
    kinds = (*Yolo.kinds, "cornersnms")
    coords = 8

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        if self.o.yolo_point not in POINTS:
            raise section.error(f"yolo_point is {self.o.yolo_point!r}; expected {', '.join(POINTS)}", "yolo_point")
        self.o.new_coords = 0
        self.Figures, self.columns = GaussianFigures, GAUSSIAN_COLUMNS
        self.rule = gaussian_loss

    def row(self) -> str:
        # His program prints none: the line of its parameters goes without a layer's number.
        return "Gaussian_yolo"

    @property
    def away(self) -> float:
        """How far a box's centre is from the point that the map gives, in sizes of the box."""
        return POINTS[self.o.yolo_point]

    def point(self, truth: Tensor) -> Tensor:
        return truth[..., :2] - self.away * truth[..., 2:4]

    def cells(self, truth: Tensor) -> Tensor:
        cells = super().cells(truth)
        if not self.away:
            return cells
        # A corner beyond the image belongs to the cell next to it.
        return cells.clamp_min(0).minimum(numbers_like(cells, self.input.w - 1, self.input.h - 1))

    def line(self, figures: GaussianFigures) -> str:  # type: ignore[override]
        """The line that the program prints (forward_gaussian_yolo_layer)."""
        return (
            f"{self.means(figures)}, class_loss = {figures.class_loss:.2f}, iou_loss = {figures.iou_loss:.2f}, "
            f"uc_loss = {figures.uc_loss:.2f}, total_loss = {figures.total_loss:.2f} "
        )

    def forward(self, raw: Tensor) -> Tensor:
        """The activated map, of the raw one's shape (forward_gaussian_yolo_layer): all but w, h pass the logistic."""
        planes = self.planes(raw)
        x, x_off, y, y_off, w, w_off, h, h_off = planes[:, :, :8].unbind(2)
        x, y = self._scaled(x.sigmoid()), self._scaled(y.sigmoid())
        box = [x, x_off.sigmoid(), y, y_off.sigmoid(), w, w_off.sigmoid(), h, h_off.sigmoid()]
        return torch.cat([torch.stack(box, 2), planes[:, :, 8:].sigmoid()], 2).flatten(1, 2)

    def _weighed(self, classes: Tensor, box: Tensor) -> Tensor:
        """Less the mean uncertainty (get_gaussian_yolo_detections)."""
        return classes * (1 - box[..., 1::2].mean(-1, keepdim=True))

    def _xywh(self, box: Tensor, column: Tensor, row: Tensor, anchors: Tensor) -> Tensor:
        """get_gaussian_yolo_box"""
        point, size = super()._xywh(box[..., ::2], column, row, anchors).split(2, -1)
        return torch.cat([point + self.away * size, size], -1)

    def _graph_box(self, graph: Graph, planes: str) -> tuple[str, str | None]:
        uncertain = graph.node("Sigmoid", graph.part(planes, 4, 1, 8, 2))
        mean = graph.node("ReduceMean", uncertain, axes=[4], keepdims=1)
        return graph.part(planes, 4, 0, 8, 2), graph.plus(graph.times(mean, -1), 1)

    def _graph_centre(self, graph: Graph, xy: str, wh: str) -> str:
        return graph.node("Add", xy, graph.times(wh, self.away)) if self.away else xy
