from __future__ import annotations

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import COPY, EXACT, check_gradients, check_layers, check_weights, net

CONV = "[conv]\nfilters={}\nsize=3\npad=1\nactivation={}"
CHANNELS = (CONV.format(4, "leaky"), "[avgpool]", "[conv]\nfilters=4\nactivation=logistic")
PLACES = (CONV.format(4, "leaky"), COPY, CONV.format(1, "logistic"))


@pytest.mark.parametrize(
    "sections",
    [
        (*CHANNELS, "[scale_channels]\nfrom=0"),
        (*CHANNELS, "[scale_channels]\nfrom=-3\nactivation=leaky"),
        (*PLACES, "[scale_channels]\nfrom=-3\nscale_wh=1"),
        (*PLACES, "[scale_channels]\nfrom=0\nscale_wh=1\nactivation=relu"),
    ],
)
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, sections):
    text = net(7, 6, 3, *sections, CONV.format(3, "linear"))
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, size=(9, 5))
    check_weights(alexeyab_darknet, text, tmp_path)
    if "[avgpool]" not in sections:
        check_gradients(alexeyab_darknet, text, tmp_path)


def test_gradients_of_channels_are_alexeyabs(alexeyab_darknet, tmp_path):
    text = net(7, 6, 3, *CHANNELS, "[scale_channels]\nfrom=0\nactivation=leaky", CONV.format(3, "linear"))
    check_gradients(alexeyab_darknet, text, tmp_path)


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        (("[conv]", "[scale_channels]"), "a [scale_channels] needs from=; expected a layer index, such as from=-2"),
        (
            (CONV.format(4, "leaky"), "[scale_channels]\nfrom=0"),
            "the layer before gives 6 x 5 x 4 for a map of 6 x 5 x 4; expected 1 x 1 x 4 with scale_wh=0",
        ),
        (
            (CONV.format(4, "leaky"), "[scale_channels]\nfrom=0\nscale_wh=1"),
            "the layer before gives 6 x 5 x 4 for a map of 6 x 5 x 4; expected 6 x 5 x 1 with scale_wh=1",
        ),
        (("[conv]", "[scale_channels]\nfrom=3"), "from names layer 3; expected 0 to 0, or -1 to -1"),
    ],
)
def test_errors_name_the_line(sections, found):
    with pytest.raises(CfgError, match=r"<text>:\d+: .*") as error:
        Network(parse_cfg(net(6, 5, 3, *sections)))
    assert found in str(error.value)
    assert "\n" not in str(error.value)
