"""[reorg]: Darknet's shuffle of a buffer into fewer, deeper cells.

Source: ``src/reorg_layer.c``, ``src/blas.c, reorg_cpu``.

It is not space-to-depth. ``reorg_cpu`` is called with the *input's* width, height and channels while it walks as if
they were the output's of the opposite direction, so values of different channels and places mix. Weights were trained
with it, so it has to stay: plain space-to-depth agrees in only half of the values.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..cfg import Section
from .base import Layer, Place, Shape, register


@register("reorg")
class Reorg(Layer):
    """(N, c, h, w) -> (N, c*stride^2, h/stride, w/stride); ``reverse=1`` goes the other way.

    ``flatten=1`` puts the channels of each place side by side, in an output of the same sizes; ``reverse=1`` turns that
    back. ``extra`` gives the values as they stand and so many zeros behind them, a flat vector.
    """

    options = {"stride": 1, "reverse": 0}
    pjreddie = {"flatten": 0, "extra": 0}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        # resize_reorg_layer forgets the zeros.
        self.resizable = not self.o.extra

    def shape(self) -> Shape:
        o, (c, h, w) = self.o, self.input
        self.at_least("stride", 1)
        self.at_least("extra", 0)
        if o.extra and o.flatten:
            raise self.section.error("flatten and extra together read outside the input; expected one of them", "extra")
        if o.extra:
            return Shape(self.input.outputs + o.extra, 1, 1)
        s = o.stride
        if c % (s * s):
            raise self.section.error(f"{c} channels do not divide by stride*stride = {s * s}", "stride")
        if not o.reverse and (h % s or w % s):
            raise self.section.error(f"an input of {w} x {h} does not divide by stride {s}", "stride")
        return Shape(*self._sizes(c, h, w))

    def _sizes(self, c: int, h: int, w: int) -> tuple[int, int, int]:
        s = self.o.stride
        return (c // (s * s), h * s, w * s) if self.o.reverse else (c * s * s, h // s, w // s)

    def forward(self, x: Tensor) -> Tensor:
        s, (n, c, h, w) = self.o.stride, x.shape
        if self.o.flatten:
            sizes = (h * w, c) if self.o.reverse else (c, h * w)
            # By way of a flat vector: torch.compile would make a program of each size of the direct one.
            return x.reshape(n, *sizes).transpose(1, 2).flatten(1).view(n, *self._sizes(c, h, w))
        if self.o.extra:
            return F.pad(x.flatten(1), (0, self.o.extra))[:, :, None, None]
        if self.o.reverse:
            x = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
            return x.reshape(n, *self._sizes(c, h, w))
        # The buffer of (c, h, w) values, seen as c/s^2 planes of h*s rows and w*s columns.
        x = x.reshape(n, c // (s * s), h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, *self._sizes(c, h, w))

    def row(self) -> str:
        i, out = self.input, self.output
        if self.o.extra:
            return f"reorg              {i.outputs:4d}   ->  {out.outputs:4d}"
        return (
            f"reorg              /{self.o.stride:2d}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )

    def window(self) -> tuple[int, int]:
        return (1, 1) if self.o.reverse or self.o.extra else (self.o.stride, self.o.stride)
