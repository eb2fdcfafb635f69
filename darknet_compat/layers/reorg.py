"""[reorg]: Darknet's shuffle of a buffer into fewer, deeper cells.

Source: ``src/reorg_layer.c``, ``src/blas.c, reorg_cpu``.

It is not space-to-depth. ``reorg_cpu`` is called with the *input's* width, height and channels while it walks as if
they were the output's of the opposite direction, so values of different channels and places mix. Weights were trained
with it, so it has to stay: plain space-to-depth agrees in only half of the values.
"""

from __future__ import annotations

from torch import Tensor

from .base import Layer, Shape, register


@register("reorg")
class Reorg(Layer):
    """(N, c, h, w) -> (N, c*stride^2, h/stride, w/stride); ``reverse=1`` goes the other way."""

    options = {"stride": 1, "reverse": 0, "flatten": 0, "extra": 0}

    def shape(self) -> Shape:
        o, (c, h, w) = self.o, self.input
        if o.flatten or o.extra:
            raise self.section.error("[reorg] with flatten or extra is not built here; expected flatten=0 and extra=0")
        self.at_least("stride", 1)
        s = o.stride
        if c % (s * s):
            raise self.section.error(f"{c} channels do not divide by stride*stride = {s * s}", "stride")
        if o.reverse:
            return Shape(c // (s * s), h * s, w * s)
        if h % s or w % s:
            raise self.section.error(f"an input of {w} x {h} does not divide by stride {s}", "stride")
        return Shape(c * s * s, h // s, w // s)

    def forward(self, x: Tensor) -> Tensor:
        s, (n, c, h, w) = self.o.stride, x.shape
        if self.o.reverse:
            x = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
            return x.reshape(n, c // (s * s), h * s, w * s)
        # The buffer of (c, h, w) values, seen as c/s^2 planes of h*s rows and w*s columns.
        x = x.reshape(n, c // (s * s), h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, c * s * s, h // s, w // s)

    def row(self) -> str:
        i, out = self.input, self.output
        return (
            f"reorg              /{self.o.stride:2d}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )

    def window(self) -> tuple[int, int]:
        return (1, 1) if self.o.reverse else (self.o.stride, self.o.stride)
