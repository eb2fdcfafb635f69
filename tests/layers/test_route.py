from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import COPY, EXACT, check_gradients, check_layers, net

CONV = "[conv]\nfilters={}\nactivation=linear"


@pytest.mark.parametrize("layers", ["-1", "-1,-2", "0,2", "1,-1,0", "-3"])
def test_outputs_are_darknets(darknet, tmp_path, layers):
    sections = [CONV.format(3), CONV.format(5), CONV.format(2), f"[route]\nlayers={layers}", CONV.format(4)]
    check_layers(darknet, net(6, 5, 3, *sections), tmp_path)


def test_maps_of_different_size_join_flat(darknet, tmp_path):
    sections = [CONV.format(3), "[maxpool]\nsize=2\nstride=2", "[route]\nlayers=-1,-2", "[connected]\noutput=7"]
    check_layers(darknet, net(6, 6, 3, *sections), tmp_path)


@pytest.mark.parametrize("layers", ["-3", "2", "7", "-1,5"])
def test_an_index_out_of_range(layers):
    with pytest.raises(CfgError, match=r"<text>:13: layers=.*: layers names layer .*; expected 0 to 1, or -2 to -1"):
        Network(parse_cfg(net(6, 5, 3, CONV.format(3), CONV.format(5), f"[route]\nlayers={layers}")))


def test_a_route_needs_layers_and_a_layer_before():
    with pytest.raises(CfgError, match=r"<text>:6: \[route\]: a \[route\] needs layers="):
        Network(parse_cfg(net(6, 5, 3, "[route]")))
    for index in (-1, 0):
        with pytest.raises(CfgError, match=f"names layer {index}; expected a layer before, but this is the first"):
            Network(parse_cfg(net(6, 5, 3, f"[route]\nlayers={index}")))


def test_maps_that_differ_in_one_side_join_flat(darknet, tmp_path):
    pool = "[maxpool]\nsize=1\nstride=2"
    for size in ((6, 1), (1, 6)):
        check_layers(darknet, net(*size, 3, CONV.format(3), pool, "[route]\nlayers=-1,-2"), tmp_path)


@pytest.mark.parametrize(
    "options",
    ["layers=-1", "layers=-1,0", "layers=0,2,4\ngroups=2\ngroup_id=1", "layers=-1\ngroups=2",
     "layers=2,-1\ngroups=2\nstream=1\nwait_stream=0"],
)  # fmt: skip
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, options):
    sections = [CONV.format(6), COPY, CONV.format(4), COPY, CONV.format(2), f"[route]\n{options}", CONV.format(3)]
    check_layers(alexeyab_darknet, net(6, 5, 3, *sections), tmp_path, tolerance=EXACT)
    check_layers(alexeyab_darknet, net(6, 5, 3, *sections), tmp_path, tolerance=EXACT, size=(8, 7))
    check_gradients(alexeyab_darknet, net(6, 5, 3, *sections), tmp_path)


@pytest.mark.parametrize("groups", [1, 2])
def test_maps_of_different_size_join_flat_in_alexeyabs_program_too(alexeyab_darknet, tmp_path, groups):
    route = f"[route]\nlayers=-1,-2\ngroups={groups}\ngroup_id={groups - 1}"
    sections = [CONV.format(4), "[maxpool]\nsize=2\nstride=2", route, "[connected]\noutput=7"]
    check_layers(alexeyab_darknet, net(6, 6, 3, *sections), tmp_path, tolerance=EXACT)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("groups=0", "groups is 0; expected 1 or more"),
        ("groups=2\ngroup_id=2", "group_id is 2; expected 0 to 1"),
        ("groups=2\ngroup_id=-1", "group_id is -1; expected 0 to 1"),
        ("groups=2", "3 channels do not divide into 2 groups"),
    ],
)
def test_groups_that_do_not_fit(options, found):
    with pytest.raises(CfgError, match=r"<text>:\d+: group.*: ") as error:
        Network(parse_cfg(net(6, 5, 3, CONV.format(4), CONV.format(3), f"[route]\nlayers=0,1\n{options}")))
    assert found in str(error.value)
