"""[softmax]: probabilities over the values of a layer, in groups, along a tree, or at each place of a map.

Source: ``src/softmax_layer.c, forward_softmax_layer, forward_softmax_layer_gpu``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cfg import Section
from ..tree import SECRET_NUM, Hierarchy, section_tree
from .base import Place, register
from .head import ClassHead


@register("softmax")
class Softmax(ClassHead):
    """With ``groups`` the values fall into that many equal runs; with ``tree`` into the tree's groups.

    With ``spatial=1`` the channels at each place make a group, and ``temperature`` is passed over.

    Its loss is the cross-entropy; ``noloss=1`` leaves it out, and the cost of 0 still counts in the network's mean.
    """

    options = {"groups": 1, "temperature": 1.0, "tree": str, "spatial": 0.0, "noloss": 0}
    resizable = False

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        n = self.input.outputs
        self.at_least("groups", 1)
        if self.o.tree:
            self.hierarchy = Hierarchy(section_tree(section, self.o.tree, n))
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

    def error(self, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """softmax_x_ent_cpu: truth - p, whatever the temperature; the cost is -ln p wherever the truth is not 0.

        Groups of a tree of which the truth says nothing are left out: so does the GPU. Darknet's CPU takes their mark,
        -1234, for a truth.
        """
        if self.o.noloss:
            return torch.zeros_like(x), x.new_zeros(())
        log_p = self._log(x)
        there = truth != 0
        delta = truth - log_p.exp()
        if self.o.tree:
            known = truth != SECRET_NUM
            delta, there = delta * known, there & known
        return delta, -torch.where(there, log_p, 0).sum()

    def _log(self, x: Tensor) -> Tensor:
        """The logarithms of ``forward``: finite where a probability rounds to 0."""
        values = x / self.o.temperature
        if self.o.tree:
            return self.hierarchy.softmax(values, 1, log=True)
        if self.o.spatial:
            maps: Tensor = x.unflatten(1, tuple(self.input))
            return maps.log_softmax(1).flatten(1)
        groups: Tensor = values.unflatten(1, (self.o.groups, -1))
        return groups.log_softmax(2).flatten(1)

    def row(self) -> str:
        return f"softmax                                        {self.input.outputs:4d}"
