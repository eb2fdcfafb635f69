from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import EXACT, check_gradients, check_layers, net

CONV = "[conv]\nfilters={}\nactivation=linear"


@pytest.mark.parametrize(("stride", "size"), [(1, (6, 4)), (2, (6, 4)), (3, (9, 6))])
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, stride, size):
    text = net(*size, 3, CONV.format(5), f"[reorg3d]\nstride={stride}", CONV.format(2))
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, size=(12, 6))
    check_gradients(alexeyab_darknet, text, tmp_path)


@pytest.mark.parametrize("stride", [2, 3])
def test_reverse_is_the_way_back(stride):
    """His reverse counts in the wrong shape: it divides by zero, or writes outside of its memory."""
    sections = (f"[reorg3d]\nstride={stride}", f"[reorg3d]\nstride={stride}\nreverse=1")
    network = Network(parse_cfg(net(12, 6, 5, *sections)))
    x = torch.rand(2, 5, 6, 12)
    assert torch.equal(network(x), x)
    assert [layer.window() for layer in network.layers] == [(stride, stride), (1, 1)]


def test_sizes_that_do_not_divide():
    with pytest.raises(CfgError, match="stride=2: an input of 7 x 6 does not divide by stride 2"):
        Network(parse_cfg(net(7, 6, 3, "[reorg3d]\nstride=2")))
    with pytest.raises(CfgError, match=r"stride=2: 3 channels do not divide by stride\*stride = 4"):
        Network(parse_cfg(net(7, 6, 3, "[reorg3d]\nstride=2\nreverse=1")))
