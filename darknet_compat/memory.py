"""The memory of large arrays, kept for the next ones; and a start without a search for garbage.

glibc hands the memory of an array over 32 MiB back to the kernel when it is freed, and takes it again for the next one,
page by page and zeroed. A network makes and frees such arrays with every batch: a training step on a processor needs
half as long again for it (docs/PERFORMANCE.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_memory() -> None:
    """Let this process keep what it frees, for its own use; its memory then stays at its peak.

    The command line does so at its start, and a program that uses the package may. Where the C library is not glibc
    nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # without end
        mallopt(M_TOP_PAD, 2**26)
        mallopt(M_ARENA_MAX, 1)  # the arenas of threads cannot keep as much


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Let Python look for no circular garbage meanwhile, nor ever among what there is at the end.

    A start makes modules, and no module is garbage. To look through all that torch brings takes .08 s each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
