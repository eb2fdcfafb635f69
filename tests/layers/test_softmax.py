from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.train.crop_augment import fill_hierarchy
from darknet_compat.tree import SECRET_NUM, read_tree
from tests.compare import TOLERANCE, check_layers, net, network_of, worst_layer
from tests.layers.class_cases import CLASSES, START, check_loss, losses, truths

TREE = "animal -1\nthing -1\ncat 0\ndog 0\nbird 0\ncup 1\nball 1\npuppy 3\nhound 3\n"


@pytest.mark.parametrize("options", ["", "groups=3", "temperature=2.5"])
def test_outputs_are_darknets(library, tmp_path, options):
    conv = "[conv]\nfilters=3\nactivation=linear"  # AlexeyAB's parser divides by the number of layers with a map
    sections = [conv, "[connected]\noutput=12\nactivation=linear", f"[softmax]\n{options}"]
    check_layers(library, net(5, 4, 3, *sections), tmp_path)


def test_over_a_map(darknet, tmp_path):
    """All values of an image together, channels, rows and columns."""
    check_layers(darknet, net(5, 4, 3, "[conv]\nfilters=4\nactivation=linear", "[softmax]\ngroups=2"), tmp_path)


@pytest.mark.parametrize("temperature", [1, 2.5])
def test_with_a_tree(darknet, tmp_path, temperature):
    (tmp_path / "small.tree").write_text(TREE)
    end = f"[softmax]\ntree={tmp_path}/small.tree\ntemperature={temperature}"
    check_layers(darknet, net(5, 4, 3, "[connected]\noutput=9\nactivation=linear", end), tmp_path)


@pytest.mark.parametrize("output", [8, 10])
def test_a_tree_of_other_classes_is_refused(tmp_path, output):
    (tmp_path / "small.tree").write_text(TREE)
    text = net(5, 4, 3, f"[connected]\noutput={output}", f"[softmax]\ntree={tmp_path}/small.tree")
    with pytest.raises(CfgError, match=rf"/small\.tree has 9 classes; expected {output}$"):
        Network(parse_cfg(text))


def test_groups_that_do_not_divide():
    with pytest.raises(CfgError, match="60 values do not divide into 7 groups"):
        Network(parse_cfg(net(5, 4, 3, "[softmax]\ngroups=7")))


@pytest.mark.parametrize("options", ["", "temperature=3", "groups=7"])
def test_spatial(darknet, options):
    """Over the channels of each place, as softmax_cpu gives it where it is called so."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    network = Network(parse_cfg(net(5, 4, 3, f"[softmax]\nspatial=1\n{options}")))
    expected = darknet.softmax(x, n=3, batch=2, batch_offset=60, groups=20, group_offset=1, stride=20)
    torch.testing.assert_close(network(torch.from_numpy(x)), torch.from_numpy(expected))


def test_darknets_cpu_passes_over_spatial(darknet, tmp_path):
    """It makes one group of all values; the GPU's call walks over batch*c images, so beyond its memory."""
    text = net(5, 4, 3, "[conv]\nfilters=4\nactivation=linear", "[softmax]\n{}")
    plain = network_of(text.format(""), tmp_path)
    network, cfg, weights = network_of(text.format("spatial=1"), tmp_path)
    x = np.random.default_rng(1).random((2, 3, 4, 5), np.float32)
    assert worst_layer(plain[0], darknet.load_network(cfg, weights), x)[0] <= TOLERANCE
    assert worst_layer(network, darknet.load_network(cfg, weights), x)[0] > 0.5


def test_noloss_changes_no_value(darknet, tmp_path):
    check_layers(darknet, net(5, 4, 3, "[connected]\noutput=12\nactivation=linear", "[softmax]\nnoloss=1"), tmp_path)


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        *((options, cost) for options in ("", "groups=3", "temperature=2.5") for cost in ([], ["[cost]"])),
        ("noloss=1", ["[cost]"]),
        ("groups=2", ["[cost]\nscale=.5"]),
    ],
)
def test_losses_are_darknets(library, tmp_path, options, cost):
    """truth - p, whatever the temperature; a [cost] behind it adds its own, and half of each is the network's cost."""
    check_loss(library, tmp_path, f"[softmax]\n{options}", *cost)


def test_the_loss_alone_is_the_cross_entropy():
    """The delta is then its true derivative."""
    rng = np.random.default_rng(3)
    network = Network(parse_cfg(net(5, 4, 3, *START, "[softmax]"))).start()
    x, truth = rng.random((5, 3, 4, 5), np.float32), truths("one", rng)
    delta, (figures,) = losses(network, x, truth)
    logits = network.outputs(torch.from_numpy(x))[1].flatten(1).detach().requires_grad_()
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(truth), reduction="sum")
    torch.testing.assert_close(figures.cost, expected.detach())
    expected.backward()
    np.testing.assert_allclose(delta, -logits.grad.numpy(), atol=1e-6)


def test_a_probability_that_rounds_to_0_has_a_cost_that_is_a_number():
    """Darknet's is infinite from there on."""
    head = Network(parse_cfg(net(3, 1, 1, "[softmax]"))).heads[0]
    found = head.loss(torch.tensor([[200.0, 0, 0]]), torch.tensor([[0.0, 1, 0]]), 0)
    assert float(found.figures.cost) == 200


def test_outside_of_training_its_gradient_is_its_own():
    """Only the losses see Darknet's way through it."""
    network = Network(parse_cfg(net(3, 2, 2, "[softmax]", "[cost]"))).start()
    logits = torch.rand(2, CLASSES).reshape(2, 2, 2, 3).requires_grad_()
    p = network(logits)
    p.flatten(1)[:, 0].sum().backward()
    q = p.detach().flatten(1)
    expected = q[:, :1] * (torch.eye(CLASSES)[0] - q)
    torch.testing.assert_close(logits.grad.flatten(1), expected)


def tree_truth(tree):
    """Image 0 shows a puppy, image 1 an animal of no known kind, image 2 nothing, image 3 a ball."""
    truth = np.zeros((4, 9), np.float32)
    for row, label in zip(truth, (7, 0, None, 6), strict=True):
        if label is not None:
            row[label] = 1
        fill_hierarchy(row, tree)
    return truth


@pytest.mark.parametrize(
    ("cost", "temperature"), [([], 1), (["[cost]\ntype=masked"], 1), ([], 2.5)], ids=["alone", "masked", "temperature"]
)
def test_groups_of_which_nothing_is_known_do_not_train(darknet, tmp_path, cost, temperature):
    """As on the GPU: where the mark stands, delta and loss are 0. The CPU's delta there is -1234, which is left out."""
    file = tmp_path / "small.tree"
    file.write_text(TREE)
    truth = tree_truth(read_tree(file))
    known = truth != SECRET_NUM
    assert 0 < known.sum() < known.size
    sections = ["[connected]\noutput=9\nactivation=linear", f"[softmax]\ntree={file}\ntemperature={temperature}", *cost]
    network, cfg, weights = network_of(net(5, 4, 3, *sections, batch=4), tmp_path)
    x = np.random.default_rng(4).random((4, 3, 4, 5), np.float32)
    delta, figures = losses(network, x, truth)
    reference = darknet.load_network(cfg, weights)
    reference.train_step(x, truth, update=False)
    expected = reference.layer_tensor(0, "delta").reshape(4, 9)
    assert (expected[~known] < -1000).all()
    np.testing.assert_allclose(delta, np.where(known, expected, 0), rtol=1e-5, atol=1e-6)
    p = network.outputs(torch.from_numpy(x))[1].flatten(1).numpy(force=True)
    there = known & (truth != 0)
    assert float(figures[0].cost) == pytest.approx(-np.log(p[there]).sum(), rel=1e-5)
    if cost:
        assert float(figures[1].cost) == pytest.approx(np.square(truth - p)[known].sum(), rel=1e-5)
        assert float(figures[1].cost) == pytest.approx(float(reference.layer_tensor(2, "cost")[0]), rel=1e-5)


def test_a_cost_that_masks_nothing_takes_the_mark_for_a_truth(darknet, tmp_path):
    file = tmp_path / "small.tree"
    file.write_text(TREE)
    truth = tree_truth(read_tree(file))
    sections = ["[connected]\noutput=9\nactivation=linear", f"[softmax]\ntree={file}", "[cost]"]
    network, cfg, weights = network_of(net(5, 4, 3, *sections, batch=4), tmp_path)
    x = np.random.default_rng(4).random((4, 3, 4, 5), np.float32)
    _, figures = losses(network, x, truth)
    reference = darknet.load_network(cfg, weights)
    reference.train_step(x, truth, update=False)
    assert float(figures[1].cost) == pytest.approx(float(reference.layer_tensor(2, "cost")[0]), rel=1e-5)
    assert float(figures[1].cost) > SECRET_NUM**2


def test_spatial_losses_go_place_by_place():
    rng = np.random.default_rng(5)
    head = Network(parse_cfg(net(5, 4, 3, "[softmax]\nspatial=1"))).heads[0]
    raw = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)).astype(np.float32)).requires_grad_()
    classes = torch.from_numpy(rng.integers(0, 3, (2, 4, 5)))
    truth = torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    found = head.loss(raw, truth.flatten(1), 0)
    expected = torch.nn.functional.cross_entropy(raw, classes, reduction="sum")
    torch.testing.assert_close(found.figures.cost, expected.detach())
    (ours,), (theirs,) = torch.autograd.grad(found.loss, raw), torch.autograd.grad(expected, raw)
    torch.testing.assert_close(ours, theirs)


def test_a_truth_of_boxes_is_refused():
    head = Network(parse_cfg(net(5, 4, 3, *START, "[softmax]"))).heads[0]
    with pytest.raises(CfgError, match=r"a truth of shape \(2, 30, 5\); expected \(2, 12\)"):
        head.loss(torch.zeros(2, 12, 1, 1), torch.zeros(2, 30, 5), 0)
