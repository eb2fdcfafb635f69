"""new/recipe.py: what becomes of a stock cfg, for networks of every kind that a person may start from."""

import numpy as np
import pytest

from darknet_compat.cfg import format_cfg, parse_cfg, read_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.new.recipe import clusters, input_size, own_cfg, schedule, updates, with_anchors
from tests.conftest import ROOT

CFGS = [
    "yolov4-small", "yolov4-tiny", "yolov4", "yolov4-csp", "yolov7-tiny", "yolov3", "yolov3-tiny", "yolov3-spp",
    "yolov2-voc", "yolov2-tiny-voc", "yolov2-shapes",
]  # fmt: skip


@pytest.mark.parametrize("name", CFGS)
def test_a_stock_cfg_becomes_one_for_three_classes(name):
    stock = read_cfg(ROOT / f"cfg/{name}.cfg")
    plan = schedule(64, 8, 6000)
    own = own_cfg(stock, 3, (256, 224), plan, most=250, why=["Made for a test."])
    anchors = np.arange(2, 2 + 2 * clusters(stock)).reshape(-1, 2) * 4.0
    region = stock.sections[-1].type == "region"
    own = with_anchors(own, anchors, 16 if region else None)
    text = format_cfg(own)
    assert text.startswith("# Made for a test.\n")
    network = Network(parse_cfg(text), device="meta")
    net = network.net
    assert (net.width, net.height, net.batch, net.subdivisions, net.max_batches) == (256, 224, 64, 8, 6000)
    assert net.burn_in == 300
    if net.policy == "steps":
        assert net.steps == [4800, 5400]
        assert net.scales == pytest.approx([0.1, 0.1])
    assert network.detectors
    for head in network.detectors:
        assert (head.o.classes, head.o.max, head.o.random) == (3, 250, 0)
        assert np.allclose(np.reshape(head.o.anchors, (-1, 2)), anchors / (16 if region else 1))
    # The rest is the stock cfg's.
    changed = {"filters", "classes", "max", "random", "anchors"}
    for before, after in zip(stock.meaning()[1:], parse_cfg(text).meaning()[1:], strict=True):
        assert before[0] == after[0]
        differ = {key for key in before[1].keys() | after[1].keys() if before[1].get(key) != after[1].get(key)}
        assert differ <= changed


def test_a_gaussian_head_has_nine_values_of_a_box():
    text = (
        "[net]\nwidth=64\nheight=64\nchannels=3\n[convolutional]\nfilters=28\nsize=1\n"
        "[Gaussian_yolo]\nmask=0,2\nanchors=8,8, 16,16, 32,32\nclasses=5\nnum=3\nmax=90\n"
    )
    own = own_cfg(parse_cfg(text), 3, (64, 64), schedule(16, 2, 6000), most=40)
    assert own.sections[1].find("filters").value == str(2 * (3 + 9))
    assert own.sections[2].find("max").value == "90"  # which is enough
    assert Network(parse_cfg(format_cfg(own)), device="meta").detector.o.classes == 3


@pytest.mark.parametrize("name", ["yolov1", "darknet19", "cifar-small"])
def test_a_cfg_without_anchors_is_refused(name):
    with pytest.raises(CfgError, match=r"no \[yolo\] and no \[region\]"):
        own_cfg(read_cfg(ROOT / f"cfg/{name}.cfg"), 3, (256, 256), schedule(64, 8, 6000), 10)


def test_a_head_needs_a_convolution_before_it():
    text = "[net]\nwidth=32\nheight=32\nchannels=3\n[maxpool]\nsize=2\nstride=2\n[yolo]\nclasses=1\n"
    with pytest.raises(CfgError, match=r"<text>:5: .*\[yolo\] stands behind it"):
        own_cfg(parse_cfg(text), 3, (32, 32), schedule(64, 8, 6000), 10)


@pytest.mark.parametrize(
    ("classes", "images", "expected"),
    [(1, 100, 6000), (3, 100, 6000), (4, 100, 8000), (20, 16551, 40000), (1, 9000, 9000)],
)
def test_alexeyabs_rule_of_updates(classes, images, expected):
    """His README: 2,000 a class, but not under the number of training images, and not under 6,000."""
    assert updates(classes, images) == expected


def test_a_schedule_warms_up_in_its_first_20th():
    assert [schedule(16, 1, count).burn_in for count in (10, 200, 6000, 40000)] == [1, 10, 300, 1000]


@pytest.mark.parametrize(
    ("side", "expected"), [(0.5, 224), (8 / 224, 224), (8 / 250, 256), (8 / 400, 416), (0.001, 416)]
)
def test_the_input_is_as_small_as_the_boxes_let_it_be(side, expected):
    large = np.full((90, 2), 0.5)
    small = np.full((11, 2), 0.5)
    small[:, 1] = side
    assert input_size(np.concatenate([large, small]), (224, 256, 320, 416)) == expected
    assert input_size(np.concatenate([large, small[:10]]), (224, 256, 320, 416)) == 224
