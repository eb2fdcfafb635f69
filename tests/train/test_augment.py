"""augment.py against load_data_detection and load_data_region, fed with the same random numbers of C."""

from __future__ import annotations

from random import Random

import cv2
import numpy as np
import pytest

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.images import load_image
from darknet_compat.train.augment import LEAST, Augmentation, Draws, augment_image, augment_truth, draw
from tests.train.nets import grid_of

WHOLE = 0, 0, 416, 416  # of an image


class CRandom:
    """C's generator inside libdarknet, in the place of Python's."""

    def __init__(self, darknet):
        self.darknet = darknet

    def uniform(self, low, high):
        return self.darknet.rand_uniform(low, high)

    def randrange(self, stop):
        return self.darknet.rand() % stop

    def choices(self, population, k):
        return [population[self.randrange(len(population))] for _ in range(k)]


@pytest.fixture
def images(tmp_path, darknet_share):
    return make_images(tmp_path, darknet_share)


def make_images(tmp_path, darknet_share, class_only=True):
    """Photographs of both aspects, and a small noisy one, with labels in Darknet's layout."""
    rng = np.random.default_rng(2)
    paths, labels = [], []
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    made = {"wide": (90, 400), "tall": (300, 110), "tiny": (12, 15)}
    for name in ("dog", "person", "scream", "wide", "tall", "tiny"):
        if name in made:
            image = rng.integers(0, 256, (*made[name], 3), np.uint8)
        else:
            image = cv2.imread(str(darknet_share / "data" / f"{name}.jpg"))
        path = tmp_path / "images" / f"{name}.png"
        cv2.imwrite(str(path), image)
        boxes = np.column_stack([rng.integers(0, 20, 40), rng.random((40, 2)), rng.random((40, 2)) * 0.7])
        boxes[5, 3:] = 0.0004
        boxes[6, 1:3] *= not class_only
        boxes = boxes[: rng.integers(1, 41)]
        text = "".join(" ".join(f"{v:.6f}" if i else f"{v:.0f}" for i, v in enumerate(row)) + "\n" for row in boxes)
        (tmp_path / "labels" / f"{name}.txt").write_text(text)
        paths.append(str(path))
        labels.append(np.array([line.split() for line in text.splitlines()], np.float64))
    return paths, labels


def replay(darknet, paths, labels, n, size, most, options, seed):
    """What load_data_detection or load_data_region would make of this seed, by our own functions."""
    random = CRandom(darknet)
    darknet.srand(seed)
    chosen = [random.randrange(len(paths)) for _ in range(n)]
    x = np.empty((n, 3, size[1], size[0]), np.float32)
    truth = np.empty((n, most, 5), np.float32)
    for i, index in enumerate(chosen):
        image = load_image(paths[index])
        draws = draw(random, image.shape[1::-1], size, len(labels[index]), options)
        augment_image(image, draws, x[i])
        truth[i] = augment_truth(labels[index], draws, size, most)
    return x, truth


def assert_same_images(mine, theirs):
    """Within 1e-5, but for the few pixels whose hue Darknet rounds to exactly 1 and paints magenta, red = blue."""
    wrong = np.abs(mine - theirs).max(1) > 1e-5
    assert wrong.sum() <= 1e-5 * wrong.size
    red, green, blue = np.moveaxis(theirs, 1, 0)
    np.testing.assert_array_equal(red[wrong], blue[wrong])
    assert (green[wrong] <= red[wrong]).all()


@pytest.mark.parametrize("size", [(416, 416), (320, 192), (96, 160)])
@pytest.mark.parametrize("colour", [(0.0, 1.0, 1.0), (0.1, 1.5, 1.5)])
def test_equals_load_data_detection(darknet, images, size, colour):
    paths, labels = images
    options = Augmentation(0.2, *colour)
    for seed in range(3):
        theirs = darknet.load_data_detection(paths, 12, *size, 30, 20, options.jitter, *colour, seed=seed)
        mine = replay(darknet, paths, labels, 12, size, 30, options, seed)
        np.testing.assert_allclose(mine[1], theirs[1], atol=1e-6)
        assert_same_images(mine[0], theirs[0])


def test_equals_with_strong_jitter_and_few_boxes(darknet, images):
    paths, labels = images
    theirs = darknet.load_data_detection(paths, 40, 64, 64, 7, 20, 0.7, 0.3, 2.0, 0.5, seed=11)
    mine = replay(darknet, paths, labels, 40, (64, 64), 7, Augmentation(0.7, 0.3, 2.0, 0.5), 11)
    np.testing.assert_allclose(mine[1], theirs[1], atol=1e-6)
    assert_same_images(mine[0], theirs[0])


@pytest.mark.parametrize(("size", "side"), [((448, 448), 7), ((320, 192), 4), ((96, 160), 11)])
@pytest.mark.parametrize("jitter", [0.2, 0.45])
@pytest.mark.parametrize("colour", [(0.0, 1.0, 1.0), (0.1, 1.5, 1.5)])
def test_equals_load_data_region(darknet, darknet_share, tmp_path, size, side, jitter, colour):
    """YOLOv1's loader: a rectangle that may reach beyond the image, stretched; of a cell the first truth.

    Truths without a place make the C program write outside its memory.
    """
    paths, labels = make_images(tmp_path, darknet_share, class_only=False)
    options = Augmentation(jitter, *colour, fit="stretch")
    for seed in range(2):
        theirs = darknet.load_data_region(paths, 12, *size, side, 20, jitter, *colour, seed=seed)
        x, truth = replay(darknet, paths, labels, 12, size, 50, options, seed)
        np.testing.assert_allclose(grid_of(truth, side, 20).reshape(theirs[1].shape), theirs[1], atol=1e-6 * side)
        assert_same_images(x, theirs[0])
        assert 12 < theirs[1][..., 0].sum() < (truth[..., 0] > 0).sum()


def test_boxes_are_moved_as_correct_boxes_moves_them(darknet):
    rng = np.random.default_rng(0)
    labels = np.column_stack([np.arange(200) % 20, rng.random((200, 4))])
    for flip in (False, True):
        draws = Draws("place", WHOLE, *map(np.float32, (300.5, 220.25, 60.75, 90.5)), 0, 1, 1, flip, np.arange(200))
        theirs = darknet.correct_boxes(labels, -60.75 / 416, -90.5 / 416, 300.5 / 416, 220.25 / 416, flip)
        kept = theirs[(theirs[:, 3:] >= 0.001).all(1)]
        mine = augment_truth(labels, draws, (416, 416), 200)
        np.testing.assert_allclose(mine[: len(kept)], kept[:, [1, 2, 3, 4, 0]], atol=1e-6)
        assert not mine[len(kept) :].any()


def test_what_is_left_out_of_the_truth_is_what_darknet_leaves_out(darknet):
    """At exactly .001 a box stays; x = 0 alone is a place; both 0 are none."""
    labels = np.array(
        [
            [0, 0.0005, 0.5, 0.001, 0.5],
            [1, 0.5, 0.0005, 0.5, 0.001],
            [2, 0.0005, 0.5, 0.00099, 0.5],
            [3, 0, 0.5, 0.5, 0.5],
            [4, 0.5, 0, 0.5, 0.5],
            [5, 0, 0, 0.5, 0.5],
        ]
    )
    draws = Draws("place", WHOLE, *map(np.float32, (64, 64, 0, 0)), 0, 1, 1, False, np.arange(6))
    theirs = darknet.correct_boxes(labels, 0, 0, 1, 1, False)
    # fill_truth_detection compares a float with the double .001.
    kept = theirs[(theirs[:, 3:].astype(np.float64) >= 0.001).all(1)]
    assert kept[:, 0].tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(augment_truth(labels, draws, (64, 64), 6)[:5], kept[:, [1, 2, 3, 4, 0]])


def test_what_yolov1s_loader_leaves_out_of_the_truth(darknet, tmp_path):
    """Boxes under .005: at .005 itself, whose float is less, too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    path = tmp_path / "images/one.png"
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    rows = [(0, 0.1, 0.1, 0.005, 0.5), (1, 0.4, 0.1, 0.0051, 0.5), (2, 0.7, 0.1, 0.5, 0.004), (3, 0.5, 0.5, 0.3, 0.3)]
    (tmp_path / "labels/one.txt").write_text("".join("{} {} {} {} {}\n".format(*row) for row in rows))
    theirs = darknet.load_data_region([path], 1, 64, 64, 7, 4, 0, 0, 1, 1)[1][0]
    draws = draw(Random(0), (64, 64), (64, 64), 4, Augmentation(0, fit="stretch"))
    assert sorted(theirs[theirs[..., 0] == 1][:, 1:5].argmax(1)) == [1, 3]
    truth = augment_truth(np.array(rows), draws, (64, 64), 4)
    assert sorted(truth[truth[:, 0] != 0, 4]) == [1, 3]


class Extreme:
    """Draws the least of every range, or the greatest, in turns as listed."""

    def __init__(self, *most):
        self.most = iter(most)

    def uniform(self, low, high):
        return high if next(self.most, False) else low

    def randrange(self, stop):
        return 0

    def choices(self, population, k):
        return [0] * k


@pytest.mark.parametrize(
    ("image", "jitter", "most", "crop"),
    [
        ((40, 20), 0.25, (1, 1, 0, 1), (10, -5, 20, 20)),
        ((40, 20), 0.5, (1, 1, 0, 0), (0, 0, 40, 20)),  # no width
        ((40, 20), 0.5, (0, 0, 1, 1), (0, 0, 40, 20)),  # no height
        ((41, 21), 0.5, (1, 1, 1, 1), (20, 10, 1, 1)),
        ((40, 20), 1.0, (1, 0, 0, 1), (0, 0, 40, 20)),  # right of the image
        ((40, 20), 1.0, (0, 1, 1, 0), (0, 0, 40, 20)),  # below it
        ((40, 20), 0.975, (1, 0, 1, 0), (39, 19, 40, 20)),
    ],
)
def test_a_rectangle_of_nothing_is_the_whole_image(image, jitter, most, crop):
    """left, right, top, bottom are drawn in turns; a margin can take all there is."""
    draws = draw(Extreme(*most), image, (32, 32), 0, Augmentation(jitter, fit="stretch"))
    assert draws.crop == crop
    left, top, width, height = crop
    np.testing.assert_allclose((draws.width, draws.height), np.multiply(image, 32) / (width, height), rtol=1e-6)
    np.testing.assert_allclose((draws.dx, draws.dy), (-left * 32 / width, -top * 32 / height), rtol=1e-6)


def test_the_defaults_are_those_of_a_cfg_that_gives_nothing():
    network = load_network(parse_cfg("[net]\nwidth=1\nheight=1\nchannels=3\n[conv]\nfilters=25\n[region]\n"))
    net = network.net
    assert Augmentation() == Augmentation(
        network.layers[-1].o.jitter, net.hue, net.saturation, net.exposure, bool(net.flip), "place"
    )
    assert net.letter_box


def test_draws_follow_darknets_distributions():
    random = Random(1)
    options = Augmentation(0.2, 0.1, 1.5, 1.5)
    many = [draw(random, (500, 375), (416, 416), 3, options) for _ in range(4000)]
    aspect = np.array([one.width / one.height for one in many])
    assert aspect.min() >= 500 * 0.8 / (375 * 1.2) - 1e-6
    assert aspect.max() <= 500 * 1.2 / (375 * 0.8) + 1e-6
    assert all(one.width == 416 or one.height == 416 for one in many)
    room = np.array([(one.dx / max(416 - one.width, 1e-9), one.dy / max(416 - one.height, 1e-9)) for one in many])
    assert room.min() >= 0
    assert np.median(room[room[:, 1] > 0, 1]) == pytest.approx(0.5, abs=0.03)
    saturation = np.array([one.saturation for one in many])
    assert (saturation > 1).mean() == pytest.approx(0.5, abs=0.03)
    assert (saturation.min(), saturation.max()) == (pytest.approx(1 / 1.5, abs=0.01), pytest.approx(1.5, abs=0.01))
    assert np.abs([one.hue for one in many]).max() <= 0.1
    assert np.mean([one.flip for one in many]) == pytest.approx(0.5, abs=0.03)
    assert {tuple(one.order) for one in many} == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}


def test_nothing_to_do_is_nothing():
    plain = draw(Random(0), (416, 416), (416, 416), 0, Augmentation(0, 0, 0, 0, flip=False))
    assert (plain.hue, plain.saturation, plain.exposure, plain.flip) == (0, 1, 1, False)
    image = np.random.default_rng(1).integers(0, 256, (416, 416, 3), np.uint8)
    slot = np.empty((3, 416, 416), np.float32)
    augment_image(image, plain, slot)
    np.testing.assert_allclose(slot, image.transpose(2, 0, 1) / 255, atol=1e-6)
    assert not augment_truth(np.zeros((0, 5)), plain, (416, 416), 30).any()


@pytest.mark.parametrize("fit", LEAST)
def test_flip_can_be_turned_off(fit):
    random = Random(0)
    assert not any(draw(random, (50, 40), (32, 32), 0, Augmentation(flip=False, fit=fit)).flip for _ in range(50))


def test_boxes_under_a_pixel_stay_from_a_thousandth_on():
    draws = draw(Random(0), (320, 240), (128, 96), 2, Augmentation(0, flip=False))
    labels = np.array([[0, 0.5, 0.5, 0.003, 0.003], [1, 0.5, 0.5, 0.0009, 0.5]])
    truth = augment_truth(labels, draws, (128, 96), 5)
    assert truth[:, 4].tolist() == [0] * 5
    assert (truth[:, 2] > 0).tolist() == [True, False, False, False, False]


def test_the_truth_follows_the_rectangle():
    """And so do the pixels."""
    random = Random(3)
    options = Augmentation(0.3, fit="stretch")
    image = np.zeros((240, 320, 3), np.uint8)
    image[60:120, 80:240] = 255  # a white box, in the middle of whose upper half is (.5, .375)
    labels = np.array([[4, 0.5, 0.375, 0.5, 0.25]])
    for _ in range(50):
        draws = draw(random, (320, 240), (128, 96), 1, options)
        left, top = draws.crop[:2]
        assert abs(left) <= 96
        assert abs(top) <= 72
        slot = np.empty((3, 96, 128), np.float32)
        augment_image(image, draws, slot)
        x, y, box_w, box_h, name = augment_truth(labels, draws, (128, 96), 5)[0]
        assert name == 4
        inside = np.zeros((96, 128), bool)
        rows = np.rint(np.array([y - box_h / 2, y + box_h / 2]) * 96).astype(int)
        columns = np.rint(np.array([x - box_w / 2, x + box_w / 2]) * 128).astype(int)
        inside[rows[0] : rows[1], columns[0] : columns[1]] = True
        wrong = (slot[0] > 0.6) != inside
        edge = 2 * (rows[1] - rows[0] + columns[1] - columns[0])
        assert wrong.sum() <= edge
