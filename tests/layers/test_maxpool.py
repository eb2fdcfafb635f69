from __future__ import annotations

import pytest

from tests.compare import check_layers, net


@pytest.mark.parametrize(
    "options",
    ["size=2\nstride=2", "size=2\nstride=1", "size=3\nstride=2", "stride=2", "size=5\nstride=1", "size=13\nstride=1",
     "size=3\nstride=2\npadding=1", "size=3\nstride=3\npadding=0", "size=2\nstride=2\npadding=0", "size=4\nstride=2"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 16), (13, 11), (14, 9)])
def test_outputs_are_darknets(darknet, tmp_path, options, size):
    # A convolution first, so that values below zero are pooled too.
    check_layers(darknet, net(*size, 3, "[conv]\nfilters=4\nactivation=linear", f"[maxpool]\n{options}"), tmp_path)
