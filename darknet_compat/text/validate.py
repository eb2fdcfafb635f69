"""How well a network foretells a text, and what it makes of lines.

Source: ``examples/rnn.c, valid_char_rnn, valid_tactic_rnn, vec_char_rnn``; AlexeyAB's ``src/rnn.c``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..program import PJREDDIE
from .reader import Reader

SPACE = b" \n\t"  # a word begins behind each of these
MOST = 254  # valid_char_rnn takes no 255
LOG2 = np.float32(np.log(2))
TACTIC, TACTIC_END = b">>", b".\n"


class Judged(NamedTuple):
    """Of a text so far, without its first symbol."""

    symbols: int
    words: int
    bits: np.float32
    """Of all symbols together, the sum of -log2 of their probabilities; in 32 bits, as in the C program."""

    @property
    def bits_per_symbol(self) -> float:
        return float(self.bits / np.float32(self.symbols))

    @property
    def perplexity(self) -> float:
        return _exp2(self.bits_per_symbol)

    @property
    def word_perplexity(self) -> float:
        return _exp2(float(self.bits / np.float32(self.words)))

    def line(self, program: str = PJREDDIE) -> str:
        """The line that ``rnn valid`` prints behind each symbol."""
        bits = f"BPC: {self.bits_per_symbol:4.4f}   " if program == PJREDDIE else ""
        return f"{self.symbols} {bits}{self._perplexities()}"

    def tactic_line(self) -> str:
        """That of ``rnn validtactic``."""
        return f"{self.symbols} {self.words} {self._perplexities()}"

    def _perplexities(self) -> str:
        return f"Perplexity: {self.perplexity:4.4f}    Word Perplexity: {self.word_perplexity:4.4f}"


def _exp2(exponent: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp2(exponent))


def validate_text(reader: Reader, text: Iterable[int], seed: bytes = b"\n\n") -> Iterator[Judged]:
    """What the network made of ``text`` so far, behind each symbol but the first. It reads ``seed`` first.

    Raises :class:`DataError` for a byte of 255, as Darknet.
    """
    reader.feed_all(seed)
    words, bits = 1, np.float32(0)
    for count, (symbol, following) in enumerate(_pairs(text), 1):
        words += following in SPACE
        bits = _add(bits, reader.feed(symbol)[following])
        yield Judged(count, words, bits)


def validate_tactics(reader: Reader, text: Iterable[int], seed: bytes = b"\n\n") -> Iterator[Judged]:
    """As :func:`validate_text`, of what stands from ``>>`` to a full stop that ends a line; each such is a word."""
    reader.feed_all(seed)
    count, words, bits, inside = 0, 1, np.float32(0), False
    for symbol, following in _pairs(text):
        prob = reader.feed(symbol)
        pair = bytes((symbol, following))
        if pair == TACTIC_END:
            inside = False
        if not inside:
            if pair == TACTIC:
                inside, words = True, words + 1
            continue
        count, bits = count + 1, _add(bits, prob[following])
        yield Judged(count, words, bits)


def _pairs(text: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each symbol and the one behind it."""
    symbols = iter(text)
    symbol = next(symbols, None)
    for offset, following in enumerate(symbols, 1):
        if following > MOST:
            raise DataError(f"offset {offset} of the text: the byte {following}; expected at most {MOST}")
        assert symbol is not None
        yield symbol, following
        symbol = following


def _add(bits: np.float32, prob: np.float32) -> np.float32:
    with np.errstate(divide="ignore"):
        sum: np.float32 = np.float32(np.float64(bits) - np.log(np.float64(prob)) / LOG2)
    return sum


def line_vectors(reader: Reader, lines: Iterable[bytes], seed: bytes = b"\n\n") -> Iterator[tuple[bytes, np.ndarray]]:
    """Each line without its spaces, and what the first layer gives behind it and a space.

    The network starts anew with each, and reads ``seed`` first.
    """
    for line in lines:
        reader.reset()
        reader.feed_all(seed)
        line = line.translate(None, SPACE)
        reader.feed_all(line)
        yield line, reader.first_layer(ord(" "))
