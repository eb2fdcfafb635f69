"""Two runs side by side: matching against a plain greedy loop, and what the text says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_compat.evaluate.annotations import read_voc
from darknet_compat.evaluate.compare import compare, format_comparison, match
from darknet_compat.evaluate.results import Detections, read_comp4
from tests.evaluate import oracle
from tests.evaluate.conftest import write_results

TOOL = Path(__file__).parents[2] / "tools" / "compare_results.py"
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


def test_a_run_compared_with_itself_differs_in_nothing(detected):
    truths = read_voc(detected.devkit, 2007, "test", detected.names)
    a = read_comp4(detected.results, detected.names, truths.images)
    result = compare(a, a)
    assert np.array_equal(result.pair_a, np.arange(len(a.prob)))
    assert np.array_equal(result.pair_b, np.arange(len(a.prob)))
    assert format_comparison(result, a, a).endswith("no picture differs")


def compare_results(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, cwd=TOOL.parents[1], check=False
    )


def test_the_tool_compares_with_and_without_truth(two):
    small, other = two
    names = small.results.parent / "small.names"
    done = compare_results(small.results, other, "--names", names)
    assert (done.returncode, done.stderr) == (0, "")
    assert "AP of A" not in done.stdout
    done = compare_results(small.results, other, "-names", names, "-devkit", small.devkit)
    assert (done.returncode, done.stderr) == (0, "")
    assert "AP of A" in done.stdout


def test_the_tool_says_in_one_line_what_is_missing(two):
    small, other = two
    names = small.results.parent / "small.names"
    (other / "comp4_det_test_dog.txt").unlink()
    done = compare_results(small.results, other, "--names", names)
    assert done.returncode == 1
    assert done.stderr == f"compare_results: {other / 'comp4_det_test_dog.txt'}: no such file\n"
    done = compare_results(small.results, other / "nowhere", "--names", names)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
