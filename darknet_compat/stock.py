"""The cfgs, names and sample weights that come with the package, found from any working folder."""

from __future__ import annotations

from pathlib import Path

# Beside the package in a checkout; below it where pip installed it (setup.cfg, package_dir).
_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "share", _PACKAGE.parent)


def stock_folder(name: str) -> Path | None:
    """The folder "cfg", "data" or "weights" that came with the project."""
    return next((root / name for root in _ROOTS if (root / name).is_dir()), None)


def stock_files(folder: str, suffix: str) -> list[Path]:
    """Its files with a suffix, by name."""
    found = stock_folder(folder)
    return sorted(found.glob(f"*{suffix}")) if found else []


def find_stock(path: str) -> str:
    """``path`` where it exists; else the file of that name that came with the project, such as cfg/tiny.cfg."""
    given = Path(path)
    if given.exists() or given.is_absolute() or len(given.parts) < 2:
        return path
    folder = stock_folder(given.parts[0]) if given.parts[0] in ("cfg", "data", "weights") else None
    found = folder.joinpath(*given.parts[1:]) if folder else given
    return str(found) if found.is_file() else path
