"""Dividing labelled images into those to train on and those to score on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..errors import ImageError
from ..files import regular_file

SIDE = 16  # pixels of a thumbnail
ALIKE = 5.0  # levels of 255, the root mean square by which near-duplicates differ at the most
BLOCK = 1024


def near_duplicates(paths: Sequence[str]) -> np.ndarray:
    """A number for each image; near-duplicates, such as frames of one video, share theirs. int64 (n,).

    Images are alike whose grey thumbnails of 16 x 16 pixels differ by under 5 levels of 255 (the root mean square);
    and what is like one of them belongs to them. Raises :class:`ImageError` for an image that does not decode.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        thumbnails = np.stack(list(threads.map(_thumbnail, paths)))
    first = np.arange(len(paths))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = index = int(first[first[index]])
        return index

    for one, other in _pairs(thumbnails):
        first[root(one)] = root(other)
    return np.unique([root(index) for index in range(len(paths))], return_inverse=True)[1]


def _thumbnail(path: str) -> np.ndarray:
    import cv2

    try:
        with regular_file(path) as file:
            encoded = np.fromfile(file, np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: cannot read the image: {error.strerror or error}; check the path") from None
    # A JPEG is decoded at an eighth of its sides, which is all that is needed, in an eighth of the time.
    image = cv2.imdecode(encoded, cv2.IMREAD_REDUCED_GRAYSCALE_8) if encoded.size else None
    if image is None:
        raise ImageError(f"{path}: does not decode; expected a whole JPEG, PNG or BMP image")
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(-1).astype(np.float32)


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
