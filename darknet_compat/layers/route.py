"""[route]: the outputs of earlier layers, one behind the other. Source: ``src/route_layer.c``, ``parse_route``."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Layer, Place, Shape, register


@register("route")
class Route(Layer):
    """Joins along the channels in the listed order; where heights or widths differ the result is a flat vector."""

    options = {"layers": [int]}

    def find_sources(self, place: Place) -> tuple[int, ...]:
        if not self.o.layers:
            raise self.section.error(
                "a [route] needs layers=; expected one or more layer indexes, such as layers=-1,-4"
            )
        return tuple(self.earlier(index, place, "layers") for index in self.o.layers)

    def shape(self) -> Shape:
        if all(shape[1:] == self.input[1:] for shape in self.inputs):
            return Shape(sum(shape.c for shape in self.inputs), self.input.h, self.input.w)
        return Shape(sum(shape.outputs for shape in self.inputs), 1, 1)

    def forward(self, *sources: Tensor) -> Tensor:
        if len(sources) == 1:
            return sources[0]
        if all(source.shape[2:] == sources[0].shape[2:] for source in sources):
            return torch.cat(sources, 1)
        return torch.cat([source.flatten(1) for source in sources], 1)[:, :, None, None]

    def row(self) -> str:
        return "route " + "".join(f" {source}" for source in self.sources)
