"""eval/map_and_voc.py: the ends of its chain are the two scores that it compares."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from darknet_compat.evaluate.annotations import read_voc
from darknet_compat.evaluate.results import read_comp4
from darknet_compat.evaluate.voc import score
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("map_and_voc", ROOT / "eval" / "map_and_voc.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_steps_lead_from_one_score_to_the_other(script, small):
    truths = read_voc(small.devkit, 2007, "test", small.names)
    detections = read_comp4(small.results, small.names, truths.images)
    voc07, area, bare, easy, relative, whole = script.mean_aps(truths, detections)
    assert voc07 == score(truths, detections, "voc07").mean
    assert area == score(truths, detections, "area").mean
    # Each box lies on its object or nowhere near: the +1 changes nothing. Without the difficult cat, the detection on
    # it comes third of the cats, and the one there is has been found before.
    assert bare == easy == area
    # As detector map itself counts, whose list of classes holds a bird without truths.
    assert relative == pytest.approx(area)
    assert whole == pytest.approx(area * 2 / 3)


def test_images_are_drawn_with_all_their_rows(script, small):
    truths = read_voc(small.devkit, 2007, "test", small.names)
    drawn = np.array([False, True])
    assert script.of_images(truths, drawn).image.tolist() == [1]
    detections = read_comp4(small.results, small.names, truths.images)
    assert set(script.of_images(detections, drawn).image.tolist()) == {1}
