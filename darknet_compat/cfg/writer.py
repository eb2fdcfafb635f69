"""Sections -> Darknet's .cfg text."""

from __future__ import annotations

import os

from ..errors import CfgError
from ..files import whole_file
from .sections import Cfg, printable


def format_cfg(cfg: Cfg) -> str:
    """The text of ``cfg``: sections as they were written, ``name=value``, comments and blank lines in their places."""
    lines: list[str] = []
    for section in cfg.sections:
        lines += [*section.above, section.written]
        for option in section.options:
            lines += [*option.above, f"{option.name}={option.value}"]
    return "\n".join([*lines, *cfg.end]) + "\n"


def write_cfg(cfg: Cfg, path: str | os.PathLike[str]) -> None:
    """Write :func:`format_cfg`'s text to ``path``, whole or not at all; :class:`CfgError` where that cannot be."""
    data = format_cfg(cfg).encode("utf-8", "surrogateescape")
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CfgError(
            f"{printable(os.fspath(path))}: cannot be written ({reason}); expected a writable folder"
        ) from None
