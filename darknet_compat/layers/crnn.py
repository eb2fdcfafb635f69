"""[crnn]: a recurrent layer of convolutions. Source: ``src/crnn_layer.c``."""

from __future__ import annotations

from torch import Tensor

from ..cfg import Section
from .activation import activation_name
from .base import ALEXEYAB, Place, Shape, register
from .convolutional import Convolutional
from .recurrent import Recurrent, both


@register("crnn")
class Crnn(Recurrent):
    """As [rnn], with maps of the input's height and width in the place of vectors.

    pjreddie's convolutions are 3x3 with padding 1; AlexeyAB's may be others that keep the size. Training starts every
    mini-batch with a state of zeros, and leaves such a one behind.
    """

    options = {"activation": "logistic", "batch_normalize": 0, "shortcut": 0}
    pjreddie = {"output_filters": 1, "hidden_filters": 1}
    alexeyab = {
        "output": 1,
        "hidden": 1,
        "size": 3,
        "stride": 1,
        "dilation": 1,
        "pad": 0,
        "padding": 0,
        "groups": 1,
        "xnor": 0,
    }
    order = both("input_layer", "self_layer", "output_layer")
    keeps_state_in_training = False
    input_layer: Convolutional
    self_layer: Convolutional
    output_layer: Convolutional

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.resizable = self.program == ALEXEYAB
        activation = activation_name(section, self.o.activation, place.program)
        for name, inputs in self._inputs().items():
            filters = self.output.c if name == "output_layer" else self.state_shape().c
            part = self.part(Convolutional, inputs, filters=filters, activation=activation, **self._convolution())
            if part.output != (filters, *inputs[1:]):
                raise section.error(
                    f"its convolutions make {part.output.w} x {part.output.h} of {inputs.w} x {inputs.h}; expected "
                    "convolutions that keep the size, such as size=3, pad=1, stride=1"
                )
            self.add_module(name, part)

    def _inputs(self) -> dict[str, Shape]:
        """What enters each sub-layer."""
        hidden = self.state_shape()
        return {"input_layer": self.input, "self_layer": hidden, "output_layer": hidden}

    def set_shape(self, place: Place) -> None:
        super().set_shape(place)
        for name, inputs in self._inputs().items():
            if name in self._modules:  # on a resize
                getattr(self, name).set_shape(self.part_place(inputs))

    def _convolution(self) -> dict[str, object]:
        if self.program != ALEXEYAB:
            return {"size": 3, "pad": 1}
        o = self.o
        names = ["size", "stride", "pad", "padding", "groups"]
        # Those that no other program's convolution has.
        names += [name for name, usual in (("dilation", 1), ("xnor", 0)) if getattr(o, name) != usual]
        return {name: getattr(o, name) for name in names}

    def shape(self) -> Shape:
        hidden, output = self._filters()
        self.at_least(hidden, 1)
        self.at_least(output, 1)
        return Shape(getattr(self.o, output), *self.input[1:])

    def _filters(self) -> tuple[str, str]:
        """The names of the options for the state's channels and for the output's."""
        return ("hidden", "output") if self.program == ALEXEYAB else ("hidden_filters", "output_filters")

    def state_shape(self) -> Shape:
        return Shape(getattr(self.o, self._filters()[0]), *self.input[1:])

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        fresh = self.input_layer(x) + self.self_layer(state)
        if self.o.shortcut:
            fresh = fresh + state
        return self.output_layer(fresh), fresh

    def title(self) -> str:
        (c, h, w), filters = self.input, self.output.c
        return f"CRNN Layer: {h} x {w} x {c} image, {filters} filters"

    def flops(self) -> float:
        return sum(part.flops() for _, part in self.parts())
