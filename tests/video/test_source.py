"""Frames of files: all of them, in order; and what is none is one line."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from darknet_compat.errors import VideoError
from darknet_compat.video import Frames
from darknet_compat.video.source import AHEAD
from tests.video.conftest import read_video


def test_a_file_gives_all_its_frames(shapes_video):
    expected, fps = read_video(shapes_video)
    with Frames(shapes_video) as frames:
        assert (frames.width, frames.height, frames.fps, frames.count, frames.live) == (128, 96, fps, 14, False)
        found = list(frames)
    assert len(found) == 14
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_it_may_be_left_early(shapes_video):
    threads = threading.active_count()
    with Frames(shapes_video) as frames:
        next(iter(frames))
    assert threading.active_count() == threads


def test_of_a_live_source_the_newest_frame_is_given(monkeypatch):
    """One that is never waited for: what comes between is dropped."""
    import cv2

    gone = threading.Event()

    class Camera:
        number = 0

        def __init__(self, source):
            assert source == 3

        def isOpened(self):
            return True

        def get(self, key):
            return 0.0

        def set(self, key, value):
            return True

        def read(self):
            Camera.number += 1
            if Camera.number == 50:
                gone.wait(10)
                return False, None
            return True, np.full((4, 6, 3), Camera.number, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    with Frames(3) as frames:
        assert frames.live
        assert frames.fps == 25
        while Camera.number < 50:
            gone.wait(0.01)
        found = []
        for frame in frames:
            found.append(int(frame[0, 0, 0]))
            gone.set()
    assert found == [49]


def test_of_a_file_a_few_are_read_ahead(monkeypatch):
    import cv2

    class File:
        number = 0

        def __init__(self, source):
            pass

        def isOpened(self):
            return True

        def get(self, key):
            return 0.0

        def read(self):
            File.number += 1
            return File.number <= 40, np.full((4, 6, 3), File.number, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", File)
    with Frames(__file__) as frames:
        numbers = []
        for frame in frames:
            numbers.append(int(frame[0, 0, 0]))
            assert File.number - numbers[-1] <= AHEAD + 1
    assert numbers == list(range(1, 41))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("none.avi", None, "none.avi: no such file; expected a video"),
        ("text.avi", b"no video at all", "text.avi: no frame can be read"),
        ("empty.avi", b"", "empty.avi: no frame can be read"),
        (".", None, "a folder; expected a video"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, monkeypatch, capfd, name, content, what):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=what) as raised:
        Frames(name)
    assert "\n" not in str(raised.value)


def test_a_camera_that_is_not_there_is_one_line(capfd):
    with pytest.raises(VideoError, match="camera 77: no frame can be read; expected a camera of that number"):
        Frames(77)
