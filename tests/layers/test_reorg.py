from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net


@pytest.mark.parametrize(("size", "stride"), [((8, 8), 2), ((12, 6), 2), ((9, 6), 3)])
def test_outputs_are_darknets(darknet, tmp_path, size, stride):
    check_layers(darknet, net(*size, 3, "[conv]\nfilters=36\nactivation=linear", f"[reorg]\nstride={stride}"), tmp_path)


@pytest.mark.parametrize("stride", [2, 3])
def test_reverse(darknet, tmp_path, stride):
    check_layers(
        darknet, net(6, 4, 3, "[conv]\nfilters=36\nactivation=linear", f"[reorg]\nstride={stride}\nreverse=1"), tmp_path
    )


def test_it_is_not_space_to_depth():
    network = Network(parse_cfg(net(26, 26, 64, "[reorg]\nstride=2")))
    x = torch.arange(64 * 26 * 26, dtype=torch.float32).reshape(1, 64, 26, 26)
    plain = x.reshape(1, 64, 13, 2, 13, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 256, 13, 13)
    same = np.mean(network(x).numpy() == plain.numpy())
    assert 0 < same < 1


def test_the_receptive_field():
    """Of one cell: stride x stride places forward, one place in reverse."""
    forward, back = "[reorg]\nstride=2", "[reorg]\nstride=2\nreverse=1"
    layers = Network(parse_cfg(net(8, 8, 4, forward, back))).layers
    assert [layer.window() for layer in layers] == [(2, 2), (1, 1)]


def test_sizes_that_do_not_divide():
    with pytest.raises(CfgError, match="13 x 13 does not divide by stride 2"):
        Network(parse_cfg(net(13, 13, 4, "[reorg]\nstride=2")))
    with pytest.raises(CfgError, match=r"3 channels do not divide by stride\*stride = 4"):
        Network(parse_cfg(net(8, 8, 3, "[reorg]\nstride=2")))


@pytest.mark.parametrize("option", ["flatten=1", "extra=4"])
def test_other_shuffles_are_refused(option):
    with pytest.raises(CfgError, match=r"\[reorg\] with flatten or extra is not built here"):
        Network(parse_cfg(net(8, 8, 4, f"[reorg]\nstride=2\n{option}")))
