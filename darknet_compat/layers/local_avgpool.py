"""[local_avgpool]: the mean of each window, of what lies inside the image.

Source: AlexeyAB's ``src/maxpool_layer.c, forward_local_avgpool_layer``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import ALEXEYAB, Shape, register
from .maxpool import Windows


@register("local_avgpool")
class LocalAvgpool(Windows):
    """The windows are those of [maxpool]."""

    only = ALEXEYAB

    def shape(self) -> Shape:
        out = super().shape()
        if max(self.around(*self.input[1:])) >= self.size:
            raise self.section.error(
                f"padding={self.padding} puts windows of size {self.size} wholly outside of the image; expected less",
                "padding",
            )
        return out

    def forward(self, x: Tensor) -> Tensor:
        around = self.around(*x.shape[2:])
        sums, counts = (
            F.avg_pool2d(F.pad(values, around), self.size, self.own_strides, divisor_override=1)
            for values in (x, x.new_ones(1, 1, *x.shape[2:]))
        )
        return sums / counts

    def row(self) -> str:
        return self._row("avg")
