"""Networks in other formats: .onnx, .pt2 (torch.export), .safetensors; and back from the last two.

``docs/export.md`` says what each file holds, and shows how others run it.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..cfg import format_cfg, parse_cfg, write_cfg
from ..cfg.reader import MAX_BYTES
from ..cfg.sections import printable
from ..errors import DarknetError, ExportError
from ..files import whole_file
from ..layers.recurrent import Recurrent
from ..network import Network
from ..weights import MOST_SEEN, MOST_VERSION, Header, save_weights

FORMAT = "darknet_compat"
ABOUT = "darknet.json"  # the file inside a .pt that holds what a .safetensors has in its metadata
WEIGHTS = "archive/data/weights/"  # the folder inside a .pt with the tensors' bytes, and their names and shapes
# Of a network with a hundred layers both have some 100 KB; a cfg of MAX_BYTES, written in ASCII, up to six times that.
MOST_JSON = 8 * MAX_BYTES


def export(network: Network, path: str | os.PathLike[str], *, dynamic: bool = False, nms: bool = False) -> None:
    """Write a network, whole or not at all, in the format that the suffix of ``path`` names.

    .onnx: for inference, batch normalisation folded; see :func:`darknet_compat.export.graph.build` for inputs and
    outputs. ``dynamic``: any batch, height and width; else one image of the network's size. ``nms``: the outputs have
    a third, what non-maximum suppression leaves of the boxes (probability over .005, IOU up to .45), where the
    network's own kind of it is the plain one.

    .pt or .pt2: a program of torch.export with the same input and outputs. ``dynamic``: any batch.

    .safetensors: the tensors by name, ``layers.0.weights``.

    .weights and .cfg: Darknet's own.

    Raises :class:`ExportError` where the network or the folder does not allow it, or a package is missing.
    """
    suffix = Path(path).suffix.lower()
    writers: dict[str, Callable[[], bytes]] = {
        ".onnx": lambda: _onnx(network, dynamic, nms),
        ".pt": lambda: _program(network, dynamic),
        ".pt2": lambda: _program(network, dynamic),
        ".safetensors": lambda: _safetensors(network),
    }
    if nms and suffix != ".onnx":
        raise ExportError(f"{path}: non-maximum suppression goes into .onnx files only; expected no -nms")
    if suffix == ".weights":
        save_weights(network, path)
    elif suffix == ".cfg":
        write_cfg(network.cfg, path)
    elif suffix in writers:
        content = writers[suffix]()
        try:
            with whole_file(path) as file:
                file.write(content)
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}; the file was not written") from None
    else:
        raise ExportError(
            f"{path}: no format has the suffix {suffix!r}; expected .onnx, .pt, .pt2, .safetensors, .weights or .cfg"
        )


def read_export(path: str | os.PathLike[str]) -> Network:
    """The network in a .pt, .pt2 or .safetensors file that :func:`export` wrote, in inference mode.

    Its .weights file is the one that the network was exported from, byte for byte. Nothing in the file is run, and
    what is read of it is never larger than the file.

    Raises :class:`ExportError` where the file is none of ours, or damaged: a checksum covers all that is read.
    """
    path = os.fspath(path)
    name = printable(path)
    read = _read_safetensors if path.lower().endswith(".safetensors") else _read_program
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for its writer
            raise ExportError(f"{name}: not a plain file; expected a .pt2 or .safetensors file")
        about, tensors = read(path)
        version, seen = _check_about(about, name)
        network = Network(parse_cfg(about["cfg"], f"{path}:cfg"), about["numerics"], program=about["program"])
        _check_tensors(network, tensors, name)
        network.load_state_dict(tensors)
    except DarknetError:
        raise
    except OSError as error:
        raise ExportError(f"{name}: {error.strerror or error}; expected a .pt2 or .safetensors file") from None
    except Exception as error:  # what a damaged file makes the readers raise is of many kinds
        line = printable(" ".join(str(error).split()))[:200]
        raise ExportError(
            f"{name}: not a file that darknet_compat exported, or damaged: {type(error).__name__}: {line}"
        ) from None
    if _checksum(about, network) != about["sha256"]:
        raise ExportError(f"{name}: damaged: its sha256 is not that of its contents; copy or export it again")
    network.version, network.seen = version, seen
    return network.eval()


def _about(network: Network) -> dict[str, str]:
    """What makes a network of the tensors, and a .weights file of the network."""
    about = {
        "format": FORMAT,
        "format_version": __version__,
        "cfg": format_cfg(network.cfg),
        "numerics": network.numerics,
        "program": network.program,
        "version": ".".join(map(str, network.version)),
        "seen": str(network.seen),
    }
    return {**about, "sha256": _checksum(about, network)}


def _checksum(about: dict[str, str], network: Network) -> str:
    """Of all that :func:`read_export` uses: the tensors, and what stands beside them."""
    content = hashlib.sha256(
        json.dumps([about[key] for key in ("cfg", "numerics", "program", "version", "seen")]).encode()
    )
    for tensor in network.state_dict().values():
        content.update(memoryview(tensor.cpu().contiguous().numpy().reshape(-1)).cast("B"))
    return content.hexdigest()


def _check_about(about: Any, name: str) -> tuple[tuple[int, int, int], int]:
    """Is ``about`` as :func:`_about` writes it? Returns version and count of images seen."""
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ExportError(f"{name}: not written by darknet_compat; expected a .pt2 or .safetensors file of export")
    for key in ("cfg", "numerics", "program", "version", "seen", "sha256"):
        if not isinstance(about.get(key), str):
            raise ExportError(f"{name}: no {key} beside its tensors; expected one, as this version's export writes it")
    if len(about["cfg"]) > MAX_BYTES:
        raise ExportError(f"{name}: its cfg has {len(about['cfg']):,} characters; expected at most {MAX_BYTES:,}")
    plain = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})", about["version"])
    if not plain or max(map(int, plain.groups())) > MOST_VERSION:
        raise ExportError(f"{name}: version is {about['version'][:40]!r}; expected three numbers, such as 0.2.0")
    version = int(plain[1]), int(plain[2]), int(plain[3])
    most = MOST_SEEN if Header(version, 0).wide else 2**31 - 1
    if not re.fullmatch("[0-9]{1,19}", about["seen"]) or int(about["seen"]) > most:
        raise ExportError(f"{name}: seen is {about['seen'][:40]!r}; expected a count of images from 0 to {most:,}")
    return version, int(about["seen"])


def _check_tensors(network: Network, tensors: dict[str, Tensor], name: str) -> None:
    """Are these the tensors that the network asks for, and all numbers finite?"""
    wanted = {key: f"float32 {tuple(tensor.shape)}" for key, tensor in network.state_dict().items()}
    found = {
        key: f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for key, tensor in tensors.items()
    }
    for key in {**wanted, **found}:
        if wanted.get(key) != found.get(key):
            raise ExportError(
                f"{name}: the tensor {printable(key)[:100]} is {found.get(key, 'missing')[:100]}; its cfg asks for "
                f"{wanted.get(key, 'none of that name')}"
            )
        if not tensors[key].isfinite().all():
            raise ExportError(
                f"{name}: the tensor {key} has numbers that are not finite; expected none; the training that made it "
                "had diverged, or the file is damaged"
            )


def _onnx(network: Network, dynamic: bool, nms: bool) -> bytes:
    try:
        from .graph import build
    except ModuleNotFoundError:
        raise ExportError("an .onnx file needs the package onnx: pip install 'darknet_compat[onnx]'") from None
    # A higher threshold can be applied afterwards: the boxes that a box falls to are more probable than it is.
    suppress = _plain_suppression(network) if nms else None
    model = build(network.fuse(), batch="batch" if dynamic else 1, dynamic=dynamic, nms=suppress)
    content: bytes = model.SerializeToString()
    return content


def _plain_suppression(network: Network) -> tuple[float, float]:
    """The thresholds of ONNX's NonMaxSuppression, which knows the IOU and no other measure."""
    from ..defaults import MAP

    head = network.detector
    if head.nms_kind in ("greedynms", "diounms"):
        error = head.section.error(f"nms_kind={head.nms_kind} has no ONNX form", "nms_kind")
        raise ExportError(
            f"{error}; expected no -nms: call darknet_compat.boxes.nms_sort after the graph, as detector "
            "test -engine onnxruntime does"
        )
    return MAP[network.program]


class _Program(nn.Module):
    """What a network says: boxes and probabilities; without heads that find boxes the last values."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        network, outputs = self.network, self.network.predict(images)
        if not network.detectors:
            return outputs[0]
        boxes, _, probabilities = network.boxes(outputs, 0.0)
        return boxes, probabilities


def _program(network: Network, dynamic: bool) -> bytes:
    # A batch of one would be taken for a constant.
    images = torch.zeros(2 if dynamic else 1, *network.input)
    recurrent = next((layer for layer in network.layers if isinstance(layer, Recurrent)), None)
    if recurrent is None:
        module = _Program(network).eval()
    elif dynamic:
        raise ExportError(
            str(recurrent.section.error("a program of any batch has no place for each stream's state"))
            + "; expected no -dynamic"
        )
    else:
        # The program has a state of its own for its one stream, zeros as it starts.
        module = _Program(copy.deepcopy(network)).eval()
        with torch.no_grad():
            module(images)
        module.network.reset_state()
    shapes = {"images": {0: torch.export.Dim("batch")}} if dynamic else None
    with torch.no_grad():
        program = torch.export.export(module, (images,), dynamic_shapes=shapes, strict=False)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={ABOUT: json.dumps(_about(network))})
    return content.getvalue()


def _read_program(path: str) -> tuple[Any, dict[str, Tensor]]:
    """The raw tensors and our JSON out of the zip archive (torch/export/pt2_archive/_package.py).

    ``torch.export.load`` would unpickle what the file says, and so run what its author likes.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("an entry is compressed; expected raw bytes, as torch.export.save writes them")
        if sum(entry.file_size for entry in entries) > os.stat(path).st_size:
            raise ValueError("the entries are longer than the file")
        if len(set(archive.namelist())) != len(entries):
            raise ValueError("two entries have the same name")
        about = _read_json(archive, f"archive/extra/{ABOUT}")
        tensors, taken = {}, set()
        for name, meta in _read_json(archive, f"{WEIGHTS}model_weights_config.json")["config"].items():
            if meta["path_name"] in taken:
                raise ValueError("two tensors have the same bytes")
            taken.add(meta["path_name"])
            shape, strides = ([size["as_int"] for size in meta["tensor_meta"][key]] for key in ("sizes", "strides"))
            numbers = torch.frombuffer(bytearray(archive.read(WEIGHTS + meta["path_name"])), dtype=torch.float32)
            if math.prod(shape) != len(numbers):  # a stride of 0 could make gigabytes of four bytes
                raise ValueError(f"{name} has {len(numbers):,} numbers; expected {math.prod(shape):,}")
            tensors[name.removeprefix("network.")] = numbers.as_strided(shape, strides)
    return about, tensors


def _read_json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > MOST_JSON:
        raise ValueError(f"{name} is longer than {MOST_JSON:,} bytes")
    return json.loads(archive.read(name))


def _safetensors(network: Network) -> bytes:
    save = _safetensors_torch().save
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    try:
        content: bytes = save(tensors, metadata=_about(network))
        return content
    except UnicodeEncodeError:
        raise ExportError(
            f"{network.cfg.file}: bytes that are not UTF-8, which a .safetensors file cannot hold; write the cfg in "
            "UTF-8, or export a .pt2"
        ) from None


def _read_safetensors(path: str) -> tuple[Any, dict[str, Tensor]]:
    _safetensors_torch()
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _safetensors_torch() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise ExportError(
            "a .safetensors file needs the package safetensors: pip install 'darknet_compat[safetensors]'"
        ) from None
    return safetensors.torch
