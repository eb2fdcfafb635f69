"""[maxpool]: the largest value of each window; and the windows that [local_avgpool] has too.

Source: ``src/maxpool_layer.c, make_maxpool_layer, forward_maxpool_layer`` of both programs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Layer, Shape, register
from .blur import blur, blurred_shape


class Windows(Layer):
    """The first window starts ``padding // 2`` before the image, so that size 2 pads at right and below only."""

    options = {"stride": 1, "size": int, "padding": int}
    alexeyab = {"stride_x": int, "stride_y": int}

    @property
    def size(self) -> int:
        size: int = self.o.stride if self.o.size is None else self.o.size
        return size

    @property
    def padding(self) -> int:
        """Sum of the padding on both sides."""
        padding: int = self.size - 1 if self.o.padding is None else self.o.padding
        return padding

    @property
    def strides(self) -> tuple[int, int]:
        """Down and across."""
        down, across = (self.o.stride if own is None else own for own in (self.o.stride_y, self.o.stride_x))
        return down, across

    @property
    def own_strides(self) -> tuple[int, int]:
        """Down and across, of the windows alone."""
        return self.strides

    def shape(self) -> Shape:
        for name in ("stride", "size", "stride_x", "stride_y"):
            self.at_least(name, 1)
        self.at_least("padding", 0)
        self.check_padding(self.padding)
        (c, h, w), (down, across) = self.input, self.own_strides
        return Shape(c, self._windows(h, down), self._windows(w, across))

    def _windows(self, values: int, stride: int) -> int:
        """How many windows stand along a side of so many values."""
        count: int = (values + self.padding - self.size) // stride + 1
        return count

    def around(self, h: int, w: int) -> list[int]:
        """How far windows reach past an image of h x w: left, right, top and bottom, as F.pad takes it."""
        before, (down, across) = self.padding // 2, self.own_strides
        return [before, self._after(w, across), before, self._after(h, down)]

    def _after(self, values: int, stride: int) -> int:
        past: int = (self._windows(values, stride) - 1) * stride + self.size - self.padding // 2 - values
        return max(past, 0)

    def _row(self, kind: str) -> str:
        i, out, (down, across) = self.input, self.output, self.strides
        stride = f"{across}" if down == across else f"{across}x{down}"
        return (
            f"{kind:12s} {self.size} x {self.size} / {stride}  {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )

    def window(self) -> tuple[int, int]:
        return self.size, max(self.strides)


@register("maxpool")
class Maxpool(Windows):
    """With ``maxpool_depth=1`` it is the largest of every ``out_channels``-th channel, place by place, instead."""

    alexeyab = {**Windows.alexeyab, "maxpool_depth": 0, "out_channels": 1, "antialiasing": 0, "maxpool_zero_nonmax": 0}
    untrained = ("maxpool_zero_nonmax",)

    @property
    def own_strides(self) -> tuple[int, int]:
        return (1, 1) if self.o.antialiasing else self.strides

    def shape(self) -> Shape:
        o, out = self.o, super().shape()
        if o.maxpool_depth:
            if o.antialiasing:
                raise self.section.error(
                    "maxpool_depth has no windows to blur; expected antialiasing=0", "antialiasing"
                )
            if not 1 <= o.out_channels <= self.input.c:
                raise self.section.error(
                    f"out_channels is {o.out_channels}; expected 1 to the input's {self.input.c}", "out_channels"
                )
            return Shape(o.out_channels, *self.input[1:])
        return blurred_shape(out, o.antialiasing, self.strides) if o.antialiasing else out

    def forward(self, x: Tensor) -> Tensor:
        o, lowest = self.o, float("-inf")
        if o.maxpool_depth:
            x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % o.out_channels), value=lowest)
            depth: Tensor = x.unflatten(1, (-1, o.out_channels)).max(1).values
            return depth
        around = self.around(*x.shape[2:])
        if any(around):
            x = F.pad(x, around, value=lowest)
        x = F.max_pool2d(x, self.size, self.own_strides)
        return blur(x, o.antialiasing, self.strides) if o.antialiasing else x

    def row(self) -> str:
        return self._row("max-depth" if self.o.maxpool_depth else "max")
