"""[scale_channels]: an earlier map times one number per channel, or per place, of the layer before.

Source: AlexeyAB's ``src/scale_channels_layer.c``.
"""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import ALEXEYAB, Layer, Place, Shape, register


@register("scale_channels")
class ScaleChannels(Layer):
    """(N, c, 1, 1), or with ``scale_wh=1`` (N, 1, h, w), times (N, c, h, w); then the activation."""

    only = ALEXEYAB
    options = {"from": int, "scale_wh": 0, "activation": "linear"}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)

    def find_sources(self, place: Place) -> tuple[int, ...]:
        index = getattr(self.o, "from")
        if index is None:
            raise self.section.error("a [scale_channels] needs from=; expected a layer index, such as from=-4")
        return place.index - 1, self.earlier(index, place, "from")

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

    def forward(self, scales: Tensor, earlier: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](scales * earlier)

    def row(self) -> str:
        return f"scale Layer: {self.sources[1]}"
