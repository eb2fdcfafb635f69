"""Ways to run a network fast: torch with weights packed for the processor, ONNX Runtime, or OpenVINO.

An engine goes from images to the last layer's values, as :meth:`Network.forward`, for inference only.
``docs/PERFORMANCE.md`` has the measurements that the choices here rest on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cfg import DataFile
from ..device import find_device
from ..errors import DataError, ExportError
from ..image_files import listed_images
from ..images import FITTED, Views
from ..network import Network
from ..processes import ALONE, Processes
from ..stock import find_stock
from ..weights import load_network
from .int8 import Calibration, calibration_images, check_calibration
from .packed import Predict, device_of, pack
from .processor import has_bf16, has_vnni
from .threads import torch_threads

ENGINES = ("torch", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bf16", "int8")
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
    name: str | None = None,
    precision: str = "float32",
    batch: int = 1,
    threads: int | None = None,
    calibration: Calibration | None = None,
) -> Engine:
    """An engine for ``network`` as it is now, in its present size; later changes of the network do not reach it.

    ``name`` is "torch", the fastest in float32 as measured, "onnxruntime" or "openvino"; None is OpenVINO for int8, and
    else torch. In ``precision`` "bf16" OpenVINO takes 12 to 22 % less time, and torch's map is a third to two thirds
    nearer to that of float32. "int8" runs in OpenVINO alone, and needs a ``calibration``: images that show which values
    the network's maps take. ``batch`` is how many images most calls will bring: other numbers are filled up to a
    multiple of it. ``threads`` is how many threads each call has: None takes torch's, which is best for one image, and
    1 is best for many (:func:`darknet_compat.detect.detect_files`).

    An exported graph is kept in the user's cache folder, with a checksum (``docs/export.md``). Its outputs are compared
    with torch's before it is kept.

    Raises :class:`ExportError` where the runtime is not installed, cannot run the network, or gives other outputs, and
    :class:`ImageError` where an image of the calibration cannot be read.
    """
    name = engine_name(name, precision)
    cpu = device_of(network) == "cpu"
    if precision == "bf16" and cpu and not has_bf16():
        raise ExportError("-precision bf16: this processor does not multiply bf16 numbers; expected float32")
    check_calibration(calibration, precision)
    if precision == "int8":
        if not cpu:
            raise ExportError("-precision int8 runs on the processor; expected -device cpu, or -precision bf16")
        network.check_images()
        if not has_vnni():
            warnings.warn("-precision int8: this processor has no VNNI, so float32 may be faster", stacklevel=2)
    threads = threads or torch.get_num_threads()
    if name == "torch":
        with torch_threads(threads):
            return Engine(pack(network, precision, batch), threads)
    if not cpu:
        raise ExportError(f"-engine {name} runs on the processor; expected -device cpu, or -engine torch")
    if name == "onnxruntime" and precision == "bf16":
        raise ExportError("-engine onnxruntime: it has no bf16 on processors; expected -engine torch or openvino")
    from .exported import start_exported

    return Engine(start_exported(network, name, precision, batch, threads, calibration), threads)


def engine_name(name: str | None, precision: str) -> str:
    """The engine that is asked for; None is OpenVINO for int8, which ONNX Runtime runs slowly, and else torch.

    Raises :class:`ValueError` for names that are none, and :class:`ExportError` where the engine has no such precision.
    """
    for what, given, known in (("engine", name, (*ENGINES, None)), ("precision", precision, PRECISIONS)):
        if given not in known:
            raise ValueError(f"{what} is {given!r}; expected one of {', '.join(filter(None, known))}")
    if precision == "int8" and name not in ("openvino", None):
        raise ExportError(f"-engine {name}: int8 runs in OpenVINO alone; expected -engine openvino, or no -engine")
    return name or ("openvino" if precision == "int8" else "torch")


class Engines:
    """Engines for a network as it is when each is first asked for, in one of ``processes``, which share the inputs.

    ``calibration``: image files, or a folder, a pattern, a list of them, for int8 alone.

    Raises :class:`ValueError` for names that are none, and for a ``batch`` under 1; :class:`DarknetError` where there
    are no such images.
    """

    def __init__(
        self,
        network: Network,
        name: str | None,
        precision: str,
        batch: int,
        calibration: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        if not isinstance(batch, (int, np.integer)) or batch < 1:
            raise ValueError(f"batch is {batch!r}; expected a whole number, 1 or more")
        self.network, self.name, self.precision, self.batch = network, engine_name(name, precision), precision, batch
        self.processes = processes
        self.images = calibration_images(calibration, precision)
        self.started: dict[tuple[int, int, Calibration | None], Engine] = {}

    @property
    def images_digest(self) -> str | None:
        """A name for what the files of the calibration hold, where there is one. Raises :class:`ImageError`."""
        return Calibration(self.images, FITTED).digest() if self.images else None

    def take(self, inputs: int, views: Views = FITTED) -> tuple[Engine, int]:
        """An engine for so many inputs, ``batch`` of them at a time or all, and how many it takes at a time.

        ``views``: how they are made of images; int8's calibration is made so too.
        As many calls run side by side as there are batches; a call has the threads that are left for it. In
        several processes both are those of one.
        """
        batch = max(min(self.batch, inputs), 1)
        threads = max(self.processes.threads // max(-(-inputs // batch), 1), 1)
        calibration = Calibration(self.images, views) if self.images else None
        # Each has the weights once more: one for all numbers of inputs that go through the network alike.
        alike = batch, threads, calibration
        if alike not in self.started:
            self.started[alike] = start_engine(self.network, self.name, self.precision, *alike)
        return self.started[alike], batch


def data_images(data: DataFile, **options: Any) -> Any:
    """The ``calibration`` among a model's options; for int8 without one the images of the .data file's ``train=``.

    Raises :class:`DarknetError` where it has none.
    """
    given = options.get("calibration")
    if given is not None or options.get("precision") != "int8":
        return given
    try:
        return listed_images(find_stock(data.require("train")))
    except DataError as error:
        raise DataError(f"{error}; or name images for int8: -calibration IMAGES") from None


def engine_device(name: str, device: str | torch.device | None) -> torch.device:
    """The device that is asked for; None is a GPU where there is one, and "torch", which alone runs on one, is the
    engine."""
    if device is None:
        return find_device(None if name == "torch" else "cpu")
    return find_device(str(device))


def network_for(
    cfg: str | os.PathLike[str] | Network,
    weights: str | os.PathLike[str] | None,
    engine: str | None,
    precision: str,
    *,
    device: str | torch.device | None,
    numerics: str,
    program: str | None,
) -> Network:
    """The network of these files, where ``engine`` can run it; or ``cfg`` itself, which stands ready.

    Raises :class:`ValueError` for what cannot be asked of one that does.
    """
    if not isinstance(cfg, Network):
        where = engine_device(engine_name(engine, precision), device)
        return load_network(cfg, weights, device=where, numerics=numerics, program=program)
    given = {"weights": weights, "device": device, "program": program}
    given["numerics"] = None if numerics in ("cudnn", cfg.numerics) else numerics
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} is {value!r} beside a network, which has its own; expected none")
    return cfg
