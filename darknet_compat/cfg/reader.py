"""Darknet's .cfg text -> sections. Errors are one line with file, line and the line itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import CfgError, DarknetError
from ..files import regular_file
from .sections import SECTIONS, Cfg, Option, Section, line_error, nearest, printable

if TYPE_CHECKING:
    from lark import Lark

# The longest .cfg known has some 3 thousand lines and 35 thousand bytes. A line takes up to .2 ms and 10 KiB.
MAX_BYTES = 2**20
MAX_LINES = 20_000

# src/utils.c, strip; \r is not among Darknet's, and is here so that files from Windows can be read.
BLANKS = " \t\r"
WITHOUT_BLANKS = str.maketrans("", "", BLANKS)

# The terminal of grammar.lark that was expected -> what is wrong.
MISTAKES = {
    "EQUALS": "no `=` in the line; expected `name=value`",
    "VALUE": "nothing behind the `=`; expected `name=value`",
    "TYPE": "no name behind the `[`; expected one such as `[convolutional]`",
    "CLOSE": "no `]` behind the section's name; expected one such as `[convolutional]`",
    "NL": "text behind the `]`; expected it on a line of its own",
}

# A tree or a token: lark's types do not say which child of a tree is which.
Node = Any


def read_cfg(path: str | os.PathLike[str]) -> Cfg:
    """Read a .cfg file. :class:`CfgError` where it cannot be read, or where it is none."""
    return parse_cfg(read_text(path, CfgError), os.fspath(path))


def parse_cfg(text: str, file: str = "<text>") -> Cfg:
    """Sections of a .cfg text; ``file`` is the name that its errors carry (src/parser.c, read_cfg).

    The first section is ``[net]``, and every section is one that Darknet knows. Options are kept as text:
    what they mean is the business of :meth:`Section.read`.
    """
    tree, lines = parse(text, file, CfgError)
    heads = [node for node in tree.children if node.data == "section"]
    outside, above = read_options(tree.children[: len(tree.children) - len(heads)], file, lines, CfgError)
    if outside:
        raise line_error(
            CfgError, file, outside[0].line, outside[0].text, "option outside a section; expected `[net]` first"
        )
    if not heads:
        raise CfgError(f"{printable(file)}:1: no section in the file; expected `[net]` first")
    sections: list[Section] = []
    for node in heads:
        _, written, _, _, *body = node.children
        name, line = squeezed(written), written.line
        options, below = read_options(body, file, lines, CfgError)
        section = Section(SECTIONS.get(name, name), f"[{name}]", file, line, lines[line - 1], options, above)
        check_place(section, sections)
        sections.append(section)
        above = below
    return Cfg(file, tuple(sections), above)


def check_place(section: Section, before: list[Section]) -> None:
    """Is this a section of Darknet, and ``[net]`` the first one and no other?"""
    if section.type not in SECTIONS:
        near = nearest(section.type, SECTIONS)
        hint = f"did you mean `[{near}]`?" if near else f"expected one of {', '.join(SECTIONS)}"
        raise section.error(f"unknown section; {hint}")
    if not before and section.type != "net":
        raise section.error("this is the first section; expected `[net]` before it")
    if before and section.type == "net":
        raise section.error(f"a second `[net]`; expected one network in a file, and line {before[0].line} begins it")


def read_text(path: str | os.PathLike[str], kind: type[DarknetError], limit: int = MAX_BYTES) -> str:
    """The text of a file, bytes that are no UTF-8 kept as surrogates; ``kind`` is the error to raise.

    A file longer than ``limit`` bytes is refused unread, as is what may have no end: a device, a pipe.
    """
    name = printable(os.fspath(path))
    try:
        with regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise kind(f"{name}: {size:,} bytes; expected a text of at most {limit:,}; is it another file?")
            data = file.read(size)
    except FileNotFoundError:
        folder = "" if os.path.isabs(path) else f" in {printable(os.getcwd())}"
        raise kind(f"{name}: no such file; expected one{folder}") from None
    except IsADirectoryError:
        raise kind(f"{name}: a folder; expected a file") from None
    except OSError as error:
        raise kind(f"{name}: cannot be read ({error.strerror}); expected a text file") from None
    if b"\0" in data:
        offset = data.index(b"\0")
        line = data.count(b"\n", 0, offset) + 1
        raise kind(f"{name}:{line}: a zero byte at offset {offset}; expected a text file")
    return data.decode("utf-8-sig", "surrogateescape")


def parse(text: str, file: str, kind: type[DarknetError]) -> tuple[Node, list[str]]:
    """The text's tree and its lines; ``kind`` is the error to raise."""
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise kind(f"{printable(file)}: {len(lines):,} lines; expected at most {MAX_LINES:,}")
    if lines[-1]:
        text += "\n"
    from lark.exceptions import UnexpectedToken  # where a text is read, and not for a command's help

    try:
        return _parser().parse(text), lines
    except UnexpectedToken as error:
        mistake = next(message for terminal, message in MISTAKES.items() if terminal in error.expected)
        raise line_error(kind, file, error.line, lines[error.line - 1], mistake) from None


def squeezed(token: str) -> str:
    """A token without its blanks, which Darknet takes out wherever they stand."""
    return token.translate(WITHOUT_BLANKS)


def read_options(
    nodes: list[Node], file: str, lines: list[str], kind: type[DarknetError], clean: Callable[[str], str] = squeezed
) -> tuple[tuple[Option, ...], tuple[str, ...]]:
    """The options among ``nodes``, and the comments and blank lines after the last of them.

    ``kind`` is the error to raise; ``clean`` takes the blanks out of a value.
    """
    options = []
    above: list[str] = []
    for node in nodes:
        if node.data == "gap":
            above.append(node.children[0].rstrip())
            continue
        *names, _, value, _ = node.children
        text = lines[value.line - 1]
        if not names:
            raise line_error(kind, file, value.line, text, "nothing before the `=`; expected `name=value`")
        options.append(Option(squeezed(names[0]), clean(value), file, value.line, text, tuple(above)))
        above = []
    return tuple(options), tuple(above)


@cache
def _parser() -> Lark:
    from importlib import resources

    from lark import Lark

    grammar = resources.files(__package__).joinpath("grammar.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", start="text")
