from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.train.optimizer import freeze
from tests.compare import net

CONTRASTIVE = "[contrastive]\nclasses=1\ntemperature=1.0\nyolo_layer=-1\ncls_normalizer=1.0\nmax_delta=10"


def test_inference_hands_on_what_it_gets_and_training_is_refused():
    """forward_contrastive_layer_gpu copies its input; on a CPU the output stays 0, which nothing reads."""
    network = Network(parse_cfg(net(6, 5, 3, "[conv]", CONTRASTIVE))).start()
    conv, out = network.outputs(torch.rand(2, 3, 5, 6))
    assert torch.equal(conv, out)
    assert network.program == "alexeyab"
    with pytest.raises(CfgError, match=r"<text>:7: \[contrastive\]: training with \[contrastive\] is not built here"):
        freeze(network)


def test_a_layer_that_is_not_there():
    with pytest.raises(CfgError, match="yolo_layer=4: yolo_layer names layer 4; expected 0 to 0, or -1 to -1"):
        Network(parse_cfg(net(6, 5, 3, "[conv]", CONTRASTIVE.replace("-1", "4"))))


@pytest.mark.parametrize("section", ["conv_lstm", "history"])
def test_sections_of_sequences_are_named(section):
    """In no stock cfg, and not built."""
    with pytest.raises(CfgError, match=rf"<text>:6: \[{section}\]: \[{section}\] is a section of Darknet that is not"):
        Network(parse_cfg(net(6, 5, 3, f"[{section}]")))
