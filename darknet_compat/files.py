"""Opening regular files only, and writing a file whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO


def regular_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open ``path`` to read its bytes; :class:`OSError` where it is none, or no regular file.

    A device or a pipe may never end, and a cfg or a list may name one. It is not even opened: some devices act on that.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open() itself has the error for a folder
        raise OSError(errno.EINVAL, "a device or a pipe", os.fspath(path))
    return open(path, "rb")


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside ``path``; it takes the name ``path`` only when the block ends well.

    ``mode`` is "wb" or "w" (UTF-8). A crash, Ctrl-C or full disk leaves what stood under ``path`` as it was.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        # mkstemp makes the file private; a finished file gets the rights that open() would have given it.
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
