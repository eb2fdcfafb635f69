from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net, network_of, worst_layer

CROP = "[crop]\ncrop_height={}\ncrop_width={}\n"
CONV = "[conv]\nfilters=4\nsize=3\npad=1\nactivation=leaky"


@pytest.mark.parametrize("options", ["", "noadjust=1", "flip=1\nangle=7\nsaturation=1.5\nexposure=1.5\nshift=.2"])
@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 5), (9, 10)])
def test_outputs_are_darknets(darknet, tmp_path, height, width, options):
    check_layers(darknet, net(10, 9, 3, CROP.format(height, width) + options, CONV), tmp_path)


def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path):
    """By even differences: the driver's batch norm is the GPU's, and so are the others' places here."""
    check_layers(alexeyab_darknet, net(10, 9, 3, CROP.format(7, 6), CONV), tmp_path)


def test_the_middle_of_an_odd_difference_is_the_gpus_elsewhere():
    """forward_crop_layer_kernel: offsets (w - crop)/2 as real numbers, read between the pixels."""
    text, x = net(10, 9, 3, CROP.format(6, 7)), torch.rand(2, 3, 9, 10)
    expected = torch.empty(2, 3, 6, 7)
    for i in range(6):
        for j in range(7):
            y, left = i + (9 - 6) / 2, j + (10 - 7) / 2
            iy, ix = int(y), int(left)
            dy, dx = y - iy, left - ix
            expected[:, :, i, j] = (
                (1 - dy) * (1 - dx) * x[:, :, iy, ix]
                + dy * (1 - dx) * x[:, :, iy + 1, ix]
                + (1 - dy) * dx * x[:, :, iy, ix + 1]
                + dy * dx * x[:, :, iy + 1, ix + 1]
            )
    for numerics in ("cudnn", "gpu"):
        found = Network(parse_cfg(text), numerics).eval()(x)
        torch.testing.assert_close(found, 2 * expected - 1)
    plain = Network(parse_cfg(text), "cpu").eval()(x)
    assert torch.equal(plain, 2 * x[:, :, 1:7, 1:8] - 1)


def test_training_takes_one_place_and_one_side_for_the_mini_batch():
    """forward_crop_layer draws dh, dw and the flip once; every place and both sides come."""
    network = Network(parse_cfg(net(5, 4, 1, CROP.format(3, 3) + "flip=1\nnoadjust=1"))).train()
    x = torch.arange(40.0).reshape(2, 1, 4, 5)
    places = {}
    for y in range(2):
        for left in range(3):
            part = x[:, :, y : y + 3, left : left + 3]
            places[y, left, 0] = part
            # col = w - dw - j - 1
            places[y, left, 1] = x.flip(3)[:, :, y : y + 3, left : left + 3]
    found = set()
    torch.manual_seed(0)
    for _ in range(200):
        out = network(x)
        found |= {key for key, part in places.items() if torch.equal(part, out)}
        assert any(torch.equal(part, out) for part in places.values())
    assert found == set(places)


def test_without_flip_nothing_is_mirrored():
    network = Network(parse_cfg(net(5, 4, 1, CROP.format(4, 5) + "noadjust=1"))).train()
    x = torch.rand(2, 1, 4, 5)
    assert all(torch.equal(network(x), x) for _ in range(20))


@pytest.mark.parametrize("crop", [(7, 7), (4, 6)])
@pytest.mark.parametrize("size", [(20, 18), (15, 12)])
def test_a_resize_keeps_the_share(darknet, tmp_path, crop, size):
    """resize_crop_layer: both sides by crop_height / h, cut to whole numbers."""
    network, cfg, weights = network_of(net(10, 10, 3, CROP.format(*crop), CONV), tmp_path)
    reference = darknet.load_network(cfg, weights)
    reference.resize(*size)
    network.resize(*size)
    expected = reference.layers[0]
    assert network.layers[0].output == (3, expected.out_h, expected.out_w)
    x = np.random.default_rng(0).random((2, *network.input), np.float32)
    assert worst_layer(network, reference, x)[0] <= 1e-6


def test_what_does_not_fit_is_refused():
    with pytest.raises(CfgError, match=r"<text>:9: \[crop\]: \[crop\] passes no gradient back; expected it to be the"):
        Network(parse_cfg(net(9, 9, 3, "[conv]\nfilters=2\nsize=3", CROP.format(4, 4))))
    with pytest.raises(CfgError, match=r"a crop of 4 x 10 does not fit into an image of 9 x 9"):
        Network(parse_cfg(net(9, 9, 3, CROP.format(10, 4))))
    with pytest.raises(CfgError, match="crop_width is 0; expected 1 or more"):
        Network(parse_cfg(net(9, 9, 3, CROP.format(4, 0))))
