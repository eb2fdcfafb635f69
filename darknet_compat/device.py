"""Where torch runs: one rule for all verbs; and how numbers come there."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import DeviceError


def find_device(name: str | None) -> torch.device:
    """The device for ``-device NAME``; by default the first CUDA GPU, or the CPU where there is none.

    Raises :class:`DeviceError` where this machine has none of that name.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    there = ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
    if name is None:
        return torch.device("cuda" if gpus else "cpu")
    if name not in there and not (name == "cuda" and gpus):
        raise DeviceError(f"-device {name}: torch finds no such device here; expected {' or '.join(there)}")
    return torch.device(name)


def numbers_like(tensor: Tensor, *numbers: float) -> Tensor:
    """The n numbers as a tensor (n,) of the type and on the device of another.

    By fills: a copy from the host, as ``new_tensor`` makes it, waits for all that a GPU has yet to do.
    """
    return torch.stack([tensor.new_full((), number) for number in numbers])
