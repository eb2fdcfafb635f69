"""[dropout]: in training, values set to zero at random. Source: ``src/dropout_layer.c``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..cfg import Section
from .base import ALEXEYAB, Layer, Place, Shape, register


@register("dropout")
class Dropout(Layer):
    """Each value is dropped with chance ``probability``, the others are scaled by 1/(1-probability).

    Darknet drops in the output buffer of the layer before, so that a later [route] to that layer sees it too.
    AlexeyAB's ``dropblock`` works on a GPU alone; elsewhere his program drops single values, as here.
    """

    pjreddie = {"probability": 0.5}
    alexeyab = {"probability": 0.2, "dropblock": 0, "dropblock_size_rel": 0.0, "dropblock_size_abs": 0.0}
    replaces_input = True

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.resizable = self.program == ALEXEYAB  # pjreddie's resize_network refuses it

    def shape(self) -> Shape:
        if not 0 <= self.o.probability < 1:
            raise self.section.error(
                f"probability is {self.o.probability}; expected 0 or more and under 1", "probability"
            )
        return self.input

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.o.probability, self.training)

    def row(self) -> str:
        n = self.input.outputs
        return f"dropout       p = {self.o.probability:.2f}               {n:4d}  ->  {n:4d}"
