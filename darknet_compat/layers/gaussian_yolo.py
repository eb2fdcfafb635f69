"""[Gaussian_yolo]: AlexeyAB's head that also says how uncertain each number of a box is.

Source: AlexeyAB's ``src/gaussian_yolo_layer.c``; ``src/parser.c, parse_gaussian_yolo``.

As [yolo], with nine planes before the classes: x, that of its uncertainty, y, w and h likewise, objectness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cfg import Section
from .base import ALEXEYAB, Place, register
from .head import Head
from .yolo import Yolo

if TYPE_CHECKING:
    from ..export.graph import Graph

# Where in a box the point lies that the map gives: what its centre is away from there, in sizes of the box.
POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}
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
    kinds = (*Yolo.kinds, "cornersnms")
    coords = 8

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        if self.o.yolo_point not in POINTS:
            raise section.error(f"yolo_point is {self.o.yolo_point!r}; expected {', '.join(POINTS)}", "yolo_point")
        self.o.new_coords = 0

    def row(self) -> str:
        # His program prints none: the line of its parameters goes without a layer's number.
        return "Gaussian_yolo"

    loss = Head.loss  # that of [yolo] knows no uncertainties

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

    def xywh(self, box: Tensor) -> Tensor:
        """Boxes (N, h, w, n, 4) from their activated planes, which are last (get_gaussian_yolo_box)."""
        point, size = super().xywh(box[..., ::2]).split(2, -1)
        return torch.cat([point + POINTS[self.o.yolo_point] * size, size], -1)

    def _graph_box(self, graph: Graph, planes: str) -> tuple[str, str | None]:
        uncertain = graph.node("Sigmoid", graph.part(planes, 4, 1, 8, 2))
        mean = graph.node("ReduceMean", uncertain, axes=[4], keepdims=1)
        return graph.part(planes, 4, 0, 8, 2), graph.plus(graph.times(mean, -1), 1)

    def _graph_centre(self, graph: Graph, xy: str, wh: str) -> str:
        away = POINTS[self.o.yolo_point]
        return graph.node("Add", xy, graph.times(wh, away)) if away else xy
