from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net

CONV = "[conv]\nfilters={}\nsize=3\npad=1\nstride={}\nactivation=linear"


@pytest.mark.parametrize(
    ("filters", "stride", "size"),
    [(4, 1, (8, 8)), (6, 1, (8, 8)), (3, 1, (7, 5)), (4, 2, (8, 8)), (7, 2, (12, 8)), (2, 2, (8, 4))],
)
@pytest.mark.parametrize("options", ["activation=leaky", "alpha=.5\nbeta=2"])
def test_outputs_are_darknets(darknet, tmp_path, filters, stride, size, options):
    sections = [CONV.format(4, 1), CONV.format(filters, stride), f"[shortcut]\nfrom=-2\n{options}"]
    check_layers(darknet, net(*size, 3, *sections), tmp_path)


def test_a_smaller_map_is_added_to_every_second_place(darknet, tmp_path):
    sections = [CONV.format(4, 2), CONV.format(5, 1), "[upsample]", "[shortcut]\nfrom=0\nactivation=linear"]
    check_layers(darknet, net(8, 8, 3, *sections), tmp_path)


def test_maps_that_do_not_fit():
    sections = [CONV.format(4, 1), CONV.format(4, 2), "[maxpool]\nsize=3\nstride=1\npadding=0", "[shortcut]\nfrom=0"]
    with pytest.raises(CfgError, match="do not fit by one stride"):
        Network(parse_cfg(net(12, 8, 3, *sections)))


def test_a_shortcut_needs_from():
    with pytest.raises(CfgError, match=r"<text>:8: \[shortcut\]: a \[shortcut\] needs from="):
        Network(parse_cfg(net(6, 5, 3, "[conv]\nfilters=3", "[shortcut]")))
