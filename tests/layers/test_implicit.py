from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import EXACT, check_gradients, check_layers, check_weights, net

CONV = "[conv]\nfilters={}\nsize=3\npad=1\nactivation=leaky"


@pytest.mark.parametrize(
    "sections",
    [
        ("[implicit]\nfilters=4", "[scale_channels]\nfrom=0"),
        (CONV.format(2), "[implicit]\nfilters=3\natoms=5", "[connected]\noutput=4\nactivation=linear"),
    ],
)
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, sections):
    text = net(7, 6, 3, CONV.format(4), *sections)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_weights(alexeyab_darknet, text, tmp_path)


def test_gradients_are_alexeyabs(alexeyab_darknet, tmp_path):
    text = net(7, 6, 3, CONV.format(4), "[implicit]\nfilters=4", "[scale_channels]\nfrom=0", CONV.format(2))
    check_gradients(alexeyab_darknet, text, tmp_path)


def test_numbers_and_start_values():
    torch.manual_seed(0)
    layer = Network(parse_cfg(net(7, 6, 3, "[implicit]\natoms=50\nmean=1"))).start().layers[0]
    assert [(name, tuple(tensor.shape)) for name, tensor in layer.numbers()] == [("weights", (128, 50, 1))]
    assert (layer.o.filters, layer.o.mean, layer.o.std) == (128, 1, pytest.approx(0.2))
    assert float(layer.weights.min()) == pytest.approx(0.8, abs=0.001)
    assert float(layer.weights.max()) == pytest.approx(1.2, abs=0.001)


def test_no_numbers_are_no_layer():
    with pytest.raises(CfgError, match="atoms=0: atoms is 0; expected 1 or more"):
        Network(parse_cfg(net(7, 6, 3, "[implicit]\natoms=0")))
