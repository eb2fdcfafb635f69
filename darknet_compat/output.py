"""Standard output and error where nobody takes what is written there: closed, full, or their reader gone."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

# Names the process that started this one with -gpus: it has said what there is to say of the command's words, and will
# say why another one has ended.
STARTED_BY = "DARKNET_COMPAT_STARTED_BY"


def is_first() -> bool:
    """Does this process say what all that do the same job have to say?"""
    return os.environ.get("RANK", "0") == "0"


def open_closed() -> None:
    """Open what this process was started without (``>&-``), at the start and before any other file.

    The next file to be opened would get the free number, and what is printed would land in it. Writing to a standard
    output that was closed fails as it should; an error nobody wants to hear is dropped.
    """
    for number, how in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, how)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def print_anything() -> None:
    """Let standard output take every name: one that is no UTF-8 as its bytes, letters that it lacks as ``\\u540d``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("print_anything", _bytes_or_escapes)
        sys.stdout.reconfigure(errors="print_anything")


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def drop(stream: TextIO) -> None:
    """Let standard output or error go nowhere from here on, what still waits to be written included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def complain(line: str) -> None:
    """A line for standard error, if anybody reads it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)
