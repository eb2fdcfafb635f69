"""A network that reads: what it starts from, and the temperature."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_compat import load_reader
from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.text.reader import Reader
from tests.compare import network_of, randomise
from tests.text_cases import SECTIONS, text_cfg


def test_a_reader_starts_anew():
    """Whatever the network, or another reader of it, has read before."""
    reader = Reader(randomise(Network(parse_cfg(text_cfg(SECTIONS["gru"])))))
    first = reader.feed(ord("a"))
    assert not np.array_equal(reader.feed(ord("a")), first)
    np.testing.assert_array_equal(Reader(reader.network).feed(ord("a")), first)


def test_a_network_in_training_is_read_as_in_inference():
    text = text_cfg(SECTIONS["gru"] + "\n[dropout]\nprobability=.5", batch=6, steps=5)
    network = randomise(Network(parse_cfg(text)))
    first = Reader(network).feed(ord("a"))
    np.testing.assert_array_equal(Reader(network.train()).feed(ord("a")), first)


def test_the_temperature_is_that_of_each_softmax(darknet, tmp_path):
    """test_char_rnn: ``net->layers[i].temperature = temp`` of all layers; stock cfgs end in a [cost]."""
    text = text_cfg(SECTIONS["gru"] + "\n[softmax]\ngroups=4\ntemperature=9") + "[cost]\n"
    _, cfg, weights = network_of(text, tmp_path)
    reference = darknet.load_network(cfg, weights)
    for layer in reference.layers:
        layer.number("temperature", 0.3)
    one_hot = np.eye(128, dtype=np.float32)[ord("a")].reshape(1, 2, 8, 8)
    reference.predict(one_hot)
    expected = reference.layer_output(-2).reshape(-1)
    reader = load_reader(cfg, weights, temperature=0.3, device="cpu", numerics="cpu")
    np.testing.assert_allclose(reader.feed(ord("a")), expected, rtol=1e-4, atol=1e-7)
    plain = load_reader(cfg, weights, device="cpu", numerics="cpu").feed(ord("a"))
    assert np.abs(plain - expected).max() > 1e-3
    with pytest.raises(ValueError, match="a temperature of 0; expected more than 0"):
        load_reader(cfg, weights, temperature=0.0, device="cpu")
