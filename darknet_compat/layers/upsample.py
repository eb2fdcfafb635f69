"""[upsample]: each value ``stride`` by ``stride`` times.

Source: ``src/upsample_layer.c``, ``src/blas.c, upsample_cpu``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Layer, Shape, register


@register("upsample")
class Upsample(Layer):
    """Nearest neighbour, times ``scale``; a negative stride sums blocks of values instead."""

    options = {"stride": 2, "scale": 1.0}

    def shape(self) -> Shape:
        c, h, w = self.input
        s = self.o.stride
        if s == 0:
            raise self.section.error("stride is 0; expected a whole number other than 0", "stride")
        if s < 0 and (h % -s or w % -s):
            raise self.section.error(f"an input of {w} x {h} does not divide by stride {-s}", "stride")
        return Shape(c, h // -s, w // -s) if s < 0 else Shape(c, h * s, w * s)

    def forward(self, x: Tensor) -> Tensor:
        s = self.o.stride
        if s < 0:
            x = F.avg_pool2d(x, -s, divisor_override=1)
        else:
            x = F.interpolate(x, scale_factor=float(s), mode="nearest")
        return x if self.o.scale == 1 else x * self.o.scale

    def row(self) -> str:
        i, out, s = self.input, self.output, self.o.stride
        name = "downsample" if s < 0 else "upsample  "
        return f"{name}         {abs(s):2d}x  {i.w:4d} x{i.h:4d} x{i.c:4d}   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"

    def window(self) -> tuple[int, int]:
        return (-self.o.stride, -self.o.stride) if self.o.stride < 0 else (1, 1)
