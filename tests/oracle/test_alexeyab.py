"""AlexeyAB's library as an oracle: it answers, and beside Debian's each answers for itself."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from tests.compare import check_layers, check_weights, net, network_of
from tests.oracle.alexeyab import NMS_KINDS

BODY = (
    "[convolutional]\nfilters=8\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky",
    "[maxpool]\nsize=2\nstride=2",
    "[reorg]\nstride=2",
    "[convolutional]\nfilters=14\nactivation=linear",
)
YOLO = "[yolo]\nmask=0,1\nanchors=10,10,20,20\nclasses=2\nnum=2"


@pytest.fixture
def network(alexeyab_darknet, tmp_path):
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    network_of(net(24, 24, 3, *BODY), tmp_path, program="alexeyab")
    cfg.write_text(net(24, 24, 3, *BODY, YOLO))
    return alexeyab_darknet.load_network(cfg, weights)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 3, 24, 24), np.float32)


def test_layers_are_described(network):
    assert [layer.type for layer in network.layers] == ["convolutional", "maxpool", "reorg", "convolutional", "yolo"]
    assert (network.width, network.height, network.channels, network.batch) == (24, 24, 3, 2)
    assert (network.layers[0].activation, network.layers[0].out_w, network.layers[4].classes) == ("leaky", 24, 2)
    assert network.layers[4].scale_x_y == 1
    assert network.layer_tensor(4, "biases").tolist() == [10, 10, 20, 20]
    assert network.layer_tensor(0, "weights").shape == (8 * 3 * 9,)
    with pytest.raises(AttributeError):
        network.layer_tensor(0, "nothing")


def test_a_network_is_compared_with_either_library(darknet, alexeyab_darknet, tmp_path):
    for library in (darknet, alexeyab_darknet):
        network = check_layers(library, net(24, 24, 3, *BODY), tmp_path)
        assert network.program == library.program
        check_weights(library, net(24, 24, 3, *BODY), tmp_path)
        assert struct.unpack("<3i", (tmp_path / "theirs.weights").read_bytes()[:12]) == network.version


def test_the_two_libraries_do_not_mix(darknet, alexeyab_darknet):
    """Number 2 of the enum is relie in one, relu6 in the other; both export activate_array."""
    assert (darknet.ACTIVATIONS[2], alexeyab_darknet.ACTIVATIONS[2]) == ("relie", "relu6")
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    for library in (darknet, alexeyab_darknet):
        np.testing.assert_allclose(library.activate(x, "relie"), np.where(x > 0, x, x * 0.01), rtol=1e-6)


def test_loading_a_library_leaves_small_numbers_alone(darknet, alexeyab_darknet):
    assert float(torch.tensor([1e-40]) * 1) > 0


def test_fusing_changes_no_output(network, images):
    plain = network.predict(images)
    network.fuse()
    assert network.layers[0].batch_normalize == 0
    np.testing.assert_allclose(network.predict(images), plain, rtol=1e-4, atol=1e-5)


def test_boxes_are_listed(network, images):
    network.set_batch(1)
    output = network.predict(images[:1]).reshape(2, 7, 6, 6)
    above = output[:, 4] > 0.4
    found = network.boxes(24, 24, thresh=0.4)
    assert len(found.boxes) == above.sum() > 0
    np.testing.assert_array_equal(np.sort(found.objectness), np.sort(output[:, 4][above]))
    wide = network.boxes(48, 24, thresh=0.4, letter=True)
    assert np.abs(wide.boxes - found.boxes).max() > 0.1  # the image takes half of the network's height only
    np.testing.assert_array_equal(wide.objectness, found.objectness)


@pytest.mark.parametrize(("kind", "kept"), [("default", 1), ("greedynms", 2), ("diounms", 2)])
def test_every_kind_of_nms(alexeyab_darknet, kind, kept):
    """Two boxes beside each other: their IOU is .5, less the distance of the centres it is under .45."""
    boxes = [[0.5, 0.5, 0.3, 0.3], [0.6, 0.5, 0.3, 0.3]]
    assert kind in NMS_KINDS
    found = alexeyab_darknet.nms_sort(boxes, [0.9, 0.8], [[0.9], [0.8]], 0.45, kind)
    assert (found.prob > 0).sum() == kept


def test_training_moves_weights(network, images):
    truth = np.zeros((2, 200, 6), np.float32)
    truth[:, 0] = (0.5, 0.5, 0.4, 0.4, 1, 0)
    before = network.layer_tensor(0, "weights")
    costs = [network.train_step(images, truth).cost for _ in range(60)]
    assert np.abs(network.layer_tensor(0, "weights") - before).max() > 0
    assert costs[-1] < costs[0]
    assert network.seen == 64_000 + 120
