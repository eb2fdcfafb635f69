"""[normalization], or [lrn]: each value by the squares of the channels around it.

Source: ``src/normalization_layer.c``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Layer, Shape, register


@register("normalization")
class Normalization(Layer):
    """``x * (kappa + alpha * S) ** -beta``, where S sums the squares of ``size`` channels, this one in their middle.

    Darknet moves the window along by adding and subtracting, and leaves one channel out of the sum that it starts with:
    channel size/2 is never added, yet subtracted where the window leaves it. Here the sum is that of the window.
    """

    options = {"alpha": 0.0001, "beta": 0.75, "kappa": 1.0, "size": 5}

    def shape(self) -> Shape:
        self.at_least("size", 1)
        return self.input

    @property
    def around(self) -> tuple[int, int]:
        """How many channels before and behind each one its window takes in; none lies further off."""
        most = self.input.c - 1
        return min((self.o.size - 1) // 2, most), min(self.o.size // 2, most)

    def forward(self, x: Tensor) -> Tensor:
        o, (before, behind) = self.o, self.around
        squares = F.pad(x * x, (0, 0, 0, 0, before, behind)).unfold(1, before + 1 + behind, 1).sum(-1)
        factor: Tensor = (o.kappa + o.alpha * squares) ** -o.beta
        return x * factor

    def row(self) -> str:
        c, h, w = self.input
        return f"Local Response Normalization Layer: {w} x {h} x {c} image, {self.o.size} size"
