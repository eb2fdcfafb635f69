from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.activation import ACROSS_CHANNELS, ACTIVATIONS
from darknet_compat.layers.convolutional import binary_weights
from darknet_compat.network import Network
from darknet_compat.train.optimizer import freeze
from tests.compare import EXACT, check_gradients, check_layers, check_weights, net, network_of, randomise, worst_layer
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


def test_a_stride_counts_where_the_size_is_1(darknet, tmp_path):
    """pjreddie's program then takes the image as it lies in memory, as if it had the size of the output."""
    text = net(8, 8, 3, "[convolutional]\nfilters=4\nsize=1\nstride=2\nactivation=linear", batch=1)
    network, cfg, weights = network_of(text, tmp_path)
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    reference = darknet.load_network(cfg, weights)
    reference.predict(x)
    layer = network.layers[0]
    factors = layer.weights.detach().reshape(4, 3)

    def convolved(values):
        return (factors @ values + layer.biases.detach()[:, None]).numpy()

    ours = network(torch.from_numpy(x)).detach().numpy().reshape(4, 16)
    np.testing.assert_allclose(ours, convolved(torch.from_numpy(x[0, :, ::2, ::2].reshape(3, 16))), atol=EXACT)
    memory = torch.from_numpy(x.reshape(-1)[: 3 * 16].reshape(3, 16))
    np.testing.assert_allclose(reference.layer_output(0).reshape(4, 16), convolved(memory), atol=EXACT)


def activated(activation: str, batch_normalize: int = 1) -> str:
    # Scaled by batch normalisation, so that each activation's pieces are all reached. So many channels that a few are
    # well above 0 at every place: where the sum of channels is near 0, all digits of its quotients are noise.
    return net(
        12, 10, 3,
        "[conv]\nfilters=4\nsize=3\npad=1\nactivation=linear",
        f"[conv]\nfilters=16\nsize=1\nbatch_normalize={batch_normalize}\nactivation={activation}",
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        "filters=8\nsize=3\npad=1\nstride=2\nactivation=swish\nbatch_normalize=1",
        "filters=8\nsize=3\npad=1\ngroups=2\nactivation=leaky",
        "filters=5\nsize=3\npad=1\nstride_x=2\nactivation=linear",
        "filters=5\nsize=3\nstride=3\nstride_x=1\nstride_y=2\nactivation=mish\nbatch_normalize=1",
        "filters=5\nsize=3\npad=1\ndilation=2\nactivation=leaky\nbatch_normalize=1",
        "filters=4\nsize=5\npad=1\ndilation=3\nstride=2\ngroups=2\nactivation=linear",
        "filters=5\nsize=1\ndilation=2\nactivation=linear",
        "filters=5\nsize=1\nstride=2\nactivation=linear",
        "filters=5\nsize=3\npad=1\nstride=2\nantialiasing=1\nactivation=leaky\nbatch_normalize=1",
        "filters=5\nsize=3\npad=1\nstride=2\nantialiasing=2\nactivation=leaky",
        "filters=5\nsize=3\npad=1\nstride_x=2\nstride_y=1\nantialiasing=1\nactivation=leaky",
        "filters=5\nsize=3\npad=1\nbatch_normalize=2\nactivation=leaky",
        "filters=5\nsize=3\npad=1\nbatch_normalize=1\ncbn=1\nactivation=leaky",
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (13, 11)])
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, options, size):
    sections = (f"[convolutional]\n{options}", "[conv]\nfilters=3\nactivation=linear")
    network = check_layers(alexeyab_darknet, net(*size, 4, *sections), tmp_path, tolerance=EXACT)
    x = torch.rand(2, *network.input)
    for plain, fused in zip(network.outputs(x), network.fuse().outputs(x), strict=True):
        torch.testing.assert_close(fused, plain, atol=EXACT * float(plain.abs().max()), rtol=0)
    check_weights(alexeyab_darknet, net(*size, 4, *sections), tmp_path)
    # He resizes an antialiased layer and not its blur, and on a CPU hands no gradient through that.
    network.resize(20, 18)
    assert network(torch.rand(2, *network.input)).shape[1:] == network.layers[-1].output
    if "antialiasing" not in options:
        check_gradients(alexeyab_darknet, net(*size, 4, *sections), tmp_path)


SHARED = (
    "[conv]\nfilters=6\nactivation=linear",
    "[conv]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky",
    "[conv]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\ndilation=2\nshare_index=-1",
    "[conv]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=linear\nshare_index=1",
    "[conv]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=linear\nshare_index=2",
)


def test_shared_numbers(alexeyab_darknet, tmp_path):
    """They stand once in the file, in training each use adds its gradient, and fusing keeps the values."""
    network = check_layers(alexeyab_darknet, net(9, 8, 3, *SHARED), tmp_path, tolerance=EXACT)
    check_weights(alexeyab_darknet, net(9, 8, 3, *SHARED), tmp_path)
    assert [len(layer.numbers()) for layer in network.layers] == [2, 5, 0, 0, 0]
    assert sum(p.numel() for p in network.parameters()) == (6 * 3 + 6) + (6 * 6 * 9 + 6 + 6)
    x = torch.rand(2, *network.input)
    fused = network.fuse()
    assert [len(list(layer.parameters())) for layer in fused.layers] == [2, 2, 0, 0, 0]
    torch.testing.assert_close(fused(x), network(x), atol=1e-5, rtol=1e-5)
    network.train()(x).sum().backward()
    shared = network.layers[1].weights.grad.clone()
    apart = Network(parse_cfg(net(9, 8, 3, *(section.partition("share")[0] for section in SHARED))), "gpu")
    for plain, layer in zip(apart.layers, network.layers, strict=True):
        state = dict(layer.owner.named_parameters()) | dict(layer.owner.named_buffers())
        plain.load_state_dict(state)
    apart.train()(x).sum().backward()
    torch.testing.assert_close(shared, sum(layer.weights.grad for layer in apart.layers[1:]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ("[maxpool]", r"layer 0 is [maxpool]; expected a [convolutional]"),
        (
            "[conv]\nfilters=3\nbatch_normalize=1",
            "layer 0 has filters, size, channels per group and batch_normalize (3, 1, 3, 1); expected this layer's, "
            "(3, 1, 3, 0)",
        ),
    ],
)
def test_a_layer_that_cannot_share(other, found):
    with pytest.raises(CfgError, match=r"<text>:\d+: share_index=0: ") as error:
        Network(parse_cfg(net(8, 8, 3, other, "[conv]\nfilters=3\nshare_index=0")))
    assert found in str(error.value)


XNOR = (
    "[conv]\nfilters={c}\nactivation=linear",
    "[conv]\nfilters=32\nsize=3\npad=1\nxnor=1\nbatch_normalize=1\nactivation=leaky",
    "[conv]\nfilters=5\nsize=1\nxnor=1\nactivation=linear",
)


def test_xnor_is_darknets(darknet, tmp_path):
    check_layers(darknet, net(9, 8, 3, *XNOR).format(c=8), tmp_path, tolerance=EXACT)


def alexeyabs_bits(alexeyab_darknet, cfg, weights):
    """His network as `test` and `map` run it. He forgets batch norm without fusing, and all images but the first."""
    reference = alexeyab_darknet.load_network(cfg, weights)
    reference.fuse()
    alexeyab_darknet.a.oracle_binary_weights(reference.handle)
    return reference


@pytest.mark.parametrize("c", [8, 64])
def test_xnor_counts_bits_as_alexeyabs(alexeyab_darknet, tmp_path, c):
    """He has two ways to count, by the input's channels; both take what is outside of the image for -1."""
    text = net(9, 8, 3, *XNOR).format(c=c)
    network, cfg, weights = network_of(text, tmp_path, numerics="gpu", program="alexeyab")
    reference = alexeyabs_bits(alexeyab_darknet, cfg, weights)
    x = np.random.default_rng(0).random((1, 3, 8, 9), np.float32)
    for numbers in (network, network.fuse()):
        difference, index = worst_layer(numbers, reference, x)
        assert difference <= EXACT, f"layer {index}"


@pytest.mark.parametrize("options", ["size=1", "size=3\npad=1\nstride=2"])
def test_xnor_of_any_shape(options):
    """His program cannot do these with 16 channels: in plain words."""
    text = net(7, 6, 16, f"[conv]\nfilters=5\nxnor=1\nactivation=linear\n{options}")
    layer = randomise(Network(parse_cfg(text), program="alexeyab")).layers[0]
    x = torch.randn(2, 16, 6, 7)
    ones = F.pad(torch.where(x > 0, 1.0, -1.0), [layer.padding] * 4, value=-1)
    mean = layer.weights.abs().mean((1, 2, 3)).reshape(-1, 1, 1)
    expected = F.conv2d(ones, layer.weights.sign(), None, layer.o.stride) * mean + layer.biases.reshape(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected)


def test_antialiasing_trains_and_is_routed():
    sections = ("[conv]\nfilters=4\nsize=3\npad=1\nstride=2\nantialiasing=1", "[route]\nlayers=-1,-1")
    network = Network(parse_cfg(net(8, 6, 3, *sections))).start().train()
    out = network(torch.rand(2, 3, 6, 8))
    assert out.shape == (2, 8, 3, 4)
    out.sum().backward()
    assert bool(network.layers[0].weights.grad.any())


def test_bin_output_changes_no_sign(alexeyab_darknet, tmp_path):
    """His inference leaves out the activation of such a layer; what follows takes the signs alone."""
    sections = (XNOR[0], XNOR[1] + "\nbin_output=1", "[maxpool]\nsize=2\nstride=2", XNOR[2])
    network, cfg, weights = network_of(net(8, 8, 3, *sections).format(c=32), tmp_path, numerics="gpu")
    reference = alexeyabs_bits(alexeyab_darknet, cfg, weights)
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    reference.set_batch(1)
    found = reference.predict(x).reshape(1, 5, 4, 4)
    *_, conv, _, last = network.outputs(torch.from_numpy(x))
    np.testing.assert_allclose(found, last.detach(), atol=EXACT)
    linear = reference.layer_output(1).reshape(conv.shape)
    np.testing.assert_allclose(np.where(linear > 0, linear, 0.1 * linear), conv.detach(), atol=EXACT)
    assert np.abs(linear - conv.detach().numpy()).max() > 0.1


@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
def test_binary_weights_and_their_gradients(program):
    """binarize_weights_gpu: the CPU builds pass over binary=1. backward_convolutional_layer_gpu: as if it were not."""
    text = net(6, 5, 3, "[conv]\nfilters=4\nsize=3\npad=1\nbinary=1\nactivation=linear")
    layer = randomise(Network(parse_cfg(text), program=program)).train().layers[0]
    x = torch.randn(2, 3, 5, 6).requires_grad_()
    weights = layer.weights.detach().clone()
    means = torch.tensor([sum(abs(float(w)) for w in one.flatten()) / 27 for one in weights]).reshape(4, 1, 1, 1)
    plain = (weights.sign() * means).requires_grad_()
    out, expected = layer(x), F.conv2d(x, plain, layer.biases, 1, 1)
    torch.testing.assert_close(out, expected)
    delta = torch.randn(out.shape)
    found = torch.autograd.grad(out, [x, layer.weights], delta, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [x, plain], delta))


def test_gradients_of_xnor():
    """The input's goes through where it is between -1 and 1, and outside of the image there is 0 in training."""
    layer = randomise(Network(parse_cfg(net(6, 5, 3, "[conv]\nfilters=4\nsize=3\npad=1\nxnor=1")))).train().layers[0]
    layer.activation = "linear"
    x = torch.tensor([-1.5, -0.5, 0.0, 0.5, 1.5]).repeat(18).reshape(1, 3, 5, 6).requires_grad_()
    ones = torch.where(x > 0, 1.0, -1.0).detach().requires_grad_()
    weights = binary_weights(layer.weights).detach()
    out, expected = layer(x), F.conv2d(ones, weights, layer.biases, 1, 1)
    torch.testing.assert_close(out, expected)
    delta = torch.randn(out.shape)
    (found,), (through,) = torch.autograd.grad(out, [x], delta), torch.autograd.grad(expected, [ones], delta)
    torch.testing.assert_close(found, torch.where(x.detach().abs() < 1, through, torch.zeros(())))


@pytest.mark.parametrize(
    "option", ["cbn=1", "batch_normalize=2", "sway=1", "reverse=.5", "assisted_excitation=4000", "coordconv=1"]
)
def test_what_alexeyabs_trains_a_convolution_by_is_refused(option):
    """Each changes training alone; in inference they are passed over."""
    network = Network(parse_cfg(net(8, 8, 3, f"[conv]\nfilters=4\nsize=3\n{option}"), "x.cfg"), program="alexeyab")
    name = option.partition("=")[0].replace("batch_normalize", "cbn")
    with pytest.raises(CfgError, match=rf"x\.cfg:\d+: .*: training with {name} is not built here; expected no such"):
        freeze(network)


def test_rows_of_alexeyabs_kinds():
    sections = [
        "[conv]\nfilters=8\nsize=3\npad=1\nxnor=1", "[conv]\nfilters=8\nsize=3\npad=1\nxnor=1\nbin_output=1",
        "[conv]\nfilters=8\nsize=3\npad=1\ndilation=2", "[conv]\nfilters=8\nsize=3\npad=1\nshare_index=-1",
        "[conv]\nfilters=4\nsize=3\npad=1\nstride_x=2",
    ]  # fmt: skip
    rows = Network(parse_cfg(net(32, 32, 8, *sections)), program="alexeyab").table().splitlines()[1:]
    starts = ("convX     8  3 x 3 / 1", "convXB    8  3 x 3 / 1", "conv      8  3 x 3/ 1(2)", "convS     8  3 x 3 / 1",
              "conv      4  3x 3/ 2x 1")  # fmt: skip
    for row, start in zip(rows, starts, strict=False):
        assert row[6:].startswith(start), row
        assert "  32 x  32 x   8   ->  " in row


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
        ("filters=4\nsize=3\ndilation=2", "padding 0 with dilation=2; expected pad=1 and an odd size"),
        ("filters=4\nsize=2\npad=1\ndilation=2", "padding 1 with dilation=2; expected pad=1 and an odd size"),
        ("filters=4\ndilation=0", "dilation is 0; expected 1 or more"),
        ("filters=4\nshare_index=0", "share_index names layer 0; expected a layer before, but this is the first"),
        ("filters=4\nsize=3\nsway=1\nrotate=1", "expected one of sway, rotate, stretch and stretch_sway, or none"),
    ],
)
def test_errors_name_the_line(options, found):
    with pytest.raises(CfgError, match="<text>:") as error:
        Network(parse_cfg(net(8, 8, 3, f"[convolutional]\n{options}")))
    assert found in str(error.value)
    assert "\n" not in str(error.value)


def test_start_values_are_alexeyabs(alexeyab_darknet, tmp_path):
    """Uniform up to sqrt(2 / (size*size*c/groups)); the rest as in pjreddie's program."""
    cfg = tmp_path / "net.cfg"
    cfg.write_text(net(9, 9, 48, "[conv]\nfilters=64\nsize=5\ngroups=4\nbatch_normalize=1"))
    theirs = alexeyab_darknet.load_network(cfg).layer_tensor(0, "weights")
    torch.manual_seed(0)
    layer = Network(parse_cfg(cfg.read_text()), program="alexeyab").start().layers[0]
    ours = layer.weights.detach().numpy()
    for weights in (theirs, ours):
        assert np.abs(weights).max() == pytest.approx((2 / (25 * 12)) ** 0.5, rel=0.001)
        assert weights.std() == pytest.approx((2 / (25 * 12)) ** 0.5 / 3**0.5, rel=0.02)
    assert float(layer.scales.min()) == float(layer.scales.max()) == 1


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
