"""What a report draws stands where the labels say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.check import Part
from darknet_compat.detect import Detections
from darknet_compat.evaluate.annotations import Truths
from darknet_compat.images import load_image
from darknet_compat.labels import Labels
from darknet_compat.network import Network
from darknet_compat.report import drawings

NET = "[net]\nwidth=64\nheight=32\nchannels=3\n[convolutional]\nfilters={}\nsize=3\nstride=8\npad=1\n"
HEADS = {
    "region": NET.format(14) + "[region]\nanchors=1,2, 3,4\nclasses=2\nnum=2\n",
    "yolo": NET.format(14) + "[yolo]\nmask=1,2\nanchors=10,14, 8,16, 24,32\nclasses=2\nnum=3\n",
    "Gaussian_yolo": NET.format(22) + "[Gaussian_yolo]\nmask=1,2\nanchors=10,14, 8,16, 24,32\nclasses=2\nnum=3\n",
}


@pytest.mark.parametrize("head", HEADS)
def test_anchors_are_pixels_of_the_input(head, tmp_path, monkeypatch):
    """[region] counts them in cells of 8 pixels, and each head draws those of its mask; small boxes as they are."""
    drawn = {}
    monkeypatch.setattr(drawings, "draw_sizes", lambda *given: drawn.update(given=given))
    sizes = np.array([[8.0, 16], [0, 5], [30, 2]])
    part = Part("train", [], Labels(np.empty((0, 5), np.float32), np.zeros(1, np.int64)), sizes)
    assert drawings.draw_anchors(part, Network(parse_cfg(HEADS[head])), tmp_path / "a.png")
    path, boxes, anchors, average = drawn["given"]
    assert path == tmp_path / "a.png"
    assert boxes.tolist() == [[8, 16], [30, 2]]
    assert anchors.tolist() == [[8, 16], [24, 32]]
    assert average == pytest.approx((1 + 16 / (60 + 128 - 16)) / 2)


def test_a_truth_is_its_pixels(tmp_path):
    """VOC counts them from 1, and the last one is the box's too."""
    path = str(tmp_path / "b.png")
    cv2.imwrite(path, np.zeros((50, 100, 3), np.uint8))
    boxes = np.array([[1.0, 1, 100, 50], [21, 6, 40, 35], [76, 21, 85, 30]])
    numbers = np.array([0, 1, 1]), np.array([0, 1, 0])
    truths = Truths(["ant", "bee"], ["a", "b"], [], *numbers, boxes, np.zeros(3, bool))
    shown = drawings.truth_of(truths, 1, path)
    assert (shown.width, shown.height, shown.pixels.shape) == (100, 50, (50, 100, 3))
    assert np.allclose(shown.xywh, [[30, 20, 20, 30], [80, 25, 10, 10]])
    assert shown.class_ids.tolist() == [1, 0]
    assert shown.scores.tolist() == [1, 1]


def test_samples_show_the_boxes_of_the_labels(tmp_path):
    """Each image fits a square of 256 pixels; its box has the colour of its class, and stands where it is."""
    images = [str(tmp_path / f"{number}.png") for number in range(40)]
    for path in images:
        cv2.imwrite(path, np.zeros((64, 128, 3), np.uint8))
    labels = Labels(np.tile(np.float32([[2, 0.5, 0.25, 0.25, 0.5]]), (40, 1)), np.arange(41))
    drawings.draw_samples(Part("train", images, labels, np.ones((40, 2))), 13, tmp_path / "sheet.png")
    sheet = load_image(tmp_path / "sheet.png")
    assert sheet.shape == (3 * 134 + 6, 4 * 262 + 6, 3)
    colour = drawings.class_colour(2, 13)
    for row in range(3):
        for column in range(4):
            tile = sheet[6 + 134 * row :, 6 + 262 * column :][:128, :256]
            y, x = np.nonzero((tile == colour).all(2))
            # A line is two pixels wide.
            assert (x.min(), y.min(), x.max(), y.max()) == pytest.approx((96, 0, 160, 64), abs=1.5)
            assert not tile[10:50, 110:150].any()


@pytest.mark.parametrize(("number", "most", "expected"), [
    (0, 3, []), (5, 0, []), (3, 8, [0, 1, 2]), (9, 3, [0, 4, 8]), (9, 1, [0]),
])  # fmt: skip
def test_some_from_all_over(number, most, expected):
    assert drawings.spread(number, most) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [((1280, 320), (640, 160)), ((100, 50), (100, 50)), ((3000, 1), (640, 1))]
)
def test_an_image_is_no_larger_than_a_page_shows_it(size, expected, tmp_path):
    pixels = np.zeros((*size[::-1], 3), np.uint8)
    box = np.array([[size[0] / 2, size[1] / 2, size[0] / 2, size[1] / 2]], np.float32)
    found = Detections("a.jpg", *size, box, np.ones((1, 1), np.float32), False, ["ant"], pixels)
    drawings.draw_small(found, tmp_path / "small.jpg")
    small = load_image(tmp_path / "small.jpg")
    assert small.shape[1::-1] == expected
    left, middle, rest = np.split(small, [expected[0] // 8, expected[0] // 2], 1)
    assert middle.max() > 60  # the left side of the box
    assert left.max() < 60
    assert rest.max() > 60
