"""Heads that classify, here and in a library: random networks and truths, and how far the two are apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.train.step import network_cost
from tests.compare import net, network_of

CLASSES, IMAGES = 12, 5
START = ["[conv]\nfilters=3\nsize=3\npad=1\nactivation=leaky", f"[connected]\noutput={CLASSES}\nactivation=linear"]


def truths(kind, rng):
    """``one`` class of each image, ``some`` or none, or ``smooth``: numbers from 0 to 1 that are nowhere 0."""
    truth = np.zeros((IMAGES, CLASSES), np.float32)
    if kind == "one":
        truth[np.arange(IMAGES), rng.integers(0, CLASSES, IMAGES)] = 1
    elif kind == "some":
        truth[rng.random(truth.shape) < 0.3] = 1
        truth[0] = 0
    else:
        truth[:] = 0.1 / (CLASSES - 1)
        truth[np.arange(IMAGES), rng.integers(0, CLASSES, IMAGES)] = 0.9
    return truth


def losses(network, x, truth):
    """The delta that reaches what the first head reads, and the figures of all heads."""
    maps = network.train().raw_maps(torch.from_numpy(x))
    found = [head.loss(raw, torch.from_numpy(truth), 0) for head, raw in zip(network.heads, maps, strict=True)]
    (gradient,) = torch.autograd.grad(sum(one.loss for one in found), maps[0])
    return -gradient.flatten(1).numpy(), [one.figures for one in found]


def check_loss(library, folder, *heads, kinds=("one", "some", "smooth"), spread=1.0):
    """Costs of each head, the network's, and what is handed back, for truths of all ``kinds``."""
    for seed, kind in enumerate(kinds):
        rng = np.random.default_rng(seed)
        x = (spread * rng.normal(size=(IMAGES, 3, 4, 5))).astype(np.float32)
        truth = truths(kind, rng)
        network, cfg, weights = network_of(
            net(5, 4, 3, *START, *heads, batch=IMAGES), folder, seed, program=library.program
        )
        delta, figures = losses(network, x, truth)
        reference = library.load_network(cfg, weights)
        step = reference.train_step(x, truth, update=False)
        expected = reference.layer_tensor(1, "delta").reshape(IMAGES, CLASSES)
        np.testing.assert_allclose(delta, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        for head, one in zip(network.heads, figures, strict=True):
            (cost,) = reference.layer_tensor(head.index, "cost")
            assert float(one.cost) == pytest.approx(float(cost), rel=2e-5)
        assert float(network_cost(figures)) == pytest.approx(step.cost, rel=2e-5)
        assert np.abs(expected).max() > 0.1
        values = reference.layer_output(1)
        right = (truth[np.arange(IMAGES), values.argmax(1)] == truth.max(1)) & truth.any(1)
        assert (float(figures[0].right), float(figures[0].images)) == (right.sum(), IMAGES)
