from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from darknet_compat.memory import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
import numpy as np
def use():
    np.empty(3 << 30, np.uint8)[: 48 << 20] = 1  # over all limits of glibc's own, 32 MiB and 2 GiB
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """How many pages the kernel had to hand out for 48 MiB of ten large arrays, one after another."""
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"NUMPY_MADVISE_HUGEPAGE": "0"})
    return int(done.stdout)


def test_kept_memory_is_used_again():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("needs glibc")
    assert faults("keep") * 5 < faults("give back")
