"""[gru]: a gated recurrent unit. Source: ``src/gru_layer.c``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cfg import Section
from .base import ALEXEYAB, PJREDDIE, Place, Shape, register
from .connected import Connected
from .recurrent import Recurrent


@register("gru")
class Gru(Recurrent):
    """``z = σ(uz(x) + wz(s))``, ``r = σ(ur(x) + wr(s))``, ``h = σ(uh(x) + wh(r*s))``; the output and the new s are
    ``z*s + (1-z)*h``. pjreddie's ``tanh=1`` has tanh in h.
    """

    options = {"output": 1, "batch_normalize": 0}
    pjreddie = {"tanh": 0}
    order = {
        PJREDDIE: ("wz", "wr", "wh", "uz", "ur", "uh"),
        ALEXEYAB: ("uz", "ur", "uh", "wz", "wr", "wh"),
    }
    uz: Connected
    ur: Connected
    uh: Connected
    wz: Connected
    wr: Connected
    wh: Connected

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        for gate in "zrh":
            for side, inputs in (("u", self.input), ("w", self.state_shape())):
                part = self.part(Connected, inputs, output=self.o.output, activation="linear")
                self.add_module(side + gate, part)

    def shape(self) -> Shape:
        self.at_least("output", 1)
        return Shape(self.o.output, 1, 1)

    def state_shape(self) -> Shape:
        return self.output

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(self.uz(x) + self.wz(state))
        r = torch.sigmoid(self.ur(x) + self.wr(state))
        h = self.uh(x) + self.wh(r * state)
        h = torch.tanh(h) if self.o.tanh else torch.sigmoid(h)
        state = z * state + (1 - z) * h
        return state, state
