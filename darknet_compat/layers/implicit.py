"""[implicit]: numbers that are learnt and depend on no image. Source: AlexeyAB's ``src/representation_layer.c``."""

from __future__ import annotations

from torch import Tensor, nn

from ..cfg import Section
from .base import ALEXEYAB, Layer, Place, Shape, register


@register("implicit")
class Implicit(Layer):
    """(N, filters, atoms, 1): the same for every image. Tensor: ``weights`` (filters, atoms, 1).

    A [scale_channels] or a [shortcut] behind it multiplies, or adds, them.
    """

    only = ALEXEYAB
    options = {"filters": 128, "atoms": 1, "mean": 0.0, "std": 0.2}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.weights = nn.Parameter(self.tensor(*self.output))

    def shape(self) -> Shape:
        self.at_least("filters", 1)
        self.at_least("atoms", 1)
        return Shape(self.o.filters, self.o.atoms, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights.repeat(x.shape[0], 1, 1, 1)  # len() would be a constant in torch.export

    def numbers(self, *, transposed: bool = False, loading: bool = False) -> list[tuple[str, Tensor]]:
        return [("weights", self.weights)]

    def start(self) -> None:
        nn.init.uniform_(self.weights, self.o.mean - self.o.std, self.o.mean + self.o.std)

    def row(self) -> str:
        o = self.o
        return f"implicit Layer: {o.filters} x {o.atoms}   mean={o.mean:.2f}, std={o.std:.2f}"
