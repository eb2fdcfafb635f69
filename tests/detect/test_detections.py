from __future__ import annotations

import threading

import numpy as np
import pytest

from darknet_compat import load_network
from darknet_compat.detect import detect_files
from darknet_compat.engines import Engine
from darknet_compat.errors import PictureError
from tests.conftest import SHAPES

PHOTOGRAPHS = ["dog", "horses", "person", "eagle", "giraffe", "kite"]
PROBABILITY, CORNER = 1e-4, 0.05  # allowed differences; corners in pixels


@pytest.fixture(scope="module")
def shapes():
    return load_network(*SHAPES, numerics="cpu")


def reference_detections(darknet, cfg, weights, path, thresh):
    """What test_detector does with one picture: boxes in pixels' corners and probabilities, in Darknet's order."""
    network = darknet.load_network(cfg, weights)
    network.set_batch(1)
    planes = darknet.load_image_color(path)
    network.predict(darknet.letterbox_image(planes, network.width, network.height)[None])
    height, width = planes.shape[1:]
    found = network.boxes(width, height, thresh, nms=0.45)
    order = found.order[found.prob[found.order].any(1)]
    boxes = found.boxes[order] * np.array([width, height] * 2)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return corners, found.prob[order]


@pytest.mark.parametrize("thresh", [0.5, 0.2, 0.005])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_boxes_are_darknets(darknet, darknet_share, detector, name, thresh):
    cfg, weights = detector
    network = load_network(cfg, weights, numerics="cpu")
    path = str(darknet_share / f"data/{name}.jpg")
    (found,) = detect_files(network, [path], thresh=thresh)
    corners, prob = reference_detections(darknet, cfg, weights, path, thresh)
    assert found.prob.shape == prob.shape
    np.testing.assert_allclose(found.prob, prob, atol=PROBABILITY)
    np.testing.assert_allclose(found.corners(), corners, atol=CORNER)
    print(f"{cfg.stem} {name} {thresh}: {len(prob)} boxes, {np.abs(found.prob - prob).max(initial=0):.1g}, "
          f"{np.abs(found.corners() - corners).max(initial=0):.1g} pixels")  # fmt: skip


def test_a_batch_gives_what_single_pictures_give(darknet_share, shapes):
    paths = [str(darknet_share / f"data/{name}.jpg") for name in PHOTOGRAPHS]
    singly = list(detect_files(shapes, paths, thresh=0.2))
    for threads in (1, 2):
        engine = Engine(shapes, threads)
        together = list(detect_files(shapes, paths, batch=4, engine=engine, thresh=0.2))
        assert [found.path for found in together] == paths
        for one, many in zip(singly, together, strict=True):
            np.testing.assert_allclose(many.prob, one.prob, atol=1e-5)
            np.testing.assert_allclose(many.boxes, one.boxes, atol=1e-5)


def test_json_holds_pixels(darknet_share, shapes):
    names = [f"class{index}" for index in range(6)]
    (found,) = detect_files(shapes, [str(darknet_share / "data/dog.jpg")], thresh=0.5)
    picture = found.as_json(names)
    assert (picture["width"], picture["height"]) == (768, 576)
    rows = [row for row, prob in enumerate(found.prob) for _ in prob.nonzero()[0]]
    for row, detection in zip(rows, picture["detections"], strict=True):
        left, top, right, bottom = found.corners()[row]
        assert detection["box"] == pytest.approx([left, top, right - left, bottom - top], abs=1e-2)
        assert detection["name"] == f"class{detection['class_id']}"
        assert detection["prob"] > 0.5


def test_stretching_is_another_mapping(darknet_share, shapes):
    path = str(darknet_share / "data/dog.jpg")
    (boxed,), (stretched,) = (detect_files(shapes, [path], thresh=0.3, letter_box=flag) for flag in (True, False))
    assert boxed.prob.shape != stretched.prob.shape or not np.allclose(boxed.boxes, stretched.boxes)
    assert (stretched.boxes[:, :2] > -0.2).all()
    assert (stretched.boxes[:, :2] < 1.2).all()


def test_a_broken_picture_is_named_and_no_thread_is_left(darknet_share, shapes, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    good = str(darknet_share / "data/dog.jpg")
    before = threading.active_count()
    found = detect_files(shapes, [good, str(tmp_path / "broken.jpg"), good], thresh=0.5)
    next(found)
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        list(found)
    assert threading.active_count() == before


def test_valid2_averages_as_darknet_does(darknet, darknet_share, detector):
    """Darknet flips every plane of the mirrored output, but negates the first ``num`` planes of the map."""
    cfg, weights = detector
    network = load_network(cfg, weights, numerics="cpu")
    reference = darknet.load_network(cfg, weights)
    reference.set_batch(2)
    path = str(darknet_share / "data/dog.jpg")
    planes = darknet.load_image_color(path)
    fitted = darknet.letterbox_image(planes, network.width, network.height)
    reference.predict(np.stack([fitted, fitted[:, :, ::-1]]))
    expected = reference.boxes(planes.shape[2], planes.shape[1], 0.005, nms=0.45)
    order = expected.order[expected.prob[expected.order].any(1)]
    (found,) = detect_files(network, [path], thresh=0.005, mirrored=True)
    np.testing.assert_allclose(found.prob, expected.prob[order], atol=PROBABILITY)
    np.testing.assert_allclose(found.boxes, expected.boxes[order], atol=1e-4)
