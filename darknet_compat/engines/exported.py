"""The engines that run an exported graph: ONNX Runtime and OpenVINO, with the cache of graphs."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ExportError
from ..files import whole_file
from ..network import HEADS, Network
from .packed import Function, in_batches
from .threads import torch_threads

# How far values may be from torch's: of boxes and probabilities in float32; of the map's largest in bf16.
TOLERANCE = {"float32": 1e-4, "bf16": 0.1}


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def start_exported(network: Network, name: str, precision: str, batch: int, threads: int) -> Function:
    """See :func:`darknet_compat.engines.start_engine`."""
    for package in (name, "onnx"):
        if not installed(package):
            raise ExportError(
                f"-engine {name}: the package {package} is not installed; pip install 'darknet_compat[{name}]'"
            )
    from ..export.graph import build

    start = {"onnxruntime": _onnxruntime, "openvino": _openvino}[name]
    places = _places(network, name, _key(network, name, precision))
    for place in filter(Path.is_file, places):
        try:
            return _engine(network, start(str(place), network, precision, batch, threads))
        except Exception:  # the runtimes have many errors; a file that they cannot read is made again
            break
    fused = network.fuse()
    graph = build(fused, batch="batch", raw=True).SerializeToString()
    try:
        engine = _engine(network, start(graph, network, precision, batch, threads))
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise ExportError(f"-engine {name}: it does not run this network: {line}; expected -engine torch") from None
    _check(fused, engine, name, precision)
    _keep(places, graph)
    return engine


def _onnxruntime(model: str | bytes, network: Network, precision: str, batch: int, threads: int) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda pictures: torch.from_numpy(session.run(None, {"images": pictures.numpy()})[0])


def _openvino(model: str | bytes, network: Network, precision: str, batch: int, threads: int) -> Function:
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape([batch, *network.input])  # a graph of one size is faster than one of any
    settings = {
        # Left to itself it takes bf16 where the processor has it.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": max(torch.get_num_threads(), threads),
        "NUM_STREAMS": max(torch.get_num_threads() // threads, 1),
    }
    compiled, own = core.compile_model(graph, "CPU", settings), threading.local()

    def run(pictures: Tensor) -> Tensor:
        if not hasattr(own, "request"):  # one for each thread: it keeps its output's memory for the next call
            own.request = compiled.create_infer_request()
        return torch.from_numpy(own.request.infer({"images": pictures.numpy()}, share_inputs=True)[0].copy())

    return in_batches(run, batch)


def _engine(network: Network, run: Function) -> Function:
    """The runtime gives the map that enters the head; the head itself is torch's, whatever its options."""
    head = network.layers[-1] if network.layers[-1].type in HEADS else None

    @torch.inference_mode()
    def engine(pictures: Tensor) -> Tensor:
        values = run(pictures.contiguous())
        if head is None:
            return values
        # Further threads of torch would look out for work for milliseconds, where the runtime's are to go on.
        with torch_threads(1):
            return head(values)

    return engine


@torch.inference_mode()
def _check(network: Network, engine: Function, name: str, precision: str) -> None:
    """Compare the values for a picture of noise; in float32 those of the boxes and their probabilities."""
    picture = torch.rand(1, *network.input, generator=torch.Generator().manual_seed(0))
    values = [function(picture) for function in (network, engine)]
    if precision == "float32" and network.layers[-1].type in HEADS:
        values = [torch.cat([part.flatten() for part in network.head.boxes(value, 0.0)]) for value in values]
    expected, found = values
    scale = expected.abs().clamp_min(1) if precision == "float32" else expected.abs().max()
    difference = float(((found - expected).abs() / scale).max())
    if not difference <= TOLERANCE[precision]:
        raise ExportError(
            f"-engine {name}: its outputs are off by {difference:.2g} from torch's; expected at most "
            f"{TOLERANCE[precision]:g}; use -engine torch"
        )


# The cache: one graph for each .weights file and runtime, named by what it was made of.


def _key(network: Network, name: str, precision: str) -> str:
    from ..export import graph

    about = {
        "cfg": network.cfg.meaning(),
        "size": network.input,
        "numerics": network.numerics,
        "engine": [name, precision],
        "versions": [installed(package) for package in (name, "onnx", "torch")],
        "processor": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
    }
    content = hashlib.sha256(json.dumps(about).encode())
    content.update(Path(graph.__file__).read_bytes())
    for tensor in network.state_dict().values():
        content.update(memoryview(tensor.contiguous().numpy().reshape(-1)).cast("B"))
    return content.hexdigest()[:16]


def _places(network: Network, name: str, key: str) -> list[Path]:
    """Where a graph may be kept, the best first: beside the weights, and in the user's cache folder."""
    report = getattr(network, "report", None)
    if report is None:  # no .weights file, so nothing that a later run could come back to
        return []
    weights = Path(report.path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darknet_compat"
    return [folder / f".{weights.stem}.{name}-{key}.onnx" for folder in (weights.parent, cache)]


def _keep(places: list[Path], graph: bytes) -> None:
    """Write a graph into the first place that takes it, and take away those of older weights; no place is no error."""
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place) as file:
                file.write(graph)
        except OSError:
            continue
        for old in place.parent.glob(f"{glob.escape(place.stem.rpartition('-')[0])}-*.onnx"):
            if old != place:
                old.unlink(missing_ok=True)
        return
