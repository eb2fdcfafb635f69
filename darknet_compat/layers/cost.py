"""[cost]: the error of a classifier in training; in a forward pass it hands on what it gets.

Source: ``src/cost_layer.c``; ``src/network.c, get_network_output_layer`` takes the layer before as the output.
"""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .base import ALEXEYAB, PJREDDIE, Layer, Place, register

TYPES = {PJREDDIE: ("sse", "masked", "smooth", "L1", "seg", "wgan"), ALEXEYAB: ("sse", "masked", "smooth")}


@register("cost")
class Cost(Layer):
    """Its error and gradient are built together with the training of classifiers."""

    options = {"type": "sse", "scale": 1.0, "ratio": 0.0, "noobj": 1.0, "thresh": 0.0}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        known = TYPES[self.program]
        if self.o.type not in known:
            raise section.error(f"no cost is called {self.o.type!r}; expected one of {', '.join(known)}", "type")

    def forward(self, x: Tensor) -> Tensor:
        return x

    def row(self) -> str:
        return f"cost                                           {self.input.outputs:4d}"
