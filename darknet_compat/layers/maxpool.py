"""[maxpool]: the largest value of each window.

Source: ``src/maxpool_layer.c, make_maxpool_layer, forward_maxpool_layer``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Layer, Shape, register


@register("maxpool")
class Maxpool(Layer):
    """The first window starts ``padding // 2`` before the image, so that size 2 pads at right and below only."""

    options = {"stride": 1, "size": int, "padding": int}

    @property
    def size(self) -> int:
        size: int = self.o.stride if self.o.size is None else self.o.size
        return size

    @property
    def padding(self) -> int:
        """Sum of the padding on both sides."""
        padding: int = self.size - 1 if self.o.padding is None else self.o.padding
        return padding

    def shape(self) -> Shape:
        for name in ("stride", "size"):
            self.at_least(name, 1)
        self.at_least("padding", 0)
        self.check_padding(self.padding)
        return Shape(self.input.c, self._windows(self.input.h), self._windows(self.input.w))

    def _windows(self, values: int) -> int:
        """How many windows stand along a side of so many values."""
        count: int = (values + self.padding - self.size) // self.o.stride + 1
        return count

    def forward(self, x: Tensor) -> Tensor:
        before = self.padding // 2
        right = self._after(x.shape[3])
        below = self._after(x.shape[2])
        if before or right > 0 or below > 0:
            x = F.pad(x, (before, max(right, 0), before, max(below, 0)), value=float("-inf"))
        return F.max_pool2d(x, self.size, self.o.stride)

    def _after(self, values: int) -> int:
        """How far the last window reaches past the image."""
        after: int = (self._windows(values) - 1) * self.o.stride + self.size - self.padding // 2 - values
        return after

    def row(self) -> str:
        i, out = self.input, self.output
        return (
            f"max          {self.size} x {self.size} / {self.o.stride}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )

    def window(self) -> tuple[int, int]:
        return self.size, self.o.stride
