from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from darknet_compat.detect.detections import Detections
from darknet_compat.detect.draw import class_colour

NAMES = [f"class {index}" for index in range(20)]


def one_box(box, index=3, size=(640, 480), names=NAMES):
    prob = np.zeros((1, 20), np.float32)
    prob[0, index] = 0.87
    return Detections("x.jpg", *size, np.array([box], np.float32), prob, relative=True, classes=names)


def draw_on(image, found):
    return replace(found, pixels=image).draw(bgr=False)


def test_classes_have_their_own_colours():
    colours = {class_colour(index, 20) for index in range(20)}
    assert len(colours) == 20


@pytest.mark.parametrize("size", [(640, 480), (60, 40), (4000, 3000), (20, 900)])
@pytest.mark.parametrize(
    "box", [(0.5, 0.5, 0.5, 0.5), (0.02, 0.02, 0.1, 0.1), (0.99, 0.99, 0.5, 0.5), (2, 2, 0.1, 0.1)]
)
def test_drawing_changes_a_copy_within_the_image(size, box):
    image = np.full((size[1], size[0], 3), 128, np.uint8)
    drawn = draw_on(image, one_box(box, size=size))
    assert drawn.shape == image.shape
    assert (image == 128).all()
    assert (drawn != 128).any()


def test_the_box_has_the_classes_colour_where_the_box_is():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_on(image, one_box((0.5, 0.5, 0.5, 0.5)))
    assert tuple(drawn[240, 160]) == class_colour(3, 20)
    assert tuple(drawn[240, 320]) == (0, 0, 0)


@pytest.mark.parametrize(("size", "tallest"), [((320, 240), 30), ((4000, 3000), 150)])
def test_labels_are_drawn_in_a_size_that_fits(size, tallest):
    """Above the box, as wide as their text, on the class's colour; larger on a larger image."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    boxes = [one_box((0.5, 0.5, 0.5, 0.5), size=size, names=[name] * 20) for name in ("i", "wwww")]
    above = [draw_on(image, found)[: size[1] // 4 - size[1] // 100] for found in boxes]
    one, four = (drawn.any(2) for drawn in above)
    assert 3 * one.any(0).sum() < 2 * four.any(0).sum()
    assert tallest / 3 < four.any(1).sum() <= tallest
    colours = above[1][four]
    assert (colours == class_colour(3, 20)).all(1).mean() > 0.4
    assert not (colours == class_colour(3, 20)).all()


@pytest.mark.parametrize("box", [(0.5, 0.5, np.inf, np.inf), (1e30, 0.5, 1, 1), (0.5, -1e30, 1, 1)])
def test_boxes_beyond_all_integers(box):
    """A box without end frames the image; one beyond it does no harm."""
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_on(image, one_box(box))
    if box[2] > 1:
        assert {tuple(drawn[y, x]) for y, x in ((300, 0), (300, 639), (479, 320))} == {class_colour(3, 20)}


def test_nothing_found_draws_nothing():
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    nothing = Detections("x.jpg", 64, 48, np.empty((0, 4), np.float32), np.empty((0, 20), np.float32), True)
    assert (draw_on(image, nothing) == image).all()


def test_a_name_beyond_ascii_is_drawn():
    image = np.zeros((480, 640, 3), np.uint8)
    assert draw_on(image, one_box((0.5, 0.5, 0.5, 0.5), names=["名前"] * 20)).any()
