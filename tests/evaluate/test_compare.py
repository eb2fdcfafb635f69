"""Two runs side by side: matching against a plain greedy loop, and what the text says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_compat.evaluate.annotations import read_voc
from darknet_compat.evaluate.compare import compare, format_comparison, match
from darknet_compat.evaluate.results import Detections, read_comp4
from tests.evaluate import oracle
from tests.evaluate.conftest import write_results
from tests.tools.run import run_verb

NAMES = ["cat", "dog"]
IMAGES = ["one", "two", "three"]


def run_of(rng, count, grid):
    low = rng.integers(1, grid, (count, 2)) * 4.0
    return Detections(
        names=NAMES,
        images=IMAGES,
        image=rng.integers(0, len(IMAGES), count),
        class_id=np.sort(rng.integers(0, len(NAMES), count)),
        prob=rng.integers(1, 10, count) / 10,
        box=np.concatenate((low, low + rng.integers(8, 20, (count, 2))), axis=1),
        missing=[],
        absent=[],
    )


def rows(run):
    return list(zip(zip(run.image, run.class_id, strict=True), run.prob, run.box, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40), st.sampled_from([2, 4, 12]))
def test_matching_is_the_greedy_one(seed, count_a, count_b, grid):
    rng = np.random.default_rng(seed)
    a, b = run_of(rng, count_a, grid), run_of(rng, count_b, grid)
    pairs = list(zip(*(rows.tolist() for rows in match(a, b)), strict=True))
    assert pairs == oracle.match(rows(a), rows(b))


@pytest.fixture
def two(small):
    """The small run, and one that is shifted, less sure, and sees one thing more and one less."""
    shifted = {
        "cat": ["one 0.85 11 10 30 29", "one 0.7 51 10 70 29", "two 0.6 2 1 6 5"],
        "dog": ["one 0.9 61 60 71 70", "two 0.8 2 1 41 40", "two 0.75 60 60 90 75"],
        "bird": [],
    }
    return small, write_results(small.results.parent / "other", shifted)


def test_the_differences_that_are_there_are_found(two):
    small, other = two
    truths = read_voc(small.devkit, 2007, "test", small.names)
    a, b = (read_comp4(folder, small.names, truths.images) for folder in (small.results, other))
    result = compare(a, b, truths)
    cat, dog, bird = result.classes
    # Both boxes of A lie on the one of B; the one nearer in probability is taken.
    assert (cat.detections, cat.matched) == ((4, 3), 3)
    assert cat.probability == pytest.approx(0.05)
    assert (dog.detections, dog.matched, dog.corner) == ((2, 3), 2, 1)
    assert (bird.detections, bird.matched, bird.corner, bird.ap) == ((1, 0), 0, None, (None, None))
    assert dog.ap[0] == dog.ap[1]
    text = format_comparison(result, a, b)
    assert "median of B - A: probability +0.000000, xmin +1.0000, ymin +0.0000, xmax +1.0000, ymax +0.0000" in text
    assert "over 2 of 3 classes" in text
    assert "only in A: 2 of 7, the most probable 0.900000" in text
    assert "only in B: 1 of 6, the most probable 0.750000" in text
    weights = dict(zip(truths.images, result.weight, strict=True))
    assert weights == {"one": pytest.approx(0.95), "two": pytest.approx(0.85)}
    assert text.splitlines()[-3].split() == ["one", "0.9500", "1", "0", "3"]


def test_the_text_from_the_first_line_to_the_last(small):
    other = {
        "cat": ["one 0.8 10 7 29 26", "one 0.7 50 10 69 29"],
        "dog": ["two 0.95 1 1 40 40"],
        "bird": ["one 0.3 2 2 9 9"],
    }
    truths = read_voc(small.devkit, 2007, "test", small.names)
    folders = (small.results, write_results(small.results.parent / "other", other))
    a, b = (read_comp4(folder, small.names, truths.images) for folder in folders)
    # One of two dogs is found: behind a wrong box in A (precision .5), alone in B.
    text = format_comparison(compare(a, b, truths, "area"), a, b).splitlines()
    assert text == [
        "class  AP of A  AP of B    B - A     in A     in B  matched   only A   only B  max dprob  max dpixel",
        "cat     1.0000   1.0000  +0.0000        4        2        2        2        0   0.000000      3.0000",
        "dog     0.2500   0.5000  +0.2500        2        1        1        1        0   0.150000      0.0000",
        "bird         -        -        -        1        1        0        1        1          -           -",
        "mean    0.6250   0.7500  +0.1250  over 2 of 3 classes",
        "",
        "greatest difference in probability 0.150000  "
        "dog on two: 0.800000 1.00 1.00 40.00 40.00 | 0.950000 1.00 1.00 40.00 40.00",
        "greatest difference in a corner    3.000000  "
        "cat on one: 0.800000 10.00 10.00 29.00 29.00 | 0.800000 10.00 7.00 29.00 26.00",
        "median of B - A: probability +0.000000, xmin +0.0000, ymin +0.0000, xmax +0.0000, ymax +0.0000",
        "only in A: 4 of 7, the most probable 0.900000",
        "only in B: 1 of 4, the most probable 0.300000",
        "",
        "image      weight  only A  only B  matched",
        "one        2.1000       2       1        2",
        "two        0.8500       2       0        1",
        "weight: sum of differences in probability; a detection that one side alone has counts with all of it",
    ]
    worst = format_comparison(compare(a, b), a, b, 1).splitlines()
    assert worst[0] == "class     in A     in B  matched   only A   only B  max dprob  max dpixel"
    assert worst[-3:] == [text[-4], text[-3], text[-1]]
    bird = replace(truths, names=["bird"], class_id=truths.class_id[:0], image=truths.image[:0])
    c, d = (read_comp4(folder, ["bird"], truths.images) for folder in folders)
    lines = format_comparison(compare(c, d, bird), c, d).splitlines()
    assert lines[2:5] == [
        "mean       nan      nan     +nan  over 0 of 1 classes",
        "",
        "no detection of one folder is in the other",
    ]


def test_the_ten_worst_images_are_listed_in_order_of_weight():
    count = 12
    a = Detections(
        names=["cat"],
        images=[f"image{number:02d}" for number in range(count)],
        image=np.arange(count),
        class_id=np.zeros(count, int),
        prob=(np.arange(count) % 6 + 1) / 10,
        box=np.tile([1.0, 1, 9, 9], (count, 1)),
        missing=[],
        absent=[],
    )
    b = replace(a, prob=np.zeros(count))
    lines = format_comparison(compare(a, b), a, b).splitlines()
    listed = [line.split()[0] for line in lines[lines.index("") :] if re.match(r"image\d", line)]
    assert listed == [f"image{number:02d}" for number in (5, 11, 4, 10, 3, 9, 2, 8, 1, 7)]
    assert next(line for line in lines if line.startswith("image")) == ("image      weight  only A  only B  matched")


def test_images_that_do_not_differ_are_not_listed(two):
    small, other = two
    a, b = (read_comp4(folder, small.names, ["one", "two", "three"]) for folder in (small.results, other))
    assert format_comparison(compare(a, a), a, a).endswith("\n\nno image differs")
    listed = format_comparison(compare(a, b), a, b).split("\n\n")[-1].splitlines()[1:-1]
    assert [line.split()[0] for line in listed] == ["one", "two"]


def test_boxes_that_overlap_by_half_are_two_objects_and_rows_go_back_in_the_order_of_a():
    def run(image, boxes):
        count = len(image)
        return Detections(
            ["cat"], ["x", "y"], np.array(image), np.zeros(count, int), np.ones(count), np.float64(boxes), [], []
        )

    a = run([1, 0, 0], [[1, 1, 10, 10], [1, 1, 10, 10], [30, 30, 39, 39]])
    b = run([0, 1, 0], [[1, 1, 10, 5], [1, 1, 10, 6], [39, 39, 30, 30]])
    assert [side.tolist() for side in match(a, b)] == [[0, 2], [1, 2]]


def test_a_run_compared_with_itself_differs_in_nothing(detected):
    truths = read_voc(detected.devkit, 2007, "test", detected.names)
    a = read_comp4(detected.results, detected.names, truths.images)
    result = compare(a, a)
    assert np.array_equal(result.pair_a, np.arange(len(a.prob)))
    assert np.array_equal(result.pair_b, np.arange(len(a.prob)))
    assert format_comparison(result, a, a).endswith("no image differs")


def compare_results(*arguments):
    return run_verb("compare_results", *arguments)


def test_the_verb_compares_with_and_without_truth(two):
    small, other = two
    names = small.results.parent / "small.names"
    done = compare_results(small.results, other, "--names", names)
    assert (done.returncode, done.stderr) == (0, "")
    assert "AP of A" not in done.stdout
    done = compare_results(small.results, other, "-names", names, "-devkit", small.devkit)
    assert (done.returncode, done.stderr) == (0, "")
    assert "AP of A" in done.stdout


def test_the_verb_says_in_one_line_what_is_missing(two):
    small, other = two
    names = small.results.parent / "small.names"
    (other / "comp4_det_test_dog.txt").unlink()
    done = compare_results(small.results, other, "--names", names)
    assert done.returncode == 1
    assert done.stderr == f"{other / 'comp4_det_test_dog.txt'}: no such file\n"
    done = compare_results(small.results, other / "nowhere", "--names", names)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
