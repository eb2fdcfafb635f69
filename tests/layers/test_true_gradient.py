"""``-gradient true``: the derivatives of AlexeyAB's IOU losses against finite differences of a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.network import Network
from darknet_compat.train.step import Trainer
from tests.layers.head_cases import ANCHORS, H, W, deltas, made, text

# x, y, w, h, class, and the number of the best anchor among the head's (mask 1,2,4); each in a cell of its own.
TRUTHS = [(0.52, 0.31, 0.25, 0.4, 1, 0), (0.21, 0.66, 0.4, 0.9, 0, 1), (0.87, 0.9, 0.3, 0.95, 2, 1)]
STEP = 1e-5


def loss_of(box, truth, kind, alpha):
    """1 - IOU and its kin in plain numbers, as published; and alpha of CIOU."""
    (px, py, pw, ph), (tx, ty, tw, th) = box, truth
    w = min(px + pw / 2, tx + tw / 2) - max(px - pw / 2, tx - tw / 2)
    h = min(py + ph / 2, ty + th / 2) - max(py - ph / 2, ty - th / 2)
    shared = w * h if w > 0 and h > 0 else 0
    union = pw * ph + tw * th - shared
    iou = shared / union
    around_w = max(px + pw / 2, tx + tw / 2) - min(px - pw / 2, tx - tw / 2)
    around_h = max(py + ph / 2, ty + th / 2) - min(py - ph / 2, ty - th / 2)
    if kind == "giou":
        iou -= (around_w * around_h - union) / (around_w * around_h)
    v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(pw / ph)) ** 2
    if alpha is None:
        alpha = v / (1 - iou + v + 1e-6)
    if kind in ("diou", "ciou"):
        iou -= ((px - tx) ** 2 + (py - ty) ** 2) / (around_w**2 + around_h**2)
    return 1 - iou + (alpha * v if kind == "ciou" else 0), alpha


def box_of(values, anchor, column, row, scale, new, away):
    """What the raw x, y, w, h of a box say."""
    x, y, w, h = values
    if not new:
        x, y = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-y))
    x, y = scale * x - (scale - 1) / 2, scale * y - (scale - 1) / 2
    w, h = (4 * w * w, 4 * h * h) if new else (math.exp(w), math.exp(h))
    w, h = w * anchor[0] / W, h * anchor[1] / H
    return (column + x) / W + away * w, (row + y) / H + away * h, w, h


def setting(folder, kind, options, gaussian):
    planes, section = (9, "Gaussian_yolo") if gaussian else (5, "yolo")
    cfg = text(f"iou_loss={kind}\niou_normalizer=.5\n{options}", planes=planes, section=section)
    network = made(cfg, folder, "alexeyab")
    truth = np.zeros((1, 5, 5), np.float32)
    truth[0, :3] = [row[:5] for row in TRUTHS]
    raw = np.random.default_rng(4).normal(0, 0.7, (1, *network.input)).astype(np.float32)
    return network, 1 / (1 + np.exp(-raw)) if "new_coords" in options else raw, truth


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize(
    ("gaussian", "options"),
    [
        (False, "scale_x_y=1.2"),
        (False, "new_coords=1\nscale_x_y=2.0\nmax_delta=.0001"),
        (False, "counters_per_class=10, 40, 5\ntruth_thresh=.9"),
        (True, "yolo_point=left_top"),
        (True, "uc_normalizer=0"),
    ],
)
def test_it_is_that_of_finite_differences(tmp_path, kind, gaussian, options):
    network, raw, truth = setting(tmp_path, kind, options, gaussian)
    head = network.heads[0]
    his, figures = deltas(network, raw, truth)
    head.gradient = "true"
    true, same = deltas(network, raw, truth)
    assert int(figures.count) == 3
    assert float(figures.avg_iou) == float(same.avg_iou)
    his, true = (delta.reshape(3, head.coords + 4, H, W) for delta in (his, true))
    np.testing.assert_array_equal(true[:, head.coords :], his[:, head.coords :], "objectness and classes")
    step = 2 if gaussian else 1
    if gaussian:
        np.testing.assert_array_equal(true[:, 1:8:2], his[:, 1:8:2], "uncertainties")

    expected = np.zeros_like(true[:, : head.coords : step], np.float64)
    anchors = np.array([float(word) for word in ANCHORS.split(",")]).reshape(-1, 2)[[1, 2, 4]]
    planes = raw.reshape(3, head.coords + 4, H, W).astype(np.float64)
    away = 0.5 if "left_top" in options else 0
    for x, y, w, h, number, place in TRUTHS:
        column, row = int(max((x - away * w) * W, 0)), int(max((y - away * h) * H, 0))
        factor = 0.5 * ((4, 1, 8)[number] if "counters" in options else 1)

        def lost(values, alpha=None, place=place, cell=(column, row), box=(x, y, w, h)):
            found = box_of(values, anchors[place], *cell, head.o.scale_x_y, head.o.new_coords, away)
            return loss_of(found, box, kind, alpha)

        values = planes[place, : head.coords : step, row, column]
        _, alpha = lost(values)
        for i in range(4):
            up, down = (values + sign * STEP * (np.arange(4) == i) for sign in (1, -1))
            expected[place, i, row, column] -= factor * (lost(up, alpha)[0] - lost(down, alpha)[0]) / (2 * STEP)
    found = true[:, : head.coords : step]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=2e-4)
    assert np.abs(found - his[:, : head.coords : step]).max() > 0.1 * np.abs(expected).max(), "his is another"


def test_mse_and_pjreddies_have_no_other(tmp_path):
    for program, options in (("alexeyab", "scale_x_y=1.2"), ("pjreddie", "")):
        cfg = parse_cfg(text(options).replace("batch=2", "batch=2\nmax_batches=10"))
        with pytest.raises(CfgError, match=r"-gradient true is for heads with an IOU loss .* this network has none"):
            Trainer(Network(cfg, "cpu", program=program), gradient="true")


def test_the_trainer_asks_for_it():
    cfg = parse_cfg(text("iou_loss=ciou").replace("batch=2", "batch=2\nmax_batches=10"))
    for gradient in ("darknet", "true"):
        assert Trainer(Network(cfg), gradient=gradient).network.heads[0].gradient == gradient
    assert Trainer(Network(cfg)).network.heads[0].gradient == "darknet"


def test_boxes_that_share_nothing_with_their_truth_have_finite_gradients(tmp_path):
    truth = np.array([[[0.52, 0.31, 0.02, 0.02, 1]]], np.float32)
    raw = np.full((1, 3 * 8, H, W), -5, np.float32)
    for kind in ("iou", "giou", "diou", "ciou"):
        network = made(text(f"iou_loss={kind}", mask="0,1,2"), tmp_path, "alexeyab")
        network.heads[0].gradient = "true"
        true, figures = deltas(network, raw, truth)
        assert float(figures.avg_iou) == 0
        assert np.isfinite(true).all()
        moves = true.reshape(3, 8, H, W)[0, :2, 2, 6]
        assert moves.any() == (kind != "iou")
