from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import COPY, EXACT, check_gradients, check_layers, check_weights, net, randomise

CONV = "[conv]\nfilters={}\nsize=3\npad=1\nstride={}\nactivation=linear"


@pytest.mark.parametrize(
    ("filters", "stride", "size"),
    [(4, 1, (8, 8)), (6, 1, (8, 8)), (3, 1, (7, 5)), (4, 2, (8, 8)), (7, 2, (12, 8)), (2, 2, (8, 4))],
)
@pytest.mark.parametrize("options", ["activation=leaky", "alpha=.5\nbeta=2"])
def test_outputs_are_darknets(darknet, tmp_path, filters, stride, size, options):
    sections = [CONV.format(4, 1), CONV.format(filters, stride), f"[shortcut]\nfrom=-2\n{options}"]
    check_layers(darknet, net(*size, 3, *sections), tmp_path)


def test_a_smaller_map_is_added_to_every_second_place(darknet, tmp_path):
    sections = [CONV.format(4, 2), CONV.format(5, 1), "[upsample]", "[shortcut]\nfrom=0\nactivation=linear"]
    check_layers(darknet, net(8, 8, 3, *sections), tmp_path)


@pytest.mark.parametrize(
    "last", ["[maxpool]\nsize=2\nstride=1\npadding=0", "[conv]\nfilters=4\nsize=3\npadding=2\nactivation=linear"]
)
def test_maps_a_little_larger_or_smaller_are_added_where_both_are(darknet, tmp_path, last):
    """Darknet asks only that the sides of both divide alike."""
    sections = [CONV.format(4, 1), last, "[shortcut]\nfrom=0\nactivation=linear"]
    check_layers(darknet, net(9, 7, 3, *sections), tmp_path)


def test_maps_that_do_not_fit():
    sections = [CONV.format(4, 1), CONV.format(4, 2), "[maxpool]\nsize=3\nstride=1\npadding=0", "[shortcut]\nfrom=0"]
    with pytest.raises(CfgError, match="do not fit by one stride"):
        Network(parse_cfg(net(12, 8, 3, *sections)))


def test_a_shortcut_needs_from():
    with pytest.raises(CfgError, match=r"<text>:8: \[shortcut\]: a \[shortcut\] needs from="):
        Network(parse_cfg(net(6, 5, 3, "[conv]\nfilters=3", "[shortcut]")))


WEIGHTS = ["weights_type=none", *(
    f"weights_type={kind}\nweights_normalization={way}"
    for kind in ("per_feature", "per_layer", "per_channel") for way in ("relu", "softmax")
)]  # fmt: skip


def several(options: str, before: int = 4, activation: str = "leaky") -> str:
    """A sum of four maps, of which one has fewer channels and one more where ``before`` is not 4."""
    shortcut = f"[shortcut]\nfrom=0,-5,4\nactivation={activation}\n{options}"
    convs = [CONV.format(n, 1) for n in (4, 4, 4, before)]
    return net(7, 6, 3, convs[0], COPY, convs[1], COPY, convs[2], COPY, convs[3], shortcut, CONV.format(3, 1))


@pytest.mark.parametrize("options", WEIGHTS)
@pytest.mark.parametrize("before", [4, 6, 3])
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, options, before):
    """As his verbs run it, fused: there weights_normalization=relu is another function of weights under .001."""
    text = several(options, before)
    network = check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, fuse=True)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, fuse=True, size=(9, 5))
    check_weights(alexeyab_darknet, text, tmp_path)
    if "none" not in options:
        assert bool((network.layers[7].weights < 0).any())
    x = torch.rand(2, 3, 6, 7)
    torch.testing.assert_close(network.fuse()(x), network(x))


@pytest.mark.parametrize("options", WEIGHTS)
@pytest.mark.parametrize("activation", ["leaky", "mish", "swish"])
def test_gradients_are_alexeyabs(alexeyab_darknet, tmp_path, options, activation):
    """Of all but the shortcut's own weights, where his are those of no normalisation."""
    check_gradients(alexeyab_darknet, several(options, activation=activation), tmp_path, but=("shortcut",))


@pytest.mark.parametrize("options", WEIGHTS[1:])
def test_gradients_of_the_weights_are_the_derivatives(options):
    network = randomise(Network(parse_cfg(several(options)))).double().train()
    layer = network.layers[7]
    x = network.outputs(torch.rand(1, 3, 6, 7, dtype=torch.double))
    maps = [x[index].detach() for index in layer.sources]

    def run(weights):
        return torch.func.functional_call(layer, {"weights": weights}, tuple(maps))

    assert torch.autograd.gradcheck(run, layer.weights)


def test_training_starts_with_weights_of_one():
    network = Network(parse_cfg(several(WEIGHTS[-1]))).start()
    assert torch.equal(network.layers[7].weights, torch.ones(4, 4))
    assert [tuple(tensor.shape) for _, tensor in network.layers[7].numbers()] == [(4, 4)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("weights_type=per_pixel", "weights_type is per_pixel; expected one of none, per_feature, per_layer, per_ch"),
        ("weights_type=per_feature", "weights_normalization is none; expected one of relu, avg_relu, softmax"),
        (
            "weights_type=per_layer\nweights_normalization=max",
            "weights_normalization is max; expected one of relu, avg",
        ),
    ],
)
def test_weights_of_another_kind(options, found):
    with pytest.raises(CfgError, match=r"<text>:\d+: .*") as error:
        Network(parse_cfg(several(options)))
    assert found in str(error.value)


def test_maps_of_two_sizes_are_no_sum_in_alexeyabs_program():
    cfg = parse_cfg(net(8, 8, 3, CONV.format(4, 1), CONV.format(4, 2), "[shortcut]\nfrom=0"))
    assert Network(cfg).layers[2].output == (4, 4, 4)
    with pytest.raises(CfgError, match=r"from=0: maps of 8 x 8 and 4 x 4: AlexeyAB's program stops here.*-program pjr"):
        Network(cfg, program="alexeyab")
