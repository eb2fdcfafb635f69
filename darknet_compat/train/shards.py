"""Images in tar files ("shards"), read where they lie: for network disks, which are slow at a million small files.

Nothing is ever unpacked. The headers are read once, by Python's own tarfile; from then on an image is one read at its
place in its shard, so that any image can be had at any time: which one a sample is follows from its number, for any
number of workers and in a resumed training. A library that streams shards, as webdataset does, cannot do that (its part
that could, wids, is no longer in it since version 1.0), and takes ``pipe:`` before a command for a shard's name: a
.data file would run programs. Its shards are read as it means them.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from ..cfg.sections import printable
from ..errors import DataError, ImageError
from ..files import regular_file
from ..images import SUFFIXES, decode_image, size_in_header
from ..processes import ALONE, Processes
from ..tar_files import tar_members
from .sources import ImageFiles

READERS = 16  # processes that read headers: a network disk lets one wait for each, and tarfile takes .03 ms
TOGETHER = 8  # shards that are drawn from at a time
OPEN = 2 * TOGETHER  # shards that a process holds open
CLASS = ".cls"
CLASS_BYTES = 32  # a number and a line's end


class _Index(NamedTuple):
    """What is in one shard."""

    names: list[str]
    places: np.ndarray
    """(N, 2) int64: where the bytes of an image begin in the shard, and how many they are."""
    classes: list[int]
    """-1 where there is no .cls."""
    stamp: tuple[int, int]


class ShardImages(ImageFiles):
    """The images in tar shards. Their paths are ``SHARD/MEMBER``, so labels may stand in these.

    Of ``processes`` each reads the headers of a part of the shards. Raises :class:`DataError` where a shard is missing,
    damaged, cut short, compressed or without an image, and where some images have a ``.cls`` and others have none.
    """

    by_epochs = True
    classes: np.ndarray | None
    """(N,) int64: the classes that the ``.cls`` members say, None where there are none."""

    def __init__(self, shards: Sequence[str], processes: Processes = ALONE) -> None:
        found = [index for part in processes.look_through(shards, _read_indices) for index in part]
        super().__init__(
            [f"{shard}/{name}" for shard, index in zip(shards, found, strict=True) for name in index.names]
        )
        self.shards = list(shards)
        self._shard = np.repeat(np.arange(len(found)), [len(index.names) for index in found])
        self._places = np.concatenate([index.places for index in found])
        self._stamps = [index.stamp for index in found]
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()
        classes = np.array([number for index in found for number in index.classes])
        self.classes = classes if classes.max() >= 0 else None
        if self.classes is not None and classes.min() < 0:
            raise DataError(
                f"{printable(self[int(classes.argmin())])}: no {CLASS} beside it, and other images of the shards have "
                "one; expected one for all, or for none"
            )

    def load(self, index: int) -> np.ndarray:
        return decode_image(np.frombuffer(self.encoded(index), np.uint8), self[index])

    def encoded(self, index: int) -> bytes:
        start, size = self._places[index].tolist()
        try:
            found = _read(self._file(int(self._shard[index])), start, size)
        except OSError as error:
            raise ImageError(f"{self[index]}: cannot read the image: {error.strerror or error}") from None
        if len(found) < size:
            raise ImageError(f"{self[index]}: the shard ends inside the image; it has been cut short")
        return found

    def size(self, index: int) -> tuple[int, int]:
        return size_in_header(io.BytesIO(self.encoded(index)), self[index])

    def order(self, bits: np.random.PCG64) -> np.ndarray:
        """As of files, but from :data:`TOGETHER` shards at a time, which are then in the cache of the system."""
        bits_of_images = bits.random_raw(len(self))  # the first to be drawn: of one shard, the order is that of files
        group = np.empty(len(self.shards), np.int64)
        group[np.argsort(bits.random_raw(len(group)))] = np.arange(len(group)) // TOGETHER
        return np.lexsort((bits_of_images, group[self._shard]))

    def warn_of_few_classes(self, classes: np.ndarray) -> None:
        """One warning where any :data:`TOGETHER` shards lack most of the ``classes`` (N,) of the images.

        Images are drawn from so many at a time, and a network that sees few classes for long forgets the others.
        """
        pairs = np.unique(self._shard * (classes.max() + 2) + classes + 1)
        of_shard = np.sort(np.bincount(pairs // (classes.max() + 2)))
        if of_shard[-TOGETHER:].sum() < len(np.unique(classes)) / 2:
            warnings.warn(
                f"{printable(self.shards[0])}: each of the {len(self.shards)} shards holds {of_shard[-1]} or fewer of "
                f"the {len(np.unique(classes))} classes, and images are drawn from {TOGETHER} shards at a time; "
                "tools/make_shards.py makes shards of mixed classes",
                stacklevel=3,
            )

    def _file(self, shard: int) -> BinaryIO:
        """The open shard. Each process opens its own; those that were not asked for lately are closed."""
        file = self._open.pop(shard, None)
        if file is None:
            file = regular_file(self.shards[shard])
            if _stamp(file) != self._stamps[shard]:
                file.close()
                raise OSError("the shard was changed after its headers had been read; start again with -resume")
            if len(self._open) >= OPEN:
                self._open.popitem(last=False)[1].close()
        self._open[shard] = file
        return file


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    """Up to ``size`` bytes from ``start`` on. What other processes read of the same open file is not in the way."""
    parts = []
    while size and (part := os.pread(file.fileno(), size, start)):
        parts.append(part)
        start, size = start + len(part), size - len(part)
    return b"".join(parts)


def _stamp(file: BinaryIO) -> tuple[int, int]:
    there = os.fstat(file.fileno())
    return there.st_size, there.st_mtime_ns


def _read_indices(shards: Sequence[str]) -> list[_Index]:
    if len(shards) < 2:
        return [_read_index(shard) for shard in shards]
    ignore = signal.SIGINT, signal.SIG_IGN  # Ctrl-C is the main process's to answer
    try:
        with ProcessPoolExecutor(
            min(READERS, len(shards)), multiprocessing.get_context("fork"), signal.signal, ignore
        ) as pool:
            read = pool.map(_read_index, shards)
            return list(tqdm(read, "reading shards", len(shards), unit=" shards", disable=None, leave=False))
    except BrokenProcessPool:
        raise DataError(
            f"{printable(shards[0])}: a process that reads the headers of the {len(shards)} shards died, perhaps for "
            "lack of memory"
        ) from None


def _read_index(shard: str) -> _Index:
    names: list[str] = []
    places: list[tuple[int, int]] = []
    classes: dict[str, int] = {}
    try:
        with regular_file(shard) as file:
            for member in tar_members(file, shard):
                suffix = os.path.splitext(member.name)[1].lower()
                if suffix in SUFFIXES:
                    names.append(member.name)
                    places.append((member.offset_data, member.size))
                elif suffix == CLASS:
                    file.seek(member.offset_data)
                    classes[_key(member.name)] = _class(file.read(min(member.size, CLASS_BYTES + 1)), shard, member)
            stamp = _stamp(file)
    except OSError as error:
        raise DataError(f"{printable(shard)}: cannot read the shard: {error.strerror or error}") from None
    if not names:
        raise DataError(f"{printable(shard)}: no image in the shard; expected members ending in {', '.join(SUFFIXES)}")
    return _Index(names, np.array(places), [classes.get(_key(name), -1) for name in names], stamp)


def _key(name: str) -> str:
    """What the members of one sample share, by webdataset's rule: all up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.split('.', 1)[0]}"


def _class(text: bytes, shard: str, member: tarfile.TarInfo) -> int:
    if len(text) <= CLASS_BYTES and text.strip().isdigit() and len(text.strip()) < 10:
        return int(text)
    where = printable(f"{shard}/{member.name}")
    raise DataError(f"{where}: {text[:CLASS_BYTES]!r}; expected the number of a class, from 0")
