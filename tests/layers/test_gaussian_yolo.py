"""[Gaussian_yolo] against AlexeyAB's library."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.detect import detect
from darknet_compat.errors import CfgError, CfgWarning
from darknet_compat.layers.gaussian_yolo_loss import GaussianFigures
from darknet_compat.layers.yolo_loss import AlexeyABFigures
from darknet_compat.network import Network
from tests.compare import check_layers, net, network_of
from tests.layers.head_cases import (
    HIS,
    KINDS,
    SIZES,
    between,
    check_delta_normalizer,
    deltas,
    made,
    one_of,
    row,
    run,
    text,
    with_any,
)

CONV = "[conv]\nfilters={}\nsize=3\nstride={}\npad=1\nactivation=leaky"
HEAD = "[Gaussian_yolo]\nmask={}\nanchors=10,14, 23,27, 37.5,58, 81,82, 135,169\nclasses=4\nnum=5\n{}"
OPTIONS = ["", "scale_x_y=1.1\nyolo_point=left_top\nnms_kind=cornersnms", "yolo_point=right_bottom\nnms_kind=diounms"]


def two_heads(options=""):
    last = "[conv]\nfilters={}\nactivation=linear"
    return net(
        96, 64, 3, CONV.format(8, 4), CONV.format(16, 2), CONV.format(16, 2),
        last.format(39), HEAD.format("2,3,4", options),
        "[route]\nlayers=-4", last.format(26), HEAD.format("0,1", options), batch=1,
    )  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_forward_is_darknets(alexeyab_darknet, tmp_path, options):
    check_layers(alexeyab_darknet, two_heads(options), tmp_path, batch=1)


@pytest.mark.parametrize("letter_box", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_boxes_are_darknets(alexeyab_darknet, tmp_path, options, letter_box):
    network, *files = network_of(two_heads(options), tmp_path, 1, "gpu", "alexeyab")
    reference = alexeyab_darknet.load_network(*files)
    x = np.random.default_rng(3).random((1, *network.input), np.float32)
    last = network.detector
    assert (last.nms_kind, last.beta_nms) == (options.partition("nms_kind=")[2] or "default", 0.6)
    for thresh in (0.5, 0.2, 0.01):
        with torch.inference_mode():
            listed = network.listed_boxes(network.predict(torch.from_numpy(x)), thresh)
        reference.predict(x)
        expected = reference.boxes(96, 64, thresh)
        assert len(expected.objectness) == listed.objectness.shape[1] > 0
        np.testing.assert_allclose(listed.xywh[0], expected.boxes, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(listed.prob[0], expected.prob, rtol=1e-4, atol=1e-6)
        (found,) = detect(
            network, torch.from_numpy(x), [(33, 200)], [""], thresh=thresh, nms=0.3, letter_box=letter_box
        )
        expected = reference.boxes(33, 200, thresh, nms=0.3, kind=last.nms_kind, beta=last.beta_nms, letter=letter_box)
        kept = [number for number in expected.order if expected.prob[number].any()]
        np.testing.assert_allclose(found.boxes, expected.boxes[kept], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.prob, expected.prob[kept], rtol=1e-4, atol=1e-6)
    assert 0 < len(kept) < listed.objectness.shape[1]


@pytest.mark.filterwarnings("ignore:.*max_epochs")
def test_the_stock_network_builds(alexeyab):
    network = Network(read_cfg(alexeyab / "cfg/Gaussian_yolov3_BDD.cfg"), device="meta")
    assert [(head.type, head.n, head.coords) for head in network.heads] == [("Gaussian_yolo", 3, 8)] * 3
    assert network.program == "alexeyab"


def test_sections_that_do_not_fit():
    def build(options, filters=26):
        return Network(parse_cfg(net(8, 8, 3, f"[conv]\nfilters={filters}", HEAD.format("0,1", options))))

    with pytest.raises(CfgError, match=r"expected filters=26 in the layer before: 2 anchors \* \(9\+classes\)"):
        build("", 18)
    with pytest.raises(CfgError, match="yolo_point is 'centre'; expected center, left_top, right_bottom"):
        build("yolo_point=centre")
    with pytest.raises(CfgError, match="nms_kind is 'soft'; expected default, greedynms, diounms, cornersnms"):
        build("nms_kind=soft")
    with pytest.warns(CfgWarning, match="new_coords=1: unknown option"):
        assert build("new_coords=1").detector.o.new_coords == 0


GAUSSIAN = with_any(
    HIS
    | {
        "uc_normalizer": {"uc_normalizer": between(0.05, 3)},
        "yolo_point": {"yolo_point": one_of("left_top", "right_bottom")},
    }
)


@pytest.mark.parametrize("switch", GAUSSIAN)
@pytest.mark.parametrize(("networks", "cases"), SIZES)
def test_deltas_are_darknets(alexeyab_darknet, tmp_path, switch, networks, cases):
    print(row(switch, run(alexeyab_darknet, tmp_path, "Gaussian_yolo", GAUSSIAN[switch], networks, cases, KINDS)))


def loss_text(options=""):
    return text(options, planes=9, section="Gaussian_yolo")


def test_columns_weigh_means_over_truths_by_their_number(tmp_path):
    """And losses and no_obj, which are of all boxes, by mini-batch."""
    head = made(loss_text(), tmp_path, "alexeyab").heads[0]
    figures = [GaussianFigures(*[1.0] * 7, 1.0, *[1.0] * 4), GaussianFigures(*[5.0] * 7, 3.0, *[5.0] * 4)]
    means = {name: 4.0 for name in head.columns} | {"count": 4}
    alike = {name: 3.0 for name in ("no_obj", "class_loss", "iou_loss", "uc_loss", "total_loss")}
    assert {name: head.totals(figures)[name] for name in head.columns} == means | alike
    head = made(text("iou_loss=ciou"), tmp_path, "alexeyab").heads[0]
    batches = [AlexeyABFigures(1.0, 1.0, 1.0, *[1.0] * 5), AlexeyABFigures(5.0, 5.0, 3.0, *[5.0] * 5)]
    expected = {"avg_iou": 4.0, "class_loss": 3.0, "iou_loss": 3.0, "total_loss": 3.0, "count": 4}
    assert {name: head.totals(batches)[name] for name in head.columns} == expected


def test_a_truth_outside_or_of_no_class(tmp_path):
    rng = np.random.default_rng(2)
    for options, taken in (("", 0), ("yolo_point=left_top", 1)):
        network = made(loss_text(options), tmp_path, "alexeyab")
        raw = rng.normal(0, 1.5, (1, *network.input)).astype(np.float32)
        for x, number, count in ((0.5, 1, 1), (1.5, 1, taken), (0.5, 7, 0), (0.5, -1, 0)):
            found, figures = deltas(network, raw, np.array([[[x, 0.5, 0.25, 0.5, number]]], np.float32))
            boxes = network.heads[0].planes(torch.from_numpy(found))[:, :, :8]
            assert int(figures.count) == boxes.any(2).sum() == count


def test_delta_normalizer_scales_the_gradient(tmp_path):
    check_delta_normalizer(loss_text, tmp_path)
