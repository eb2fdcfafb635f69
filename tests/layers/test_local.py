from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.compare import check_layers, check_weights, net, network_of

# Its work space is counted in floats and allocated in bytes (make_local_layer), so Darknet runs a [local] only where
# a convolution needs four times as much.
CONV = "[conv]\nfilters=6\nsize=5\npad=1\nactivation=leaky\n[conv]\nfilters=3\nsize=5\npad=1\nactivation=leaky"


@pytest.mark.parametrize(
    "options",
    ["", "size=3\npad=1\nactivation=leaky", "size=3\nactivation=tanh", "size=2\nstride=2", "size=3\npad=1\nstride=2"],
    ids=lambda options: options.replace("\n", " ") or "defaults",
)
def test_outputs_are_darknets(library, tmp_path, options):
    check_layers(library, net(9, 8, 3, CONV, f"[local]\nfilters=4\n{options}", "[connected]\noutput=3"), tmp_path)


def test_the_file_is_darknets(library, tmp_path):
    """Biases, then the weights place by place."""
    check_weights(library, net(9, 8, 3, CONV, "[local]\nfilters=4\nsize=3\npad=1"), tmp_path)


def test_gradients_are_darknets(darknet, tmp_path):
    """backward_local_layer, behind delta = truth - output of a [cost]."""
    text = net(9, 8, 3, CONV, "[local]\nfilters=4\nsize=3\npad=1\nactivation=leaky", "[cost]\ntype=sse")
    network, cfg, weights = network_of(text, tmp_path)
    reference = darknet.load_network(cfg, weights)
    rng = np.random.default_rng(2)
    x, truth = rng.random((2, 3, 8, 9), np.float32), rng.random((2, 4 * 8 * 9), np.float32)
    reference.train_step(x, truth, update=False)
    output = network(torch.from_numpy(x)).flatten(1)
    (-(torch.from_numpy(truth) - output.detach()) * output).sum().backward()
    for index, name in ((2, "weights"), (2, "biases"), (1, "weights")):
        updates = reference.layer_tensor(index, {"weights": "weight_updates", "biases": "bias_updates"}[name])
        gradient = getattr(network.layers[index], name).grad.flatten()
        np.testing.assert_allclose(-gradient, updates, rtol=1e-3, atol=1e-4)


def test_start_values_are_darknets():
    """Only the first place's weights are drawn."""
    layer = Network(parse_cfg(net(8, 8, 3, "[local]\nfilters=40\nsize=3\npad=1"))).start().layers[0]
    assert not layer.biases.any()
    assert not layer.weights[1:].any()
    bound = (2 / (9 * 3)) ** 0.5
    assert 0.95 * bound < float(layer.weights[0].detach().abs().max()) <= bound
    assert abs(float(layer.weights[0].detach().mean())) < 0.05 * bound


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("size=5\npad=1", r"pad=1: pad=1 pads .* size=5 makes 6 x 6 windows for an output of 8 x 8"),
        ("size=1\npad=1", "makes 10 x 10 windows"),
        ("size=3\npad=-1", "pad is -1; expected 0 or more"),
        ("size=9", "the output would be 0 x 0 x 1"),
        ("activation=swoosh", "no activation is called 'swoosh'"),
    ],
)
def test_what_does_not_fit_is_refused(options, found):
    with pytest.raises(CfgError, match=found):
        Network(parse_cfg(net(8, 8, 3, f"[local]\n{options}")))


def test_pad_is_a_count_of_pixels():
    """As im2col_cpu takes it: pad=2 fits size 5."""
    network = Network(parse_cfg(net(8, 8, 3, "[local]\nsize=5\npad=2"))).start()
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 1, 8, 8)


def test_it_takes_no_other_size(tmp_path):
    network = Network(parse_cfg(net(8, 8, 3, "[local]\nsize=3\npad=1"))).start()
    with pytest.raises(CfgError, match=r"a network with \[local\] cannot take another size"):
        network.resize(16, 16)
    save_weights(network, tmp_path / "net.weights")
    assert (tmp_path / "net.weights").stat().st_size == 20 + 4 * (64 + 64 * 27)
