"""Networks in other formats: .onnx, .pt2 (torch.export), .safetensors; and back from the last two.

``docs/export.md`` says what each file holds, and shows how others run it.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..cfg import format_cfg, parse_cfg, write_cfg
from ..errors import DarknetError, ExportError
from ..files import whole_file
from ..network import HEADS, NUMERICS, Network
from ..weights import save_weights

FORMAT = "darknet_compat"
ABOUT = "darknet.json"  # the file inside a .pt that holds what a .safetensors has in its metadata
# examples/detector.c, validate_detector. A higher threshold can be applied afterwards: the boxes that a box falls to
# are more probable than it is.
THRESH, NMS = 0.005, 0.45


def export(network: Network, path: str | os.PathLike[str], *, dynamic: bool = False, nms: bool = False) -> None:
    """Write a network, whole or not at all, in the format that the suffix of ``path`` names.

    .onnx: for inference, batch normalisation folded; see :func:`darknet_compat.export.graph.build` for inputs and
    outputs. ``dynamic``: any batch, height and width; else one picture of the network's size. ``nms``: the outputs have
    a third, what non-maximum suppression leaves of the boxes (probability over .005, IOU up to .45).

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

    Its .weights file is the one that the network was exported from, byte for byte.

    Raises :class:`ExportError` where the file is none of ours, or damaged.
    """
    path = os.fspath(path)
    read = _read_safetensors if path.lower().endswith(".safetensors") else _read_program
    try:
        about, tensors = read(path)
        network = Network(parse_cfg(about["cfg"], f"{path}:cfg"), about["numerics"])
        network.load_state_dict(tensors)
        network.version = tuple(int(part) for part in about["version"].split("."))
        network.seen = int(about["seen"])
    except DarknetError:
        raise
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}; expected a .pt2 or .safetensors file") from None
    except Exception as error:  # what a damaged file makes the readers raise is of many kinds
        line = " ".join(str(error).split())[:200]
        raise ExportError(
            f"{path}: not a file that darknet_compat exported, or damaged: {type(error).__name__}: {line}"
        ) from None
    return network.eval()


def _about(network: Network) -> dict[str, str]:
    """What makes a network of the tensors, and a .weights file of the network."""
    return {
        "format": FORMAT,
        "format_version": __version__,
        "cfg": format_cfg(network.cfg),
        "numerics": network.numerics,
        "version": ".".join(map(str, network.version)),
        "seen": str(network.seen),
    }


def _checked(about: Any, path: str) -> dict[str, str]:
    if not about or about.get("format") != FORMAT:
        raise ExportError(f"{path}: not written by darknet_compat; expected a .pt2 or .safetensors file of export")
    if about["numerics"] not in NUMERICS:
        raise ExportError(f"{path}: numerics is {about['numerics']!r}; expected one of {', '.join(NUMERICS)}")
    return about


def _onnx(network: Network, dynamic: bool, nms: bool) -> bytes:
    try:
        from .graph import build
    except ModuleNotFoundError:
        raise ExportError("an .onnx file needs the package onnx: pip install 'darknet_compat[onnx]'") from None
    suppress = (THRESH, NMS) if nms and network.head else None
    model = build(network.fuse(), batch="batch" if dynamic else 1, dynamic=dynamic, nms=suppress)
    return model.SerializeToString()


class _Program(nn.Module):
    """A network and, where it has a head, that one's boxes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output = self.network(images)
        if self.network.layers[-1].type not in HEADS:
            return output
        boxes, _, probabilities = self.network.head.boxes(output, 0.0)
        return boxes, probabilities


def _program(network: Network, dynamic: bool) -> bytes:
    module = _Program(network).eval()
    # A batch of one would be taken for a constant.
    images = torch.zeros(2 if dynamic else 1, *network.input)
    shapes = {"images": {0: torch.export.Dim("batch")}} if dynamic else None
    with torch.no_grad():
        program = torch.export.export(module, (images,), dynamic_shapes=shapes, strict=False)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={ABOUT: json.dumps(_about(network))})
    return content.getvalue()


def _read_program(path: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    extra, log = {ABOUT: ""}, logging.getLogger("torch.export")
    content = io.BytesIO(Path(path).read_bytes())
    log.disabled = True  # it prints the traceback of an error before it raises it
    try:
        program = torch.export.load(content, extra_files=extra)
    finally:
        log.disabled = False
    about = _checked(json.loads(extra[ABOUT] or "null"), path)
    return about, {name.removeprefix("network."): tensor for name, tensor in program.state_dict.items()}


def _safetensors(network: Network) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return _safetensors_torch().save(tensors, metadata=_about(network))


def _read_safetensors(path: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    _safetensors_torch()
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return _checked(file.metadata(), path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _safetensors_torch() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise ExportError(
            "a .safetensors file needs the package safetensors: pip install 'darknet_compat[safetensors]'"
        ) from None
    return safetensors.torch
