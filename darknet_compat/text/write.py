"""Writing a text: each symbol is drawn from what the network says may follow.

Source: ``examples/rnn.c, test_char_rnn, test_tactic_rnn``; ``src/utils.c, sample_array``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .reader import Reader

LEAST = 0.0001  # what is less likely is never drawn
STOP, END = ord("."), ord("\n")  # behind one another they end a tactic


def generate(
    reader: Reader, seed: bytes = b"\n\n", count: int = 1000, draw: Callable[[], float] | None = None
) -> Iterator[int]:
    """The symbols of ``seed``, and ``count`` that follow it. ``draw`` gives a number from 0 to 1 for each.

    An empty seed is the symbol 0, as in Darknet.
    """
    draw = draw or random.random
    *before, symbol = seed or b"\0"
    for given in before:
        reader.feed(given)
        yield given
    yield symbol
    for _ in range(count):
        symbol = sample(reader.feed(symbol), draw())
        yield symbol


def generate_tactic(
    reader: Reader, text: Iterable[int], count: int = 1000, draw: Callable[[], float] | None = None
) -> Iterator[int]:
    """What follows ``text``: ``count`` symbols, or as many as come before a full stop ends a line."""
    draw = draw or random.random
    prob, symbol = np.zeros(0, np.float32), -1
    for given in text:
        prob = reader.feed(given)
    for _ in range(count if len(prob) else 0):
        fresh = sample(prob, draw())
        if (symbol, fresh) == (STOP, END):
            return
        symbol = fresh
        yield symbol
        prob = reader.feed(symbol)


def sample(prob: np.ndarray, number: float) -> int:
    """The symbol that ``number`` (0..1) falls upon where each takes as much room as it is likely.

    In 32 bits, one symbol after the other, as the C program: the same number draws the same symbol.
    """
    prob = np.where(prob.astype(np.float64) < LEAST, np.float32(0), prob)  # a float against a double, as in C
    with np.errstate(all="ignore"):
        prob = prob * np.float32(1 / prob.sum(dtype=np.float32))
        left = np.subtract.accumulate(np.concatenate([np.array([number], np.float32), prob]))[1:]
    there = np.flatnonzero(left <= 0)
    return int(there[0]) if len(there) else len(prob) - 1
