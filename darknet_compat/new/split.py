"""Dividing labelled images into those to train on and those to score on."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..errors import ImageError
from ..images import read_encoded, size_in_header

SIDE = 16  # pixels of a thumbnail
ALIKE = 5.0  # levels of 255, the root mean square by which near-duplicates differ at the most
BLOCK = 1024
JPEG = b"\xff\xd8"


def thumbnails(paths: Sequence[str]) -> list[np.ndarray | ImageError]:
    """Grey, 16 x 16, float32 (256,), 0..255, of each image; the error of one that does not decode."""

    def read(path: str) -> np.ndarray | ImageError:
        try:
            return thumbnail(read_encoded(path), path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(read, paths))


def thumbnail(encoded: np.ndarray, path: str) -> np.ndarray:
    """That of the bytes of a file, uint8 (n,). Raises ImageError, which calls it ``path``."""
    import cv2

    small, (width, height) = 1, (0, 0)
    if encoded[:2].tobytes() == JPEG:
        # A JPEG is decoded at an eighth of its sides, where that is enough, in an eighth of the time.
        width, height = size_in_header(io.BytesIO(encoded.tobytes()), path)
        small = 8 if min(width, height) >= 16 * SIDE else 1
    image = cv2.imdecode(encoded, cv2.IMREAD_REDUCED_GRAYSCALE_8 if small > 1 else cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ImageError(f"{path}: does not decode; expected a whole JPEG, PNG or BMP image")
    # The last pixel of a side that 8 does not divide is there in part.
    lengths = (height / small, width / small) if small > 1 else image.shape
    sides = [_means(pixels, length) for pixels, length in zip(image.shape, lengths, strict=True)]
    means: np.ndarray = sides[0] @ image @ sides[1].T
    return means.astype(np.float32).reshape(-1)


def _means(pixels: int, length: float) -> np.ndarray:
    """A matrix (16, pixels) of the means over the sixteenths of a side that is ``length`` pixels long."""
    ends = np.linspace(0, length, SIDE + 1)
    first, last = ends[:-1, None], ends[1:, None]
    shared = np.clip(np.minimum(last, np.arange(1, pixels + 1)) - np.maximum(first, np.arange(pixels)), 0, None)
    means: np.ndarray = shared / shared.sum(1, keepdims=True)
    return means


def near_duplicates(thumbnails: np.ndarray) -> np.ndarray:
    """A number for each thumbnail (n, 256); near-duplicates, such as frames of one video, share theirs. int64 (n,).

    Those are alike that differ by under 5 levels of 255 (the root mean square); and what is like one of them belongs
    to them.
    """
    first = np.arange(len(thumbnails))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = index = int(first[first[index]])
        return index

    for one, other in _pairs(thumbnails).tolist():
        first[root(one)] = root(other)
    return np.unique([root(index) for index in range(len(thumbnails))], return_inverse=True)[1]


def pairs_across(trained: Sequence[str], scored: Sequence[str], groups: Mapping[str, int]) -> list[tuple[str, str]]:
    """Of each image to score on that has near-duplicates to train on the first of those, and itself.

    ``groups`` has the number of each that :func:`near_duplicates` gives.
    """
    first = {groups[image]: image for image in reversed(trained)}
    return [(first[groups[image]], image) for image in scored if groups[image] in first]


def _pairs(thumbnails: np.ndarray) -> np.ndarray:
    """Pairs of rows that are alike, (pairs, 2)."""
    squares = (thumbnails**2).sum(1)
    most = ALIKE**2 * thumbnails.shape[1]
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(thumbnails), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = squares[rows, None] + squares[start:] - 2 * thumbnails[rows] @ thumbnails[start:].T
        found.append(np.argwhere(np.triu(distance < most, 1)) + start)
    return np.concatenate(found)


def split(classes: np.ndarray, groups: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Which images to score on: bool (n,), of which about ``share`` are True for each class.

    ``classes``: bool (n, c), which classes an image shows. ``groups``: int (n,); images of one number stay together.
    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): the rarest class first, each group to the side
    that lacks more of it. One seed gives one result.
    """
    _, groups = np.unique(groups, return_inverse=True)
    count = np.bincount(groups)
    # Also a column for every image, and one for those that show nothing.
    shows = np.column_stack([classes, ~classes.any(1), np.ones(len(classes), bool)]).astype(np.int64)
    sums = np.stack([np.bincount(groups, column, len(count)) for column in shows.T], 1)
    wanted = np.array([[1 - share], [share]]) * sums.sum(0)
    order = np.random.default_rng(seed).permutation(len(count))
    left = sums[order].astype(np.float64)
    side = np.full(len(count), -1)
    while (side < 0).any():
        remaining = left[side < 0].sum(0)
        column = int(np.argmin(np.where(remaining[:-1] > 0, remaining[:-1], np.inf)))
        # The largest groups first, while there is room for them.
        members = np.flatnonzero((side < 0) & (left[:, column] > 0))
        for member in members[np.argsort(-left[members, -1], kind="stable")]:
            to = max((0, 1), key=lambda which: (wanted[which, column], wanted[which, -1]))
            side[member] = to
            wanted[to] -= left[member]
    result = np.empty(len(count), bool)
    result[order] = side == 1
    chosen: np.ndarray = result[groups]
    return chosen
