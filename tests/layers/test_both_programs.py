"""Sections that neither program changed, and that AlexeyAB's runs by his own code: his library's values, too."""

from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from tests.compare import EXACT, check_gradients, check_layers, check_weights, net

CONV = "[conv]\nfilters=8\nsize=3\npad=1\nactivation=linear"
SECTIONS = {
    "connected": "[connected]\noutput=7\nactivation=leaky",
    "connected batch norm": "[connected]\noutput=7\nbatch_normalize=1\nactivation=logistic",
    "batchnorm": "[batchnorm]",
    "avgpool": "[avgpool]",
    "dropout": "[dropout]\nprobability=.3",
    "reorg": "[reorg]\nstride=2",
    "reorg back": "[reorg]\nstride=2\nreverse=1",
    "softmax": "[softmax]\ngroups=4\ntemperature=2",
    "upsample": "[upsample]\nstride=3\nscale=.5",
    "downsample": "[upsample]\nstride=-2",
}
RESIZED = ("batchnorm", "avgpool", "dropout", "reorg", "reorg back", "upsample")


@pytest.mark.parametrize("name", SECTIONS)
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, name):
    text = net(8, 6, 3, CONV, SECTIONS[name])
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_weights(alexeyab_darknet, text, tmp_path)
    if name in RESIZED:
        check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, size=(12, 8))


@pytest.mark.parametrize("name", ["connected", "avgpool", "reorg", "upsample"])
def test_gradients_are_alexeyabs(alexeyab_darknet, tmp_path, name):
    check_gradients(alexeyab_darknet, net(8, 6, 3, CONV, SECTIONS[name]), tmp_path)


@pytest.mark.parametrize("section", ["dropout", "batchnorm"])
def test_sections_that_only_alexeyabs_program_resizes(section):
    """tests/layers/test_base.py has what pjreddie's does."""
    network = Network(parse_cfg(net(8, 8, 3, CONV, f"[{section}]")), program="alexeyab")
    network.resize(16, 12)
    assert network.layers[-1].output == (8, 12, 16)
