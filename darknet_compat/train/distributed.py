"""The gradients of several processes: their sum in every update.

Darknet gives each GPU its own network and batch, multiplies the rate by their number, and averages the networks'
weights now and then (``src/network.c, train_networks, sync_nets``). Here the gradients are averaged in every update,
so that the weights are the same everywhere at all times. Rolling means and variances stay each process's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..processes import Processes

BUCKET = 25 * 2**20  # bytes, as torch's DistributedDataParallel has it


class Sums:
    """The sums of all processes' gradients, which begin while the backward pass still goes on.

    ``parameters`` have gradients that lie in ``flat`` (n,), one behind the other; behind these come other numbers. A
    bucket of them, of so many bytes or more, is summed as soon as its last gradient is there. Backward passes begin
    with the last parameters, and so do the buckets. Which they are, and in what order they are summed, is the same in
    all processes, whatever becomes of an update in one of them.

    With ``compress`` gradients go from process to process as numbers of that type, such as bf16, and are added up in
    it; the other numbers go as they are.
    """

    def __init__(
        self,
        processes: Processes,
        parameters: Sequence[Tensor],
        flat: Tensor,
        compress: torch.dtype | None = None,
    ) -> None:
        self.processes, self.compress = processes, compress
        self.buckets: list[Tensor] = []
        self.waits: list[Callable[[], None]] = []
        """Of the buckets that are being summed."""
        start = end = sum(parameter.numel() for parameter in parameters)
        extra = flat[end:]
        self.expected: list[int] = []
        self.missing: list[int] | None = None
        """How many gradients each bucket waits for; None but in the last mini-batch of an update."""
        trained = 0
        for parameter in reversed(parameters):
            start -= parameter.numel()
            if parameter.requires_grad and processes.world > 1:
                trained += 1
                parameter.register_post_accumulate_grad_hook(functools.partial(self._came, len(self.buckets)))
            if start == 0 or (end - start) * flat.element_size() >= BUCKET:
                self.buckets.append(flat[start:end])
                self.expected.append(trained)
                end, trained = start, 0
        self.buckets.append(extra)

    def begin(self) -> None:
        """The gradients of the mini-batch that comes now are the last of this update."""
        self.missing = list(self.expected)

    def _came(self, bucket: int, parameter: Tensor) -> None:
        if self.missing is None:
            return
        self.missing[bucket] -= 1
        while len(self.waits) < len(self.missing) and self.missing[len(self.waits)] == 0:
            self._sum()

    def _sum(self) -> None:
        bucket = self.buckets[len(self.waits)]
        if self.compress is None or bucket is self.buckets[-1]:
            self.waits.append(self.processes.all_reduce(bucket))
            return
        sent = bucket.to(self.compress)
        wait = self.processes.all_reduce(sent)

        def take() -> None:
            wait()
            bucket.copy_(sent)

        self.waits.append(take)

    def finish(self) -> None:
        """Sum what is left of ``flat``, and wait for all."""
        self.missing = None
        try:
            while len(self.waits) < len(self.buckets):
                self._sum()
            for wait in self.waits:
                wait()
        finally:
            self.waits = []
