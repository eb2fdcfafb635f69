"""What ``valid`` has found so far, batch by batch, beside the result files to come: a killed run goes on with it.

A line of JSON says whose detections they are; records follow, each with its length and checksum. A record that a kill
broke off is no record. All numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from .. import __version__
from ..cfg import format_cfg
from ..errors import ResultsError
from ..files import lock
from ..image_files import make_folder
from ..network import Network
from .detections import Detections

LONGEST_HEAD = 2**16  # bytes
RECORD = struct.Struct("<III")  # bytes of what follows, its checksum, images in it
IMAGE = struct.Struct("<IIIII")  # width, height, boxes, columns of prob, numbers of prob that are not 0


def made_by(network: Network, paths: Sequence[str], **options: object) -> dict[str, object]:
    """What decides the detections of a list of images: each by its name, files by a checksum of what they hold."""
    weights = hashlib.sha256()
    for tensor in network.state_dict().values():
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    images = hashlib.sha256()
    for path in paths:
        images.update(os.fsencode(path) + b"\n")
    return {
        "version": __version__, "torch": torch.__version__,
        "cfg": hashlib.sha256(format_cfg(network.cfg).encode("utf-8", "surrogateescape")).hexdigest(),
        "weights": weights.hexdigest(), "list": images.hexdigest(), "numerics": network.numerics,
        "program": network.program, **options,
    }  # fmt: skip


class Journal:
    """The file ``path`` while a run goes on: ``with Journal(...) as journal``, then ``journal.add`` per batch.

    ``made``: what decides the detections (:func:`made_by`). With ``resume`` the run goes on where the file ends, behind
    ``images`` images, if it is there; its detections are those of :meth:`read`. The file stays where the block
    ends with an exception and holds a batch, and is removed otherwise.

    Raises :class:`ResultsError` where it cannot be written, another run writes it, or it is of another run.
    """

    def __init__(self, path: Path, made: Mapping[str, object], resume: bool = False) -> None:
        self.path, self.resume = path, resume
        self.images = 0
        """How many are written whole."""
        self._head = json.dumps({"journal": 1, **made}, default=str).encode() + b"\n"
        self._made = json.loads(self._head)

    def __enter__(self) -> Journal:
        make_folder(self.path.parent)
        with self._in_one_line(), contextlib.ExitStack() as stack:
            self._file: BinaryIO = stack.enter_context(
                os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
            )
            try:
                lock(self._file)
            except BlockingIOError:
                raise ResultsError(f"{self.path}: another run writes these result files; let it end first") from None
            except OSError:
                pass  # a file system without locks
            head = self._file.readline(LONGEST_HEAD)
            if self.resume and head:
                self._check(head)
                self._start = len(head)
                self.images = sum(images for images, _ in self._records())
            else:
                self._file.seek(0)
                self._file.write(self._head)
                self._start = len(self._head)
            self._file.truncate()
            self._file.flush()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None or not self.images:
                with contextlib.suppress(FileNotFoundError):
                    self.path.unlink()

    def _check(self, head: bytes) -> None:
        """Refuse a journal of another run."""
        try:
            found = json.loads(head)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not head.endswith(b"\n"):
            raise ResultsError(f"{self.path}: no journal of a run; remove it, or run without -resume")
        others = [name for name in {**self._made, **found} if found.get(name) != self._made.get(name)]
        if others:
            raise ResultsError(
                f"{self.path}: it is of a run with another {', another '.join(others)}; expected the same, or no "
                "-resume to begin anew"
            )

    def add(self, found: Sequence[Detections]) -> None:
        """Write a batch. When this returns, a kill does not lose it."""
        body = b"".join(map(_packed, found))
        self.images += len(found)  # before: Ctrl-C may come behind the last byte
        try:
            with self._in_one_line():
                self._file.write(RECORD.pack(len(body), zlib.crc32(body), len(found)) + body)
                self._file.flush()
        except ResultsError:
            self.images -= len(found)
            raise

    def kept(self, found: Iterable[Detections], batch: int) -> Iterator[Detections]:
        """Hands them on, and adds each whole batch, and what is left at the end."""
        part: list[Detections] = []
        for one in found:
            part.append(one)
            yield one
            if len(part) == batch:
                self.add(part)
                part = []
        if part:
            self.add(part)

    def read(self, paths: Iterable[str], classes: Sequence[str] = ()) -> Iterator[Detections]:
        """The detections in it, one image of ``paths`` after the other, before the first :meth:`add`."""
        named = iter(paths)
        with self._in_one_line():
            self._file.seek(self._start)
            for images, body in self._records():
                at = 0
                for _ in range(images):
                    one, at = _unpacked(body, at, next(named), classes)
                    yield one

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """From where the file stands: how many images a record holds, and it. The file stands behind the last then."""
        while True:
            start = self._file.tell()
            head = self._file.read(RECORD.size)
            length, checksum, images = RECORD.unpack(head) if len(head) == RECORD.size else (0, 0, 0)
            body = self._file.read(length)
            if not images or len(body) != length or zlib.crc32(body) != checksum:
                self._file.seek(start)
                return
            yield images, body

    @contextlib.contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResultsError(f"{self.path}: {error.strerror}; no result file was written") from None


def _packed(found: Detections) -> bytes:
    """Of ``prob`` only what is not 0, by row and column."""
    rows, columns = np.nonzero(found.prob)
    numbers = (found.boxes, "<f4"), (rows, "<u4"), (columns, "<u4"), (found.prob[rows, columns], "<f4")
    head = IMAGE.pack(found.width, found.height, *found.prob.shape, len(rows))
    return head + b"".join(np.ascontiguousarray(values, dtype).tobytes() for values, dtype in numbers)


def _unpacked(body: bytes, at: int, path: str, classes: Sequence[str]) -> tuple[Detections, int]:
    """The detections, in pixels, that stand in a record from byte ``at``; and where the next ones stand."""
    width, height, boxes, columns, count = IMAGE.unpack_from(body, at)
    at += IMAGE.size
    parts = []
    for dtype, number in (("<f4", 4 * boxes), ("<u4", count), ("<u4", count), ("<f4", count)):
        parts.append(np.frombuffer(body, dtype, number, at))
        at += 4 * number
    prob = np.zeros((boxes, columns), np.float32)
    prob[parts[1], parts[2]] = parts[3]
    return Detections(path, width, height, parts[0].reshape(boxes, 4).astype(np.float32), prob, False, classes), at
