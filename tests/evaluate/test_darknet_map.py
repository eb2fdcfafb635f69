"""AlexeyAB's map and Darknet's recall against their own loops, box by box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_compat.evaluate.annotations import LabelBoxes
from darknet_compat.evaluate.darknet_map import detector_map, format_map, recall_counts, recall_lines, relative_iou
from tests.evaluate import oracle

NAMES = ["cat", "dog", "bird"]


@st.composite
def images(draw):
    """Images of (detections, truths, difficult), boxes on a coarse grid so that they often meet."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step = draw(st.sampled_from([3, 20, 10**6]))

    def some(most):
        count = rng.integers(0, most + 1)
        boxes = np.concatenate((rng.integers(2, 7, (count, 2)) / 8, rng.integers(1, 4, (count, 2)) / 8), axis=1)
        boxes += rng.choice([0.0, 0.01], boxes.shape)
        return list(zip(rng.integers(0, len(NAMES), count).tolist(), boxes.astype(np.float32), strict=True))

    return [
        (
            [(number, np.float32(rng.integers(1, step + 1) / step), box) for number, box in some(25)],
            some(6),
            some(3),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


def label_boxes(rows):
    """``rows``: per image a list of (class, box)."""
    flat = [(image, *one) for image, ones in enumerate(rows) for one in ones]
    return LabelBoxes(
        image=np.array([image for image, _, _ in flat], dtype=int),
        class_id=np.array([number for _, number, _ in flat], dtype=int),
        box=np.array([box for _, _, box in flat], dtype=float).reshape(-1, 4),
    )


def ours(given_images, thresh, iou_thresh, points):
    flat = [(image, *one) for image, (ones, _, _) in enumerate(given_images) for one in ones]
    return detector_map(
        NAMES,
        np.array([row[0] for row in flat], dtype=int),
        np.array([row[1] for row in flat], dtype=int),
        np.array([row[2] for row in flat], dtype=np.float32),
        np.array([row[3] for row in flat], dtype=np.float32).reshape(-1, 4),
        label_boxes([truths for _, truths, _ in given_images]),
        label_boxes([difficult for _, _, difficult in given_images]),
        thresh=thresh,
        iou_thresh=iou_thresh,
        points=points,
    )


@settings(max_examples=300, deadline=None)
@given(images(), st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from([0.3, 0.5, 0.75]), st.sampled_from([0, 11, 101]))
def test_the_table_is_alexeyabs(given_images, thresh, iou_thresh, points):
    table = ours(given_images, thresh, iou_thresh, points)
    expected = oracle.detector_map(given_images, len(NAMES), thresh, iou_thresh, points)
    assert [one.ap for one in table.classes] == pytest.approx(expected["aps"], abs=1e-12)
    assert [one.right for one in table.classes] == expected["right"]
    assert [one.wrong for one in table.classes] == expected["wrong"]
    assert table.detections == expected["detections"]
    right, wrong = sum(expected["right"]), sum(expected["wrong"])
    assert (table.right, table.wrong) == (right, wrong)
    assert table.average_iou == pytest.approx(expected["iou_sum"] / max(right + wrong, 1), abs=1e-6)
    assert table.precision == pytest.approx(right / max(right + wrong, 1))
    assert table.recall == pytest.approx(right / max(table.truths, 1))
    assert table.truths == sum(len(truths) for _, truths, _ in given_images)
    for number, one in enumerate(table.classes):
        assert one.truths == sum(mine == number for _, truths, _ in given_images for mine, _ in truths)
    assert sum(one.detections for one in table.classes) == table.detections


@settings(max_examples=100, deadline=None)
@given(images(), st.sampled_from([0.001, 0.5]))
def test_recall_is_darknets(given_images, thresh):
    proposals = [[(prob, box) for _, prob, box in ones] for ones, _, _ in given_images]
    truths = [[box for _, box in ones] for _, ones, _ in given_images]
    expected = oracle.recall(list(zip(proposals, truths, strict=True)), thresh, 0.5)
    flat = [(image, *one) for image, ones in enumerate(proposals) for one in ones]
    table = recall_counts(
        np.array([row[0] for row in flat], dtype=int),
        np.array([row[1] for row in flat], dtype=np.float32),
        np.array([row[2] for row in flat], dtype=np.float32).reshape(-1, 4),
        label_boxes([ones for _, ones, _ in given_images]),
        len(given_images),
        thresh=thresh,
    )
    for number, (above, total, correct, iou) in enumerate(expected):
        assert (table.proposals[number], table.total[number], table.correct[number]) == (above, total, correct)
        assert table.iou[number] == pytest.approx(iou, abs=1e-6)
    assert len(recall_lines(table)) == len(given_images)


def box(*values):
    return np.array(values, dtype=np.float32)


def test_the_printed_lines():
    cat, dog = box(0.25, 0.25, 0.2, 0.2), box(0.75, 0.75, 0.2, 0.2)
    table = ours([([(0, 0.9, cat), (0, 0.8, cat), (1, 0.1, dog)], [(0, cat), (1, dog)], [])], 0.25, 0.5, 0)
    assert format_map(table).splitlines() == [
        " detections_count = 3, unique_truth_count = 2  ",
        "class_id = 0, name = cat, ap = 100.00%   \t (TP = 1, FP = 1) ",
        "class_id = 1, name = dog, ap = 100.00%   \t (TP = 0, FP = 0) ",
        "class_id = 2, name = bird, ap = 0.00%   \t (TP = 0, FP = 0) ",
        "",
        " no truths, counted as ap = 0 in the mean: bird",
        "",
        " for conf_thresh = 0.25, precision = 0.50, recall = 0.50, F1-score = 0.50 ",
        " for conf_thresh = 0.25, TP = 1, FP = 1, FN = 1, average IoU = 50.00 % ",
        "",
        " IoU threshold = 50 %, used Area-Under-Curve for each unique Recall ",
        " mean average precision (mAP@0.50) = 0.666667, or 66.67 % ",
    ]


def test_map_without_a_word_is_at_a_quarter_and_a_half_by_area():
    """AlexeyAB's defaults: src/detector.c, validate_detector_map and run_detector."""
    cat = box(0.5, 0.5, 0.25, 0.25)
    # One right; one at the threshold and not over it; one that overlaps by half and no more.
    prob, boxes = np.float32([0.9, 0.25, 0.8]), np.stack([cat, cat, box(0.5, 0.5, 0.125, 0.25)])
    truths = label_boxes([[(0, cat)], [(0, cat)], [(0, cat)]])
    table = detector_map(NAMES[:1], np.arange(3), np.zeros(3, int), prob, boxes, truths)
    assert (table.thresh, table.iou_thresh, table.points) == (0.25, 0.5, 0)
    assert (table.right, table.wrong, table.detections, table.classes[0].detections) == (1, 1, 3, 3)
    assert table.mean == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert (table.precision, table.recall, table.f1) == pytest.approx((1 / 2, 1 / 3, 0.4))


def test_the_printed_line_of_recall_points():
    table = ours([([(0, 0.9, box(0.25, 0.25, 0.2, 0.2))], [(0, box(0.25, 0.25, 0.2, 0.2))], [])], 0.1, 0.75, 101)
    assert format_map(table).splitlines()[-2:] == [
        " IoU threshold = 75 %, used 101 Recall-points ",
        " mean average precision (mAP@0.75) = 0.333333, or 33.33 % ",
    ]


def test_iou_is_the_librarys_to_the_bit(darknet):
    rng = np.random.default_rng(0)
    a, b = (np.concatenate([rng.random((3000, 2)), rng.random((3000, 2)) / 2], axis=1).astype(np.float32) for _ in "ab")
    a[:500, :2], b[:500, 2:] = b[:500, :2], 0
    a[500:700] = b[500:700]
    expected = np.nan_to_num(darknet.iou(a, b))  # AlexeyAB's gives 0 where neither box has an area
    np.testing.assert_array_equal(relative_iou(a, b).view(np.int32), expected.view(np.int32))


def test_boxes_without_a_union_do_not_meet():
    """A width of one unit in the last place, at an odd one: rounding makes the overlap as large as both areas."""
    thin = box(np.nextafter(np.float32(0.5), np.float32(1)), 0.5, 2.0**-24, 0.5)
    assert relative_iou(thin[None], thin[None]).tolist() == [oracle.iou(thin, thin)] == [0]


def test_the_whole_image_is_itself_and_boxes_apart_are_no_division_by_zero():
    whole, left, right = box(0.5, 0.5, 1, 1), box(0.25, 0.25, 0.1, 0.1), box(0.75, 0.25, 0.1, 0)
    with np.errstate(all="raise"):
        found = relative_iou(np.stack([whole, whole, left, right]), np.stack([whole, left, right, right]))
    assert found.tolist() == pytest.approx([1, 0.01, 0, 0])


def test_nothing_at_all_is_zero():
    table = ours([([], [], [])], 0.25, 0.5, 11)
    assert (table.mean, table.precision, table.recall, table.f1, table.average_iou) == (0, 0, 0, 0, 0)


def test_the_recall_line():
    truth = box(0.5, 0.5, 0.2, 0.2)
    table = recall_counts(
        np.array([0, 0, 1]),
        np.array([0.9, 0.0005, 0.9]),
        np.array([truth, truth, box(0.1, 0.1, 0.1, 0.1)]),
        label_boxes([[(0, truth)], [(0, truth)]]),
        2,
    )
    assert recall_lines(table) == [
        "    0     1     1\tRPs/Img: 1.00\tIOU: 100.00%\tRecall:100.00%",
        "    1     1     2\tRPs/Img: 1.00\tIOU: 50.00%\tRecall:50.00%",
    ]


@pytest.mark.filterwarnings("error")
def test_an_infinite_box_overlaps_nothing_and_warns_of_nothing():
    """A young network's width is e to the power of a large number."""
    boxes = np.array([[0.5, 0.5, np.inf, 0.5], [0.5, 0.5, np.inf, np.inf], [0.5, 0.5, 1e30, 1e30]], np.float32)
    truth = np.full((3, 4), 0.5, np.float32)
    assert not (relative_iou(boxes, truth) > 0).any()
