"""[contrastive]: in training, like objects get like embeddings; in a forward pass it hands on what it gets.

Source: AlexeyAB's ``src/softmax_layer.c, forward_contrastive_layer``.
"""

from __future__ import annotations

from torch import Tensor

from .base import ALEXEYAB, Layer, Place, register


@register("contrastive")
class Contrastive(Layer):
    """Its loss is not built."""

    only = ALEXEYAB
    options = {
        "classes": 1000,
        "yolo_layer": 0,
        "temperature": 1.0,
        "cls_normalizer": 1.0,
        "max_delta": float,
        "contrastive_neg_max": 3,
    }
    trained = False

    def find_sources(self, place: Place) -> tuple[int, ...]:
        if self.o.yolo_layer:
            self.earlier(self.o.yolo_layer, place, "yolo_layer")
        return super().find_sources(place)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def row(self) -> str:
        i = self.input
        return f"contrastive {i.w:4d} x{i.h:4d} x{i.c:4d}"
