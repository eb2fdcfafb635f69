"""[rnn]: a plain recurrent layer. Source: ``src/rnn_layer.c``."""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .activation import activation_name
from .base import ALEXEYAB, Place, Shape, register
from .connected import Connected
from .recurrent import Recurrent, both


@register("rnn")
class Rnn(Recurrent):
    """``s = f(input(x)) + f(self(s))``, with ``shortcut=1`` plus the old s; the output is ``f(output(s))``.

    ``hidden`` is the size of s in AlexeyAB's program. pjreddie's takes ``output`` for it and passes over ``hidden``,
    which his stock cfgs give. AlexeyAB's program starts every mini-batch of training with a state of zeros.
    """

    options = {"output": 1, "hidden": 1, "activation": "logistic", "batch_normalize": 0, "shortcut": 0}
    alexeyab = {"logistic": 0}
    order = both("input_layer", "self_layer", "output_layer")

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.keeps_state_in_training = self.program != ALEXEYAB
        o, activation = self.o, activation_name(section, self.o.activation, place.program)
        if self.program != ALEXEYAB and section.find("hidden") and o.hidden != o.output:
            section.warn(f"the program {self.program} ignores hidden and uses output={o.output}", "hidden")
        itself = {1: "logistic", 2: "loggy"}.get(o.logistic if self.program == ALEXEYAB else 0, activation)
        hidden = self.state_shape()
        self.input_layer = self.part(Connected, self.input, output=hidden.c, activation=activation)
        self.self_layer = self.part(Connected, hidden, output=hidden.c, activation=itself)
        self.output_layer = self.part(Connected, hidden, output=o.output, activation=activation)

    def shape(self) -> Shape:
        self.at_least("output", 1)
        if self.program == ALEXEYAB:
            self.at_least("hidden", 1)
        return Shape(self.o.output, 1, 1)

    def state_shape(self) -> Shape:
        return Shape(self.o.hidden if self.program == ALEXEYAB else self.o.output, 1, 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        fresh = self.input_layer(x) + self.self_layer(state)
        if self.o.shortcut:
            fresh = fresh + state
        return self.output_layer(fresh), fresh
