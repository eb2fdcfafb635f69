"""Frames of files: all of them, in order; and what is none is one line."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import cv2
import numpy as np
import pytest

from darknet_compat.errors import VideoError
from darknet_compat.video import Frames
from darknet_compat.video.servers import MjpegServer
from darknet_compat.video.source import AHEAD, is_cut_off
from tests.conftest import ROOT
from tests.video.conftest import Capture, read_video


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


@pytest.fixture
def capture(monkeypatch):
    capture = Capture()
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return capture


def numbers(frames):
    return [int(frame[0, 0, 0]) for frame in frames]


class Waits(Capture):
    """One that after 49 frames gives no more, and does not end before :attr:`gone`."""

    def __init__(self):
        super().__init__(49)
        self.reached, self.gone = threading.Event(), threading.Event()

    def read(self):
        if self.number == 49:
            self.reached.set()
            self.gone.wait(10)
        return super().read()


def test_of_a_live_source_the_newest_frame_is_given(monkeypatch):
    """One that is never waited for: what comes between is dropped."""
    camera = Waits()
    monkeypatch.setattr(cv2, "VideoCapture", camera)
    with Frames(3) as frames:
        assert (camera.opened, frames.live, frames.fps, frames.count) == (3, True, 25, None)
        assert camera.reached.wait(10)
        found = iter(frames)
        assert int(next(found)[0, 0, 0]) == 49
        camera.gone.set()
        assert list(found) == []


def test_a_camera_that_gives_nothing_does_not_stop_the_end(monkeypatch):
    camera = Waits()
    monkeypatch.setattr(cv2, "VideoCapture", camera)
    frames = Frames(3)
    start = time.monotonic()
    frames.close()
    assert time.monotonic() - start < 5
    assert not camera.released, "while another thread reads from it"
    assert list(frames) == []
    camera.gone.set()


def test_of_a_file_a_few_are_read_ahead(capture):
    capture.frames = 40
    with Frames(__file__) as frames:
        found = []
        for frame in frames:
            found += numbers([frame])
            assert capture.number - found[-1] <= AHEAD + 1
    assert found == list(range(1, 41))
    assert capture.released
    gone = weakref.ref(frames)
    del frames
    gc.collect()
    assert gone() is None, "nothing waits for the end of the process"


@pytest.mark.parametrize("start", ["rtsp", "rtmp", "http", "https", "udp", "tcp", "rtp"])
def test_an_address_is_live(capture, start):
    """is_live_stream. How many frames it has is nothing that its head could say."""
    capture.said[cv2.CAP_PROP_FRAME_COUNT] = 100
    with Frames(f"{start}://192.168.0.9/live") as frames:
        assert (frames.live, frames.count, capture.opened) == (True, None, f"{start}://192.168.0.9/live")


@pytest.mark.parametrize("address", ["file:///a/street.mp4", "srt://192.168.0.9:9000"])
def test_of_other_addresses_every_frame_is_given(capture, address):
    with Frames(address) as frames:
        assert not frames.live
        assert numbers(frames) == [1, 2, 3]


def test_size_and_frames_a_second_are_asked_of_a_camera_alone(capture):
    Frames(0, (640, 480), 15).close()
    asked = {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480, cv2.CAP_PROP_FPS: 15}
    assert capture.asked == asked
    capture.asked = {}
    Frames(0).close()
    Frames(__file__, (640, 480), 15).close()
    assert capture.asked == {}


@pytest.mark.parametrize(
    ("fps", "count", "expected"),
    [
        (29.97, 12, (29.97, 12)),
        (0, 0, (25, None)),  # as a stream that says nothing
        (90000, -9.2e16, (25, None)),  # as Matroska without an end
        (float("nan"), float("nan"), (25, None)),
        (1000, 2**33, (1000, None)),
    ],
)
def test_what_a_head_says_is_believed_where_it_can_be(capture, fps, count, expected):
    capture.said = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}
    with Frames(__file__) as frames:
        assert (frames.fps, frames.count) == expected


def test_an_error_of_reading_comes_after_the_frames_before_it(capture):
    def read():
        if capture.number == 2:
            raise cv2.error("the camera is gone")
        return Capture.read(capture)

    capture.read = read
    with Frames(__file__) as frames:
        found = iter(frames)
        assert numbers([next(found), next(found)]) == [1, 2]
        with pytest.raises(VideoError, match=r"test_source.py: .*the camera is gone"):
            next(found)


def test_what_cannot_be_opened_is_let_go(capture):
    capture.frames = 0
    with pytest.raises(VideoError):
        Frames(0)
    assert capture.released


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("none.avi", None, "none.avi: no such file; expected a video"),
        ("text.avi", b"no video at all", "text.avi: no frame can be read"),
        ("empty.avi", b"", "empty.avi: no frame can be read"),
        (".", None, "a folder; expected a video"),
        ("bytes\udcff.avi", b"", "OpenCV takes no name that is not UTF-8"),  # its process would end there
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, monkeypatch, capfd, name, content, what):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=what) as raised:
        Frames(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("number", [77, 2**40])
def test_a_camera_that_is_not_there_is_one_line(capfd, number):
    with pytest.raises(VideoError, match=f"camera {number}: no frame can be read; expected a camera of that number"):
        Frames(number)


PROGRAM = """
import sys
from darknet_compat.video import Frames
print(len(list(Frames(sys.argv[1]))))
left_open = iter(Frames(sys.argv[2]))
for _ in range(5):
    next(left_open)
"""


def test_ffmpeg_says_nothing_and_a_source_that_is_left_open_does_not_abort_the_process(shapes_video, tmp_path):
    (tmp_path / "cut.avi").write_bytes(shapes_video.read_bytes()[:-3000])
    jpeg = cv2.imencode(".jpg", np.zeros((96, 128, 3), np.uint8))[1].tobytes()
    server = MjpegServer(0)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "cut.avi", f"http://127.0.0.1:{server.port}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        while process.poll() is None:
            server.show(jpeg)
            time.sleep(0.02)
        assert (process.stderr.read(), process.returncode) == ("", 0)
        assert 1 <= int(process.stdout.read()) < 14
    server.close()


def parts(kind, length):
    """The parts of a file of a kind, each with so many bytes in it."""
    little, big = length.to_bytes(4, "little"), (length + 8).to_bytes(4, "big")
    data = bytes(length)
    return {
        "avi": [b"RIFF" + little + data, b"RIFF" + little + data],
        "mkv": [b"\x1a\x45\xdf\xa3\x84abcd", b"\x18\x53\x80\x67\x10" + length.to_bytes(4, "big")[1:] + data],
        "mp4": [big + b"ftyp" + data, b"\0\0\0\1mdat" + (length + 16).to_bytes(8, "big") + data, big + b"moov" + data],
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["avi", "mkv", "mp4"])
def test_a_file_is_cut_off_where_its_parts_say_more(tmp_path, kind):
    path = tmp_path / "a"
    whole = b"".join(parts(kind, 3000))
    for data, expected in ((whole, False), (whole[:-1], True), (whole[: len(whole) * 2 // 5], True), (whole[:20], True),
                           (whole + b"nothing of a video", False)):  # fmt: skip
        path.write_bytes(data)
        assert is_cut_off(path) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no video", bytes(100),
        b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7 + bytes(99),  # Matroska to the end, wherever it is
        b"\0\0\0\0mdat" + bytes(99),  # likewise
        b"\0\0\0\1mdat" + bytes(99),
    ],
)  # fmt: skip
def test_of_files_that_say_no_length_nothing_is_known(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert not is_cut_off(tmp_path / "a")
    assert not is_cut_off(tmp_path)
