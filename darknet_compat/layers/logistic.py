"""[logistic]: every value to a probability of its own. Source: ``src/logistic_layer.c``."""

from __future__ import annotations

from torch import Tensor

from .base import PJREDDIE, Layer, register


@register("logistic")
class Logistic(Layer):
    """Its cross-entropy and gradient are built together with the training of classifiers."""

    only = PJREDDIE
    resizable = False

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def row(self) -> str:
        return f"logistic x entropy                             {self.input.outputs:4d}"
