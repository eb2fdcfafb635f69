"""A classifier's classes: counted by hand, written and drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from darknet_compat.errors import ResultsError
from darknet_compat.evaluate import class_plots
from darknet_compat.evaluate.classes import ClassScores

NAMES = ["cat", "dog", "a, b", "eel", "fox"]
# Two cats, one taken for a dog; three dogs, two of them for eels; a fox that is one; one image of no class.
TRUTH = np.array([0, 0, 1, 1, 1, 4, -1])
BEST = np.array([[0, 1], [1, 0], [1, 0], [3, 1], [3, 0], [4, 2], [2, 0]])
SCORES = ClassScores(TRUTH, BEST, NAMES)


def test_counts():
    assert SCORES.present.tolist() == [0, 1, 3, 4]
    assert SCORES.rows() == [(0, 2, 1, 2, 1, 1), (1, 3, 1, 2, 3, 2), (4, 1, 1, 1, -1, 0)]
    assert SCORES.confusion().tolist() == [[1, 1, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert (SCORES.top1, SCORES.topk) == (pytest.approx(3 / 7), pytest.approx(5 / 7))


def test_tables(tmp_path):
    names = ["cat", "dog", "x", "a, b", "fox"]
    paths = ClassScores(TRUTH, BEST, names).write(tmp_path)
    assert [path.name for path in paths] == ["classes.csv", "classes.png", "confusion.csv", "confusion.png"]
    assert paths[0].read_text().splitlines() == [
        "class_id,name,images,top 1,top 2,taken for,images taken for it",
        "0,cat,2,0.500000,1.000000,dog,1",
        '1,dog,3,0.333333,0.666667,"a, b",2',
        "4,fox,1,1.000000,1.000000,,0",
    ]
    assert paths[2].read_text().splitlines() == [
        'truth \\ prediction,cat,dog,"a, b",fox', "cat,1,1,0,0", "dog,0,1,2,0", '"a, b",0,0,0,0', "fox,0,0,0,1",
    ]  # fmt: skip
    for path in (paths[1], paths[3]):
        assert cv2.imread(str(path)) is not None


def test_the_worst_of_many_classes_are_drawn(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(class_plots, "save_figure", lambda figure, path: figures.append(figure))
    truth = np.arange(300).repeat(2)
    best = np.where(np.arange(600) < 580, truth, 0)[:, None]
    scores = ClassScores(truth, best, [f"class {index}" for index in range(300)])
    class_plots.draw_classes(scores, tmp_path / "x.png")
    class_plots.draw_confusion(scores, tmp_path / "x.png")
    bars, matrix = figures
    shown = [label.get_text() for label in bars.axes[0].get_yticklabels()]
    assert len(shown) == class_plots.MOST_BARS
    assert shown[:2] == ["class 290", "class 291"]
    assert not matrix.axes[0].texts
    assert "300 classes" in matrix.get_suptitle()


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"file/classes\.csv: Not a directory"):
        SCORES.write(tmp_path / "file")


# Warm and cold on level 1; red, orange (warm), green, blue (cold) on level 2; dark and light blue on level 3.
PARENT = np.array([-1, -1, 0, 0, 1, 1, 5, 5])


def test_levels_of_a_tree(tmp_path):
    """A right red, a red taken for orange, a red for green, a light blue for blue, a warm for red, one of no class."""
    truth, best = np.array([2, 2, 2, 7, 0, -1]), np.array([[2, 0], [3, 2], [4, 2], [5, 7], [2, 0], [0, 2]])
    scores = ClassScores(truth, best, list("abcdefgh"), PARENT)
    assert scores.levels() == [(5, 4), (4, 2), (1, 0)]
    assert ClassScores(truth, best, list("abcdefgh")).levels() == []
    assert scores.write(tmp_path)[-1].read_text().splitlines() == [
        "level,images,right", "1,5,0.800000", "2,4,0.500000", "3,1,0.000000"]  # fmt: skip
    # None goes down to the third level, and so there is none to tell of.
    assert ClassScores(truth[:3], best[:3], list("abcdefgh"), PARENT).levels() == [(3, 2), (3, 1)]


def test_levels_are_those_of_a_walk_up_from_each_class():
    rng = np.random.default_rng(0)
    parent = np.array([-1, -1, *(rng.integers(-1, index) for index in range(2, 60))])

    def path(index):
        return [*path(parent[index]), index] if index >= 0 else []

    truth, best = rng.integers(0, 60, 500), rng.integers(0, 60, (500, 1))
    pairs = [(path(one), path(other)) for one, other in zip(truth, best[:, 0], strict=True)]
    expected = []
    for level in range(max(len(one) for one, _ in pairs)):
        deep = [(one, other) for one, other in pairs if len(one) > level]
        expected.append((len(deep), sum(len(other) > level and one[level] == other[level] for one, other in deep)))
    assert ClassScores(truth, best, [""] * 60, parent).levels() == expected
