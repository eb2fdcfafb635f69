"""[scale_channels]: an earlier map times one number per channel, or per place, of the layer before.

Source: AlexeyAB's ``src/scale_channels_layer.c``.
"""

from __future__ import annotations

from .base import Shape, register
from .product import Product


@register("scale_channels")
class ScaleChannels(Product):
    """(N, c, 1, 1), or with ``scale_wh=1`` (N, 1, h, w), times (N, c, h, w); then the activation."""

    options = {**Product.options, "scale_wh": 0}

    def shape(self) -> Shape:
        scales, earlier = self.inputs
        c, h, w = earlier
        expected = Shape(1, h, w) if self.o.scale_wh else Shape(c, 1, 1)
        if scales != expected:
            raise self.section.error(
                f"the layer before gives {scales.w} x {scales.h} x {scales.c} for a map of {w} x {h} x {c}; expected "
                f"{expected.w} x {expected.h} x {expected.c} with scale_wh={self.o.scale_wh}",
                "from",
            )
        return earlier
