"""[softmax]: probabilities over the values of a layer, in groups or along a tree.

Source: ``src/softmax_layer.c, forward_softmax_layer``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cfg import Section
from ..tree import read_tree
from .base import Layer, Place, register


@register("softmax")
class Softmax(Layer):
    """With ``groups`` the values fall into that many equal runs; with ``tree`` into the tree's groups."""

    options = {"groups": 1, "temperature": 1.0, "tree": str, "spatial": 0.0, "noloss": 0}
    resizable = False

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        n = self.input.outputs
        if self.o.spatial:
            raise section.error("[softmax] with spatial is not built here; expected spatial=0", "spatial")
        self.at_least("groups", 1)
        if self.o.tree:
            tree = read_tree(self.o.tree)
            self.sizes = [int(size) for size in tree.group_size]
            if sum(self.sizes) != n:
                raise section.error(f"the tree has {sum(self.sizes)} nodes; expected the layer's {n} values", "tree")
        elif n % self.o.groups:
            raise section.error(f"{n} values do not divide into {self.o.groups} groups", "groups")
        else:
            self.sizes = [n // self.o.groups] * self.o.groups

    def forward(self, x: Tensor) -> Tensor:
        parts = (x.flatten(1) / self.o.temperature).split(self.sizes, 1)
        return torch.cat([part.softmax(1) for part in parts], 1).reshape(x.shape)

    def row(self) -> str:
        return f"softmax                                        {self.input.outputs:4d}"
