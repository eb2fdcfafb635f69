from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net

TREE = "animal -1\nthing -1\ncat 0\ndog 0\nbird 0\ncup 1\nball 1\npuppy 3\nhound 3\n"


@pytest.mark.parametrize("options", ["", "groups=3", "temperature=2.5"])
def test_outputs_are_darknets(darknet, tmp_path, options):
    check_layers(darknet, net(5, 4, 3, "[connected]\noutput=12\nactivation=linear", f"[softmax]\n{options}"), tmp_path)


def test_over_a_map(darknet, tmp_path):
    """All values of an image together, channels, rows and columns."""
    check_layers(darknet, net(5, 4, 3, "[conv]\nfilters=4\nactivation=linear", "[softmax]\ngroups=2"), tmp_path)


def test_with_a_tree(darknet, tmp_path):
    (tmp_path / "small.tree").write_text(TREE)
    sections = ["[connected]\noutput=9\nactivation=linear", f"[softmax]\ntree={tmp_path}/small.tree"]
    check_layers(darknet, net(5, 4, 3, *sections), tmp_path)


def test_groups_that_do_not_divide():
    with pytest.raises(CfgError, match="60 values do not divide into 7 groups"):
        Network(parse_cfg(net(5, 4, 3, "[softmax]\ngroups=7")))


def test_spatial_is_refused():
    """Darknet's softmax over the channels of each place is not built: a cfg that asks for it gets no other softmax."""
    with pytest.raises(CfgError, match=r"<text>:7: spatial=1: \[softmax\] with spatial is not built here"):
        Network(parse_cfg(net(5, 4, 3, "[softmax]\nspatial=1")))
