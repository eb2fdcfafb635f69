"""Texts as files: bytes, or numbers of tokens; and the words that tokens stand for.

Source: ``examples/rnn.c, read_tokenized_data, read_tokens, get_rnn_data``. A symbol is a byte, or a token's number.
"""

from __future__ import annotations

import os
import re

import numpy as np

from ..cfg.sections import printable
from ..errors import DataError
from ..files import regular_file

NUMBER = re.compile(rb"[+-]?[0-9]{1,18}")
NEWLINE = b"<NEWLINE>"  # the line of a file of tokens that stands for the end of a line


def read_symbols(path: str | os.PathLike[str], symbols: int, tokenized: bool = False) -> np.ndarray:
    """The symbols of a text, int64 (n,), each under ``symbols``: its bytes or, of a ``tokenized`` one, the whole
    numbers that stand in it.

    Raises :class:`DataError` where the file cannot be read, where it is empty, and for a symbol out of range, which is
    also a byte of 0.
    """
    name, text = printable(os.fspath(path)), _read(path)
    found = _numbers(name, text) if tokenized else np.frombuffer(text, np.uint8).astype(np.int64)
    if not len(found):
        raise DataError(f"{name}: an empty text; expected {'numbers of tokens' if tokenized else 'letters'}")
    least = 0 if tokenized else 1  # where the C program takes a text for ended
    bad = np.flatnonzero((found < least) | (found >= symbols))
    if len(bad):
        what = f"token {bad[0] + 1}" if tokenized else f"offset {bad[0]}: the byte"
        raise DataError(
            f"{name}: {what} is {found[bad[0]]}; expected {least} to {symbols - 1}, as the network takes {symbols} "
            "symbols"
        )
    return found


def _numbers(name: str, text: bytes) -> np.ndarray:
    words = text.split()
    bad = next((number for number, word in enumerate(words, 1) if not NUMBER.fullmatch(word)), None)
    if bad is not None:
        raise DataError(f"{name}: token {bad} is no whole number; expected numbers with space between them")
    return np.array(words, dtype=np.int64)


def read_tokens(path: str | os.PathLike[str], symbols: int) -> list[bytes]:
    """What each of so many tokens is called, a line each; the line ``<NEWLINE>`` is the end of a line.

    Raises :class:`DataError` where the file cannot be read, or has fewer lines.
    """
    lines = _read(path).split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) < symbols:
        raise DataError(
            f"{printable(os.fspath(path))}: {len(lines)} lines; expected {symbols}, one for each symbol of the network"
        )
    return [b"\n" if line == NEWLINE else line for line in lines]


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with regular_file(path) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{printable(os.fspath(path))}: {error.strerror}; expected a text") from None
