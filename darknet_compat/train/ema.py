"""AlexeyAB's ``ema_alpha``: the means over time of what the convolutions learn.

Source: his ``src/network.c``, train_network_waitkey, ema_update and ema_apply.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor

from ..network import Network

LEFT = 1000  # batches before the end the network takes its means over, for the rolling statistics to follow


class Ema:
    """From half of ``max_batches`` on a mean moves by 1 - ``alpha`` in each update; 1000 batches before the end the
    weights, biases and scales of all [convolutional] become their means."""

    def __init__(self, network: Network, alpha: float, max_batches: int) -> None:
        self.alpha = alpha
        self.first, self.taken = max_batches // 2, max_batches - LEFT
        layers = [layer for layer in network.layers if layer.type == "convolutional"]
        self.numbers: list[Tensor] = [parameter for layer in layers for parameter in layer.parameters()]
        self.means: list[Tensor] = []
        """Empty before the first update that counts."""

    @torch.no_grad()
    def update(self, batch: int) -> None:
        """After the update of batch number ``batch``."""
        if batch < self.first:
            return
        if not self.means:
            self.means = [number.detach().clone() for number in self.numbers]
        if batch == self.taken:
            torch._foreach_copy_(self.numbers, self.means)
        elif batch < self.taken:
            torch._foreach_lerp_(self.means, self.numbers, 1 - self.alpha)

    @contextlib.contextmanager
    def shown(self) -> Generator[None, None, None]:
        """The network has the means in the place of its numbers, as its ``_ema.weights`` have them."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for number, mean in zip(self.numbers, self.means, strict=True):
            kept = number.clone()
            number.copy_(mean)
            mean.copy_(kept)
