"""AP against the plain reference algorithm, and against the published figures of real detections."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_compat.evaluate.annotations import Truths, read_voc
from darknet_compat.evaluate.results import Detections, read_comp4
from darknet_compat.evaluate.voc import as_json, format_table, pixel_iou, score, voc_ap
from tests.evaluate import oracle

NAMES = ["cat", "dog"]


@st.composite
def runs(draw):
    """Truths and detections on a few images; whole corners and few probabilities, so that ties abound."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = draw(st.integers(1, 6))
    spread = draw(st.sampled_from([4, 12, 60]))

    def boxes(count):
        low = rng.integers(1, spread, (count, 2))
        return np.concatenate((low, low + rng.integers(0, spread, (count, 2))), axis=1).astype(float)

    count = draw(st.integers(0, 25))
    truths = Truths(
        names=NAMES,
        images=[f"{number:06d}" for number in range(images)],
        paths=[],
        image=np.sort(rng.integers(0, images, count)),
        class_id=rng.integers(0, 2, count),
        box=boxes(count),
        difficult=rng.random(count) < draw(st.sampled_from([0, 0.3, 1])),
    )
    count = draw(st.integers(0, 120))
    step = draw(st.sampled_from([2, 10, 10**6]))
    detections = Detections(
        names=NAMES,
        images=truths.images,
        image=rng.integers(0, images, count),
        class_id=np.sort(rng.integers(0, 2, count)),
        prob=rng.integers(0, step + 1, count) / step,
        box=boxes(count) + draw(st.sampled_from([0.0, 0.25])),
        missing=[],
        absent=[],
    )
    return truths, detections


def as_reference_input(truths, detections, class_id):
    annotations = {image: [] for image in truths.images}
    for image, number, box, difficult in zip(truths.image, truths.class_id, truths.box, truths.difficult, strict=True):
        annotations[truths.images[image]].append(
            {"name": NAMES[number], "difficult": int(difficult), "bbox": [int(value) for value in box]}
        )
    rows = detections.of_class(class_id)
    lines = [
        f"{truths.images[image]} {prob!r} {' '.join(repr(float(value)) for value in box)}\n"
        for image, prob, box in zip(
            detections.image[rows], detections.prob[rows].tolist(), detections.box[rows], strict=True
        )
    ]
    return lines, annotations


@settings(max_examples=300, deadline=None)
@given(runs(), st.sampled_from(["voc07", "area"]), st.sampled_from([0.3, 0.5, 0.75]))
def test_every_ap_is_the_references_to_the_last_bit(run, metric, iou):
    truths, detections = run
    for number, one in enumerate(score(truths, detections, metric, iou).classes):
        if one.truths == 0:
            assert one.ap is None
            continue
        lines, annotations = as_reference_input(truths, detections, number)
        assert one.ap == oracle.voc_eval(lines, annotations, one.name, iou, metric == "voc07")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20), st.booleans())
def test_voc_ap_is_the_references(right, unfound, eleven_points):
    right = np.array(right, dtype=float)
    recall = np.cumsum(right) / max(right.sum() + unfound, 1)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    assert voc_ap(recall, precision, "voc07" if eleven_points else "area") == oracle.average_precision(
        recall, precision, eleven_points
    )


def one_class(truth_boxes, detection_rows, difficult=None):
    """Scores of one class on one image."""
    truths = Truths(
        names=["cat"],
        images=["one"],
        paths=[],
        image=np.zeros(len(truth_boxes), dtype=int),
        class_id=np.zeros(len(truth_boxes), dtype=int),
        box=np.array(truth_boxes, dtype=float),
        difficult=np.array(difficult or [False] * len(truth_boxes), dtype=bool),
    )
    rows = np.array(detection_rows, dtype=float)
    count = len(rows)
    detections = Detections(
        ["cat"], ["one"], np.zeros(count, int), np.zeros(count, int), rows[:, 0], rows[:, 1:], [], []
    )
    return score(truths, detections, "area").classes[0]


def test_overlap_must_exceed_the_threshold_and_counts_whole_pixels():
    # 10 x 10 pixels against 10 x 5 inside it: IOU exactly .5, which is not enough.
    assert one_class([[1, 1, 10, 10]], [[0.9, 1, 1, 10, 5]]).ap == 0
    assert one_class([[1, 1, 10, 10]], [[0.9, 1, 1, 10, 6]]).ap == 1


def test_second_detection_of_a_truth_is_wrong_and_a_difficult_one_counts_neither_way():
    found = one_class(
        [[1, 1, 10, 10], [50, 1, 59, 10]],
        [[0.9, 1, 1, 10, 10], [0.8, 1, 1, 10, 10], [0.7, 50, 1, 59, 10]],
        difficult=[False, True],
    )
    assert found.right.tolist() == [True, False, False]
    assert found.ignored.tolist() == [False, False, True]
    assert found.precision.tolist() == [1, 0.5, 0.5]
    assert (found.truths, found.difficult, found.detections) == (1, 1, 3)


def test_a_detection_looks_only_at_the_truth_it_overlaps_most():
    # Both detections overlap the first truth most; the second is wrong although the other truth is free.
    found = one_class([[1, 1, 10, 10], [1, 3, 10, 12]], [[0.9, 1, 1, 10, 10], [0.8, 1, 2, 10, 10]])
    assert found.right.tolist() == [True, False]


def test_absent_classes_and_those_without_truths_are_named_and_not_in_the_mean(small):
    (small.results / "comp4_det_test_dog.txt").unlink()
    truths = read_voc(small.devkit, 2007, "test", small.names)
    scores = score(truths, read_comp4(small.results, small.names, truths.images))
    table = format_table(scores)
    assert scores.absent == ["dog"]
    assert "over 1 of 3 classes" in table
    assert "not in the mean, no result file: dog" in table
    assert "not in the mean, no truths to find: bird" in table
    content = as_json(scores)
    assert content["mAP"] is None
    assert content["classes"]["dog"] == {"ap": None, "truths": 2, "difficult": 0, "detections": None}
    assert content["classes"]["bird"]["ap"] is None
    assert content["classes"]["cat"] == {
        "ap": pytest.approx(1),
        "truths": 1,
        "difficult": 1,
        "detections": 4,
    }


def test_the_table_is_laid_out_to_the_longest_name_and_says_what_it_is_a_mean_of(small):
    names = [*small.names, "diningtable"]
    truths = read_voc(small.devkit, 2007, "test", names)
    scores = score(truths, read_comp4(small.results, names, truths.images))
    # Half of the two dogs is found, behind a wrong box: precision .5 at the recalls 0 to .5, six of eleven.
    assert (scores.iou, scores.classes[1].ap, scores.mean) == (0.5, pytest.approx(3 / 11), pytest.approx(7 / 11))
    assert format_table(scores).splitlines() == [
        "class            AP  truths  difficult  detections",
        "cat          1.0000       1          1           4",
        "dog          0.2727       2          0           2",
        "bird              -       0          0           1",
        "diningtable       -       0          0      absent",
        "mean         0.6364  over 2 of 4 classes, 11-point, IOU > 0.5",
        "not in the mean, no result file: diningtable",
        "not in the mean, no truths to find: bird",
    ]


def test_a_run_without_any_truth_has_no_mean(small):
    truths = read_voc(small.devkit, 2007, "test", ["bird"])
    scores = score(truths, read_comp4(small.results, ["bird"], truths.images), "area")
    assert np.isnan(scores.mean)
    assert as_json(scores)["mAP"] is None
    assert format_table(scores).splitlines() == [
        "class      AP  truths  difficult  detections",
        "bird        -       0          0           1",
        "mean        -  over 0 of 1 classes, area under the curve, IOU > 0.5",
        "not in the mean, no truths to find: bird",
    ]


def test_what_each_detection_met_is_told_row_by_row():
    found = one_class([[50, 1, 59, 10], [1, 1, 10, 10]], [[0.7, 1, 1, 10, 5], [0.9, 1, 1, 10, 10]])
    assert (found.row.tolist(), found.truth.tolist(), found.overlap.tolist()) == ([1, 0], [1, 1], [1, 0.5])
    assert (found.recall.tolist(), found.precision.tolist()) == ([0.5, 0.5], [1, 0.5])
    alone = one_class(np.zeros((0, 4)), [[0.9, 1, 1, 10, 10]])
    assert (alone.truth.tolist(), alone.overlap.tolist(), alone.ap) == ([-1], [-np.inf], None)
    assert np.isnan(alone.recall).all()


@pytest.mark.parametrize("step", [-9, -1, 1, 9])
def test_neighbours_a_pixel_high_or_wide_do_not_overlap(step):
    row, column = np.array([[1.0, 1, 10, 1]]), np.array([[1.0, 1, 1, 10]])
    assert pixel_iou(row, row - [0, step, 0, step]).tolist() == [0]
    assert pixel_iou(column, column - [step, 0, step, 0]).tolist() == [0]
    assert pixel_iou(row, column).tolist() == [1 / 19]


def test_a_box_turned_inside_out_meets_nothing_and_is_wrong():
    """Darknet writes one where a box lies beside the image. Beside a truth turned likewise there is no union."""
    assert pixel_iou(np.array([[1.0, 1, 2, 10]]), np.array([[12.0, 1, 10, 10]])).tolist() == [0]
    found = one_class([[9, 1, 8, 10], [30, 1, 20, 10]], [[0.9, 9, 1, 8, 10]])
    assert (found.right.tolist(), found.precision.tolist()) == ([False], [0])


@pytest.mark.parametrize(("metric", "column"), [("voc07", "ap_11_point"), ("area", "ap_area")])
def test_real_detections_give_the_published_figures(voc2007, shared, metric, column):
    truths = read_voc(voc2007.devkit, 2007, "test", voc2007.names)
    detections = read_comp4(voc2007.results, voc2007.names, truths.images)
    assert (len(truths.image), len(detections.prob)) == (14976, 254590)
    scores = score(truths, detections, metric)
    with open(shared / "voc2007-test" / "expected.csv") as file:
        expected = {row["class"]: row[column] for row in csv.DictReader(file)}
    got = {one.name: f"{one.ap:.4f}" for one in scores.classes} | {"mean": f"{scores.mean:.4f}"}
    assert got == expected


def test_real_detections_give_the_references_figures_in_a_fraction_of_its_time(voc2007):
    """Processor time, so that other work on the machine does not decide."""
    clock = [time.process_time()]

    def lap():
        clock.append(time.process_time())
        return clock[-1] - clock[-2]

    annotations = oracle.read_devkit(voc2007.devkit)
    reference_xml = lap()
    expected = oracle.voc_eval_folder(voc2007.results, annotations, voc2007.names)
    reference_scoring = lap()
    truths = read_voc(voc2007.devkit, 2007, "test", voc2007.names)
    xml = lap()
    detections = read_comp4(voc2007.results, voc2007.names, truths.images)
    results = lap()
    scores = score(truths, detections)
    scoring = lap()
    assert {one.name: one.ap for one in scores.classes} == expected
    print(f"reference: XML {reference_xml:.2f} s, result files and scoring {reference_scoring:.2f} s")
    print(f"here: XML {xml:.2f} s, result files {results:.2f} s, scoring {scoring:.2f} s")
    assert scoring < 0.6
    assert results + scoring < reference_scoring / 5
    assert xml + results + scoring < (reference_xml + reference_scoring) / 3
