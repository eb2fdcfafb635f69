"""[l2norm]: the channels at each place as a vector of length 1. Source: ``src/l2norm_layer.c``."""

from __future__ import annotations

from torch import Tensor

from .base import PJREDDIE, Layer, register


@register("l2norm")
class L2norm(Layer):
    """``x / sqrt(sum of x*x over the channels)``; a vector of zeros gives NaN, as in Darknet.

    The gradient is the true one. Darknet's CPU code passes the output's on unchanged.
    """

    only = PJREDDIE
    resizable = False

    def forward(self, x: Tensor) -> Tensor:
        return x / (x * x).sum(1, keepdim=True).sqrt()

    def row(self) -> str:
        return f"l2norm                                         {self.input.outputs:4d}"
