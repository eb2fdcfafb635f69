"""The cfgs, names and sample weights that come with the package, found from any working folder.

What of Darknet's own cannot come along, such as ImageNet's names, is found where Debian's package has it.
"""

from __future__ import annotations

import os
from pathlib import Path

# Beside the package in a checkout; below it where pip installed it (setup.cfg, package_dir).
_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "share", _PACKAGE.parent)
DEBIAN = Path("/usr/share/darknet")


def stock_folder(name: str) -> Path | None:
    """The folder "cfg", "data" or "weights" that came with the project."""
    return next((root / name for root in _ROOTS if (root / name).is_dir()), None)


def stock_files(folder: str, suffix: str) -> list[Path]:
    """Its files with a suffix, by name."""
    found = stock_folder(folder)
    return sorted(found.glob(f"*{suffix}")) if found else []


def find_stock(path: str) -> str:
    """``path`` where it exists; else the file of that name that came with the project, such as cfg/tiny.cfg.

    Else, in the same way, that of Debian's package ``darknet``.
    """
    given = Path(path)
    if os.path.exists(path) or given.is_absolute() or len(given.parts) < 2:
        return path
    if given.parts[0] not in ("cfg", "data", "weights"):
        return path
    ours = stock_folder(given.parts[0])
    found = (folder.joinpath(*given.parts[1:]) for folder in (ours, DEBIAN / given.parts[0]) if folder)
    return next((str(file) for file in found if os.path.isfile(file)), path)
