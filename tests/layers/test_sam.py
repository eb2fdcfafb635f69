from __future__ import annotations

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from tests.compare import COPY, EXACT, check_gradients, check_layers, check_weights, net, randomise

CONV = "[conv]\nfilters={}\nsize=3\npad=1\nactivation={}"


@pytest.mark.parametrize("activation", ["linear", "leaky"])
def test_outputs_are_alexeyabs(alexeyab_darknet, tmp_path, activation):
    sections = (CONV.format(4, "leaky"), COPY, CONV.format(4, "logistic"), f"[sam]\nfrom=-3\nactivation={activation}")
    text = net(7, 6, 3, *sections, CONV.format(3, "linear"))
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT)
    check_layers(alexeyab_darknet, text, tmp_path, tolerance=EXACT, size=(9, 5))
    check_weights(alexeyab_darknet, text, tmp_path)
    check_gradients(alexeyab_darknet, text, tmp_path)


def test_gradients_add_up_where_a_map_is_read_twice():
    """His backward pass writes over what another layer has handed back to the map."""
    network = randomise(Network(parse_cfg(net(5, 5, 2, "[conv]\nfilters=2", "[conv]\nfilters=2", "[sam]\nfrom=0"))))
    before, attention, product = network.outputs(torch.rand(1, 2, 5, 5))
    (gradient,) = torch.autograd.grad(product.sum(), before)
    through = torch.einsum("oc,nohw->nchw", network.layers[1].weights[:, :, 0, 0], before * attention * (1 - attention))
    torch.testing.assert_close(gradient, attention + through)


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        (("[conv]", "[sam]"), "a [sam] needs from=; expected a layer index, such as from=-2"),
        (
            (CONV.format(4, "leaky"), CONV.format(3, "leaky"), "[sam]\nfrom=0"),
            "maps of 6 x 5 x 3 and 6 x 5 x 4; expected",
        ),
    ],
)
def test_errors_name_the_line(sections, found):
    with pytest.raises(CfgError, match=r"<text>:\d+: .*") as error:
        Network(parse_cfg(net(6, 5, 3, *sections)))
    assert found in str(error.value)
