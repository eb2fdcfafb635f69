from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import TOLERANCE, check_layers, net, network_of, worst_layer

TREE = "animal -1\nthing -1\ncat 0\ndog 0\nbird 0\ncup 1\nball 1\npuppy 3\nhound 3\n"


@pytest.mark.parametrize("options", ["", "groups=3", "temperature=2.5"])
def test_outputs_are_darknets(library, tmp_path, options):
    conv = "[conv]\nfilters=3\nactivation=linear"  # AlexeyAB's parser divides by the number of layers with a map
    sections = [conv, "[connected]\noutput=12\nactivation=linear", f"[softmax]\n{options}"]
    check_layers(library, net(5, 4, 3, *sections), tmp_path)


def test_over_a_map(darknet, tmp_path):
    """All values of an image together, channels, rows and columns."""
    check_layers(darknet, net(5, 4, 3, "[conv]\nfilters=4\nactivation=linear", "[softmax]\ngroups=2"), tmp_path)


def test_with_a_tree(darknet, tmp_path):
    (tmp_path / "small.tree").write_text(TREE)
    sections = ["[connected]\noutput=9\nactivation=linear", f"[softmax]\ntree={tmp_path}/small.tree"]
    check_layers(darknet, net(5, 4, 3, *sections), tmp_path)


def test_groups_that_do_not_divide():
    with pytest.raises(CfgError, match="60 values do not divide into 7 groups"):
        Network(parse_cfg(net(5, 4, 3, "[softmax]\ngroups=7")))


@pytest.mark.parametrize("options", ["", "temperature=3", "groups=7"])
def test_spatial(darknet, options):
    """Over the channels of each place, as softmax_cpu gives it where it is called so."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    network = Network(parse_cfg(net(5, 4, 3, f"[softmax]\nspatial=1\n{options}")))
    expected = darknet.softmax(x, n=3, batch=2, batch_offset=60, groups=20, group_offset=1, stride=20)
    torch.testing.assert_close(network(torch.from_numpy(x)), torch.from_numpy(expected))


def test_darknets_cpu_passes_over_spatial(darknet, tmp_path):
    """It makes one group of all values; the GPU's call walks over batch*c images, so beyond its memory."""
    text = net(5, 4, 3, "[conv]\nfilters=4\nactivation=linear", "[softmax]\n{}")
    plain = network_of(text.format(""), tmp_path)
    network, cfg, weights = network_of(text.format("spatial=1"), tmp_path)
    x = np.random.default_rng(1).random((2, 3, 4, 5), np.float32)
    assert worst_layer(plain[0], darknet.load_network(cfg, weights), x)[0] <= TOLERANCE
    assert worst_layer(network, darknet.load_network(cfg, weights), x)[0] > 0.5


def test_noloss_changes_no_value(darknet, tmp_path):
    check_layers(darknet, net(5, 4, 3, "[connected]\noutput=12\nactivation=linear", "[softmax]\nnoloss=1"), tmp_path)
