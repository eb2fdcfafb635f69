"""new/split.py against plain loops."""

import re
import sys

import cv2
import numpy as np
import pytest

from darknet_compat.errors import ImageError
from darknet_compat.new.split import ALIKE, near_duplicates, pairs_across, split, thumbnails


def plain_groups(rows):
    """Of every pair that is alike both have one number, and what is like one of them."""
    number = list(range(len(rows)))
    for i in range(len(rows)):
        for j in range(i):
            if np.sqrt(((rows[i] - rows[j]) ** 2).mean()) < ALIKE:
                number = [number[i] if one == number[j] else one for one in number]
    return number


def same_partition(a, b):
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


def test_near_duplicates_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(sys.modules["darknet_compat.new.split"], "BLOCK", 7)
    random = np.random.default_rng(0)
    base = random.uniform(0, 255, (20, 256)).astype(np.float32)
    chain = base[0] + np.arange(5)[:, None] * 4.5  # each like the next, the ends not like each other
    near = base[:10] + random.normal(0, 4, (10, 256))
    far = base[10:] + random.normal(0, 6, (10, 256))
    rows = random.permutation(np.concatenate([base, chain, near, far]).astype(np.float32))
    found = near_duplicates(rows).tolist()
    assert same_partition(found, plain_groups(rows))
    assert len(set(found)) == 30
    assert np.bincount(found).max() == 7


def test_thumbnails_see_an_image_saved_again_and_not_another(tmp_path, darknet_share):
    paths = []
    for name, scale, quality in (("dog", 1, 95), ("dog", 0.7, 60), ("eagle", 1, 95), ("dog", 1, 95)):
        image = cv2.imread(str(darknet_share / f"data/{name}.jpg"))
        if len(paths) == 3:
            image = image[:, ::-1]
        paths.append(str(tmp_path / f"{len(paths)}.jpg"))
        cv2.imwrite(paths[-1], cv2.resize(image, None, fx=scale, fy=scale), [cv2.IMWRITE_JPEG_QUALITY, quality])
    small = str(tmp_path / "small.png")
    cv2.imwrite(small, np.full((3, 2, 3), 7, np.uint8))
    seen = thumbnails([*paths, small])
    first, again, other, mirrored, tiny = near_duplicates(np.stack(seen)).tolist()
    assert first == again
    assert len({first, other, mirrored, tiny}) == 4
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:300])
    errors = thumbnails([str(tmp_path / name) for name in ("text.jpg", "cut.jpg", "none.jpg")])
    for error, what in zip(errors, ("does not decode", "does not decode|ends inside", "No such file"), strict=True):
        assert isinstance(error, ImageError)
        assert re.search(what, str(error))


@pytest.mark.parametrize(
    ("size", "within"), [((100, 90), 0.7), ((255, 400), 0.7), ((261, 300), 2.5), ((800, 263), 2.5)]
)
def test_a_thumbnail_is_the_mean_of_the_pixels(tmp_path, size, within):
    """Nearly so where a JPEG is decoded at an eighth, which small ones are not."""
    small = np.random.default_rng(1).integers(0, 256, (9, 9), np.uint8)
    path = str(tmp_path / "a.jpg")
    cv2.imwrite(path, cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))
    plain = cv2.resize(
        cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA
    )
    [seen] = thumbnails([path])
    assert np.sqrt(((seen - plain.reshape(-1)) ** 2).mean()) < within


def made(images, seed=0):
    """Classes of which some are rare, and groups of one to six images."""
    random = np.random.default_rng(seed)
    classes = random.random((images, 5)) < [0.9, 0.5, 0.2, 0.05, 0.02]
    groups = np.repeat(np.arange(images), random.integers(1, 7, images))[:images]
    return classes, random.permutation(groups)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_each_class_is_divided_by_the_share(share):
    classes, groups = made(1000)
    scored = split(classes, groups, share, seed=1)
    assert abs(scored.mean() - share) < 0.01
    for column in classes.T:
        assert abs(scored[column].sum() - share * column.sum()) <= max(3, 0.04 * column.sum())
    # A draw of images alone is not so near, so that the above says something.
    drawn = np.random.default_rng(0).random(1000) < share
    worst = max(abs(drawn[column].mean() - share) for column in classes.T)
    assert max(abs(scored[column].mean() - share) for column in classes.T) < worst


def test_of_near_duplicates_that_are_trained_on_the_first_is_named():
    groups = {"a": 1, "b": 0, "c": 0, "d": 0, "e": 1, "f": 2}
    assert pairs_across(["f", "b", "c", "a"], ["d", "e"], groups) == [("b", "d"), ("a", "e")]


def test_near_duplicates_stay_together():
    classes, groups = made(600)
    scored = split(classes, groups, 0.2)
    for number in set(groups.tolist()):
        assert len(set(scored[groups == number].tolist())) == 1


def test_a_seed_is_a_division():
    classes, groups = made(300)
    first = split(classes, groups, 0.2, seed=3)
    assert np.array_equal(first, split(classes, groups, 0.2, seed=3))
    assert not np.array_equal(first, split(classes, groups, 0.2, seed=4))


def test_of_two_images_of_a_class_one_is_scored_on():
    classes = np.array([[1, 0]] * 8 + [[0, 1]] * 2, bool)
    scored = split(classes, np.arange(10), 0.5)
    assert scored[8:].sum() == 1
    assert scored[:8].sum() == 4
