"""[cost]: the error of a classifier in training; in a forward pass it hands on what it gets.

Source: ``src/cost_layer.c``; ``src/network.c, get_network_output_layer`` takes the layer before as the output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cfg import Section
from ..tree import SECRET_NUM
from .base import ALEXEYAB, PJREDDIE, Place, register
from .head import ClassHead

TYPES = {PJREDDIE: ("sse", "masked", "smooth", "L1", "seg", "wgan"), ALEXEYAB: ("sse", "masked", "smooth")}


@register("cost")
class Cost(ClassHead):
    """Behind a head, such as [softmax], it adds its error to that one's, as in Darknet.

    ``scale`` multiplies the gradient. ``type``: the squared error ("sse"), that of what a tree does not hide
    ("masked"), linear from 1 on ("smooth"), or the absolute error ("L1"). The other types are the squared error, as in
    Darknet without a GPU.
    """

    untrained = ("ratio", "thresh")
    options = {"type": "sse", "scale": 1.0, "ratio": 0.0, "noobj": 1.0, "thresh": 0.0}

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        known = TYPES[self.program]
        if self.o.type not in known:
            raise section.error(f"no cost is called {self.o.type!r}; expected one of {', '.join(known)}", "type")
        before = place.layers[-1] if self.index else None
        if isinstance(before, ClassHead) and not getattr(before.o, "noloss", 0):
            times = f"{1 + self.o.scale:g} times" if self.o.scale != 1 else "twice"
            self.remark = (
                f"layer {self.index} [cost] adds truth - p to what layer {before.index} [{before.type}] has added "
                f"already, as in Darknet: the gradient counts {times}, and the loss is the mean of both"
            )

    def forward(self, x: Tensor) -> Tensor:
        return x

    def error(self, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """l2_cpu, l1_cpu and smooth_l1_gpu: smooth_l1 of pjreddie's CPU has the wrong sign from 1 on."""
        difference = truth - x
        if self.o.type == "masked":
            difference = difference.masked_fill(truth == SECRET_NUM, 0)
        delta, error = difference, difference.square()
        size, sign = difference.abs(), torch.where(difference > 0, 1.0, -1.0)
        if self.o.type == "smooth":
            delta, error = torch.where(size < 1, delta, sign), torch.where(size < 1, error, 2 * size - 1)
        if self.o.type == "L1":
            delta, error = sign, size
        return delta * self.o.scale, error.sum()

    def row(self) -> str:
        return f"cost                                           {self.input.outputs:4d}"
