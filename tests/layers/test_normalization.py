from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import net, network_of

# A large alpha, so that the window matters.
OPTIONS = "alpha={alpha}\nbeta={beta}\nkappa={kappa}\nsize={size}"
CASES = [
    dict(alpha=0.5, beta=0.75, kappa=1, size=5),
    dict(alpha=0.3, beta=0.6, kappa=3, size=4),
    dict(alpha=0.7, beta=1.5, kappa=2, size=1),
    dict(alpha=0.1, beta=0.75, kappa=2, size=30),
]


def plain(x: np.ndarray, *, alpha, beta, kappa, size, start) -> np.ndarray:
    """forward_normalization_layer, channel by channel; ``start`` is how many channels the first sum takes."""
    squared, channels = x.astype(np.float64) ** 2, x.shape[1]
    norms = np.empty_like(squared)
    norms[:, 0] = kappa + alpha * squared[:, : min(start, channels)].sum(1)
    for k in range(1, channels):
        norms[:, k] = norms[:, k - 1]
        before, behind = k - (size - 1) // 2 - 1, k + size // 2
        if before >= 0:
            norms[:, k] -= alpha * squared[:, before]
        if behind < channels:
            norms[:, k] += alpha * squared[:, behind]
    return x * norms**-beta


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_window_is_the_one_meant(case):
    """Darknet's own loop, but for the first sum: it takes the channels 0 to size/2."""
    x = np.random.default_rng(0).normal(size=(2, 12, 3, 4)).astype(np.float32)
    network = Network(parse_cfg(net(4, 3, 12, "[lrn]\n" + OPTIONS.format(**case))))
    expected = plain(x, **case, start=case["size"] // 2 + 1)
    np.testing.assert_allclose(network(torch.from_numpy(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_darknet_leaves_one_channel_out_of_its_first_sum(library, tmp_path, case):
    """Its loop as it is, which is another window: here the sum starts right."""
    text = net(4, 3, 3, "[conv]\nfilters=12\nactivation=linear", "[normalization]\n" + OPTIONS.format(**case))
    network, cfg, weights = network_of(text, tmp_path, 0, library.numerics, library.program)
    reference = library.load_network(cfg, weights)
    images = np.random.default_rng(0).random((2, 3, 3, 4), np.float32)
    reference.predict(images)
    x = reference.layer_output(0).reshape(2, 12, 3, 4)
    found = reference.layer_output(1).reshape(x.shape)
    np.testing.assert_allclose(found, plain(x, **case, start=case["size"] // 2), rtol=1e-4, atol=1e-5)
    mine = network.layers[1](torch.from_numpy(x)).detach().numpy()
    assert np.abs(mine - found).max() > 0.01 * np.abs(found).max()


def test_the_gradient_is_the_true_one():
    network = Network(parse_cfg(net(3, 2, 6, "[lrn]\nalpha=.5"))).double()
    x = torch.randn(1, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (x,))


def test_defaults_and_sizes():
    layer = Network(parse_cfg(net(3, 2, 6, "[normalization]"))).layers[0]
    assert (layer.o.alpha, layer.o.beta, layer.o.kappa, layer.o.size) == (0.0001, 0.75, 1, 5)
    network = Network(parse_cfg(net(3, 2, 6, "[normalization]")))
    network.resize(8, 7)
    assert network(torch.rand(1, 6, 7, 8)).shape == (1, 6, 7, 8)
    wide = Network(parse_cfg(net(3, 2, 6, "[normalization]\nsize=2000000000")))  # and no memory for such a window
    torch.testing.assert_close(wide(torch.ones(1, 6, 2, 3))[0, :, 0, 0], torch.full((6,), (1 + 6e-4) ** -0.75))
    with pytest.raises(CfgError, match="size is 0; expected 1 or more"):
        Network(parse_cfg(net(3, 2, 6, "[normalization]\nsize=0")))
