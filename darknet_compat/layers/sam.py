"""[sam]: the layer before times an earlier map of the same shape. Source: AlexeyAB's ``src/sam_layer.c``."""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import ALEXEYAB, Layer, Place, Shape, register


@register("sam")
class Sam(Layer):
    """Spatial attention: the product, then the activation."""

    only = ALEXEYAB
    options = {"from": int, "activation": "linear"}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)

    def find_sources(self, place: Place) -> tuple[int, ...]:
        index = getattr(self.o, "from")
        if index is None:
            raise self.section.error("a [sam] needs from=; expected a layer index, such as from=-2")
        return place.index - 1, self.earlier(index, place, "from")

    def shape(self) -> Shape:
        before, earlier = self.inputs
        if before != earlier:
            raise self.section.error(
                f"maps of {before.w} x {before.h} x {before.c} and {earlier.w} x {earlier.h} x {earlier.c}; "
                "expected two of one shape",
                "from",
            )
        return before

    def forward(self, before: Tensor, earlier: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](before * earlier)

    def row(self) -> str:
        return f"scale Layer: {self.sources[1]}"
