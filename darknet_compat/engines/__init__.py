"""Ways to run a network fast: torch with weights packed for the processor, ONNX Runtime, or OpenVINO.

An engine goes from images to the last layer's values, as :meth:`Network.forward`, for inference only.
``docs/PERFORMANCE.md`` has the measurements that the choices here rest on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..device import find_device
from ..errors import ExportError
from ..network import Network
from ..processes import ALONE, Processes
from ..weights import load_network
from .packed import Predict, device_of, pack
from .threads import torch_threads

ENGINES = ("torch", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bf16")
MANY = 2**30  # inputs, where nobody knows how many


@dataclass(frozen=True)
class Engine:
    """``run`` takes images (N, channels, height, width) to what :meth:`Network.predict` says of them.

    It runs on ``threads`` threads, whatever torch has at the time of the call: weights are laid out for their number,
    and a wrong one can take seven times as long. On a processor several calls may run at a time, each in a Python
    thread of its own.
    """

    run: Predict
    threads: int

    def __call__(self, images: Tensor) -> list[Tensor]:
        with torch_threads(self.threads):
            return self.run(images)


def start_engine(
    network: Network,
    name: str = "torch",
    precision: str = "float32",
    batch: int = 1,
    threads: int | None = None,
) -> Engine:
    """An engine for ``network`` as it is now, in its present size; later changes of the network do not reach it.

    ``name`` is "torch", the fastest in float32 as measured, "onnxruntime" or "openvino". In ``precision`` "bf16"
    OpenVINO takes 12 to 22 % less time, and torch's map is a third to two thirds nearer to that of float32. ``batch``
    is how many images most calls will bring: other numbers are filled up to a multiple of it. ``threads`` is how many
    threads each call has: None takes torch's, which is best for one image, and 1 is best for many
    (:func:`darknet_compat.detect.detect_files`).

    An exported graph is kept in the user's cache folder, with a checksum (``docs/export.md``). Its outputs are compared
    with torch's before it is kept.

    Raises :class:`ExportError` where the runtime is not installed, cannot run the network, or gives other outputs.
    """
    _check_names(name, precision)
    cpu = device_of(network) == "cpu"
    if precision == "bf16" and cpu and not has_bf16():
        raise ExportError("-precision bf16: this processor does not multiply bf16 numbers; expected float32")
    threads = threads or torch.get_num_threads()
    if name == "torch":
        with torch_threads(threads):
            return Engine(pack(network, precision, batch), threads)
    if not cpu:
        raise ExportError(f"-engine {name} runs on the processor; expected -device cpu, or -engine torch")
    if name == "onnxruntime" and precision == "bf16":
        raise ExportError("-engine onnxruntime: it has no bf16 on processors; expected -engine torch or openvino")
    from .exported import start_exported

    return Engine(start_exported(network, name, precision, batch, threads), threads)


def _check_names(name: str, precision: str) -> None:
    for what, given, known in (("engine", name, ENGINES), ("precision", precision, PRECISIONS)):
        if given not in known:
            raise ValueError(f"{what} is {given!r}; expected one of {', '.join(known)}")


class Engines:
    """Engines for a network as it is when each is first asked for, in one of ``processes``, which share the inputs.

    Raises :class:`ValueError` for names that are none, and for a ``batch`` under 1.
    """

    def __init__(self, network: Network, name: str, precision: str, batch: int, processes: Processes = ALONE) -> None:
        _check_names(name, precision)
        if not isinstance(batch, (int, np.integer)) or batch < 1:
            raise ValueError(f"batch is {batch!r}; expected a whole number, 1 or more")
        self.network, self.name, self.precision, self.batch = network, name, precision, batch
        self.processes = processes
        self.started: dict[tuple[int, int], Engine] = {}

    def take(self, inputs: int) -> tuple[Engine, int]:
        """An engine for so many inputs, ``batch`` of them at a time or all, and how many it takes at a time.

        As many calls run side by side as there are batches; a call has the threads that are left for it. In
        several processes both are those of one.
        """
        batch = max(min(self.batch, inputs), 1)
        threads = max(self.processes.threads // max(-(-inputs // batch), 1), 1)
        # Each has the weights once more: one for all numbers of inputs that go through the network alike.
        if (batch, threads) not in self.started:
            self.started[batch, threads] = start_engine(self.network, self.name, self.precision, batch, threads)
        return self.started[batch, threads], batch


def engine_device(name: str, device: str | torch.device | None) -> torch.device:
    """The device that is asked for; None is a GPU where there is one, and "torch", which alone runs on one, is the
    engine."""
    if device is None:
        return find_device(None if name == "torch" else "cpu")
    return find_device(str(device))


def network_for(
    cfg: str | os.PathLike[str] | Network,
    weights: str | os.PathLike[str] | None,
    engine: str,
    *,
    device: str | torch.device | None,
    numerics: str,
    program: str | None,
) -> Network:
    """The network of these files, where ``engine`` can run it; or ``cfg`` itself, which stands ready.

    Raises :class:`ValueError` for what cannot be asked of one that does.
    """
    if not isinstance(cfg, Network):
        where = engine_device(engine, device)
        return load_network(cfg, weights, device=where, numerics=numerics, program=program)
    given = {"weights": weights, "device": device, "program": program}
    given["numerics"] = None if numerics in ("cudnn", cfg.numerics) else numerics
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} is {value!r} beside a network, which has its own; expected none")
    return cfg


def has_bf16() -> bool:
    """Does this processor multiply bf16 numbers by itself?"""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
