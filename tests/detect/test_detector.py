"""A detector is called on images."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import Detector, engines, load_detector, load_network
from darknet_compat.detect import detect_files
from darknet_compat.engines import Engine
from darknet_compat.errors import CfgError, DataError, DeviceError, ExportError, ImageError
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
    assert [one["prob"] for one in drawn] == [round(score, 6) for score in found.scores.tolist()]
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
    for names in (dict(enumerate(WORDS)), set(WORDS), list(range(6)), 6, [b"a"] * 6, iter(WORDS)):
        with pytest.raises(DataError, match=r"^names: .*; expected a file, or a list of a text for each class$"):
            Detector(CFG, WEIGHTS, names, device="cpu")


def test_an_engine_is_started_once_for_calls_alike(monkeypatch):
    started, start = [], engines.start_engine
    monkeypatch.setattr(engines, "start_engine", lambda *words: started.append(words[3]) or start(*words))
    shapes = Detector(CFG, WEIGHTS, device="cpu", batch=2)
    for count in (1, 1, 2, 1, 2):
        shapes([SAMPLE] * count)
    assert started == [1, 2]
    list(shapes.detect([str(SAMPLE)] * 9))
    before = len(started)
    assert before <= 3, "many images are alike, however many"
    shapes([SAMPLE] * 12)
    assert len(started) == before


def test_what_is_asked_for_reaches_the_engine_and_it_runs(monkeypatch):
    asked, shapes = [], []

    def start(network, *words):
        def run(images):
            shapes.append(tuple(images.shape))
            return network.predict(images)

        asked.append(words)
        return Engine(run, 1)

    monkeypatch.setattr(engines, "start_engine", start)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    detector = Detector(CFG, WEIGHTS, NAMES, engine="openvino", precision="bf16", batch=2)
    assert next(detector.network.parameters()).device.type == "cpu"
    detector([SAMPLE] * 5)
    assert sorted(shapes) == [(1, 3, 128, 128), (2, 3, 128, 128), (2, 3, 128, 128)]
    assert asked == [("openvino", "bf16", 2, 1, None)]
    shapes.clear()
    assert [one.names for one in detector.detect([str(SAMPLE)] * 3)] == [["square", "square", "disc"]] * 3
    assert sorted(shapes) == [(1, 3, 128, 128), (2, 3, 128, 128)]


def test_each_option_of_the_network_counts(shapes):
    made = Detector(CFG, WEIGHTS, numerics="cpu", device=torch.device("cpu"), letter_box=False, thresh=0, nms=1)
    assert (made.network.numerics, made.letter_box, made.thresh, made.nms) == ("cpu", False, 0, 1)
    (stretched,) = detect_files(made.network, [str(SAMPLE)], thresh=0.25, letter_box=False)
    (fitted,) = detect_files(made.network, [str(SAMPLE)], thresh=0.25)
    alike(made(SAMPLE, thresh=0.25, nms=0.45), stretched)
    assert len(stretched.boxes) != len(fitted.boxes) or np.abs(stretched.boxes - fitted.boxes).max() > 0.01
    counts = [len(made(SAMPLE, thresh=0.25, **more).scores) for more in ({}, {"nms": 0.45})]
    assert counts[0] > counts[1], "the detector's own nms, where the call gives none"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "tensorrt"}, "engine is 'tensorrt'; expected one of torch, onnxruntime, openvino"),
        ({"precision": "fp16"}, "precision is 'fp16'; expected one of float32, bf16, int8"),
        ({"batch": 0}, "batch is 0; expected a whole number, 1 or more"),
        ({"batch": 2.5}, "batch is 2.5; expected"),
        ({"program": "redmon"}, "program is 'redmon'; expected one of pjreddie, alexeyab"),
        ({"numerics": "x"}, "numerics is 'x'; expected one of cudnn, gpu, cpu"),
        ({"thresh": 50}, "thresh is 50; expected a number from 0 to 1"),
        ({"nms": "a"}, "nms is 'a'; expected a number from 0 to 1"),
        ({"thresh": float("nan")}, "thresh is nan; expected"),
    ],
)
def test_an_option_that_has_no_such_value_is_one_line(options, says, shapes):
    with pytest.raises(ValueError, match=f"^{says}"):
        Detector(CFG, WEIGHTS, **options)
    if {"thresh", "nms"} & set(options):
        with pytest.raises(ValueError, match=f"^{says}"):
            shapes(SAMPLE, **options)


@pytest.mark.parametrize("device", ["nowhere", 0, "", torch.device("meta")])
def test_a_device_that_is_not_there_is_one_line(device):
    with pytest.raises(DeviceError, match=f"^-device {device}: torch finds no such device here; expected cpu"):
        Detector(CFG, WEIGHTS, device=device)


def test_a_network_that_stands_ready_is_taken_as_it_is():
    network = load_network(CFG, WEIGHTS, numerics="cpu")
    assert Detector(network, names=NAMES, numerics="cpu").network is network
    for name, value in (("weights", WEIGHTS), ("program", "alexeyab"), ("device", "cpu"), ("numerics", "gpu")):
        with pytest.raises(ValueError, match=f"^{name} is .* beside a network, which has its own; expected none$"):
            Detector(network, **{name: value})


def test_a_drawing_is_in_the_order_that_is_asked_for(shapes):
    bgr = load_image(SAMPLE)[..., ::-1].copy()
    found = shapes(bgr)
    np.testing.assert_array_equal(found.draw(), found.draw(bgr=False)[..., ::-1])
    assert found.draw().shape == bgr.shape
    assert found.draw().flags.c_contiguous, "for OpenCV to draw on"
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
    with pytest.raises(TypeError, match="names"):  # the .data file's count
        load_detector("cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights", names=WORDS)


def test_a_data_file_that_names_nothing_means_darknets_files(monkeypatch, tmp_path):
    """examples/detector.c: "data/names.list", "data/train.list"; and what comes along is found from any folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/names.list").write_text("".join(f"{word}s\n" for word in WORDS))
    (tmp_path / "data/train.list").write_text("one.jpg\ntwo.jpg\n")
    (tmp_path / "set.data").write_text("classes=6\n")
    files = "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights"
    loaded = load_detector("set.data", *files, device="cpu")
    assert (loaded.names, loaded.valid_images()) == ([f"{word}s" for word in WORDS], ["one.jpg", "two.jpg"])
    stock = load_detector("cfg/shapes.data", *files, device="cpu")
    assert (stock.names, Path(stock.names_file)) == (WORDS, NAMES)
    (tmp_path / "set.data").write_text("classes=6\nnames=few.names\n")
    (tmp_path / "few.names").write_text("a\nb\n")
    with pytest.raises(
        DataError, match=r"set\.data:2: names=few\.names: 2 names; expected 6, the classes= of cfg/yolo"
    ):
        load_detector("set.data", *files, device="cpu")
