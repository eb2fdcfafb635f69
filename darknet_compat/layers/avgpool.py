"""[avgpool]: the mean of each channel. Source: ``src/avgpool_layer.c``."""

from __future__ import annotations

from torch import Tensor

from .base import Layer, Shape, register


@register("avgpool")
class Avgpool(Layer):
    """(N, c, h, w) -> (N, c, 1, 1)."""

    ends_resizing = True

    def shape(self) -> Shape:
        return Shape(self.input.c, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def row(self) -> str:
        i = self.input
        return f"avg                     {i.w:4d} x{i.h:4d} x{i.c:4d}   ->  {i.c:4d}"

    def window(self) -> tuple[int, int]:
        return max(self.input.h, self.input.w), 1
