"""The figures of tools/steps_trap.py: what the warm-up of steps=-1,100,... saves a training from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "steps_trap.py"


@pytest.mark.slow
def test_without_the_warm_up_objectness_stays_at_nothing():
    spec = importlib.util.spec_from_file_location("steps_trap", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    means = dict(tool.run(batches=160, every=40, rate=0.001, seed=0))
    (meant, _, meant_loss), (trapped, _, trapped_loss) = means[160]
    assert trapped < 0.005, "objectness of the truths without the warm-up"
    assert meant > 0.1
    assert meant_loss < 0.8 * trapped_loss
