"""The .weights file: header, reader, writer, and what a cut-off file holds.

Source: ``src/parser.c, load_weights_upto, save_weights_upto``. The layout stands in ``docs/weights-format.md``. This
file knows the header; the order of the numbers is each layer's own affair (``Layer.numbers``).
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
import torch
from torch import Tensor

from .cfg import Cfg, read_cfg
from .cfg.sections import printable
from .errors import (
    DarknetError,
    WeightsEndError,
    WeightsError,
    WeightsHeaderError,
    WeightsLeftoverError,
    WeightsValueError,
)
from .files import regular_file, whole_file
from .layers import Layer
from .network import Network
from .program import VERSIONS
from .stock import find_stock, stock_files

TRANSPOSED = 1000  # load_weights_upto: above it, connected weights stand as (inputs, outputs)
# Real versions are 0.1.0, 0.2.0, 0.2.5 and some just above 1000. The four bytes of a float32 read as a far larger int.
MOST_VERSION = 100_000
MOST_SEEN = 2**62 - 1  # images
READERS = 2  # threads
CHUNK = 2**18  # numbers read at a time: 1 MiB, which stays in a core's cache
PART = 16 * CHUNK  # numbers of one thread's turn: the largest tensor is a quarter of a file


@dataclass(frozen=True)
class Header:
    """The first 16 or 20 bytes of a .weights file. ``seen`` counts images."""

    version: tuple[int, int, int]
    seen: int

    @property
    def wide(self) -> bool:
        """True where ``seen`` takes 8 bytes, as load_weights_upto decides it."""
        major, minor, _ = self.version
        return major * 10 + minor >= 2 and major < 1000 and minor < 1000

    @property
    def transposed(self) -> bool:
        """True where connected weights stand as (inputs, outputs)."""
        major, minor, _ = self.version
        return major > TRANSPOSED or minor > TRANSPOSED

    @property
    def size(self) -> int:
        return 20 if self.wide else 16

    def pack(self) -> bytes:
        return struct.pack("<3iQ" if self.wide else "<3ii", *self.version, self.seen)


@dataclass(frozen=True)
class LoadReport:
    """What a .weights file gave: indexes of layers with numbers in the file, and of those that kept theirs."""

    path: str
    header: Header
    loaded: list[int]
    kept: list[int]
    program: str
    """Which Darknet the network follows, and why."""

    def __str__(self) -> str:
        version = ".".join(map(str, self.header.version))
        text = f"{self.path}: version {version}, seen {self.header.seen:,} images, {_some(self.loaded)} got numbers"
        kept = f", {_some(self.kept)} kept their start values" if self.kept else ""
        return f"{text}{kept}; {self.program}"


def _some(indexes: list[int]) -> str:
    """ "no layers", "layer 3", "3 layers (0-4)"."""
    if not indexes:
        return "no layers"
    if len(indexes) == 1:
        return f"layer {indexes[0]}"
    return f"{len(indexes)} layers ({indexes[0]}-{indexes[-1]})"


def read_header(file: BinaryIO, path: str) -> Header:
    """Read the header at the start of an open file.

    Raises :class:`WeightsHeaderError` where the bytes cannot be one.
    """
    start = file.read(12)
    if len(start) < 12:
        raise WeightsHeaderError(
            f"{path}: offset 0: the file has {len(start)} bytes; expected a header of 16 or 20; is it a .weights file?"
        )
    version = struct.unpack("<3i", start)
    if not all(0 <= part <= MOST_VERSION for part in version):
        raise WeightsHeaderError(
            f"{path}: offset 0: the version reads {'.'.join(map(str, version))}; expected one such as 0.1.0 or 0.2.0; "
            "is it a .weights file?"
        )
    wide = Header(version, 0).wide
    rest = file.read(8 if wide else 4)
    if len(rest) < (8 if wide else 4):
        raise WeightsHeaderError(
            f"{path}: offset 12: the file ends in the count of images seen; expected {8 if wide else 4} bytes, "
            f"found {len(rest)}"
        )
    (seen,) = struct.unpack("<Q" if wide else "<i", rest)
    if not 0 <= seen <= MOST_SEEN:
        raise WeightsHeaderError(
            f"{path}: offset 12: the count of images seen reads {seen}; expected 0 or more; the file is damaged"
        )
    return Header(version, seen)


def load_weights(network: Network, path: str | os.PathLike[str]) -> LoadReport:
    """Read a .weights file into the network's tensors, without a second copy of them.

    A file may end between two layers: later layers keep what they hold. ``network.seen`` and ``network.version`` become
    the file's. Every number is checked to be finite.

    Raises :class:`WeightsError`, by kind of damage, with layer, offset, expected and found counts. A file of the wrong
    length leaves the network as it was; one with a number that is not finite leaves it partly filled.
    """
    name = printable(os.fspath(path))
    try:
        with regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            header = read_header(file, name)
            loaded, kept = _read_layers(network, file, name, header, size)
    except OSError as error:
        raise WeightsError(f"{name}: {error.strerror}; expected a .weights file") from None
    network.seen, network.version = header.seen, header.version
    return LoadReport(os.fspath(path), header, loaded, kept, network.follows)


def _read_layers(network: Network, file: BinaryIO, path: str, header: Header, size: int) -> tuple[list[int], list[int]]:
    """Indexes of the layers that got numbers, and of those that kept theirs."""
    loaded: list[int] = []
    kept: list[int] = []
    jobs: list[tuple[Tensor, Layer, str, int]] = []
    offset = header.size
    for layer in network.layers:
        tensors = [] if layer.o.dontload else layer.numbers(transposed=header.transposed, loading=True)
        wanted = 4 * sum(tensor.numel() for _, tensor in tensors)
        if not tensors or offset == size:
            if layer.numbers():
                kept.append(layer.index)
            continue
        if size - offset < wanted:
            raise WeightsEndError(
                f"{path}: offset {offset}: the file ends inside layer {layer.index} [{layer.type}]: expected "
                f"{wanted // 4:,} numbers, found {(size - offset) // 4:,}; {_fit(network, header, size)}"
            )
        for name, tensor in tensors:
            jobs.append((tensor, layer, name, offset))
            offset += 4 * tensor.numel()
        loaded.append(layer.index)
    if offset < size:
        raise WeightsLeftoverError(
            f"{path}: offset {offset}: {size - offset:,} bytes are left over after the last layer; "
            f"{_fit(network, header, size)}"
        )
    _read_tensors(jobs, file, path)
    return loaded, kept


def _read_tensors(jobs: Sequence[tuple[Tensor, Layer, str, int]], file: BinaryIO, path: str) -> None:
    """Fill each tensor, which is of this layer and called so there, with the numbers from an offset on."""

    def read(tensor: Tensor, offset: int, part: slice) -> bool:
        """Fill this part of its numbers. Are all finite?"""
        if _in_place(tensor):
            return _read_numbers(file, path, tensor.detach().numpy().reshape(-1)[part], offset + 4 * part.start)
        buffer = torch.empty(tensor.shape)
        finite = _read_numbers(file, path, buffer.numpy().reshape(-1), offset)
        with torch.no_grad():
            tensor.copy_(buffer)
        return finite

    turns = [
        (job, slice(first, first + step))
        for job in jobs
        for step in [PART if _in_place(job[0]) else max(job[0].numel(), 1)]
        for first in range(0, job[0].numel(), step)
    ]
    # Most of the time goes into copying out of the system's cache, which one core alone does not do at full speed.
    with ThreadPoolExecutor(READERS) as pool:
        finite = list(pool.map(lambda turn: read(turn[0][0], turn[0][3], turn[1]), turns))
    for (job, _), whole in zip(turns, finite, strict=True):
        if not whole:
            _check_finite(path, *job)


def _in_place(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous()


@np.errstate(over="ignore", invalid="ignore")
def _read_numbers(file: BinaryIO, path: str, numbers: np.ndarray, offset: int) -> bool:
    """Fill ``numbers`` from an offset on. Is their sum finite?"""
    finite = True
    for first in range(0, len(numbers), CHUNK):
        chunk = numbers[first : first + CHUNK]
        view = memoryview(chunk).cast("B")  # type: ignore[arg-type]  # numpy says so from Python 3.12 on
        _fill(file, view, path, offset + 4 * first)
        finite &= math.isfinite(np.einsum("i->", chunk))  # while it is in the cache, in half the time of chunk.sum()
    return finite


def _check_finite(path: str, tensor: Tensor, layer: Layer, name: str, offset: int) -> None:
    """A sum is finite only if all its numbers are; one that is not may have become too large."""
    numbers = tensor.detach().cpu().numpy().reshape(-1)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        raise WeightsValueError(
            f"{path}: offset {offset + 4 * int(bad[0])}: {name}[{bad[0]}] of layer {layer.index} [{layer.type}] is "
            f"{numbers[bad[0]]}; expected finite numbers, found {bad.size} that are not; the training that wrote "
            "this file had diverged, or the file is damaged"
        )


def _fill(file: BinaryIO, view: memoryview, path: str, offset: int) -> None:
    while len(view):
        count = os.preadv(file.fileno(), [view], offset)
        if not count:
            raise WeightsEndError(f"{path}: offset {offset}: the file became shorter while it was read")
        view, offset = view[count:], offset + count


def _fit(network: Network, header: Header, size: int) -> str:
    """What the file would fit, computed: the sum for this cfg, and the stock cfg whose first layers fill it exactly."""
    found = (size - header.size) // 4
    asked = sum(tensor.numel() for layer in network.layers for _, tensor in layer.numbers())
    text = f"this file holds {found:,} numbers, the cfg asks for {asked:,}"
    if (size - header.size) % 4:
        return f"{text}; {(size - header.size) % 4} bytes make no number: the file is damaged or its copy broke off"
    fits = _stock_fit(found)
    return f"{text}; it fits {fits}" if fits else f"{text}; are cfg and weights of the same network?"


def _stock_fit(found: int) -> str | None:
    for name, ends in _stock_ends():
        layer = next((index for index, total in ends if total == found), None)
        if layer is not None:
            return name if layer == ends[-1][0] else f"the first {layer + 1} layers of {name}"
    return None


@functools.cache
def _stock_ends() -> list[tuple[str, list[tuple[int, int]]]]:
    """Of each stock cfg its layers with numbers, and how many of them a file holds up to each layer's end."""
    known = []
    for path in stock_files("cfg", ".cfg"):
        try:
            network = Network(read_cfg(path), device="meta")
        except DarknetError:
            continue
        ends, total = [], 0
        for layer in network.layers:
            count = sum(tensor.numel() for _, tensor in layer.numbers())
            total += count
            if count:
                ends.append((layer.index, total))
        known.append((path.name, ends))
    return known


def save_weights(network: Network, path: str | os.PathLike[str], cutoff: int | None = None) -> None:
    """Write the numbers of the layers before layer ``cutoff`` (default: all), with ``network.version`` and ``seen``.

    The file is written whole or not at all. Raises :class:`WeightsError` where it cannot be written.
    """
    header = Header(network.version, network.seen)
    if not header.wide and network.seen >= 2**31:
        raise WeightsError(
            f"{path}: a header of version {'.'.join(map(str, network.version))} cannot count {network.seen} images; "
            "expected fewer than 2,147,483,648; set network.version to (0, 2, 0)"
        )
    if cutoff is not None and cutoff < 0:
        raise WeightsError(f"{path}: cutoff is {cutoff}; expected a layer count, 0 or more")
    try:
        with whole_file(Path(path)) as file:
            file.write(header.pack())
            for layer in network.layers[:cutoff]:
                if layer.o.dontsave:
                    continue
                for _, tensor in layer.numbers(transposed=header.transposed):
                    numbers = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
                    file.write(memoryview(numbers.reshape(-1)).cast("B"))  # type: ignore[arg-type]  # as above
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; the file was not written") from None


def load_network(
    cfg: str | os.PathLike[str] | Cfg,
    weights: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str | None = None,
    numerics: str = "cudnn",
    program: str | None = None,
    clear: bool = False,
) -> Network:
    """Build the network of a .cfg file and fill it, in inference mode.

    Both are files, here or among those that came with the package ("cfg/...", "weights/..."); ``cfg`` may also be what
    :func:`read_cfg` gives. ``weights`` may end early; the layers it does not reach, or all without it, get Darknet's
    random start values. ``network.report`` says which layers got numbers. ``clear`` sets ``network.seen`` to 0, as
    Darknet's ``-clear``. ``numerics`` is "cudnn" (how the published weights were made), "gpu" or "cpu". ``program`` is
    the Darknet to follow, "pjreddie" or "alexeyab": by default his whose options the cfg has, and ``network.follows``
    says which that is.

    Raises :class:`DarknetError` with one line that names file and place.
    """
    cfg = cfg if isinstance(cfg, Cfg) else read_cfg(find_stock(os.fspath(cfg)))
    network = Network(cfg, numerics, program=program)
    network.report = load_into(network, None if weights is None else find_stock(os.fspath(weights)), clear=clear)
    return network.eval().to(device or "cpu")


def partial(
    cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    layers: int,
    *,
    program: str | None = None,
) -> LoadReport:
    """Write the first ``layers`` layers of ``weights`` to ``out`` (``examples/darknet.c, partial``).

    Darknet counts 0 images seen there, and writes its own version. Raises :class:`WeightsError`.
    """
    network = Network(read_cfg(find_stock(os.fspath(cfg))), program=program)
    report = load_into(network, find_stock(os.fspath(weights)), clear=True)
    if not 0 <= layers <= len(network.layers):
        raise WeightsError(f"{cfg}: LAYERS is {layers}; expected 0 to {len(network.layers)}, the network's layer count")
    network.version = VERSIONS[network.program]
    save_weights(network, out, layers)
    return report


@overload
def load_into(network: Network, path: str | os.PathLike[str], *, clear: bool = False) -> LoadReport: ...


@overload
def load_into(network: Network, path: str | os.PathLike[str] | None, *, clear: bool = False) -> LoadReport | None: ...


def load_into(network: Network, path: str | os.PathLike[str] | None, *, clear: bool = False) -> LoadReport | None:
    """Fill a new network: from a file if there is one, with start values where the file gives none."""
    if path is None:
        network.start()
        return None
    report = load_weights(network, path)
    with torch.no_grad():
        for index in report.kept:
            network.layers[index].start()
    if clear:
        network.seen = 0
    return report
