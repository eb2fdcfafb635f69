"""A detector is called on images."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from darknet_compat import Detector, engines, load_detector
from darknet_compat.detect import detect_files
from darknet_compat.errors import CfgError, DataError, ExportError, ImageError
from darknet_compat.images import load_image

ROOT = Path(__file__).resolve().parents[2]
CFG, WEIGHTS, NAMES = ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights", ROOT / "data/shapes.names"
SAMPLE = ROOT / "data/shapes-sample.jpg"
WORDS = NAMES.read_text().split()


@pytest.fixture(scope="module")
def shapes():
    return Detector(CFG, WEIGHTS, NAMES, thresh=0.25, device="cpu")


def alike(one, other):
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-5)
    np.testing.assert_allclose(one.prob, other.prob, atol=1e-5)


def test_one_image_or_many_of_any_kind(shapes):
    (expected,) = detect_files(shapes.network, [str(SAMPLE)], thresh=0.25)
    assert len(expected.boxes) > 2
    rgb = load_image(SAMPLE)
    bgr = rgb[..., ::-1].copy()
    for found in (shapes(SAMPLE), shapes(str(SAMPLE)), shapes(bgr), shapes(rgb, bgr=False)):
        alike(found, expected)
    assert [one.path for one in (shapes(SAMPLE), shapes(bgr))] == [str(SAMPLE), ""]
    several = shapes([bgr, SAMPLE, bgr, SAMPLE, bgr[:, ::-1], SAMPLE])
    assert [one.path for one in several] == ["", str(SAMPLE)] * 3
    for index in (0, 1, 2, 3, 5):
        alike(several[index], expected)
    alike(several[4], shapes(bgr[:, ::-1].copy()))
    assert shapes((SAMPLE,))[0].path == str(SAMPLE)
    assert shapes([]) == []


def test_colours_in_the_wrong_order_are_another_image(shapes):
    rgb = load_image(SAMPLE)
    (expected,) = detect_files(shapes.network, [str(SAMPLE)], thresh=0.25)
    other = shapes(rgb)
    assert other.prob.shape != expected.prob.shape or np.abs(other.prob - expected.prob).max() > 0.01


def test_rows_are_the_classes_of_the_boxes(shapes):
    """By a plain loop; with a low threshold several boxes have several classes."""
    found = shapes(SAMPLE, thresh=0.001, nms=0)
    rows = [
        (*found.corners()[row], prob, number)
        for row in range(len(found.boxes))
        for number, prob in enumerate(found.prob[row])
        if prob > 0
    ]
    assert len(rows) > len(found.boxes), "no box has two classes, so this proves nothing"
    np.testing.assert_array_equal(found.xyxy, [row[:4] for row in rows])
    np.testing.assert_array_equal(found.scores, [row[4] for row in rows])
    np.testing.assert_array_equal(found.class_ids, [row[5] for row in rows])
    assert found.names == [WORDS[row[5]] for row in rows]
    left, top, right, bottom = found.xyxy.T
    np.testing.assert_allclose(found.xywh.T, [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    assert found.scores.dtype == found.xyxy.dtype == found.xywh.dtype == np.float32
    drawn = found.as_json()["detections"]
    assert [one["name"] for one in drawn] == found.names
    assert (found.scores > 0.001).all()


def test_thresholds_are_those_of_the_call_or_of_the_detector_or_of_the_program():
    usual = Detector(CFG, WEIGHTS, device="cpu")
    assert (usual.thresh, usual.nms) == (0.5, 0.45)
    his = Detector(CFG, WEIGHTS, device="cpu", program="alexeyab")
    assert (his.thresh, his.nms, his.letter_box, usual.letter_box) == (0.25, 0.45, 0, 1)
    strict = Detector(CFG, WEIGHTS, device="cpu", thresh=0.6)
    assert (strict(SAMPLE).scores > 0.6).all()
    counts = [
        len(one.scores) for one in (strict(SAMPLE), strict(SAMPLE, thresh=0.1), strict(SAMPLE, thresh=0.1, nms=0))
    ]
    assert counts == sorted(set(counts))


def test_names_are_a_file_or_words_or_the_numbers(shapes, tmp_path):
    numbered = Detector(CFG, WEIGHTS, device="cpu", thresh=0.25)
    assert numbered.names == list("012345")
    assert numbered(SAMPLE).names == [str(index) for index in numbered(SAMPLE).class_ids]
    assert Detector(CFG, WEIGHTS, WORDS, device="cpu").names == shapes.names == WORDS
    (tmp_path / "few.names").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"few\.names: 2 names; expected 6, the classes of .*yolov2-shapes\.cfg$"):
        Detector(CFG, WEIGHTS, tmp_path / "few.names", device="cpu")
    with pytest.raises(DataError, match=r"^names: 1 names; expected 6"):
        Detector(CFG, WEIGHTS, ["a"], device="cpu")


def test_an_engine_is_started_once_for_calls_alike(monkeypatch):
    started, start = [], engines.start_engine_for
    monkeypatch.setattr(
        engines, "start_engine_for", lambda inputs, **words: started.append(inputs) or start(inputs, **words)
    )
    shapes = Detector(CFG, WEIGHTS, device="cpu", batch=2)
    for count in (1, 1, 2, 1, 2):
        shapes([SAMPLE] * count)
    assert started == [1, 2]
    list(shapes.detect([str(SAMPLE)] * 9))
    before = len(started)
    assert before <= 3, "many images are alike, however many"
    shapes([SAMPLE] * 12)
    assert len(started) == before


def test_a_drawing_is_in_the_order_that_is_asked_for(shapes):
    bgr = load_image(SAMPLE)[..., ::-1].copy()
    found = shapes(bgr)
    np.testing.assert_array_equal(found.draw(), found.draw(bgr=False)[..., ::-1])
    assert found.draw().shape == bgr.shape
    changed = (found.draw() != bgr).any(2)
    assert 0.001 < changed.mean() < 0.5, "the image with boxes on it"
    np.testing.assert_array_equal(shapes(SAMPLE).draw(), found.draw())
    (read_again,) = detect_files(shapes.network, [str(SAMPLE)], thresh=0.25, classes=WORDS)
    assert read_again.pixels is None
    np.testing.assert_array_equal(read_again.draw(), found.draw())
    assert cv2.imencode(".png", found.draw())[0]


def test_as_supervision_has_them(shapes, monkeypatch):
    made = []
    monkeypatch.setitem(
        sys.modules, "supervision", SimpleNamespace(Detections=lambda *a, **k: made.append((a, k)) or "it")
    )
    found = shapes(SAMPLE)
    assert found.to_supervision() == "it"
    [((xyxy,), more)] = made
    np.testing.assert_array_equal(xyxy, found.xyxy)
    np.testing.assert_array_equal(more["confidence"], found.scores)
    np.testing.assert_array_equal(more["class_id"], found.class_ids)
    assert more["data"]["class_name"].tolist() == found.names
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ExportError, match="needs the package supervision: pip install supervision"):
        found.to_supervision()


def test_what_is_no_image_is_one_line(shapes):
    with pytest.raises(ImageError, match="an array of float64"):
        shapes(np.zeros((4, 4, 3)))
    with pytest.raises(ImageError, match="NoneType is no image"):
        shapes([SAMPLE, None])  # as cv2.imread gives of a file that is not there


def test_a_network_that_finds_nothing_is_refused(tmp_path):
    (tmp_path / "plain.cfg").write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[maxpool]\n")
    (tmp_path / "plain.weights").write_bytes(bytes(16))
    with pytest.raises(CfgError, match=r"plain\.cfg"):
        Detector(tmp_path / "plain.cfg", tmp_path / "plain.weights", device="cpu")


def test_a_detector_of_a_data_file_can_be_called_too(monkeypatch):
    monkeypatch.chdir(ROOT)
    loaded = load_detector("cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights", device="cpu")
    assert loaded.names == WORDS
    alike(loaded(SAMPLE, thresh=0.25), Detector(CFG, WEIGHTS, device="cpu")(SAMPLE, thresh=0.25))
