from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import TOLERANCE, net, network_of, worst_layer

CONV = "[conv]\nfilters=5\nsize=3\npad=1\nactivation=leaky"


def filled(reference, network):
    """The reference with the network's numbers: load_convolutional_weights divides by the 0 groups of a [deconv]."""
    for layer in network.layers:
        for name, tensor in layer.numbers():
            reference.layer_tensor(layer.index, name, tensor.detach().numpy())
    reference.seen = network.seen
    return reference


@pytest.mark.parametrize(
    "options",
    [
        "size=4\nstride=2\npadding=1\nactivation=relu",
        "size=3\nstride=2\nactivation=leaky\nbatch_normalize=1",
        "size=5\npad=1\nactivation=linear\nbatch_normalize=1",
        "size=2\nstride=3",
        "",
    ],
    ids=lambda options: options.replace("\n", " ") or "defaults",
)
def test_outputs_and_file_are_darknets(darknet, tmp_path, options):
    network, cfg, weights = network_of(net(7, 6, 3, CONV, f"[deconv]\nfilters=4\n{options}"), tmp_path)
    reference = filled(darknet.load_network(cfg), network)
    x = np.random.default_rng(0).random((2, 3, 6, 7), np.float32)
    assert worst_layer(network, reference, x)[0] <= TOLERANCE
    reference.save_weights(tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    again = load_network(cfg, weights, numerics="cpu")
    assert worst_layer(again, reference, x)[0] <= TOLERANCE


def test_gradients_are_darknets(darknet, tmp_path):
    text = net(7, 6, 3, CONV, "[deconv]\nfilters=4\nsize=4\nstride=2\npadding=1\nactivation=leaky", "[cost]")
    network, cfg, _ = network_of(text, tmp_path)
    reference = filled(darknet.load_network(cfg), network)
    rng = np.random.default_rng(2)
    x, truth = rng.random((2, 3, 6, 7), np.float32), rng.random((2, network.layers[1].output.outputs), np.float32)
    reference.train_step(x, truth, update=False)
    output = network(torch.from_numpy(x)).flatten(1)
    (-(torch.from_numpy(truth) - output.detach()) * output).sum().backward()
    for index, name, updates in ((1, "weights", "weight_updates"), (1, "biases", "bias_updates")):
        gradient = getattr(network.layers[index], name).grad.flatten()
        np.testing.assert_allclose(-gradient, reference.layer_tensor(index, updates), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        -network.layers[0].weights.grad.flatten(), reference.layer_tensor(0, "weight_updates"), rtol=1e-3, atol=1e-4
    )


def test_folded_weights_give_the_same_values():
    sections = [CONV, "[deconv]\nfilters=4\nsize=3\nstride=2\nbatch_normalize=1\nactivation=leaky"]
    network = Network(parse_cfg(net(7, 6, 3, *sections))).start().eval()
    with torch.no_grad():
        for name in ("scales", "rolling_mean", "rolling_variance", "biases"):
            getattr(network.layers[1], name).copy_(torch.rand(4) + 0.5)
    x = torch.rand(2, 3, 6, 7)
    torch.testing.assert_close(network.fuse()(x), network(x))


def test_start_values_are_darknets():
    """.02 times normal numbers, times the output's share of the input's size."""
    layer = Network(parse_cfg(net(4, 4, 30, "[deconv]\nfilters=40\nsize=4\nstride=2\npadding=1"))).start().layers[0]
    assert layer.output == (40, 8, 8)
    assert float(layer.weights.detach().std()) == pytest.approx(0.02 * 4, rel=0.03)
    assert not layer.biases.any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(CfgError, match="stride is 0; expected 1 or more"):
        Network(parse_cfg(net(4, 4, 3, "[deconv]\nstride=0")))
    with pytest.raises(CfgError, match="padding is -1; expected 0 or more"):
        Network(parse_cfg(net(4, 4, 3, "[deconv]\npadding=-1")))
    with pytest.raises(CfgError, match="the output would be 0 x 0 x 1"):
        Network(parse_cfg(net(4, 4, 3, "[deconv]\npadding=2")))
    with pytest.raises(CfgError, match=r"only the program pjreddie has \[deconvolutional\]"):
        Network(parse_cfg(net(3, 2, 3, "[deconv]")), program="alexeyab")
