from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.train.optimizer import freeze
from tests.compare import EXACT, check_gradients, check_layers, net, network_of

CONV = "[conv]\nfilters=4\nactivation=linear"
# His blur needs memory that only a convolution of its size asks for.
AFTER = "[conv]\nfilters=3\nsize=3\npad=1\nactivation=linear"


@pytest.mark.parametrize(
    "options",
    ["size=2\nstride=2", "size=2\nstride=1", "size=3\nstride=2", "stride=2", "size=5\nstride=1", "size=13\nstride=1",
     "size=3\nstride=2\npadding=1", "size=3\nstride=3\npadding=0", "size=2\nstride=2\npadding=0", "size=4\nstride=2"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 16), (13, 11), (14, 9)])
def test_outputs_are_darknets(darknet, tmp_path, options, size):
    # A convolution first, so that values below zero are pooled too.
    check_layers(darknet, net(*size, 3, "[conv]\nfilters=4\nactivation=linear", f"[maxpool]\n{options}"), tmp_path)


@pytest.mark.parametrize(
    "options",
    ["size=2\nstride=2", "size=13\nstride=1", "size=3\nstride=2\npadding=1", "size=3\nstride_x=2", "stride_y=2",
     "stride=3\nstride_y=1\nsize=2", "size=2\nstride=2\nantialiasing=1", "size=3\nstride=2\nantialiasing=2",
     "size=2\nstride_x=2\nantialiasing=1", "maxpool_depth=1\nout_channels=2", "maxpool_depth=1\nout_channels=3\nsize=5",
     "maxpool_depth=1", "size=2\nstride=2\nmaxpool_zero_nonmax=1"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 16), (13, 11), (14, 9)])
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, options, size):
    text = net(*size, 3, CONV, f"[maxpool]\n{options}", AFTER)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    if "antialiasing" not in options:  # whose blur he forgets when he resizes, or trains on a CPU
        check_gradients(alexeyab_darknet, text, tmp_path)
    if "antialiasing" not in options and "depth" not in options:
        check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, size=(12, 10))


@pytest.mark.parametrize(("size", "wrong"), [(2, 0), (3, 8), (5, 8), (13, 0)])
def test_alexeyabs_avx_build_drops_values_at_the_left(alexeyab_fast, alexeyab_darknet, tmp_path, size, wrong):
    """forward_maxpool_layer_avx looks eight columns at a time at whether the first of them is inside.

    So a window of stride 1 loses what lies left of its middle in the first eight columns, where the map is wide enough
    for the eight. The same program without AVX, and ours, have the largest value of each window.
    """
    network, *files = network_of(net(20, 20, 3, CONV, f"[maxpool]\nsize={size}\nstride=1", AFTER), tmp_path)
    x = np.random.default_rng(0).random((1, 3, 20, 20), np.float32) - 0.5
    maps = []
    for library in (alexeyab_darknet, alexeyab_fast):
        reference = library.load_network(*files)
        reference.set_batch(1)
        reference.predict(x)
        maps.append(reference.layer_output(1).reshape(4, 20, 20))
    with torch.inference_mode():
        found = network.outputs(torch.from_numpy(x))[1][0].numpy()
    np.testing.assert_allclose(found, maps[0], atol=1e-6)
    columns = np.flatnonzero((np.abs(maps[1] - found) > 1e-6).any((0, 1)))
    assert (maps[1] - found).max() <= 1e-6  # it loses values, and has none that are too large
    assert len(columns) == 0 if not wrong else len(columns) > 0 and columns.max() < wrong


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("stride_x=0", "stride_x is 0; expected 1 or more"),
        ("maxpool_depth=1\nout_channels=5", "out_channels is 5; expected 1 to the input's 4"),
        ("maxpool_depth=1\nout_channels=0", "out_channels is 0; expected 1 to the input's 4"),
        ("maxpool_depth=1\nantialiasing=1", "maxpool_depth has no windows to blur; expected antialiasing=0"),
    ],
)
def test_errors_name_the_line(options, found):
    with pytest.raises(CfgError, match=r"<text>:\d+: .*") as error:
        Network(parse_cfg(net(8, 8, 3, CONV, f"[maxpool]\n{options}")))
    assert found in str(error.value)
    assert "\n" not in str(error.value)


def test_depth_resizes_and_its_channels_need_not_divide():
    network = Network(parse_cfg(net(8, 8, 7, "[maxpool]\nmaxpool_depth=1\nout_channels=3")))
    network.resize(6, 4)
    x = torch.randn(2, 7, 4, 6)
    expected = torch.stack([x[:, [0, 3, 6]].amax(1), x[:, [1, 4]].amax(1), x[:, [2, 5]].amax(1)], 1)
    assert torch.equal(network(x), expected)


def test_what_alexeyabs_gpu_alone_does_is_refused_in_training():
    network = Network(parse_cfg(net(8, 8, 3, CONV, "[maxpool]\nmaxpool_zero_nonmax=1")))
    with pytest.raises(CfgError, match="maxpool_zero_nonmax=1: training with maxpool_zero_nonmax is not built here"):
        freeze(network)
