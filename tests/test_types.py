"""What a user's type checker makes of the package."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Of what the user's file leads to only this is read: all of it, and torch, would take half a minute.
SETTINGS = """
[mypy]
strict = true
python_version = 3.10
follow_imports = skip
[mypy-darknet_compat,darknet_compat.cfg.*,darknet_compat.network,darknet_compat.weights,darknet_compat.train.detector,darknet_compat.train.training]
follow_imports = silent
"""
USER = """from darknet_compat import laod_network, load_network, train_detector

reveal_type(load_network("a.cfg", "a.weights", device="cpu"))
reveal_type(train_detector("a.data", "a.cfg").best)
load_network("a.cfg", thresh=0.5)
"""


def test_names_of_the_package_have_their_own_types(tmp_path):
    """They are looked up when they are first asked for, which a type checker does not see."""
    pytest.importorskip("mypy", reason="needs mypy: pip install mypy")
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "--hide-error-context", "user.py"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    lines = [line.split("; ")[0] for line in done.stdout.splitlines() if "defined in" not in line]
    assert lines == [
        'user.py:1: error: Module "darknet_compat" has no attribute "laod_network"',
        'user.py:3: note: Revealed type is "darknet_compat.network.Network"',
        'user.py:4: note: Revealed type is "float | None"',
        'user.py:5: error: Unexpected keyword argument "thresh" for "load_network"  [call-arg]',
        "Found 2 errors in 1 file (checked 1 source file)",
    ], done.stdout + done.stderr
