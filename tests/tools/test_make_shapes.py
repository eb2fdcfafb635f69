"""The made data set: the same for any number of workers, true boxes, everything that it promises."""

from __future__ import annotations

import hashlib
import importlib.util
import sys

import cv2
import numpy as np
import pytest

from darknet_compat.cfg import read_list
from darknet_compat.labels import label_path, read_image_set, read_labels, read_voc
from tests.conftest import ROOT
from tests.tools.run import one_line, run_tool


def load_tool():
    spec = importlib.util.spec_from_file_location("make_shapes", ROOT / "tools" / "make_shapes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_shapes"] = module
    spec.loader.exec_module(module)
    return module


make_shapes = load_tool()
SETTINGS = make_shapes.Settings(400, 1, 192, 3)


def digest(folder):
    """One sum over all names and bytes below a folder, lists aside: they hold the folder's own path."""
    total = hashlib.sha256()
    for path in sorted((folder / "VOCdevkit").rglob("*")):
        total.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    dest = tmp_path_factory.mktemp("shapes with blank") / "sét"
    result = run_tool("make_shapes", dest, "--train", 50, "--test", 20, "--workers", 2)
    assert result.returncode == 0, result.stderr
    return dest


def test_devkit(made):
    year = made / "VOCdevkit" / "VOC2007"
    train, test = read_image_set(year, "train"), read_image_set(year, "test")
    assert (len(train), len(test), read_image_set(year, "trainval")) == (50, 20, train)
    assert not set(train) & set(test)
    assert read_list(made / "train.txt") == [f"{year}/JPEGImages/{identity}.jpg" for identity in train]
    assert read_list(made / "2007_test.txt") == [f"{year}/JPEGImages/{identity}.jpg" for identity in test]
    for image in read_list(made / "train.all.txt"):
        height, width = cv2.imread(image).shape[:2]
        annotated = read_voc(image.replace("JPEGImages", "Annotations").replace(".jpg", ".xml"))
        assert annotated[:2] == (width, height)
        wanted = [make_shapes.CLASSES.index(thing.name) for thing in annotated[2]]
        labels = read_labels(label_path(image))
        assert labels[:, 0].tolist() == wanted
        low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
        assert (low >= 0).all()
        assert (high <= 1).all()


def test_any_number_of_workers(made, tmp_path):
    assert run_tool("make_shapes", tmp_path / "b", "--train", 50, "--test", 20, "--workers", 1).returncode == 0
    assert digest(tmp_path / "b") == digest(made)
    assert run_tool("make_shapes", tmp_path / "c", "--train", 50, "--test", 20, "--seed", 1).returncode == 0
    assert digest(tmp_path / "c") != digest(made)


def test_runs_once(made):
    before = (made / "train.txt").stat().st_mtime_ns
    again = run_tool("make_shapes", made, "--train", 50, "--test", 20)
    assert (again.returncode, again.stdout) == (0, f"{made}: this set is already there\n")
    assert (made / "train.txt").stat().st_mtime_ns == before
    assert "holds something else than the set asked for" in one_line(run_tool("make_shapes", made, "--train", 51))


def test_leaves_nothing_behind(tmp_path):
    """A parent that cannot be written to, and a command that is wrong."""
    (tmp_path / "file").write_text("")
    assert "file" in one_line(run_tool("make_shapes", tmp_path / "file" / "set", "--train", 1, "--test", 1))
    assert run_tool("make_shapes", tmp_path / "set", "--train", 0).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_boxes_hold_the_pixels_that_changed(monkeypatch):
    """The box of an object that nothing covers spans what drawing it changed, but for the half-covered rim."""
    monkeypatch.setattr(make_shapes.Scene, "shade", lambda *_: None)
    changes = []
    add = make_shapes.Scene.add

    def watched_add(scene, name):
        before = scene.image.copy()
        add(scene, name)
        if len(scene.names) > len(changes):
            changes.append(np.nonzero((scene.image != before).any(2)))

    monkeypatch.setattr(make_shapes.Scene, "add", watched_add)
    checked = 0
    for number in range(1, 80):
        changes.clear()
        _, things = make_shapes.draw(SETTINGS, number)
        spans = [np.array([columns.min(), rows.min(), columns.max(), rows.max()]) + 1 for rows, columns in changes]
        for index, (thing, span) in enumerate(zip(things, spans, strict=True)):
            inward = (thing.box - span) * [1, 1, -1, -1]
            assert (inward >= 0).all()
            if not any((span[:2] <= other[2:]).all() and (other[:2] <= span[2:]).all() for other in spans[index + 1 :]):
                assert (inward <= 2).all()
                checked += 1
    assert checked > 80


def test_varied_as_promised():
    """Over 400 images: sizes, marks, empty images, and classes that neither colour nor size gives away."""
    drawn = [make_shapes.draw(SETTINGS, number) for number in range(1, 301)]
    things = [(image, thing) for image, found in drawn for thing in found]
    assert 6 <= sum(not found for _, found in drawn) <= 40
    for mark in ("truncated", "occluded", "difficult"):
        assert 0.03 < np.mean([getattr(thing, mark) for _, thing in things]) < 0.3, mark
    boxes = np.array([thing.box for _, thing in things])
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    assert sides.min() >= make_shapes.THINNEST
    part = sides.max(1) / [max(image.shape) for image, _ in things]
    whole = np.array([not thing.truncated and not thing.occluded for _, thing in things])
    assert part[whole].min() < 0.09
    assert 0.5 < part[whole].max() < 0.65
    means = {}
    for name in make_shapes.CLASSES:
        mine = [(image, thing.box) for image, thing in things if thing.name == name]
        assert 0.8 < len(mine) * len(make_shapes.CLASSES) / len(things) < 1.2
        inner = [image[box[1] : box[3], box[0] : box[2]].reshape(-1, 3).mean(0) for image, box in mine]
        means[name] = np.mean(inner, 0)
    assert np.ptp(np.array(list(means.values())), 0).max() < 25
