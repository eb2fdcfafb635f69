from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys

import pytest

from darknet_compat.memory import without_garbage_collection
from tests.conftest import ROOT, SHAPES

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


COLLECTIONS = """
import gc, sys
seen = []
gc.callbacks.append(lambda phase, info: seen.append((phase, info["generation"])))
from darknet_compat.cli import main
assert main(sys.argv[1:]) == 0
print(seen.count(("start", 2)), gc.isenabled(), gc.get_freeze_count() > 100_000, file=sys.stderr)
"""


def test_a_start_does_not_look_through_all_that_torch_brings(tmp_path):
    """Which takes .08 s each time, up to four times."""
    words = ["detector", "test", "cfg/shapes.data", *map(str, SHAPES), str(ROOT / "data/shapes-sample.jpg")]
    command = [sys.executable, "-c", COLLECTIONS, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stderr.splitlines()[-1] == "0 True True"


def test_python_looks_for_garbage_again_afterwards():
    """Also where the start fails."""
    before, during = gc.get_freeze_count(), []

    def fail():
        during.append(gc.isenabled())
        raise ValueError("it fails")

    try:
        with pytest.raises(ValueError, match="it fails"), without_garbage_collection():
            fail()
        assert during == [False]
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
