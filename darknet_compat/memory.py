"""The memory of large arrays, kept for the next ones.

glibc hands the memory of every array over 32 MiB back to the kernel, and takes it again, page by page and zeroed, for
the next. In a network that runs over batches this costs up to half of the time (docs/PERFORMANCE.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import os

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_memory() -> None:
    """Let this process keep what it frees, and torch ask for huge pages; call it before torch is imported.

    The command line does so at its start. A program that uses the package may: its memory then stays at its peak. Where
    the C library is not glibc nothing changes.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads this when it first allocates
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2**26)
        mallopt(M_ARENA_MAX, 1)  # the arenas of threads cannot keep as much
