from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat import load_network, save_weights
from darknet_compat.cfg import parse_cfg, read_cfg, write_cfg
from darknet_compat.layers.batchnorm import Normalised
from darknet_compat.network import NUMERICS, Network
from tests.compare import TOLERANCE, net, randomise, worst_layer
from tests.conftest import ROOT

ALIKE = 1e-5  # of the largest value of a layer
SMALL = net(
    16, 16, 3,
    "[conv]\nfilters=8\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky",
    "[conv]\nfilters=8\nsize=3\npad=1\ngroups=2\nbatch_normalize=1\nactivation=logistic",
    "[maxpool]\nsize=2\nstride=2",
    "[conv]\nfilters=6\nactivation=linear",
    "[connected]\noutput=5\nbatch_normalize=1\nactivation=relu",
    "[connected]\noutput=3",
)  # fmt: skip


def worst(network: Network, fused: Network, x: torch.Tensor) -> float:
    with torch.inference_mode():
        pairs = zip(network.outputs(x), fused.outputs(x), strict=True)
        # Not max(), which may pass over NaN.
        return float(np.max([float((a - b).abs().max() / a.abs().max()) for a, b in pairs]))


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("name", ["yolov2-tiny-voc", "yolov2-voc", "resnet18", "darknet19"])
def test_every_layer_keeps_its_values(name, numerics):
    network = randomise(Network(read_cfg(ROOT / f"cfg/{name}.cfg"), numerics))
    x = torch.rand(1, *network.input, generator=torch.Generator().manual_seed(1))
    assert worst(network, network.fuse(), x) <= ALIKE


def test_trained_weights_keep_their_values(trained):
    network = load_network(*trained)
    x = torch.rand(2, *network.input, generator=torch.Generator().manual_seed(1))
    assert worst(network, network.fuse(), x) <= ALIKE


def test_the_network_itself_stays_as_it_was():
    network = randomise(Network(parse_cfg(SMALL)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fused = network.fuse()
    assert not fused.training
    assert [name for name in fused.state_dict() if "rolling" in name or "scales" in name] == []
    for tensor in fused.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_folded_weights_are_not_copied(monkeypatch):
    """Of large networks a copy takes as long as reading the file."""
    network = randomise(Network(parse_cfg(SMALL)))
    made = []
    folded = Normalised.folded
    monkeypatch.setattr(Normalised, "folded", lambda layer: made.append(folded(layer)) or made[-1])
    held = {tensor.data_ptr() for tensor in network.fuse().state_dict().values()}
    assert made
    assert {tensor.data_ptr() for tensors in made for tensor in tensors.values()} <= held


def test_a_resized_network_stays_resized():
    network = randomise(Network(read_cfg(ROOT / "cfg/yolov2-tiny-voc.cfg")))
    network.resize(160, 128)
    assert worst(network, network.fuse(), torch.rand(1, 3, 128, 160)) <= ALIKE


def test_darknet_runs_the_fused_network(darknet, tmp_path):
    """Its cfg and .weights are a pair like any other: no layer has batch_normalize left."""
    network = randomise(Network(parse_cfg(SMALL), "cpu"))
    fused = network.fuse()
    cfg, weights = tmp_path / "fused.cfg", tmp_path / "fused.weights"
    write_cfg(fused.cfg, cfg)
    save_weights(fused, weights)
    assert "batch_normalize=1" not in cfg.read_text()
    x = np.random.default_rng(0).random((2, *network.input), np.float32)
    assert worst_layer(load_network(cfg, weights), darknet.load_network(cfg, weights), x)[0] <= TOLERANCE


def test_the_program_stays():
    network = Network(parse_cfg(SMALL), program="alexeyab").start()
    assert network.fuse().program == "alexeyab"
