"""Opening regular files only, and writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO, overload

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # typeshed knows the module by the platform


@overload
def regular_file(path: str | os.PathLike[str]) -> BinaryIO: ...


@overload
def regular_file(path: str | os.PathLike[str], encoding: str, errors: str = "strict") -> TextIO: ...


def regular_file(
    path: str | os.PathLike[str], encoding: str | None = None, errors: str = "strict"
) -> BinaryIO | TextIO:
    """Open ``path`` to read its bytes, or its text in ``encoding``; :class:`OSError` where it is no regular file.

    A device or a pipe may never end, and a cfg or a list may name one. It is not even opened: some devices act on that.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a zero byte, for which Python 3.13 has other words, or half of a pair of UTF-16
        what = "embedded null byte" if "\0" in os.fspath(path) else str(error)
        raise OSError(errno.EINVAL, what, os.fspath(path)) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open() itself has the error for a folder
        raise OSError(errno.EINVAL, "a device or a pipe", os.fspath(path))
    return open(path, "rb") if encoding is None else open(path, encoding=encoding, errors=errors)


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; it takes the name ``path`` only when the block ends well.

    ``mode`` is "wb" or "w": UTF-8, and names of files that are no UTF-8 as the bytes that they are. A crash, Ctrl-C or
    full disk leaves what stood under ``path`` as it was.

    - A new file gets the rights that open() would give it; one that is there keeps its own.
    - A symbolic link stays: the file that it points to is written, whole.
    - A FIFO, a device, and what standard output or error go to (``/dev/stdout``) are written straight through, as
      open() would; what went into them cannot be taken back.
    - A folder is an error before anything is written.

    The temporary file is called ``.NAME.????????.part`` and locked (flock) as long as it is written;
    :func:`clear_parts` removes those of processes that were killed. Raises :class:`OSError`.
    """
    path = Path(path)
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "surrogateescape")
    try:
        there = os.stat(path)
    except FileNotFoundError:
        there = None
    stream = _stream_to(there) if there else None
    if stream is not None or (there and not stat.S_ISREG(there.st_mode)):  # open() itself has the error for a folder
        with open(path if stream is None else stream, mode, encoding=encoding, errors=errors) as file:
            yield file
        return

    if path.is_symlink():
        path = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=encoding, errors=errors) as file:
            with contextlib.suppress(OSError):  # a file system without locks
                lock(file)
            os.chmod(temporary, stat.S_IMODE(there.st_mode) if there else 0o666 & ~umask())
            yield file
            file.flush()
            os.fsync(handle)
            if not fcntl:
                file.close()  # Windows renames no open file
            # Elsewhere before it is closed, which ends the lock.
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def clear_parts(folder: str | os.PathLike[str], name: str) -> None:
    """Remove the temporary files that killed processes left in ``folder``, of files called ``name``.* or ``name``_*.

    One that a living process writes is locked, and stays, as does one that cannot be removed.
    """
    ours = re.compile(rf"\.{re.escape(name)}[._].*\.[a-z0-9_]{{8}}\.part")
    for path in Path(folder).iterdir():
        with contextlib.suppress(OSError):
            if ours.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                with open(path, "rb+") as file:
                    lock(file)
                    path.unlink()


def lock(file: IO[Any]) -> None:
    """Lock an open file for as long as it is open. Raises OSError where another process has."""
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def umask() -> int:
    """The rights that a new file of this process does not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _stream_to(there: os.stat_result) -> int | None:
    """A new descriptor of standard output or error, if that is what goes ``there``; it goes on where they stand."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            same = os.path.samestat(os.fstat(number), there)
        except OSError:  # closed
            continue
        if same:
            stream.flush()
            return os.dup(number)
    return None
