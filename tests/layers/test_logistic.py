from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net
from tests.layers.class_cases import check_loss

CONV = "[conv]\nfilters=7\nactivation=linear"


def test_outputs_are_darknets(darknet, tmp_path):
    check_layers(darknet, net(5, 4, 3, CONV, "[logistic]"), tmp_path)


def test_it_is_pjreddies_alone_and_takes_no_other_size():
    with pytest.raises(CfgError, match=r"only the program pjreddie has \[logistic\]"):
        Network(parse_cfg(net(3, 2, 3, "[logistic]")), program="alexeyab")
    with pytest.raises(CfgError, match=r"a network with \[logistic\] cannot take another size"):
        Network(parse_cfg(net(3, 2, 3, "[logistic]"))).resize(6, 4)


@pytest.mark.parametrize("cost", [[], ["[cost]"]], ids=["alone", "cost"])
def test_losses_are_darknets(darknet, tmp_path, cost):
    check_loss(darknet, tmp_path, "[logistic]", *cost)


def test_a_probability_that_rounds_to_1_has_a_cost_that_is_a_number():
    head = Network(parse_cfg(net(3, 1, 1, "[logistic]"))).heads[0]
    found = head.loss(torch.tensor([[200.0, 0, 0]]), torch.tensor([[0.0, 1, 0]]), 0)
    assert float(found.figures.cost) == pytest.approx(200 + 2 * torch.tensor(2.0).log().item())
