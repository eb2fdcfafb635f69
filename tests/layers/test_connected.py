from __future__ import annotations

import pytest

from tests.compare import check_layers, net


@pytest.mark.parametrize("options", ["output=7", "output=5\nactivation=leaky\nbatch_normalize=1", "activation=linear"])
def test_outputs_are_darknets(darknet, tmp_path, options):
    sections = ["[conv]\nfilters=4\nactivation=leaky", f"[connected]\n{options}", "[connected]\noutput=3"]
    check_layers(darknet, net(5, 4, 3, *sections), tmp_path)
