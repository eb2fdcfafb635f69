from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError, CfgWarning
from darknet_compat.network import Network
from tests.compare import check_layers, net


@pytest.mark.parametrize(("size", "stride"), [((8, 8), 2), ((12, 6), 2), ((9, 6), 3)])
def test_outputs_are_darknets(library, tmp_path, size, stride):
    check_layers(library, net(*size, 3, "[conv]\nfilters=36\nactivation=linear", f"[reorg]\nstride={stride}"), tmp_path)


@pytest.mark.parametrize("stride", [2, 3])
def test_reverse(library, tmp_path, stride):
    check_layers(
        library, net(6, 4, 3, "[conv]\nfilters=36\nactivation=linear", f"[reorg]\nstride={stride}\nreverse=1"), tmp_path
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
    for w, h in ((13, 12), (12, 13)):
        with pytest.raises(CfgError, match=f"{w} x {h} does not divide by stride 2"):
            Network(parse_cfg(net(w, h, 4, "[reorg]\nstride=2")))
    with pytest.raises(CfgError, match=r"3 channels do not divide by stride\*stride = 4"):
        Network(parse_cfg(net(8, 8, 3, "[reorg]\nstride=2")))


CONV36 = "[conv]\nfilters=36\nactivation=linear"


@pytest.mark.parametrize(
    "options", ["flatten=1", "flatten=1\nreverse=1", "flatten=1\nstride=2", "flatten=1\nstride=2\nreverse=1"]
)
def test_flatten(darknet, tmp_path, options):
    check_layers(darknet, net(6, 4, 3, CONV36, f"[reorg]\n{options}", "[connected]\noutput=5"), tmp_path)


def test_flatten_puts_the_channels_of_a_place_side_by_side_and_back():
    x = torch.rand(2, 3, 4, 6)
    assert torch.equal(x.permute(0, 2, 3, 1).flatten(), flat(x, "flatten=1").flatten())
    network = Network(parse_cfg(net(6, 4, 3, "[reorg]\nflatten=1", "[reorg]\nflatten=1\nreverse=1")))
    assert torch.equal(network(x), x)


def flat(x, options):
    return Network(parse_cfg(net(6, 4, 3, f"[reorg]\n{options}")))(x)


@pytest.mark.parametrize("options", ["extra=4", "extra=1\nstride=5"])
def test_extra_zeros(darknet, tmp_path, options):
    """The flat copy that go.cfg ends in: its last value is the pass."""
    check_layers(darknet, net(6, 4, 3, CONV36, f"[reorg]\n{options}", "[softmax]"), tmp_path)
    out = flat(torch.ones(2, 3, 4, 6), options)
    extra = 4 if "4" in options else 1
    assert out.shape == (2, 72 + extra, 1, 1)
    assert out.sum() == 2 * 72
    assert not out[:, 72:].any()


def test_extra_and_flatten_do_not_go_together():
    with pytest.raises(CfgError, match="extra=1: flatten and extra together read outside the input"):
        Network(parse_cfg(net(6, 4, 3, "[reorg]\nflatten=1\nextra=1")))
    with pytest.raises(CfgError, match="extra is -1; expected 0 or more"):
        Network(parse_cfg(net(6, 4, 3, "[reorg]\nextra=-1")))


def test_extra_takes_no_other_size():
    """resize_reorg_layer counts the values without the zeros."""
    with pytest.raises(CfgError, match=r"a network with \[reorg\] cannot take another size"):
        Network(parse_cfg(net(6, 4, 3, "[reorg]\nextra=1"))).resize(12, 8)
    Network(parse_cfg(net(6, 4, 3, "[reorg]\nflatten=1"))).resize(12, 8)


def test_alexeyabs_program_has_neither():
    """Its [reorg] passes over both words."""
    with pytest.warns(CfgWarning, match="unknown option of"):
        network = Network(parse_cfg(net(6, 4, 3, "[reorg]\nextra=1\nflatten=1")), program="alexeyab")
    assert network.layers[0].output == (3, 4, 6)
