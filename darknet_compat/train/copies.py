"""Batches on their way from the loader's memory to a GPU, ahead of the update that needs them.

Everything about it that needs CUDA is here; on a CPU none of it runs. The memory is page-locked, so that a copy keeps
nobody waiting, and copies go on a stream of their own, beside what the GPU computes. Each has an event behind it: the
update waits for it on the device, and the loader may fill the memory again once it is done.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import cuda

from .batch import Batch

PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every GPU


class Sent(NamedTuple):
    """A batch on its way."""

    batch: Batch
    copied: cuda.Event
    """Done when nothing reads the loader's memory any more."""


class Copies:
    """The way of batches to a GPU, for one iterator of :func:`.data.load_batches`, which closes it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = cuda.Stream(device)
        self.locked: list[int] = []
        """Addresses of memory that is page-locked."""

    def lock(self, memory: np.ndarray) -> None:
        """Page-lock memory, until :meth:`close`. Where that fails copies are slower, and a warning says so."""
        address = memory.ctypes.data
        error = int(cuda.cudart().cudaHostRegister(address, memory.nbytes, PORTABLE))
        if error == 0:
            self.locked.append(address)
            return
        # CUDA keeps the error for whoever asks next, and torch asks after each of its kernels.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device=self.device)
        warnings.warn(
            f"CUDA cannot page-lock {memory.nbytes / 2**20:,.0f} MiB for batches (error {error}): training goes on, "
            "and waits for each copy; fewer workers or more subdivisions need less",
            stacklevel=2,
        )

    def send(self, make: Callable[[], Batch]) -> Sent:
        """Begin to copy a batch: the one that ``make`` gives, which may compute on the GPU what it copies."""
        with cuda.stream(self.stream):
            batch = make()
            images, truth = (part.to(self.device, non_blocking=True) for part in (batch.images, batch.truth))
            copied = cuda.Event()
            copied.record(self.stream)
        return Sent(batch._replace(images=images, truth=truth), copied)

    def arrive(self, sent: Sent) -> Batch:
        """The batch, for all that the current stream is given from now on. The host does not wait."""
        stream = cuda.current_stream(self.device)
        stream.wait_event(sent.copied)
        for part in (sent.batch.images, sent.batch.truth):
            part.record_stream(stream)  # or its memory could be the next copy's while this stream still reads it
        return sent.batch

    def close(self) -> None:
        """Wait until no copy is under way, and unlock all memory."""
        # A device that failed fails here again; what it failed in says so.
        with contextlib.suppress(RuntimeError):
            self.stream.synchronize()
        while self.locked:
            cuda.cudart().cudaHostUnregister(self.locked.pop())


def copies_to(device: torch.device) -> Copies | None:
    """How batches come to a device; None where they need no way of their own."""
    return Copies(device) if device.type == "cuda" else None
