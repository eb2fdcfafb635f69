from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.oracle import POLICIES

SIZE = "[net]\nwidth=4\nheight=4\nchannels=3\n"
ALWAYS = {
    **{
        name: name for name in ("learning_rate", "momentum", "decay", "subdivisions", "time_steps", "notruth", "random")
    },
    **{name: name for name in ("adam", "center", "clip", "angle", "aspect", "saturation", "exposure", "hue", "policy")},
    **{name: name for name in ("burn_in", "power", "max_batches", "batch")},
}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ("", ()),
        ("policy=step", ("step", "scale")),
        ("policy=exp", ("gamma",)),
        ("policy=sigmoid", ("gamma", "step")),
        ("policy=poly", ("power",)),
        ("adam=1", ("B1", "B2", "eps")),
    ],
)
def test_defaults_are_darknets(darknet, tmp_path, given, more):
    """libdarknet reads some options only where others ask for them."""
    cfg = tmp_path / "net.cfg"
    cfg.write_text(f"{SIZE}{given}\n[conv]\n")
    network, theirs = Network(parse_cfg(cfg.read_text())), darknet.load_network(cfg)
    for name in (*ALWAYS, *more):
        found = getattr(network.net, name)
        if name == "policy":
            found = POLICIES.index(found.replace("sigmoid", "sig"))
        assert found == pytest.approx(theirs.number(name), rel=1e-6), name


def test_images_of_one_forward_pass(darknet, tmp_path):
    cfg = tmp_path / "net.cfg"
    cfg.write_text(f"{SIZE}batch=8\nsubdivisions=2\ntime_steps=3\n[conv]\n")
    assert Network(parse_cfg(cfg.read_text())).net.mini_batch == darknet.load_network(cfg).number("batch") == 12


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["batch", "subdivisions", "time_steps"])
def test_counts_of_one_at_least(name, value):
    with pytest.raises(CfgError, match=f"{name} is {value}; expected 1 or more"):
        Network(parse_cfg(f"{SIZE}{name}={value}\n[conv]\n"))


@pytest.mark.parametrize("name", ["height", "width", "channels"])
def test_an_input_of_negative_size(name):
    with pytest.raises(CfgError, match=f"{name} is -1; expected 1 or more"):
        Network(parse_cfg(f"[net]\ninputs=5\n{name}=-1\n[connected]\n"))


def test_the_size_of_the_input(darknet, tmp_path):
    """width, height and channels, or inputs; Darknet takes inputs where one of the three is missing."""
    assert Network(parse_cfg("[net]\nheight=1\nwidth=1\nchannels=1\n[connected]\n")).input == (1, 1, 1)
    lacking = ("height=2\nwidth=3", "height=2\nchannels=3", "width=2\nchannels=3")
    for text in ("inputs=5", "inputs=1", *(f"inputs=5\n{two}" for two in lacking)):
        cfg = tmp_path / "net.cfg"
        cfg.write_text(f"[net]\n{text}\n[connected]\n")
        shape = Network(parse_cfg(cfg.read_text())).input
        assert shape == (darknet.load_network(cfg).number("inputs"), 1, 1)
    for text in ("", "inputs=0", "inputs=-5", *lacking):
        with pytest.raises(CfgError, match="gives no input size"):
            Network(parse_cfg(f"[net]\n{text}\n[connected]\n"))


def test_images_are_mirrored_unless_the_cfg_says_otherwise():
    """load_data_detection mirrors every second image; flip=0 is AlexeyAB's way to have none."""
    for program in ("pjreddie", "alexeyab"):
        assert Network(parse_cfg(f"{SIZE}[conv]\n"), program=program).net.flip == 1
