"""[reorg3d]: space to depth. Source: AlexeyAB's ``src/reorg_layer.c``, ``src/blas.c, reorg_cpu``."""

from __future__ import annotations

from torch import Tensor

from .base import ALEXEYAB, Layer, Shape, register


@register("reorg3d")
class Reorg3d(Layer):
    """(N, c, h, w) -> (N, stride^2*c, h/stride, w/stride): channel (dy*stride + dx)*c + k at (y, x) is channel k at
    (y*stride + dy, x*stride + dx); ``reverse=1`` goes the other way. (torch's pixel_unshuffle has another order.)
    """

    only = ALEXEYAB
    options = {"stride": 1, "reverse": 0}

    def shape(self) -> Shape:
        self.at_least("stride", 1)
        (c, h, w), s = self.input, self.o.stride
        if self.o.reverse:
            if c % (s * s):
                raise self.section.error(f"{c} channels do not divide by stride*stride = {s * s}", "stride")
            return Shape(c // (s * s), h * s, w * s)
        if h % s or w % s:
            raise self.section.error(f"an input of {w} x {h} does not divide by stride {s}", "stride")
        return Shape(c * s * s, h // s, w // s)

    def forward(self, x: Tensor) -> Tensor:
        s, (n, c, h, w) = self.o.stride, x.shape
        if self.o.reverse:
            x = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
            return x.reshape(n, c // (s * s), h * s, w * s)
        x = x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, c * s * s, h // s, w // s)

    def row(self) -> str:
        i, out = self.input, self.output
        return (
            f"reorg              /{self.o.stride:2d}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )

    def window(self) -> tuple[int, int]:
        return (1, 1) if self.o.reverse else (self.o.stride, self.o.stride)
