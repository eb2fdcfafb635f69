from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import check_layers, net

CONV = "[conv]\nfilters=7\nactivation=linear"


def test_outputs_are_darknets(darknet, tmp_path):
    check_layers(darknet, net(5, 4, 3, CONV, "[logistic]"), tmp_path)


def test_it_is_pjreddies_alone_and_takes_no_other_size():
    with pytest.raises(CfgError, match=r"only the program pjreddie has \[logistic\]"):
        Network(parse_cfg(net(3, 2, 3, "[logistic]")), program="alexeyab")
    with pytest.raises(CfgError, match=r"a network with \[logistic\] cannot take another size"):
        Network(parse_cfg(net(3, 2, 3, "[logistic]"))).resize(6, 4)
