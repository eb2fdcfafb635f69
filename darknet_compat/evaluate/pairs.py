"""Which rows of one table meet which rows of another: the ragged indexing under every matching here.

Boxes are matched only within one image (and class). Each such group has its own
size, so the pairs of all groups stand in one long flat array, and per-row results
come from ``ufunc.reduceat`` over it. No Python loop over boxes.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", bound=np.floating)


class Pairs(NamedTuple):
    """Every (left row, right row) with equal keys; grouped by left row, in order, right rows in their own order."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]


def pair_up(left_key: NDArray[np.integer], right_key: NDArray[np.integer]) -> Pairs:
    """All pairs of rows with equal integer keys.

    ``left_key`` (L,), ``right_key`` (R,), in any order. The result is sorted by left row;
    within one left row the right rows keep their order, so "the first of equals" is the first in the file.
    """
    order = np.argsort(right_key, kind="stable")
    in_order = right_key[order]
    start = np.searchsorted(in_order, left_key, side="left")
    count = np.searchsorted(in_order, left_key, side="right") - start
    left = np.repeat(np.arange(len(left_key)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return Pairs(left, order[np.repeat(start, count) + within])


def first_best(pairs: Pairs, value: NDArray[Real], rows: int) -> tuple[NDArray[np.int64], NDArray[Real]]:
    """For each of ``rows`` left rows its first right row of greatest ``value``, and that value.

    ``value`` (P,) belongs to ``pairs``. A left row without a pair gets right row -1 and value -inf.
    A NaN beats every number, as in ``numpy.max``.
    """
    best_right = np.full(rows, -1, dtype=np.int64)
    best_value = np.full(rows, -np.inf, dtype=value.dtype)
    if len(value):
        first = np.flatnonzero(np.r_[True, pairs.left[1:] != pairs.left[:-1]])
        row = pairs.left[first]
        greatest = np.maximum.reduceat(value, first)
        count = np.diff(np.r_[first, len(value)])
        spread = np.repeat(greatest, count)
        is_best = (value == spread) | np.isnan(value)
        at = np.minimum.reduceat(np.where(is_best, np.arange(len(value)), len(value)), first)
        best_right[row] = pairs.right[at]
        best_value[row] = greatest
    return best_right, best_value
