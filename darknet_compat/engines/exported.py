"""The engines that run an exported graph: ONNX Runtime and OpenVINO, with the cache of graphs."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import stat
import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..errors import ExportError
from ..files import whole_file
from ..network import Network
from . import int8
from .packed import Predict, in_batches
from .processor import has_bf16, has_vnni
from .threads import torch_threads

# How far values may be from torch's: of boxes and probabilities in float32; of the map's largest in bf16; in int8 the
# root mean square of what they are off by, as a part of the map's own.
TOLERANCE = {"float32": 1e-4, "bf16": 0.1, "int8": 0.25}


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def start_exported(
    network: Network, name: str, precision: str, batch: int, threads: int, calibration: int8.Calibration | None
) -> Predict:
    """See :func:`darknet_compat.engines.start_engine`."""
    flag, extra, packages = f"-engine {name}", name, [name, "onnx"]
    if calibration:
        flag, extra, packages = "-precision int8", "int8", [*packages, "onnxruntime"]
    for package in packages:
        if not installed(package):
            raise ExportError(f"{flag}: the package {package} is not installed; pip install 'darknet_compat[{extra}]'")
    from ..export.graph import build

    start = {"onnxruntime": _onnxruntime, "openvino": _openvino}[name]
    place = _place(network, name, precision, calibration)
    graph = _read(place) if place else None
    fused = None
    if not graph:
        fused = network.fuse()
        model = build(fused, batch="batch", raw=True)
        graph = int8.quantise(model, fused, calibration) if calibration else model.SerializeToString()
    try:
        engine = _engine(network, start(graph, network, precision, batch, threads))
    except Exception as error:  # the runtimes have many errors
        line = " ".join(str(error).split())[:300]
        raise ExportError(f"-engine {name}: it does not run this network: {line}; expected -engine torch") from None
    if fused is not None:
        _check(fused, engine, name, precision, calibration)
        if place:
            _keep(place, graph)
    return engine


def _onnxruntime(model: bytes, network: Network, precision: str, batch: int, threads: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(values) for values in session.run(None, {"images": images.numpy()})]


@functools.cache
def openvino_core() -> Any:
    """The process's own ``openvino.Core``, which stays as long as the process does.

    OpenVINO's plugin for CPUs gives the thread that loads it another stack for signals. Where the last that needs the
    plugin goes away in another thread, as the garbage collector may have it, that stack's memory goes with it, and the
    next signal (Ctrl-C) is a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _openvino(model: bytes, network: Network, precision: str, batch: int, threads: int) -> Predict:
    core = openvino_core()
    graph = core.read_model(model)
    graph.reshape([batch, *network.input])  # a graph of one size is faster than one of any
    settings = {
        # Left to itself it takes bf16 where the processor has it. Of int8 this is for what the graph leaves in float32.
        "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" or not has_bf16() else "bf16",
        "INFERENCE_NUM_THREADS": max(torch.get_num_threads(), threads),
        "NUM_STREAMS": max(torch.get_num_threads() // threads, 1),
    }
    compiled, own = core.compile_model(graph, "CPU", settings), threading.local()

    def run(images: Tensor) -> list[Tensor]:
        if not hasattr(own, "request"):  # one for each thread: it keeps its output's memory for the next call
            own.request = compiled.create_infer_request()
        values = own.request.infer({"images": images.numpy()}, share_inputs=True)
        return [torch.from_numpy(values[index].copy()) for index in range(len(compiled.outputs))]

    return in_batches(run, batch)


def _engine(network: Network, run: Predict) -> Predict:
    """The runtime gives the maps that enter the heads; the heads themselves are torch's, whatever their options."""

    @torch.inference_mode()
    def engine(images: Tensor) -> list[Tensor]:
        values = run(images.contiguous())
        if not network.detectors:
            return values
        # Further threads of torch would look out for work for milliseconds, where the runtime's are to go on.
        with torch_threads(1):
            return network.activated(values)

    return engine


@torch.inference_mode()
def _check(network: Network, engine: Predict, name: str, precision: str, calibration: int8.Calibration | None) -> None:
    """Compare the values for an image of noise; in float32 those of the boxes and their probabilities.

    In int8 for the first image of the calibration: noise takes values that no image does.
    """
    if calibration:
        images = torch.from_numpy(next(calibration.inputs(network)))
    else:
        images = torch.rand(1, *network.input, generator=torch.Generator().manual_seed(0))
    values = [function(images) for function in (network.predict, engine)]
    if precision == "float32":
        values = [_meant(network, value) for value in values]
    # Not max(), which may pass over NaN.
    difference = np.max([_difference(found, expected, precision) for expected, found in zip(*values, strict=True)])
    if not difference <= TOLERANCE[precision]:
        raise ExportError(
            f"-engine {name}: its outputs are off by {difference:.2g} from torch's; expected at most "
            f"{TOLERANCE[precision]:g}; use {'-precision bf16' if calibration else '-engine torch'}"
        )


def _meant(network: Network, outputs: list[Tensor]) -> list[Tensor]:
    """The boxes in place of the maps that hold them, where w and h are logarithms."""
    parts = [head.boxes(output, 0.0) for head, output in zip(network.detectors, outputs, strict=False)]
    return [part for some in parts for part in some] or outputs


def _difference(found: Tensor, expected: Tensor, precision: str) -> float:
    if precision == "int8":
        return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    scale = expected.abs().clamp_min(1) if precision == "float32" else expected.abs().max()
    return float(((found - expected).abs() / scale).max())


# The cache: one file for each graph in a folder of the user's own, named by all that the graph was made of.

SUFFIX = ".graph"
MARK = b"darknet_compat graph\n"  # begins every file; what lacks it is not ours to take away
MOST_BYTES = 2**31  # of all graphs together: ten of YOLOv2's


def _place(network: Network, name: str, precision: str, calibration: int8.Calibration | None = None) -> Path | None:
    """Where the network's graph is kept; None where there is no folder for it, or no reason to keep it."""
    if getattr(network, "report", None) is None:  # no .weights file, so nothing that a later run could come back to
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not base.is_absolute():
        return None
    from ..export import graph

    about = {
        "cfg": network.cfg.meaning(),
        "size": network.input,
        "numerics": network.numerics,
        "program": network.program,
        "engine": [name, precision],
        "versions": [__version__, *(installed(package) for package in (name, "onnx", "torch"))],
        "processor": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
    }
    if calibration:
        about["int8"] = [calibration.digest(), installed("onnxruntime"), has_vnni()]
    content = hashlib.sha256(json.dumps(about).encode())
    content.update(Path(graph.__file__).read_bytes())
    if calibration:
        content.update(Path(int8.__file__).read_bytes())
    for tensor in network.state_dict().values():
        content.update(memoryview(tensor.contiguous().numpy().reshape(-1)).cast("B"))
    return base / "darknet_compat" / f"{content.hexdigest()}{SUFFIX}"


def _checksum(place: Path, graph: bytes) -> bytes:
    """Of the name too: a whole file that was moved to another's name is not taken for it."""
    content = hashlib.sha256(place.name.encode())
    content.update(graph)
    return content.digest()


def _open_own(path: Path) -> BinaryIO:
    """Open a plain file that belongs to this user, and that nobody else can write to; :class:`OSError` for any other.

    Neither a FIFO nor a device makes it wait, and no link is followed.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise PermissionError(f"{path}: not a plain file that only this user can change")


def _read(place: Path) -> bytes | None:
    """The graph that is kept; None where there is none, or the file is damaged or may be of somebody else's making."""
    try:
        with _open_own(place) as file:
            mark, checksum, graph = file.read(len(MARK)), file.read(32), file.read()
        if mark != MARK or checksum != _checksum(place, graph):
            return None
        os.utime(place)  # the last use, for _limit
    except OSError:
        return None
    return graph


def _keep(place: Path, graph: bytes) -> None:
    """Write a graph, and take away those used longest ago where all are too many; a folder that refuses is no error."""
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.is_symlink() or (place.exists() and not place.is_file()):
            return  # not of our making
        with whole_file(place) as file:
            os.fchmod(file.fileno(), 0o600)
            file.writelines([MARK, _checksum(place, graph), graph])
        _limit(place.parent)
    except OSError:
        return


def _limit(folder: Path) -> None:
    found = []
    for path in folder.iterdir():
        if re.fullmatch(rf"[0-9a-f]{{64}}\{SUFFIX}", path.name):
            with suppress(OSError), _open_own(path) as file:
                if file.read(len(MARK)) == MARK:
                    status = os.fstat(file.fileno())
                    found.append((status.st_mtime_ns, status.st_size, path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)
