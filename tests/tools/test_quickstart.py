"""The quickstart: its drawings and errors; the whole of it as a slow test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import cv2
import pytest

from tests.conftest import ROOT
from tests.oracle import PROGRAM


def test_it_says_where_it_wants_to_run(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "tools/quickstart.py"], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 2
    assert f"run it in {ROOT}" in result.stderr


@pytest.mark.slow
def test_the_whole_road(tmp_path):
    """In a copy of the checkout: mAP of .80 or more, the same through the C program, and a page of it all."""
    checkout = tmp_path / "checkout"
    for folder in ("cfg", "data", "darknet_compat", "tools"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("made", "__pycache__"))
    result = subprocess.run([sys.executable, "tools/quickstart.py"], capture_output=True, text=True, cwd=checkout)
    assert result.returncode == 0, result.stderr[-2000:]
    run = checkout / "runs/quickstart"
    ours = json.loads((run / "scores.json").read_text())
    assert ours["mAP"] >= 0.80
    if os.path.isfile(PROGRAM):
        theirs = json.loads((run / "darknet.json").read_text())
        assert theirs["mAP"] == pytest.approx(ours["mAP"], abs=0.002)
    assert cv2.imread(str(run / "data.png")) is not None
    assert len(list((run / "pairs").glob("*-found.jpg"))) == 8
    assert (run / "index.html").stat().st_size > 1_000_000
    assert "mAP 0.8" in result.stdout.splitlines()[-1]
