from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import EXACT, check_layers, check_weights, net

CONV = "[conv]\nfilters=4\nactivation=linear"


@pytest.mark.parametrize(
    "options", ["size=2\nstride=2", "size=3\nstride=2", "size=5\nstride=1", "stride=2", "size=3\nstride_x=2\npadding=1",
                "size=3\nstride=2\npadding=0"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 16), (13, 11), (14, 9)])
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, options, size):
    text = net(*size, 3, CONV, f"[local_avgpool]\n{options}", "[local_avg]\nsize=2")
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, size=(12, 10))
    check_weights(alexeyab_darknet, text, tmp_path)


def test_the_gradient_is_that_of_the_mean():
    """His backward pass on a CPU divides by size*size at the border, too; cuDNN's by the pixels that are there."""
    x = torch.rand(1, 2, 3, 3).requires_grad_()
    Network(parse_cfg(net(3, 3, 2, "[local_avgpool]\nsize=3\nstride=1")))(x).sum().backward()
    counts = torch.tensor([[4.0, 6, 4], [6, 9, 6], [4, 6, 4]])
    expected = torch.zeros(3, 3)
    for row in range(3):
        for column in range(3):
            around = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
            expected[around] += 1 / counts[row, column]
    torch.testing.assert_close(x.grad[0, 0], expected)


def test_windows_outside_of_the_image_are_refused():
    with pytest.raises(CfgError, match=r"<text>:\d+: padding=4: padding=4 puts windows of size 2 wholly outside"):
        Network(parse_cfg(net(8, 8, 3, "[local_avgpool]\nsize=2\nstride=1\npadding=4")))


def test_the_section_is_alexeyabs():
    cfg = parse_cfg(net(8, 8, 3, "[local_avgpool]\nsize=2"))
    assert Network(cfg).program == "alexeyab"
    with pytest.raises(CfgError, match=r"only the program alexeyab has \[local_avgpool\], and this network follows pj"):
        Network(cfg, program="pjreddie")
