"""The losses of [yolo] against both libraries: deltas, costs and lines of random maps and truths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError
from darknet_compat.layers.iou_loss import agreement, iou_deltas
from darknet_compat.network import Network
from darknet_compat.train.log import rewritten_line
from tests.layers.head_cases import (
    BOTH,
    HIS,
    KINDS,
    SIZES,
    THRESH,
    Pair,
    Tally,
    check_delta_normalizer,
    deltas,
    made,
    numbers,
    one_of,
    random_case,
    row,
    run,
    text,
    with_any,
    words,
)

PJREDDIE = with_any(BOTH)
ALEXEYAB = with_any(
    HIS
    | {
        "focal_loss": {"focal_loss": one_of(1)},
        "new_coords": {"new_coords": one_of(1)},
        "new_coords, iou_thresh": {"new_coords": one_of(1), **THRESH},
        "show_details": {"show_details": one_of(0)},
    }
)


@pytest.mark.parametrize("switch", PJREDDIE)
@pytest.mark.parametrize(("networks", "cases"), SIZES)
def test_deltas_are_pjreddies(darknet, tmp_path, switch, networks, cases):
    print(row(switch, run(darknet, tmp_path, "yolo", PJREDDIE[switch], networks, cases)))


@pytest.mark.parametrize("switch", ALEXEYAB)
@pytest.mark.parametrize(("networks", "cases"), SIZES)
def test_deltas_are_alexeyabs(alexeyab_darknet, tmp_path, switch, networks, cases):
    print(row(switch, run(alexeyab_darknet, tmp_path, "yolo", ALEXEYAB[switch], networks, cases, KINDS)))


@pytest.mark.parametrize("value", [-200, 200])
def test_a_class_0_that_is_gone_lets_truths_set_all_classes_anew(darknet, tmp_path, value):
    """As he looks at its delta to see whether a slot has classes already, and that delta is 0."""
    rng, pair, tally = np.random.default_rng(6), Pair(darknet, tmp_path, text()), Tally()
    for _ in range(12):
        raw, truth = random_case(rng, pair.network)
        raw.reshape(2, 3, 8, -1)[:, :, 5] = value
        pair.compare(raw, truth, tally)
    assert tally.rounded == 0


@pytest.mark.parametrize("value", [-1000, -100, 100, 1000])
@pytest.mark.parametrize(
    "options", ["iou_loss=mse", "iou_loss=giou", "iou_loss=ciou\niou_thresh=.2", "objectness_smooth=1"]
)
def test_values_that_no_exp_can_take_are_no_nan(tmp_path, options, value):
    """With AlexeyAB's program, whose logistic is NaN at -100: what hangs on an infinite box is 0, as in his.

    An infinite box has no GIOU, so that its cost is none; a training then stops.
    """
    network = made(text(options), tmp_path, "alexeyab")
    _, truth = random_case(np.random.default_rng(0), network)
    found, figures = deltas(network, np.full((2, *network.input), value, np.float32), truth)
    assert np.isfinite(found).all()
    assert bool(figures.cost.isnan()) == ("giou" in options and value > 0)
    assert np.isfinite([float(figure) for figure in figures[1:]]).all()
    delta = set(np.unique(found.reshape(2, 3, 8, -1)[:, :, 4]))
    # With objectness_smooth only a delta of 0 is a truth's to set.
    assert delta == ({0, 1} if value < 0 else {-1} if "smooth" in options else {-1, 0})


@pytest.mark.parametrize("plane", [2, 3])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_box_whose_edges_fall_together_is_alexeyabs(alexeyab_darknet, tmp_path, kind, plane):
    """In float32: he takes one edge for both then."""
    rng, pair, tally = np.random.default_rng(7), Pair(alexeyab_darknet, tmp_path, text(f"iou_loss={kind}")), Tally()
    for _ in range(12):
        raw, truth = random_case(rng, pair.network)
        raw.reshape(2, 3, 8, -1)[:, :, plane] = -20
        pair.compare(raw, truth, tally)
    assert tally.rounded == 0


@pytest.mark.parametrize("options", ["", "iou_loss=ciou\niou_thresh=.2", "truth_thresh=.3"], ids=["", "ciou", "truth"])
def test_boxes_of_more_than_one_truth_are_counted_as_alexeyabs(alexeyab_darknet, tmp_path, options):
    """One image at a time: his threads, one for each image, count without a lock."""
    rng, pair = np.random.default_rng(5), Pair(alexeyab_darknet, tmp_path, text(options, batch=1))
    rewritten = trained = 0
    for _ in range(8):
        raw, truth = random_case(rng, pair.network)
        with alexeyab_darknet.capture() as printed:
            pair.theirs(raw, truth)
        more, all = pair.head.rewritten(deltas(pair.network, raw, truth)[1])
        rewritten, trained = rewritten + int(more), trained + int(all)
        lines = [line for line in printed.errors.splitlines() if "total_bbox" in line]
        if trained:
            own = rewritten_line(rewritten, trained)
            assert words(own) == words(lines[-1])
            np.testing.assert_allclose(numbers(own), numbers(lines[-1]), rtol=1e-4)
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
    raw = rng.normal(0, 1.5, (1, *network.input)).astype(np.float32)
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
    check_delta_normalizer(text, tmp_path)
