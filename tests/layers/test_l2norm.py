from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net, network_of

CONV = "[conv]\nfilters=7\nactivation=linear"


def test_outputs_are_darknets(darknet, tmp_path):
    check_layers(darknet, net(5, 4, 3, CONV, "[l2norm]", "[connected]\noutput=3"), tmp_path)


def test_a_vector_of_zeros_is_nan_in_both(darknet, tmp_path):
    text = net(2, 1, 3, "[activation]", "[l2norm]", batch=1)
    network, cfg, weights = network_of(text, tmp_path)
    x = np.array([[[[0, 1]], [[0, 2]], [[0, 2]]]], np.float32)
    reference = darknet.load_network(cfg, weights)
    np.testing.assert_allclose(network(torch.from_numpy(x)).flatten(), reference.predict(x).flatten())
    assert np.isnan(reference.layer_output(1)).sum() == 3


def test_the_gradient_is_the_true_one_and_darknets_is_the_outputs(darknet, tmp_path):
    network, cfg, weights = network_of(net(3, 2, 3, CONV, "[l2norm]", "[cost]"), tmp_path)
    x = torch.randn(1, 7, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network.layers[1], (x,))
    reference = darknet.load_network(cfg, weights)
    rng = np.random.default_rng(0)
    reference.train_step(rng.random((2, 3, 2, 3), np.float32), rng.random((2, 42), np.float32), update=False)
    np.testing.assert_array_equal(reference.layer_tensor(0, "delta"), reference.layer_tensor(1, "delta"))


def test_it_is_pjreddies_alone_and_takes_no_other_size():
    with pytest.raises(CfgError, match=r"only the program pjreddie has \[l2norm\]"):
        Network(parse_cfg(net(3, 2, 3, "[l2norm]")), program="alexeyab")
    with pytest.raises(CfgError, match=r"a network with \[l2norm\] cannot take another size"):
        Network(parse_cfg(net(3, 2, 3, "[l2norm]"))).resize(6, 4)
