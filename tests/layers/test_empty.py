from __future__ import annotations

import pytest

from tests.compare import EXACT, check_layers, check_weights, net

CONV = "[conv]\nfilters=4\nactivation=linear"


@pytest.mark.parametrize("name", ["empty", "silence"])
def test_it_hands_on_what_it_gets(alexeyab_darknet, tmp_path, name):
    text = net(7, 6, 3, CONV, f"[{name}]", CONV)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_weights(alexeyab_darknet, text, tmp_path)
