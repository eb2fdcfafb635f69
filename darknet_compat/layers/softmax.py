"""[softmax]: probabilities over the values of a layer, in groups, along a tree, or at each place of a map.

Source: ``src/softmax_layer.c, forward_softmax_layer``.
"""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from ..tree import Hierarchy, read_tree
from .base import Layer, Place, register


@register("softmax")
class Softmax(Layer):
    """With ``groups`` the values fall into that many equal runs; with ``tree`` into the tree's groups.

    With ``spatial=1`` the channels at each place make a group, and ``temperature`` is passed over.
    """

    options = {"groups": 1, "temperature": 1.0, "tree": str, "spatial": 0.0, "noloss": 0}
    resizable = False

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        n = self.input.outputs
        self.at_least("groups", 1)
        if self.o.tree:
            tree = read_tree(self.o.tree)
            if tree.n != n:
                raise section.error(f"the tree has {tree.n} nodes; expected the layer's {n} values", "tree")
            self.hierarchy = Hierarchy(tree)
        elif not self.o.spatial and n % self.o.groups:
            raise section.error(f"{n} values do not divide into {self.o.groups} groups", "groups")

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1) / self.o.temperature
        if self.o.tree:
            return self.hierarchy.softmax(values, 1).reshape(x.shape)
        if self.o.spatial:
            return x.softmax(1)
        groups: Tensor = values.unflatten(1, (self.o.groups, -1))
        return groups.softmax(2).reshape(x.shape)

    def row(self) -> str:
        return f"softmax                                        {self.input.outputs:4d}"
