from __future__ import annotations

import math

import pytest
import torch

from darknet_compat.cfg import read_cfg
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.conftest import ROOT
from tests.tools.run import load_tool


@pytest.mark.parametrize("net", ["tiny", "yolov2-tiny-voc", "yolov4-small"])
def test_every_kind_of_network_takes_a_training_step(tmp_path, net):
    """Of a classifier, [region] and [yolo]; and so do its bare layers and its loss alone."""
    tool = load_tool("bench_contestants")
    text = (ROOT / f"cfg/{net}.cfg").read_text()
    (tmp_path / f"{net}.cfg").write_text(text)
    torch.manual_seed(0)
    network = Network(read_cfg(tmp_path / f"{net}.cfg")).start()
    save_weights(network, tmp_path / f"{net}.weights")
    for contestant in (tool.training, tool.bare):
        contestant(str(tmp_path), net, 2, False)()
    loss = tool.training(str(tmp_path), net, 2, False)().loss
    assert math.isfinite(loss)
    assert loss > 0
