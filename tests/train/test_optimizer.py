"""The update rules against Darknet's, written out as its C code has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.train.optimizer import Gradients, change_images, clip_weights, freeze, make_optimizer, set_rate
from darknet_compat.train.step import Trainer
from tests.train.nets import small

BATCH = 8


def sgd_of_darknet(weights, updates, rate, momentum, decay):
    """update_convolutional_layer: ``updates`` is the buffer that holds the sums and, scaled, the momentum."""
    updates = updates - decay * BATCH * weights
    weights = weights + rate / BATCH * updates
    return weights, updates * momentum


def adam_of_darknet(weights, d, m, v, b1, b2, eps, decay, rate, t):
    """adam_update_gpu."""
    m, v = m * b1, v * b2
    d = d - decay * BATCH * weights
    m, v = m + (1 - b1) * d, v + (1 - b2) * d * d
    return weights + rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def network(net=""):
    torch.manual_seed(2)
    return load_network(parse_cfg(small(net, first="learning_rate=3"))).train()


def sums(network, seed):
    """Darknet's updates of every parameter: the sum over the images of minus the gradient."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=tuple(p.shape)) for name, p in network.named_parameters()}


def run(network, steps, rates):
    gradients = Gradients(network, extra=0)
    optimizer = make_optimizer(network)
    for step, rate in zip(steps, rates, strict=True):
        gradients.zero()
        for name, parameter in network.named_parameters():
            parameter.grad.copy_(torch.from_numpy(-step[name] / BATCH))
        set_rate(optimizer, rate, BATCH)
        optimizer.step()
        clip_weights(network)
    return {name: parameter.detach().double().numpy() for name, parameter in network.named_parameters()}


RATES = [0.01, 0.02, 0.005, 0.01]


@pytest.mark.parametrize("adam", [0, 1])
def test_one_pass_over_the_numbers_on_a_cpu(adam):
    """But not where a scaler may leave out the first step, nor elsewhere: torch's own choice."""
    net = network(f"adam={adam}")
    assert all(group["fused"] for group in make_optimizer(net).param_groups)
    assert not any(group["fused"] for group in make_optimizer(net, scaled=True).param_groups)
    assert not any(group["fused"] for group in make_optimizer(net.to("meta")).param_groups)


def test_sgd_is_darknets():
    net = network()
    steps = [sums(net, seed) for seed in range(4)]
    expected = {}
    for name, parameter in net.named_parameters():
        weights, buffer = parameter.detach().double().numpy(), 0
        for step, rate in zip(steps, RATES, strict=True):
            rate *= 3 if name.startswith("layers.0.") else 1
            decay = 0.0005 if name.endswith(".weights") else 0  # neither biases nor scales
            weights, buffer = sgd_of_darknet(weights, buffer + step[name], rate, 0.9, decay)
        expected[name] = weights
    got = run(net, steps, RATES)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("eps", [1e-7, 0.5])
def test_adam_is_darknets(eps):
    """With a large eps too, where the division by the images of an update shows."""
    net = network(f"adam=1\nB1=0.8\nB2=0.99\neps={eps}\ndecay=0.01")
    steps = [sums(net, seed) for seed in range(4)]
    expected = {}
    for name, parameter in net.named_parameters():
        weights, m, v = parameter.detach().double().numpy(), 0, 0
        for t, (step, rate) in enumerate(zip(steps, RATES, strict=True), 1):
            rate *= 3 if name.startswith("layers.0.") else 1
            # adam_update_gpu decays whatever it is given: biases and scales too.
            weights, m, v = adam_of_darknet(weights, step[name], m, v, 0.8, 0.99, eps, 0.01, rate, t)
        expected[name] = weights
    got = run(net, steps, RATES)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("adam", [0, 1])
def test_an_update_of_more_images_takes_the_sums_of_the_others_along(adam):
    """dynamic_minibatch: Darknet keeps sums over images, and divides them by those of the update that applies them."""
    net = network(f"adam={adam}\nB1=0.8\nB2=0.99\neps=0.5\ndecay=0")
    optimizer, gradients, shown = make_optimizer(net), Gradients(net, extra=0), 8
    steps, expected = [sums(net, seed) for seed in range(4)], {}
    for name, parameter in net.named_parameters():
        weights, buffer, m, v = parameter.detach().double().numpy(), 0, 0, 0
        for t, (step, rate, images) in enumerate(zip(steps, RATES, (8, 14, 10, 8), strict=True), 1):
            rate *= 3 if name.startswith("layers.0.") else 1
            if adam:
                weights, m, v = adam_of_darknet(weights, step[name], m, v, 0.8, 0.99, 0.5, 0, rate, t)
            else:
                buffer = buffer + step[name]
                weights, buffer = weights + rate / images * buffer, buffer * 0.9
        expected[name] = weights
    for step, rate, images in zip(steps, RATES, (8, 14, 10, 8), strict=True):
        gradients.zero()
        for name, parameter in net.named_parameters():
            parameter.grad.copy_(torch.from_numpy(-step[name] / images))
        change_images(optimizer, shown, images)
        set_rate(optimizer, rate, images)
        optimizer.step()
        shown = images
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(parameter.detach(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("sections", "line"),
    [("[maxpool]\n" * 2, 6), ("[maxpool]\n" * 3, 7), ("[conv]\nstopbackward=1\n" * 2 + "[maxpool]\n", 7)],
)
def test_nothing_left_to_train_is_refused_at_its_section(sections, line):
    """The last one, where none has weights; the one that cuts off all weights."""
    cfg = parse_cfg(f"[net]\nwidth=4\nheight=4\nchannels=3\n{sections}")
    with pytest.raises(CfgError, match=rf"^<text>:{line}: .*no layer with weights is left to train"):
        freeze(load_network(cfg))


@pytest.mark.parametrize(
    ("line", "classifiers", "detectors"),
    [("mixup=1", True, True), ("cutmix=1", True, True), ("mosaic=1", True, True), ("label_smooth_eps=.1", True, False),
     ("mosaic_bound=1", False, True), ("blur=1", False, True), ("gaussian_noise=5", False, True),
     ("ema_alpha=.9", True, True), ("dynamic_minibatch=1", True, True), ("track=1", False, False)],
)  # fmt: skip
def test_what_alexeyabs_loader_makes_of_images_is_for_one_kind_or_both(line, classifiers, detectors):
    classifier = f"[net]\nwidth=8\nheight=8\nchannels=3\n{line}\n[connected]\noutput=4\n[softmax]\n"
    for text, built in ((classifier, classifiers), (small(net=line), detectors)):
        if built:
            freeze(load_network(parse_cfg(text)))
            continue
        with pytest.raises(CfgError, match=f"training with {line.split('=')[0]} is not built here"):
            freeze(load_network(parse_cfg(text)))


def test_clip_holds_the_weights_of_convolutions():
    net = network("clip=0.1")
    got = run(net, [sums(net, 0)], [5.0])
    for name, values in got.items():
        assert (np.abs(values).max() <= 0.1 + 1e-7) == name.endswith(".weights"), name


def test_clip_leaves_what_is_within():
    net = network("clip=0.1")
    (layer, *_) = net.layers
    with torch.no_grad():
        layer.weights.copy_(torch.linspace(-0.2, 0.2, layer.weights.numel()).reshape(layer.weights.shape))
    expected = layer.weights.detach().clamp(-0.1, 0.1)
    clip_weights(net)
    assert torch.equal(layer.weights, expected)


def test_clip_leaves_other_layers():
    """update_connected_layer_gpu has no constrain_gpu."""
    net = load_network(parse_cfg("[net]\nwidth=2\nheight=2\nchannels=3\nclip=.1\n[connected]\noutput=9\n"))
    before = net.layers[0].weights.detach().clone()
    clip_weights(net)
    assert before.abs().max() > 0.1
    assert torch.equal(net.layers[0].weights, before)


def test_gradients_are_one_tensor_in_each_parameters_own_format():
    net = network().to(memory_format=torch.channels_last)
    gradients = Gradients(net, extra=2)
    [out] = net.raw_maps(torch.rand(2, 3, 32, 32))
    out.square().sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    assert gradients.sums.numel() == sum(parameter.numel() for parameter in net.parameters())
    assert gradients.extra.tolist() == [0, 0]
    assert len(gradients.flat) == len(gradients.sums) + 2
    assert float(gradients.sums.double().sum()) == pytest.approx(
        sum(float(g.double().sum()) for g in expected.values())
    )
    gradients.flat.mul_(2)
    for name, parameter in net.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name
        assert torch.equal(parameter.grad, 2 * expected[name]), name


FROZEN = """[net]
width=16
height=16
channels=3
batch=2
max_batches=2
[conv]
batch_normalize=1
filters=4
[dropout]
[conv]
batch_normalize=1
filters=4
[maxpool]
[conv]
batch_normalize=1
filters=4
stopbackward=1
[conv]
filters=14
activation=linear
[{}]
mask=0,1
anchors=4,4, 8,8
classes=2
num=2
"""


@pytest.mark.parametrize(("program", "frozen"), [("alexeyab", [0, 2]), ("pjreddie", [])])
def test_layers_with_weights_before_stopbackward_are_as_in_detection(program, frozen):
    """In AlexeyAB's program, and from the first update on; what drops, drops. In pjreddie's their statistics move."""
    network = load_network(parse_cfg(FROZEN.format("yolo")), program=program)
    trainer = Trainer(network)
    assert [layer.index for layer in network.layers if layer.frozen] == frozen
    assert [layer.index for layer in network.layers if not layer.training] == frozen
    assert [layer.index for layer in network.layers if any(p.requires_grad for p in layer.parameters())] == [5]
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert [layer.index for layer in network.layers if any(id(p) in held for p in layer.parameters())] == [
        index for index in (0, 2, 4, 5) if index not in frozen
    ]
