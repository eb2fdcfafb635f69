from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.train.step import Trainer
from tests.compare import net
from tests.layers.class_cases import START, check_loss

HEAD = "[cost]\n{}"


@pytest.mark.parametrize("options", ["", "scale=2.5", "type=masked"])
def test_alone_its_errors_are_darknets(library, tmp_path, options):
    check_loss(library, tmp_path, HEAD.format(options), spread=3)


@pytest.mark.parametrize("options", ["type=L1\nscale=.5", "type=seg\nnoobj=.2", "type=wgan"])
def test_types_that_pjreddie_alone_has(darknet, tmp_path, options):
    """seg and wgan are the squared error on a CPU."""
    check_loss(darknet, tmp_path, HEAD.format(options), spread=3)
    with pytest.raises(CfgError, match=r"no cost is called '(L1|seg|wgan)'; expected one of sse, masked, smooth"):
        Network(parse_cfg(net(5, 4, 3, *START, HEAD.format(options))), program="alexeyab")


def test_smooth_errors_are_darknets_but_for_a_sign(darknet):
    """From 1 on the CPU's smooth_l1 hands back the opposite of its own derivative, the GPU's the derivative."""
    head = Network(parse_cfg(net(4, 1, 1, "[cost]\ntype=smooth"))).heads[0]
    raw = torch.tensor([[0.5, 3.0, -3.0, 0.0]], requires_grad=True)
    found = head.loss(raw, torch.tensor([[1.0, 0, 1, 0]]), 0)
    (gradient,) = torch.autograd.grad(found.loss, raw)
    np.testing.assert_allclose(-gradient.numpy(), [[0.5, -1, 1, 0]])
    assert float(found.figures.cost) == pytest.approx(0.25 + 5 + 7)
    theirs = {name: np.empty(4, np.float32) for name in ("delta", "error")}
    values = (raw.detach().numpy().ravel(), np.array([1, 0, 1, 0], np.float32), *theirs.values())
    darknet.lib.smooth_l1_cpu(4, *(ctypes.c_void_p(value.ctypes.data) for value in values))
    np.testing.assert_allclose(theirs["delta"], [0.5, 1, -1, 0])
    assert theirs["error"].sum() == pytest.approx(0.25 + 5 + 7)


def test_smooth_errors_are_alexeyabs(alexeyab_darknet, tmp_path):
    """His CPU's sign is right."""
    check_loss(alexeyab_darknet, tmp_path, HEAD.format("type=smooth"))


def test_it_says_that_it_counts_twice():
    def remark(*sections):
        return Network(parse_cfg(net(5, 4, 3, *START, *sections))).heads[-1].remark

    assert "adds truth - p to what layer 2 [softmax] has added already" in remark("[softmax]", "[cost]")
    assert "counts twice" in remark("[softmax]", "[cost]")
    assert "counts 1.5 times" in remark("[softmax]", "[cost]\nscale=.5")
    assert "layer 2 [logistic]" in remark("[logistic]", "[cost]")
    assert remark("[cost]") is remark("[softmax]\nnoloss=1", "[cost]") is remark("[softmax]") is None


@pytest.mark.parametrize("option", ["ratio", "thresh"])
def test_what_the_gpu_alone_leaves_out_is_refused(option):
    with pytest.raises(CfgError, match=f"training with {option} is not built here"):
        Trainer(Network(parse_cfg(net(5, 4, 3, "max_batches=9", *START, f"[cost]\n{option}=.1"))))
