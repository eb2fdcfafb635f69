from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net


@pytest.mark.parametrize("options", ["output=7", "output=5\nactivation=leaky\nbatch_normalize=1", "activation=linear"])
def test_outputs_are_darknets(darknet, tmp_path, options):
    sections = ["[conv]\nfilters=4\nactivation=leaky", f"[connected]\n{options}", "[connected]\noutput=3"]
    check_layers(darknet, net(5, 4, 3, *sections), tmp_path)


def test_start_values_are_darknets():
    """make_connected_layer: uniform between plus and minus sqrt(2 / inputs)."""
    torch.manual_seed(0)
    text = "[connected]\noutput=200\nbatch_normalize=1"
    layer = Network(parse_cfg(net(10, 10, 4, text))).start().layers[0]
    bound, weights = (2 / 400) ** 0.5, layer.weights.detach()
    assert float(weights.min()) == pytest.approx(-bound, rel=1e-3)
    assert float(weights.max()) == pytest.approx(bound, rel=1e-3)
    assert float(weights.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not layer.biases.any()
    assert bool((layer.scales == 1).all())


def test_numbers_are_the_layers_own_unless_a_file_is_read():
    """(outputs, inputs), and dontloadscales says nothing."""
    text = "[connected]\noutput=5\nbatch_normalize=1\ndontloadscales=1"
    layer = Network(parse_cfg(net(2, 1, 1, text))).layers[0]
    assert [(name, tuple(tensor.shape)) for name, tensor in layer.numbers()] == [
        ("biases", (5,)), ("weights", (5, 2)), ("scales", (5,)), ("rolling_mean", (5,)), ("rolling_variance", (5,)),
    ]  # fmt: skip


def test_no_output_is_refused():
    with pytest.raises(CfgError, match="output is 0; expected 1 or more"):
        Network(parse_cfg(net(5, 4, 3, "[connected]\noutput=0")))
