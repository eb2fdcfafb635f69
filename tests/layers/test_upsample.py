from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net


@pytest.mark.parametrize("options", ["stride=2", "stride=3\nscale=.5", "stride=2\nscale=2", "scale=0", "stride=1", ""])
def test_outputs_are_darknets(darknet, tmp_path, options):
    check_layers(darknet, net(4, 6, 3, f"[upsample]\n{options}"), tmp_path)


def test_a_negative_stride_sums_blocks():
    """libdarknet adds into its input there, so the reference is the sum that upsample_cpu's loops describe."""
    x = torch.rand(2, 3, 4, 6)
    expected = torch.zeros(2, 3, 2, 3)
    for j in range(4):
        for i in range(6):
            expected[:, :, j // 2, i // 2] += 0.5 * x[:, :, j, i]
    network = Network(parse_cfg(net(6, 4, 3, "[upsample]\nstride=-2\nscale=.5")))
    torch.testing.assert_close(network(x), expected)
    assert network.layers[0].output == (3, 2, 3)


def test_a_stride_of_minus_1_sums_blocks_of_one():
    network = Network(parse_cfg(net(6, 4, 3, "[upsample]\nstride=-1")))
    x = torch.rand(2, 3, 4, 6)
    assert torch.equal(network(x), x)
    (layer,) = network.layers
    assert (layer.output, layer.window()) == ((3, 4, 6), (1, 1))
    assert layer.row().startswith("downsample          1x ")


@pytest.mark.parametrize("size", [(6, 5), (5, 6), (5, 5)])
def test_a_side_that_does_not_divide(size):
    w, h = size
    with pytest.raises(CfgError, match=f"an input of {w} x {h} does not divide by stride 2"):
        Network(parse_cfg(net(w, h, 3, "[upsample]\nstride=-2")))


def test_a_stride_of_0():
    with pytest.raises(CfgError, match="stride is 0; expected a whole number other than 0"):
        Network(parse_cfg(net(6, 6, 3, "[upsample]\nstride=0")))
