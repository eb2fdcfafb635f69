"""[activation], [avgpool], [dropout] and [cost]: one short check each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.activation import ACROSS_CHANNELS, ACTIVATIONS, ALEXEYAB_ACTIVATIONS
from darknet_compat.network import Network
from tests.compare import check_layers, net, network_of
from tests.oracle import ACTIVATIONS as PJREDDIES

CONV = "[conv]\nfilters=4\nactivation=linear"


def test_every_activation_is_in_one_list():
    assert sorted([*PJREDDIES, *ALEXEYAB_ACTIVATIONS]) == sorted(ACTIVATIONS)


@pytest.mark.parametrize("activation", sorted(PJREDDIES))
def test_activation_values_and_gradients_are_darknets(darknet, activation):
    x = torch.linspace(-6.031, 6.013, 1001, requires_grad=True)
    y = ACTIVATIONS[activation](x)
    expected = darknet.activate(x.detach().numpy(), activation)
    torch.testing.assert_close(y.detach(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)
    y.sum().backward()
    gradient = darknet.gradient(expected, activation)
    torch.testing.assert_close(x.grad, torch.from_numpy(gradient), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("activation", sorted(PJREDDIES))
def test_gradients_where_two_pieces_meet_are_darknets(darknet, activation):
    """A value is exactly 0 more often than others: where all of an image is black, say."""
    x = torch.arange(-5.0, 6.0).requires_grad_()
    y = ACTIVATIONS[activation](x)
    expected = darknet.activate(x.detach().numpy(), activation)
    torch.testing.assert_close(y.detach(), torch.from_numpy(expected), atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.from_numpy(darknet.gradient(expected, activation)), atol=1e-4, rtol=1e-3)


def test_selu_of_large_values_has_a_gradient():
    x = torch.tensor([-1000.0, 1000.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(ACTIVATIONS["selu"](x).sum(), x)
    assert gradient.tolist() == pytest.approx([0, 1.0507])


# Around every bound, and far beyond: softplus is the value itself from 20 on.
SPAN = torch.tensor([*torch.linspace(-7.03, 7.01, 701).tolist(), -30.5, -19.9, 19.9, 20.1, 30.5])


def formula(name: str, x: torch.Tensor) -> torch.Tensor:
    """activations.c of AlexeyAB's program, in float64."""
    x = x.double()
    if name == "hard_mish":
        return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))
    return {
        "relu6": lambda: x.clamp(0, 6),
        "gelu": lambda: 0.5 * x * (1 + torch.tanh(0.797885 * x + 0.035677 * x**3)),
        "mish": lambda: x * torch.tanh(torch.where(x > 20, x, torch.log1p(torch.exp(x.clamp(max=20))))),
        "swish": lambda: x / (1 + torch.exp(-x)),
        "revleaky": lambda: torch.where(x > 0, x, 0.1 * x),
    }[name]()


@pytest.mark.parametrize("activation", sorted(set(ALEXEYAB_ACTIVATIONS) - set(ACROSS_CHANNELS)))
def test_activations_of_alexeyabs_program_and_their_true_gradients(activation):
    """The formulas of his activations.c; the gradient is the formula's, also where his own is another (gelu)."""
    x, exact = SPAN.clone().requires_grad_(), SPAN.double().requires_grad_()
    y, expected = ACTIVATIONS[activation](x), formula(activation, exact)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(out.sum(), inputs)[0].double() for out, inputs in ((y, x), (expected, exact))]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", ACROSS_CHANNELS)
def test_gradients_across_channels_are_the_derivatives(activation):
    x = torch.randn(2, 5, 2, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(ACTIVATIONS[activation], x)


def test_relu6_is_not_what_alexeyabs_cpu_makes_of_it(alexeyab_darknet):
    """activate() lacks the case and gives 0; relu6_activate, which the GPU runs, clamps."""
    x = torch.tensor([-1.0, 0.5, 7.0])
    assert alexeyab_darknet.activate(x.numpy(), "relu6").tolist() == [0, 0, 0]
    assert ACTIVATIONS["relu6"](x).tolist() == [0, 0.5, 6]


def test_a_logistic_far_below_0_is_not_what_alexeyabs_cpu_makes_of_it(alexeyab_darknet):
    """e^88.73 is infinite in float32. His Makefile's -Ofast makes the quotient of a reciprocal's estimate and a step
    that makes it better, 0 * infinity: NaN. It takes four values at a time; of those left over it divides."""
    x = torch.linspace(-200, -80, 1023)
    theirs, ours = alexeyab_darknet.activate(x.numpy(), "logistic"), ACTIVATIONS["logistic"](x).numpy()
    far = (x < -88.73).numpy()
    assert (np.isnan(theirs) | (theirs == 0))[far].all()
    np.testing.assert_allclose(ours, 1 / (1 + np.exp(-x.double().numpy())), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(theirs[~far], ours[~far], rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("section", ["[connected]\noutput=7", "[activation]"])
@pytest.mark.parametrize("activation", ["swish", "mish", "hard_mish", "normalize_channels"])
def test_activations_work_after_every_section(alexeyab_darknet, tmp_path, section, activation):
    """His [connected] and [activation] give 0 for these on the CPU."""
    sections = (CONV, f"{section}\nactivation={activation}")
    network, cfg, weights = network_of(net(6, 5, 3, *sections), tmp_path)
    reference = alexeyab_darknet.load_network(cfg, weights)
    x = torch.rand(2, 3, 5, 6)
    assert not reference.predict(x.numpy()).any()
    plain = Network(parse_cfg(net(6, 5, 3, CONV, f"{section}\nactivation=linear"))).eval()
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(x), ACTIVATIONS[activation](plain(x)))


def test_activation_layer(library, tmp_path):
    check_layers(library, net(6, 5, 3, CONV, "[activation]\nactivation=leaky"), tmp_path)


def test_avgpool(library, tmp_path):
    check_layers(library, net(6, 5, 3, CONV, "[avgpool]"), tmp_path)
    assert Network(parse_cfg(net(6, 5, 3, "[avgpool]")))(torch.rand(2, 3, 5, 6)).shape == (2, 3, 1, 1)


def test_dropout_does_nothing_in_inference(library, tmp_path):
    check_layers(library, net(6, 5, 3, CONV, "[dropout]\nprobability=.3", "[connected]\noutput=5"), tmp_path)


def test_dropout_in_training_changes_the_layer_before():
    network = Network(parse_cfg(net(6, 5, 3, CONV, "[dropout]", "[route]\nlayers=0,1"))).start().train()
    with torch.no_grad():
        network.layers[0].biases.fill_(1)
    first, second = network(torch.rand(2, 3, 5, 6)).chunk(2, 1)
    assert torch.equal(first, second)
    assert (first == 0).any()


def test_dropout_scales_what_it_keeps():
    """src/dropout_layer.c: a value is 0 with chance p, else times 1/(1-p)."""
    torch.manual_seed(0)
    network = Network(parse_cfg(net(100, 100, 3, "[dropout]\nprobability=.2"))).train()
    out = network(torch.ones(1, 3, 100, 100))
    assert out.unique().tolist() == [0, 1.25]
    assert float((out == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_a_chance_of_0_drops_nothing_and_one_below_is_refused():
    network = Network(parse_cfg(net(6, 5, 3, "[dropout]\nprobability=0"))).train()
    assert bool((network(torch.ones(1, 3, 5, 6)) == 1).all())
    with pytest.raises(CfgError, match=r"probability is -0\.1; expected 0 or more and under 1"):
        Network(parse_cfg(net(6, 5, 3, "[dropout]\nprobability=-.1")))


def test_dropout_of_everything_is_refused():
    with pytest.raises(CfgError, match="probability is 1"):
        Network(parse_cfg(net(6, 5, 3, "[dropout]\nprobability=1")))


@pytest.mark.parametrize("kind", ["sse", "masked", "smooth", "L1", "seg", "wgan"])
def test_cost_hands_on_what_it_gets(kind):
    network = Network(parse_cfg(net(6, 5, 3, f"[cost]\ntype={kind}")))
    x = torch.rand(2, 3, 5, 6)
    assert torch.equal(network(x), x)


@pytest.mark.parametrize(("program", "kind"), [("pjreddie", "mse"), ("alexeyab", "L1")])
def test_a_cost_of_unknown_type_is_refused(program, kind):
    """get_cost_type takes sse for it, with a message."""
    with pytest.raises(CfgError, match=rf"<text>:7: type={kind}: no cost is called '{kind}'; expected one of .*smooth"):
        Network(parse_cfg(net(6, 5, 3, f"[cost]\ntype={kind}")), program=program)


def test_iseg_is_one_clear_line():
    """Instance segmentation, of which no cfg and no weights were published."""
    with pytest.raises(
        CfgError, match=r"<text>:6: \[iseg\]: \[iseg\] is a section of Darknet that is not built here yet"
    ):
        Network(parse_cfg(net(6, 5, 3, "[iseg]")))
