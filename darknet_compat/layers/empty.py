"""[empty], also written [silence]: the layer before once more. Source: AlexeyAB's ``src/parser.c``."""

from __future__ import annotations

from torch import Tensor

from .base import ALEXEYAB, Layer, register


@register("empty")
class Empty(Layer):
    """Hands on what it gets."""

    only = ALEXEYAB

    def forward(self, x: Tensor) -> Tensor:
        return x

    def row(self) -> str:
        return "empty"
