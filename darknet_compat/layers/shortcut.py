"""[shortcut]: the layer before plus an earlier one. Source: ``src/shortcut_layer.c``, ``src/blas.c, shortcut_cpu``."""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .activation import ACTIVATIONS, activation_name
from .base import Layer, Place, Shape, register


@register("shortcut")
class Shortcut(Layer):
    """``alpha * before + beta * earlier`` where both have values, ``before`` elsewhere, then the activation.

    Where the earlier map is larger it is read at every stride-th place, where it is smaller it is added to every
    sample-th place; of the channels, the first ones that both have.
    """

    options = {"from": int, "activation": "linear", "alpha": 1.0, "beta": 1.0}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.activation = activation_name(section, self.o.activation, place.program)

    def find_sources(self, place: Place) -> tuple[int, ...]:
        index = getattr(self.o, "from")
        if index is None:
            raise self.section.error("a [shortcut] needs from=; expected a layer index, such as from=-3")
        return place.index - 1, self.earlier(index, place, "from")

    def shape(self) -> Shape:
        (_, h2, w2), (_, h1, w1) = self.inputs
        if w1 // w2 != h1 // h2 or w2 // w1 != h2 // h1:
            raise self.section.error(f"maps of {w1} x {h1} and {w2} x {h2} do not fit by one stride", "from")
        return self.input

    def forward(self, before: Tensor, earlier: Tensor) -> Tensor:
        (c2, h2, w2), (c1, h1, w1) = before.shape[1:], earlier.shape[1:]
        if (c1, h1, w1) == (c2, h2, w2):
            out = self.o.alpha * before + self.o.beta * earlier
        else:
            stride, sample = max(w1 // w2, 1), max(w2 // w1, 1)
            c, h, w = min(c1, c2), min(h1, h2), min(w1, w2)
            out = before.clone()
            out[:, :c, : h * sample : sample, : w * sample : sample] = (
                self.o.alpha * before[:, :c, : h * sample : sample, : w * sample : sample]
                + self.o.beta * earlier[:, :c, : h * stride : stride, : w * stride : stride]
            )
        return ACTIVATIONS[self.activation](out)

    def row(self) -> str:
        out, i = self.inputs
        return (
            f"res  {self.sources[1]:3d}                {i.w:4d} x{i.h:4d} x{i.c:4d}"
            f"   ->  {out.w:4d} x{out.h:4d} x{out.c:4d}"
        )
