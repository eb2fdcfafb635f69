"""What [sam] and [scale_channels] are: the layer before times an earlier map, then an activation."""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import ALEXEYAB, Layer, Place


class Product(Layer):
    """A subclass says by :meth:`shape` what it takes for ``before`` and ``earlier``."""

    only = ALEXEYAB
    options = {"from": int, "activation": "linear"}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)

    def find_sources(self, place: Place) -> tuple[int, ...]:
        index = getattr(self.o, "from")
        if index is None:
            raise self.section.error(f"a [{self.type}] needs from=; expected a layer index, such as from=-2")
        return place.index - 1, self.earlier(index, place, "from")

    def forward(self, before: Tensor, earlier: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](before * earlier)

    def row(self) -> str:
        return f"scale Layer: {self.sources[1]}"
