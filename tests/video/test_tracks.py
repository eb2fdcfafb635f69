"""Objects and their numbers: boxes that move as one knows, and which box is whose."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from darknet_compat.cli import main
from darknet_compat.detect.detections import Detections
from darknet_compat.detect.results import frame_json
from darknet_compat.errors import ExportError
from darknet_compat.video import demo, run
from darknet_compat.video.tracks import Tracks
from tests.conftest import ROOT, SHAPES
from tests.video.conftest import read_video


@pytest.fixture(autouse=True)
def packages():
    if find_spec("trackers") is None or find_spec("supervision") is None:
        pytest.skip("needs the packages trackers and supervision: pip install --no-deps trackers supervision")


def found(boxes, prob):
    """A frame of 640 x 480 with boxes (x, y, w, h) in pixels."""
    boxes, prob = np.array(boxes, np.float32).reshape(-1, 4), np.array(prob, np.float32).reshape(-1, 2)
    return Detections("", 640, 480, boxes, prob, False, ("cat", "dog"))


def crossing(frame):
    """Two that pass each other on two heights, listed in another order in each frame, and a box that has no class."""
    boxes = [(60 + 20 * frame, 100, 60, 60), (580 - 20 * frame, 300, 60, 60), (320, 200, 400, 400)]
    prob = [(0.9, 0), (0, 0.4), (0, 0)]
    order = [0, 1, 2] if frame % 2 else [2, 1, 0]
    return order, found([boxes[index] for index in order], [prob[index] for index in order])


def test_each_keeps_its_number():
    tracks, numbers = Tracks(0.25, 25), []
    for frame in range(26):
        order, one = crossing(frame)
        ids = tracks.follow(one).track_ids
        assert ids.shape == (3,)
        numbers.append([int(ids[order.index(index)]) for index in range(3)])
    assert numbers[0] == [-1, -1, -1]
    assert {tuple(row) for row in numbers[1:]} == {tuple(numbers[1])}
    first, second, none = numbers[1]
    assert none == -1
    assert first != second
    assert min(first, second) >= 0


@pytest.mark.parametrize(("away", "same"), [(6, True), (40, False)])
def test_an_object_is_remembered_for_a_second(away, same):
    """At 25 frames a second."""
    tracks = Tracks(0.25, 25)
    for _ in range(5):
        before = tracks.follow(found([(100, 100, 50, 50)], [(0.5, 0)])).track_ids
    for _ in range(away):
        assert tracks.follow(found([], [])).track_ids.shape == (0,)
    for _ in range(2):
        after = tracks.follow(found([(100, 100, 50, 50)], [(0.5, 0)])).track_ids
    assert (before[0] == after[0]) == same
    assert min(before[0], after[0]) >= 0


@pytest.mark.parametrize(("seconds", "same"), [(0.5, True), (3.0, False)])
def test_of_a_live_source_time_counts_and_not_frames(seconds, same):
    tracks = Tracks(0.25, 25)
    for frame in range(5):
        before = tracks.follow(found([(100, 100, 50, 50)], [(0.5, 0)]), frame / 25).track_ids
    tracks.follow(found([], []), 5 / 25 + seconds)
    for frame in (6, 7):
        after = tracks.follow(found([(100, 100, 50, 50)], [(0.5, 0)]), frame / 25 + seconds).track_ids
    assert (before[0] == after[0]) == same


def test_a_box_under_the_threshold_begins_none():
    for thresh, expected in ((0.25, True), (0.35, False)):
        tracks = Tracks(thresh, 25)
        for _ in range(4):
            ids = tracks.follow(found([(100, 100, 50, 50)], [(0.3, 0)])).track_ids
        assert (ids[0] >= 0) == expected


def test_what_says_the_number():
    one = found([(100, 100, 50, 50), (300, 300, 50, 50)], [(0.9, 0.5), (0.6, 0)])
    plain, numbered = one, Detections(**{**vars(one), "track_ids": np.array([3, -1])})
    assert plain.lines("pjreddie") == ["cat: 90%", "dog: 50%", "cat: 60%"]
    assert numbered.lines("pjreddie") == ["#3 cat: 90%", "#3 dog: 50%", "cat: 60%"]
    plain_json, numbered_json = (json.loads(frame_json(each, 1))["objects"] for each in (plain, numbered))
    assert [each.pop("track_id", None) for each in numbered_json] == [3, 3, None]
    assert numbered_json == plain_json
    assert [each.get("track_id") for each in numbered.as_json()["detections"]] == [3, 3, None]
    assert numbered.to_supervision().tracker_id.tolist() == [3, 3, -1]
    assert plain.to_supervision().tracker_id is None


def test_the_number_is_drawn_before_the_name(monkeypatch):
    import cv2

    written = []
    monkeypatch.setattr(cv2, "putText", lambda image, text, *rest: written.append(text))
    one = found([(100, 100, 50, 50), (300, 300, 50, 50)], [(0.9, 0), (0.6, 0)])
    pixels = np.zeros((480, 640, 3), np.uint8)
    Detections(**{**vars(one), "track_ids": np.array([3, -1]), "pixels": pixels}).draw()
    assert written == ["#3 cat 90%", "cat 60%"]


def test_a_box_that_has_no_class_is_nobodys():
    """It does not go on with the number of an object that was there."""
    tracks = Tracks(0.25, 25)
    for _ in range(5):
        before = tracks.follow(found([(100, 100, 50, 50)], [(0.5, 0)])).track_ids
    assert before[0] >= 0
    assert tracks.follow(found([(100, 100, 50, 50)], [(0, 0)])).track_ids.tolist() == [-1]


@pytest.mark.parametrize("live", [True, False])
def test_a_camera_says_when_and_a_file_does_not(live, shapes_detector, shapes_video, monkeypatch):
    asked = []

    class Recorder(Tracks):
        def follow(self, found, seconds=None):
            asked.append(seconds)
            return super().follow(found, seconds)

    monkeypatch.setattr(run, "Tracks", Recorder)
    look = run._detecting(shapes_detector, 0.2, None, True, True, 10)
    frames = type("Frames", (list,), {"live": live})(read_video(shapes_video)[0])
    assert len(list(look.found_in(frames))) == len(asked) == 14
    if live:
        assert asked == sorted(asked)
        assert asked[-1] > asked[0]
    else:
        assert set(asked) == {None}


def test_the_number_is_drawn_in_a_video(shapes_detector, shapes_video, tmp_path, monkeypatch):
    import cv2

    written = []
    monkeypatch.setattr(cv2, "putText", lambda image, text, *rest: written.append(text))
    demo(shapes_detector, shapes_video, thresh=0.2, track=True, prefix=f"{tmp_path}/p")
    assert any(text.startswith("#") for text in written)


@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
def test_the_verb(program, shapes_video, tmp_path, capsys):
    """The shapes stand still on an image that moves by three pixels a frame, and jumps once."""
    (tmp_path / "shapes.data").write_text(f"classes=6\nnames={ROOT}/data/shapes.names\n")
    words = ["detector", "demo", tmp_path / "shapes.data", *SHAPES, shapes_video, "-dont_show", "-thresh", ".2",
             "-program", program, "-device", "cpu", "-json_file_output", tmp_path / "a.json"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    without = capsys.readouterr().out
    plain = json.loads((tmp_path / "a.json").read_text())
    assert main([*map(str, words), "-track"]) == 0
    printed = capsys.readouterr().out
    tracked = json.loads((tmp_path / "a.json").read_text())
    assert "#" not in without
    numbers = [[each.pop("track_id", None) for each in frame["objects"]] for frame in tracked]
    assert tracked == plain
    assert printed.count("#") == sum(number is not None for frame in numbers for number in frame) > 10
    kept = {number for frame in numbers for number in frame} - {None}
    seen = [sum(number in frame for frame in numbers) for number in kept]
    assert max(seen) >= 5  # of an object in all its frames but the first
    for frame, own in zip(plain, numbers, strict=True):  # a number may stand at two classes, but of one box
        boxes = {
            (number, str(each["relative_coordinates"])) for number, each in zip(own, frame["objects"], strict=True)
        }
        assert len({box for box in boxes if box[0] is not None}) == len(set(own) - {None})


@pytest.mark.parametrize("package", ["trackers", "supervision"])
def test_without_the_package_it_is_one_line(package, shapes_video, shapes_detector, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"^-track needs the package {package}: pip install '.\[track\]'$"):
        demo(shapes_detector, shapes_video, track=True)
