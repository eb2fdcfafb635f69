"""[logistic]: every value to a probability of its own. Source: ``src/logistic_layer.c``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import PJREDDIE, register
from .head import ClassHead


@register("logistic")
class Logistic(ClassHead):
    """Its loss is the cross-entropy of each value with the truth, which may be 1 for several classes."""

    only = PJREDDIE
    resizable = False

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def error(self, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """logistic_x_ent_cpu: truth - p; the cost is finite where a probability rounds to 0 or 1."""
        return truth - x.sigmoid(), F.binary_cross_entropy_with_logits(x, truth, reduction="sum")

    def row(self) -> str:
        return f"logistic x entropy                             {self.input.outputs:4d}"
