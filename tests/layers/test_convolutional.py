from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.activation import ACROSS_CHANNELS, ACTIVATIONS
from darknet_compat.network import Network
from tests.compare import EXACT, check_gradients, check_layers, net
from tests.oracle import ACTIVATIONS as PJREDDIES

# gelu's is taken at the output instead of the input, those across channels are no derivatives.
WRONG_GRADIENTS = ("gelu", *ACROSS_CHANNELS)


@pytest.mark.parametrize(
    "options",
    [
        "filters=5\nsize=3\nstride=1\npad=1\nactivation=leaky\nbatch_normalize=1",
        "filters=5\nsize=3\nstride=2\npad=1\nactivation=leaky\nbatch_normalize=1",
        "filters=6\nsize=5\nstride=3\npadding=1\nactivation=linear",
        "filters=8\nsize=3\npad=1\ngroups=2\nactivation=relu\nbatch_normalize=1",
        "filters=4\nsize=1\ngroups=4\nactivation=linear",
        "filters=3\nsize=2\nstride=2\nactivation=leaky",
        "filters=3\nsize=7\nstride=2\npad=1\nactivation=leaky",
        "filters=7",
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (13, 11)])
def test_outputs_are_darknets(darknet, tmp_path, options, size):
    check_layers(darknet, net(*size, 4, f"[convolutional]\n{options}"), tmp_path)


def activated(activation: str, batch_normalize: int = 1) -> str:
    # Scaled by batch normalisation, so that each activation's pieces are all reached. So many channels that a few are
    # well above 0 at every place: where the sum of channels is near 0, all digits of its quotients are noise.
    return net(
        12, 10, 3,
        "[conv]\nfilters=4\nsize=3\npad=1\nactivation=linear",
        f"[conv]\nfilters=16\nsize=1\nbatch_normalize={batch_normalize}\nactivation={activation}",
    )  # fmt: skip


@pytest.mark.parametrize("activation", sorted(PJREDDIES))
def test_every_activation(darknet, tmp_path, activation):
    check_layers(darknet, activated(activation), tmp_path)


# His activate() lacks relu6 and gives 0: tests/layers/test_others.py.
@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"relu6"}))
def test_every_activation_of_alexeyabs(alexeyab_darknet, tmp_path, activation):
    check_layers(alexeyab_darknet, activated(activation), tmp_path, tolerance=EXACT)


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"relu6", *WRONG_GRADIENTS}))
def test_gradients_of_every_activation_of_alexeyabs(alexeyab_darknet, tmp_path, activation):
    check_gradients(alexeyab_darknet, activated(activation, batch_normalize=0), tmp_path)


def test_gradients_of_batch_normalisation_are_alexeyabs(alexeyab_darknet, tmp_path):
    text = net(8, 7, 3, "[conv]\nfilters=4\nsize=3\npad=1\nstride=2\nbatch_normalize=1\nactivation=leaky")
    check_gradients(alexeyab_darknet, text, tmp_path)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("filters=0", "filters is 0; expected 1 or more"),
        ("filters=4\nactivation=laeky", "no activation is called 'laeky'"),
        ("filters=4\ngroups=2", "3 channels and 4 filters do not both divide into 2 groups"),
        ("filters=4\nsize=9", "the output would be"),
        ("filters=4\nstride=0", "stride is 0; expected 1 or more"),
        ("filters=4\nxnor=1", "not built here"),
        ("filters=4\nbinary=1", "not built here"),
    ],
)
def test_errors_name_the_line(options, found):
    with pytest.raises(CfgError, match="<text>:") as error:
        Network(parse_cfg(net(8, 8, 3, f"[convolutional]\n{options}")))
    assert found in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("groups", [1, 4])
def test_start_values_are_darknets(groups):
    """make_convolutional_layer: normal of sqrt(2 / (size*size*c/groups)), biases and running figures 0, scales 1."""
    torch.manual_seed(0)
    text = f"[conv]\nfilters=64\nsize=5\ngroups={groups}\nbatch_normalize=1"
    layer = Network(parse_cfg(net(9, 9, 48, text))).start().layers[0]
    assert float(layer.weights.detach().std()) == pytest.approx((2 / (25 * 48 // groups)) ** 0.5, rel=0.03)
    assert abs(float(layer.weights.detach().mean())) < 0.002
    assert {name: tensor.unique().tolist() for name, tensor in layer.numbers() if name != "weights"} == {
        **{name: [0] for name in ("biases", "rolling_mean", "rolling_variance")},
        "scales": [1],
    }
