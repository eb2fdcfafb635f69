"""[lstm]: long short-term memory. Source: ``src/lstm_layer.c``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cfg import Section
from .base import ALEXEYAB, PJREDDIE, Place, Shape, register
from .connected import Connected
from .recurrent import Recurrent


@register("lstm")
class Lstm(Recurrent):
    """``f, i, o = σ(u(x) + w(h))`` and ``g = tanh(ug(x) + wg(h))``; ``c = f*c + i*g``; the output is
    ``h = o * tanh(c)``. The state holds h, then c.
    """

    options = {"output": 1, "batch_normalize": 0}
    order = {
        PJREDDIE: ("wi", "wf", "wo", "wg", "ui", "uf", "uo", "ug"),
        ALEXEYAB: ("wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo"),
    }
    uf: Connected
    ui: Connected
    ug: Connected
    uo: Connected
    wf: Connected
    wi: Connected
    wg: Connected
    wo: Connected

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        for side, inputs in (("u", self.input), ("w", self.output)):
            for gate in "figo":
                part = self.part(Connected, inputs, output=self.o.output, activation="linear")
                self.add_module(side + gate, part)

    def shape(self) -> Shape:
        self.at_least("output", 1)
        return Shape(self.o.output, 1, 1)

    def state_shape(self) -> Shape:
        return Shape(2 * self.o.output, 1, 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state.chunk(2, 1)
        f = torch.sigmoid(self.uf(x) + self.wf(h))
        i = torch.sigmoid(self.ui(x) + self.wi(h))
        g = torch.tanh(self.ug(x) + self.wg(h))
        o = torch.sigmoid(self.uo(x) + self.wo(h))
        c = f * c + i * g
        h = o * torch.tanh(c)
        return h, torch.cat([h, c], 1)
