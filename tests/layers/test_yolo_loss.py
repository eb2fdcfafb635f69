"""The losses of [yolo] against both libraries: deltas, costs and lines of random maps and truths."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.iou_loss import agreement, iou_deltas
from darknet_compat.network import Network
from darknet_compat.train.log import rewritten_line
from darknet_compat.weights import save_weights

# The network takes the map itself, so a cell is one of its pixels, and so are the anchors.
ANCHORS = "1.25,1.75, 2.875,3.375, 4.7,7.25, 10,10, 4.4,15"
W, H = 12, 8


def text(options="", mask="1,2,4", classes=3, batch=2, planes=5):
    """A cfg whose [yolo] gets the network's input as it is: the convolution before is the identity."""
    n = len(mask.split(","))
    planes = n * (planes + classes)
    return (
        f"[net]\nbatch={batch}\nwidth={W}\nheight={H}\nchannels={planes}\n"
        f"[conv]\nfilters={planes}\nsize=1\nactivation=linear\n"
        f"[yolo]\nmask={mask}\nanchors={ANCHORS}\nnum=5\nclasses={classes}\n{options}\n"
    )


def made(cfg, folder, program):
    network = Network(parse_cfg(cfg), "cpu", program=program).eval()
    with torch.no_grad():
        network.layers[0].weights.copy_(torch.eye(network.input.c)[..., None, None])
        network.layers[0].biases.zero_()
    (folder / "net.cfg").write_text(cfg)
    save_weights(network, folder / "net.weights")
    return network


def random_case(rng, network, truths, batch, crowded):
    """Maps of which some boxes are near truths, and truths that share cells; rows as the library has them."""
    c, h, w = network.input
    head = network.heads[0]
    raw = rng.normal(0, 1.5, (batch, c, h, w)).astype(np.float32)
    rows = np.zeros((batch, truths, 5), np.float32)
    for image in rows:
        count = min(int(rng.integers(0, 12)), truths)
        # Many are large, no two equally large: a box in both would fit them equally well.
        image[:count, 2:4] = rng.uniform(0.05, 1.6, (count, 2)).clip(0, 1) * rng.uniform(0.9, 1, (count, 2))
        image[:count, :2] = rng.uniform(0.02, 0.98, (count, 2))
        image[:count, 4] = rng.integers(0, head.o.classes, count)
        if crowded and count > 3:
            image[1:count:2, :4] = image[0, :4] * rng.uniform(0.98, 1.02, (len(image[1:count:2]), 4))
        image[count + 1 : count + 3] = (0.3, 0.6, 0.4, 0.5, 1)  # behind the end: no truth
    rows[..., :4] = rows[..., :4].clip(0, 0.999)
    return raw, rows


def deltas(network, raw, truth):
    raw = torch.from_numpy(raw).requires_grad_()
    (loss, figures) = network.heads[0].loss(raw, torch.from_numpy(truth), 0)
    (gradient,) = torch.autograd.grad(loss, raw)
    return -gradient.numpy(), figures


def distance(network, found, expected):
    """Of boxes, objectness and classes each in parts of its own largest delta, the largest; infinite for NaN."""
    head = network.heads[0]
    parts = [head.coords, 1, head.o.classes]
    pairs = zip(
        *(head.planes(torch.as_tensor(delta)).double().split(parts, 2) for delta in (found, expected)), strict=True
    )
    ratios = [float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9)) for ours, theirs in pairs]
    return float(np.nan_to_num(ratios, nan=np.inf).max())


PJREDDIE = {
    "plain": "",
    "thresh": "ignore_thresh=.7",
    "truth": "ignore_thresh=.3\ntruth_thresh=.6",
}


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("options", PJREDDIE.values(), ids=PJREDDIE)
def test_deltas_are_pjreddies(darknet, tmp_path, options, crowded):
    rng = np.random.default_rng(0)
    network = made(text(options), tmp_path, "pjreddie")
    reference = darknet.load_network(tmp_path / "net.cfg", tmp_path / "net.weights")
    count, worst = 0, 0.0
    for _ in range(12):
        raw, truth = random_case(rng, network, 90, 2, crowded)
        with darknet.capture() as printed:
            cost = reference.train_step(raw, truth.reshape(2, -1), update=False).cost
        expected = reference.layer_tensor(1, "delta").reshape(raw.shape)
        found, figures = deltas(network, raw, truth)
        worst = max(worst, distance(network, found, expected))
        assert float(figures.cost) == pytest.approx(cost, rel=1e-4)
        check_line(network.heads[0].line(figures), printed.text, "Region")
        count += int(figures.count)
    assert count > 40
    assert worst < 1e-5
    print(f"{count} truths: worst delta {worst:.2g}")


@pytest.mark.parametrize("value", [-200, 200])
def test_a_class_0_that_is_gone_lets_truths_set_all_classes_anew(darknet, tmp_path, value):
    """As he looks at its delta to see whether a slot has classes already, and that delta is 0."""
    rng = np.random.default_rng(6)
    network = made(text(), tmp_path, "pjreddie")
    reference = darknet.load_network(tmp_path / "net.cfg", tmp_path / "net.weights")
    for _ in range(6):
        raw, truth = random_case(rng, network, 90, 2, True)
        raw.reshape(2, 3, 8, -1)[:, :, 5] = value
        reference.train_step(raw, truth.reshape(2, -1), update=False)
        found, _ = deltas(network, raw, truth)
        assert distance(network, found, reference.layer_tensor(1, "delta").reshape(raw.shape)) < 2e-5


@pytest.mark.parametrize("value", [-1000, -100, 100, 1000])
@pytest.mark.parametrize(
    "options", ["iou_loss=mse", "iou_loss=giou", "iou_loss=ciou\niou_thresh=.2", "objectness_smooth=1"]
)
def test_values_that_no_exp_can_take_are_no_nan(tmp_path, options, value):
    """With AlexeyAB's program, whose logistic is NaN at -100: what hangs on an infinite box is 0, as in his.

    An infinite box has no GIOU, so that its cost is none; a training then stops.
    """
    network = made(text(options), tmp_path, "alexeyab")
    _, truth = random_case(np.random.default_rng(0), network, 200, 2, False)
    found, figures = deltas(network, np.full((2, *network.input), value, np.float32), truth)
    assert np.isfinite(found).all()
    assert bool(figures.cost.isnan()) == ("giou" in options and value > 0)
    assert np.isfinite([float(figure) for figure in figures[1:]]).all()
    delta = set(np.unique(found.reshape(2, 3, 8, -1)[:, :, 4]))
    # With objectness_smooth only a delta of 0 is a truth's to set.
    assert delta == ({0, 1} if value < 0 else {-1} if "smooth" in options else {-1, 0})


def check_line(found, printed, start):
    """The one line that begins so: its words, and its numbers to 1e-4 and the last digits that are printed.

    iou_loss is a difference of large numbers, and carries their error.
    """
    (line,) = [line for line in printed.splitlines() if line.startswith(start)]
    assert re.sub(r"-?[\d.]+|-nan", "#", found) == re.sub(r"-?[\d.]+|-nan", "#", line)
    digits = max(0.0101 if "uc_loss" in line else 2e-5, 1e-6 * np.nanmax(numbers(line)))
    for ours, theirs in zip(numbers(found), numbers(line), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=digits, nan_ok=True), (found, line)


def numbers(line):
    return [float(word) for word in re.findall(r"(?<![\w.])-?(?:\d+\.\d+|nan|\d+(?![\w.]))", line)]


ALEXEYAB = {
    "mse": "iou_loss=mse",
    "iou": "iou_loss=iou\niou_normalizer=.07",
    "giou": "iou_loss=giou\nscale_x_y=1.2\nignore_thresh=.7",
    "diou": "iou_loss=diou\nmax_delta=.3",
    "ciou": "iou_loss=ciou\niou_normalizer=.07\nscale_x_y=1.05",
    "thresh": "iou_loss=ciou\niou_thresh=.213",
    "thresh_kind": "iou_loss=ciou\niou_thresh=.1\niou_thresh_kind=giou",
    "smooth": "iou_loss=ciou\nobjectness_smooth=1\niou_thresh=.2\nobj_normalizer=.4",
    "labels": "label_smooth_eps=.1\nignore_thresh=.2\ncls_normalizer=.5",
    "focal": "focal_loss=1",
    "counters": "iou_loss=ciou\ncounters_per_class=10, 40, 5\ncls_normalizer=.5\nmax_delta=5",
    "new_mse": "new_coords=1\nscale_x_y=2.0\niou_thresh=.2",
    "new_counters": "new_coords=1\nobjectness_smooth=1\ncounters_per_class=10, 40, 5",
    "new_ciou": "new_coords=1\nscale_x_y=2.0\niou_loss=ciou\niou_thresh=.2\nobjectness_smooth=1\niou_normalizer=.05",
    "details": "iou_loss=ciou\nshow_details=0",
    "truth": "iou_loss=giou\ntruth_thresh=.3\nignore_thresh=.2",
    "truth_mse": "truth_thresh=.25\niou_thresh=.2\ncounters_per_class=10, 40, 5\ncls_normalizer=.5",
    "truth_smooth": "iou_loss=ciou\ntruth_thresh=.3\nobjectness_smooth=1\ncounters_per_class=10, 40, 5\niou_thresh=.2",
    "truth_focal": "truth_thresh=.4\nfocal_loss=1",
}


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("options", ALEXEYAB.values(), ids=ALEXEYAB)
def test_deltas_are_alexeyabs(alexeyab_darknet, tmp_path, options, crowded):
    rng = np.random.default_rng(1)
    new = "new_coords" in options
    network = made(text(options), tmp_path, "alexeyab")
    reference = alexeyab_darknet.load_network(tmp_path / "net.cfg", tmp_path / "net.weights")
    count, worst = 0, 0.0
    for _ in range(8):
        raw, truth = random_case(rng, network, 200, 2, crowded)
        if new:  # the convolution before has the logistic
            raw = 1 / (1 + np.exp(-raw))
            # An objectness that is just right has no delta, which he takes for none given; a side of 0 counts as 1.
            sides, objectness = np.split(raw.reshape(2, 3, 8, H * W)[:, :, 2:5], [2], 2)
            objectness[...] = np.where(rng.random(objectness.shape) < 0.4, objectness.round(), objectness)
            sides[rng.random(sides.shape) < 0.1] = 0
        rows = np.concatenate([truth, np.zeros((*truth.shape[:2], 1), np.float32)], 2)  # track_id
        with alexeyab_darknet.capture() as printed:
            cost = reference.train_step(raw, rows.reshape(2, -1), update=False).cost
        expected = reference.layer_tensor(1, "delta").reshape(raw.shape)
        found, figures = deltas(network, raw, truth)
        worst = max(worst, distance(network, found, expected))
        assert float(figures.cost) == pytest.approx(cost, rel=1e-4)
        check_line(network.heads[0].line(figures), printed.errors, "v3 (")
        count += int(figures.count)
    assert count > 20
    assert worst < 1e-5
    print(f"{count} truths: worst delta {worst:.2g}")


@pytest.mark.parametrize("options", ["", "iou_loss=ciou\niou_thresh=.2", "truth_thresh=.3"], ids=["", "ciou", "truth"])
def test_boxes_of_more_than_one_truth_are_counted_as_alexeyabs(alexeyab_darknet, tmp_path, options):
    """One image at a time: his threads, one for each image, count without a lock."""
    rng = np.random.default_rng(5)
    network = made(text(options, batch=1), tmp_path, "alexeyab")
    reference = alexeyab_darknet.load_network(tmp_path / "net.cfg", tmp_path / "net.weights")
    rewritten = trained = 0
    for _ in range(6):
        raw, truth = random_case(rng, network, 200, 1, True)
        rows = np.concatenate([truth, np.zeros((*truth.shape[:2], 1), np.float32)], 2)
        with alexeyab_darknet.capture() as printed:
            reference.train_step(raw, rows.reshape(1, -1), update=False)
        _, figures = deltas(network, raw, truth)
        more, all = network.heads[0].rewritten(figures)
        rewritten, trained = rewritten + int(more), trained + int(all)
        lines = [line for line in printed.errors.splitlines() if "total_bbox" in line]
        if trained:
            check_line(rewritten_line(rewritten, trained), *lines, " total_bbox")
    assert 0 < rewritten < trained


def test_a_box_that_is_its_truth_has_deltas():
    """CIOU's weight is 0 there, not 0/0."""
    box = torch.tensor([0.5, 0.25, 0.125, 0.5])
    assert torch.equal(iou_deltas(box, box, "ciou"), iou_deltas(box, box, "iou"))
    assert agreement(box, box, "ciou") == 1


def test_both_agree_on_what_no_truth_is(darknet, tmp_path):
    """Images without objects train every box to an objectness of 0, and print -nan."""
    network = made(text(), tmp_path, "pjreddie")
    raw = np.zeros((2, *network.input), np.float32)
    found, figures = deltas(network, raw, np.zeros((2, 5, 5), np.float32))
    planes = found.reshape(2, 3, 8, -1)
    assert (planes[:, :, 4] == -0.5).all()
    assert not planes[:, :, :4].any()
    assert not planes[:, :, 5:].any()
    assert network.heads[0].line(figures).startswith("Region 1 Avg IOU: -nan, Class: -nan, Obj: -nan, No Obj: 0.500000")


def test_a_truth_outside_or_of_no_class(tmp_path):
    network = made(text(), tmp_path, "pjreddie")
    rng = np.random.default_rng(2)
    raw, _ = random_case(rng, network, 1, 1, False)
    inside = np.array([[[0.5, 0.5, 0.25, 0.5, 1]]], np.float32)
    plain, figures = deltas(network, raw, inside)
    assert int(figures.count) == 1
    away = inside.copy()
    away[..., 0] = 1.5
    nothing, figures = deltas(network, raw, away)
    assert int(figures.count) == 0
    assert not nothing.reshape(3, 8, -1)[:, :4].any()
    odd = inside.copy()
    odd[..., 4] = 7
    boxed, figures = deltas(network, raw, odd)
    assert int(figures.count) == 1
    ours, theirs = boxed.reshape(3, 8, -1), plain.reshape(3, 8, -1)
    np.testing.assert_array_equal(ours[:, :5], theirs[:, :5])
    assert not ours[:, 5:].any()
    his = made(text("iou_loss=ciou"), tmp_path, "alexeyab")
    assert int(deltas(his, raw, odd)[1].count) == 1, "as he prints none"
    assert not deltas(his, raw, odd)[0].reshape(3, 8, -1)[:, :4].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("iou_loss=eiou", "iou_loss is 'eiou'; expected one of iou, giou, mse, diou, ciou"),
        ("iou_thresh_kind=x", "iou_thresh_kind is 'x'"),
        ("counters_per_class=1,2", "2 numbers in counters_per_class; expected one for each of 3 classes"),
    ],
)
def test_words_of_the_loss_that_are_none(options, message):
    with pytest.raises(CfgError, match=message):
        Network(parse_cfg(text(options)))


def test_delta_normalizer_scales_the_gradient(tmp_path):
    """And nothing that is printed, as in his GPU build; his CPU build passes over it."""
    plain = made(text("iou_loss=ciou"), tmp_path, "alexeyab")
    scaled = made(text("iou_loss=ciou\ndelta_normalizer=.5"), tmp_path, "alexeyab")
    raw, truth = random_case(np.random.default_rng(3), plain, 20, 2, False)
    whole, figures = deltas(plain, raw, truth)
    half, others = deltas(scaled, raw, truth)
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)
    assert [float(one) for one in figures] == [float(one) for one in others]
