"""Image files in any order: what a training set draws from. Shards (``shards.py``) are another such source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar, overload

import numpy as np

from ..errors import ImageError
from ..files import regular_file
from ..images import image_size, load_image


class ImageFiles(Sequence[str]):
    """Paths of image files, and the images.

    The paths are one block of bytes in the place of many objects: worker processes share it, as nobody counts
    references in it.
    """

    by_epochs: ClassVar[bool] = False
    """Are they drawn each once in an epoch, whatever is asked for?"""

    def __init__(self, paths: Sequence[str]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(name) for name in names])
        self._block = b"".join(names)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._block[start : int(self._ends[index])])

    def load(self, index: int) -> np.ndarray:
        """The pixels of an image, uint8 RGB (h, w, 3). Raises ImageError."""
        return load_image(self[index])

    def encoded(self, index: int) -> bytes:
        """The bytes of its file. Raises ImageError."""
        try:
            with regular_file(self[index]) as file:
                return file.read()
        except OSError as error:
            raise ImageError(f"{self[index]}: cannot read the image: {error.strerror or error}") from None

    def size(self, index: int) -> tuple[int, int]:
        """Its width and height, by its header. Raises ImageError."""
        return image_size(self[index])

    def order(self, bits: np.random.PCG64) -> np.ndarray:
        """(N,) int64: all images in an order that follows from ``bits`` alone, for one epoch.

        Sorted by raw 64 bits, of which numpy promises that no version changes them; it does not of its shuffles.
        """
        order: np.ndarray = np.argsort(bits.random_raw(len(self)))
        return order
