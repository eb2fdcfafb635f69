from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import TOLERANCE, net, network_of, worst_layer
from tests.layers.recurrent_oracle import STREAMS, check_steps, check_steps_in_one_call, rows, text_of

SIZES = {
    "pjreddie": "[crnn]\noutput_filters=4\nhidden_filters=6\n",
    "alexeyab": "[crnn]\noutput=4\nhidden=6\npad=1\n",
}


@pytest.mark.parametrize(
    "options",
    ["activation=leaky", "activation=tanh\nbatch_normalize=1", "activation=tanh\nshortcut=1"],
    ids=lambda options: options.replace("\n", " "),
)
def test_twenty_steps_and_the_file_are_darknets(library, tmp_path, options):
    section = SIZES[library.program] + options
    check_steps(library, text_of(section, section), tmp_path)


@pytest.mark.parametrize("options", ["size=1", "size=5\npad=1", "padding=1\ngroups=2", "pad=1\ndilation=2"])
def test_other_convolutions_are_alexeyabs(alexeyab_darknet, tmp_path, options):
    section = f"[crnn]\n{options}\noutput=4\nhidden=6\nactivation=leaky"
    check_steps(alexeyab_darknet, text_of(section, width=5, height=3), tmp_path)


def test_several_steps_in_a_call(library, tmp_path):
    check_steps_in_one_call(library, SIZES[library.program] + "activation=leaky", tmp_path)


def test_off_the_square_pjreddie_swaps_width_and_height(darknet, tmp_path):
    """parse_crnn hands w over as h: his layer takes the map's rows for others. Here it is the map as it is."""
    section = "[crnn]\noutput_filters=4\nhidden_filters=6\nactivation=leaky"
    text = f"[net]\nbatch={STREAMS}\nwidth={{}}\nheight={{}}\nchannels=2\n{section}\n[conv]\nsize=9\npad=1\n"
    wide = network_of(text.format(5, 3), tmp_path)[0]
    high, cfg, weights = network_of(text.format(3, 5), tmp_path)
    x = rows(0, STREAMS, wide)
    turned = x.reshape(STREAMS, 2, 5, 3)
    reference = darknet.load_network(cfg, weights)
    reference.predict(turned)
    with torch.inference_mode():
        found = wide.outputs(torch.from_numpy(x))[0].flatten(1).numpy()
        other = high.outputs(torch.from_numpy(turned))[0].flatten(1).numpy()
    np.testing.assert_allclose(found, reference.layer_output(0), atol=1e-5)
    assert np.abs(other - reference.layer_output(0)).max() > 0.01


def test_another_size_is_alexeyabs(alexeyab_darknet, tmp_path):
    """pjreddie's resize_network refuses the type."""
    conv = "[conv]\nfilters=2\nsize=3\npad=1\nactivation=linear"
    text = net(8, 6, 2, conv, SIZES["alexeyab"] + "activation=leaky", conv)
    network, cfg, weights = network_of(text, tmp_path, 0, "gpu", "alexeyab")
    reference = alexeyab_darknet.load_network(cfg, weights)
    with torch.inference_mode():
        network(torch.rand(2, 2, 6, 8))
    reference.resize(5, 4)
    reference.number("inputs", 2 * 4 * 5)  # which his resize_network leaves as it was
    network.resize(5, 4)
    for seed in range(3):
        assert worst_layer(network, reference, rows(seed, STREAMS, network))[0] <= TOLERANCE
    other = Network(parse_cfg(net(4, 4, 2, SIZES["pjreddie"])))
    with pytest.raises(CfgError, match=r"a network with \[crnn\] cannot take another size"):
        other.resize(8, 8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(CfgError, match=r"\[crnn\]: its convolutions make 2 x 1 of 4 x 3; expected convolutions that"):
        Network(parse_cfg(net(4, 3, 2, "[crnn]\noutput=4\nhidden=6\npad=0")))
    with pytest.raises(CfgError, match="hidden_filters is 0; expected 1 or more"):
        Network(parse_cfg(net(4, 3, 2, "[crnn]\noutput_filters=4\nhidden_filters=0")))
