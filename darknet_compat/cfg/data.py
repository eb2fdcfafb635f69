"""Darknet's .data files, names files and lists of paths. Paths in them are relative to the working directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ..errors import DataError
from ..stock import find_stock
from .reader import BLANKS, parse, read_options, read_text
from .sections import Option, find_option, line_error, nearest, printable, read_integer

# ImageNet's 21,841 names have half a million bytes; a list of nine million images (OpenImages) has half a billion.
MAX_NAMES_BYTES = 2**24
MAX_LIST_BYTES = 2**30


@dataclass(frozen=True)
class DataFile:
    """The ``name=value`` lines of a .data file (src/option_list.c, read_data_cfg)."""

    file: str
    options: tuple[Option, ...]

    @overload
    def get(self, key: str, default: str) -> str: ...

    @overload
    def get(self, key: str) -> str | None: ...

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value of ``key``, of the first such line; ``default`` where there is none."""
        option = find_option(self.options, key)
        return default if option is None else option.value

    def require(self, key: str) -> str:
        """The value of ``key``; :class:`DataError` where there is none."""
        value = self.get(key)
        if value is None:
            raise self.missing(key)
        return value

    def source(self, key: str, default: str) -> str:
        """The path that ``key`` names, or Darknet's ``default``; :class:`DataError` where there is neither."""
        value = self.get(key)
        if value is None and not os.path.exists(default):
            raise self.missing(key)
        return value or default

    def integer(self, key: str, default: int | None = None) -> int:
        """The value of ``key`` as an integer; without a default, :class:`DataError` where there is none."""
        option = find_option(self.options, key)
        if option is not None:
            return read_integer(option, DataError)
        if default is None:
            raise self.missing(key)
        return default

    def error(self, key: str, message: str) -> DataError:
        """The error to raise where the value of ``key`` is of no use."""
        option = find_option(self.options, key)
        if option is None:
            return DataError(f"{printable(self.file)}: {message}")
        return line_error(DataError, option.file, option.line, option.text, message)

    def missing(self, key: str) -> DataError:
        """The error to raise where a line for ``key`` is needed."""
        near = nearest(key, [option.name for option in self.options])
        option = find_option(self.options, near) if near else None
        hint = f"; line {option.line} says `{near}`, did you mean `{key}`?" if option else ""
        return DataError(f"{printable(self.file)}: no `{key}` line; expected `{key}=...`{hint}")


def read_data(path: str | os.PathLike[str]) -> DataFile:
    """Read a .data file; :class:`DataError` where it cannot be read, or where it is none.

    Blanks inside a value stay, unlike in Darknet, so that paths may have them.
    """
    file = os.fspath(path)
    tree, lines = parse(read_text(path, DataError), file, DataError)
    for node in tree.children:
        if node.data == "section":
            line = node.children[0].line
            raise line_error(
                DataError, file, line, lines[line - 1], "a section, and a .data file has none; is it a .cfg?"
            )
    options, _ = read_options(tree.children, file, lines, DataError, clean=lambda value: value.rstrip(BLANKS))
    return DataFile(file, options)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the classes, one per line, in the order of their numbers (src/data.c, get_labels).

    A blank line between names counts, as in Darknet: it is a class without a name. :class:`DataError` where
    the file cannot be read, is no UTF-8, or holds no name.
    """
    text = read_text(path, DataError, MAX_NAMES_BYTES)
    lines = text.rstrip().split("\n")
    for number, line in enumerate(lines, 1):
        if not line.isascii() and any("\udc80" <= letter <= "\udcff" for letter in line):
            raise DataError(f"{printable(os.fspath(path))}:{number}: bytes that are no UTF-8; expected a UTF-8 file")
    if lines == [""]:
        raise DataError(f"{printable(os.fspath(path))}: no name in the file; expected one per line")
    return [line.strip() for line in lines]


def check_names(data: DataFile, names: Sequence[str], classes: int, where: str) -> None:
    """Are the names of a .data file as many as the ``classes`` that ``where`` gives?

    Raises :class:`DataError`. Fewer or more, they are those of another network, and boxes would get wrong names.
    """
    if len(names) != classes:
        raise data.error("names", f"{len(names)} names; expected {classes}, the classes= of {printable(where)}")


def class_names(names: str | os.PathLike[str] | Sequence[str], classes: int, where: str) -> list[str]:
    """``names``, a list or tuple, or those in a file: as many as the ``classes`` of the cfg ``where``.

    Raises :class:`DataError`.
    """
    file = "names"
    if isinstance(names, (str, os.PathLike)):
        file = find_stock(os.fspath(names))
        names = read_names(file)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise DataError(f"names: {printable(repr(names)[:80])}; expected a file, or a list of a text for each class")
    if len(names) != classes:
        raise DataError(f"{printable(file)}: {len(names)} names; expected {classes}, the classes of {printable(where)}")
    return list(names)


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The paths in a list file, one per line, as they are written (src/data.c, get_paths).

    Blank lines are passed over. :class:`DataError` where the file cannot be read or holds no path.
    """
    lines = [line.rstrip("\r") for line in read_text(path, DataError, MAX_LIST_BYTES).split("\n")]
    paths = [line for line in lines if line.strip()]
    if not paths:
        raise DataError(f"{printable(os.fspath(path))}: no path in the file; expected one per line")
    return paths
