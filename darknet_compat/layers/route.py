"""[route]: the outputs of earlier layers, one behind the other. Source: ``src/route_layer.c``, ``parse_route``."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Layer, Place, Shape, register


@register("route")
class Route(Layer):
    """Joins along the channels in the listed order; where heights or widths differ the result is a flat vector.

    With ``groups`` each of the layers gives the ``group_id``-th part of its channels, counted from 0.
    """

    options = {"layers": [int]}
    # The streams are a GPU's.
    alexeyab = {"groups": 1, "group_id": 0, "stream": -1, "wait_stream": -1}

    def find_sources(self, place: Place) -> tuple[int, ...]:
        if not self.o.layers:
            raise self.section.error(
                "a [route] needs layers=; expected one or more layer indexes, such as layers=-1,-4"
            )
        return tuple(self.earlier(index, place, "layers") for index in self.o.layers)

    def shape(self) -> Shape:
        groups, part = self.o.groups, self.o.group_id
        self.at_least("groups", 1)
        if not 0 <= part < groups:
            raise self.section.error(f"group_id is {part}; expected 0 to {groups - 1}", "group_id")
        odd = next((shape for shape in self.inputs if shape.c % groups), None)
        if odd is not None:
            raise self.section.error(f"{odd.c} channels do not divide into {groups} groups", "groups")
        if all(shape[1:] == self.input[1:] for shape in self.inputs):
            return Shape(sum(shape.c for shape in self.inputs) // groups, self.input.h, self.input.w)
        return Shape(sum(shape.outputs for shape in self.inputs) // groups, 1, 1)

    def part(self, channels: int) -> tuple[int, int]:
        """Of so many channels of a layer, the first one to take and the one behind the last."""
        size = channels // self.o.groups
        return size * self.o.group_id, size * (self.o.group_id + 1)

    def forward(self, *sources: Tensor) -> Tensor:
        if self.o.groups > 1:
            sources = tuple(source[:, slice(*self.part(source.shape[1]))] for source in sources)
        if len(sources) == 1:
            return sources[0]
        if all(source.shape[2:] == sources[0].shape[2:] for source in sources):
            return torch.cat(sources, 1)
        return torch.cat([source.flatten(1) for source in sources], 1)[:, :, None, None]

    def row(self) -> str:
        group = f"  {self.o.group_id}/{self.o.groups}" if self.o.groups > 1 else ""
        return "route " + "".join(f" {source}" for source in self.sources) + group
