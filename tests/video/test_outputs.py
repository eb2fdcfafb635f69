"""Where frames go: what stands in the files, and that nothing is lost or half-written where something fails."""

from __future__ import annotations

import json
import resource
import signal
import urllib.request
import warnings
from collections import deque
from dataclasses import replace
from threading import Thread

import cv2
import numpy as np
import pytest

from darknet_compat.detect import Detections
from darknet_compat.detect.results import frame_json, result_json
from darknet_compat.errors import ResultsError, VideoError
from darknet_compat.images import load_image
from darknet_compat.video.outputs import (
    ESCAPE,
    Browser,
    FrameFiles,
    JsonFile,
    JsonPort,
    VideoFile,
    Window,
    close_all,
)
from tests.video.conftest import read_video

FOUND = Detections(
    "a.jpg", 64, 48, np.array([[0.5, 0.5, 0.25, 0.5]] * 2, np.float32),
    np.array([[0.5, 0, 0.25], [0, 0.004, 0.75]], np.float32), True, ["a", 'b"', "dont_show c"],
)  # fmt: skip
NONE = Detections("", 64, 48, np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), True, FOUND.classes)


def frame(number, size=(64, 48)):
    """Of one colour, which its number says."""
    return np.full((size[1], size[0], 3), (number * 40, 60, 200 - number * 20), np.uint8)


@pytest.mark.parametrize(
    ("name", "codec", "warned"),
    [("a.avi", b"DIVX", False), ("a.AVI", b"DIVX", False), ("a.mkv", b"V_MPEG4/ISO/ASP", False),
     ("a.mp4", b"mp4v", True), ("a.m4v", b"mp4v", True), ("a.mov", b"mp4v", True)],
)  # fmt: skip
def test_each_kind_of_video(tmp_path, name, codec, warned):
    """DIVX is AlexeyAB's."""
    path = tmp_path / "new" / name
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        video = VideoFile(path, (64, 48), 12.5)
    assert [str(one.message) for one in said] == [
        f"{path}: cannot be played before its end is written; .avi and .mkv can"
    ] * warned
    for number in range(1, 4):
        video.add(number, frame(number), NONE)
    video.close()
    assert codec in path.read_bytes()
    frames, fps = read_video(path)
    assert fps == 12.5
    assert len(frames) == 3
    for number, one in enumerate(frames, 1):
        assert np.abs(one.astype(int) - frame(number)).max() < 12


def test_a_video_without_a_frame_is_no_error_of_its_own(tmp_path):
    """What ended it before is."""
    VideoFile(tmp_path / "a.avi", (64, 48), 10).close()


def test_a_frame_of_another_size_is_fitted_and_none_only_counts(tmp_path):
    video = VideoFile(tmp_path / "a.avi", (64, 48), 10)
    for number, size in ((1, (64, 48)), (2, (128, 40)), (3, None), (4, (10, 10))):
        video.add(number, None if size is None else frame(number, size), NONE)
    video.close()
    frames, _ = read_video(tmp_path / "a.avi")
    assert [one.shape for one in frames] == [(48, 64, 3)] * 3
    for number, one in zip((1, 2, 4), frames, strict=True):
        assert np.abs(one.astype(int) - frame(number)).max() < 12


@pytest.mark.parametrize("fps", [0.1, 13.1666667, 30000 / 1001, 65.5347, 134.37289, 239.47368, 999.949])
def test_any_number_of_frames_a_second_can_be_written(tmp_path, fps):
    """As the mean of a telephone's slow motion: MPEG-4 does not take each."""
    video = VideoFile(tmp_path / "a.avi", (64, 48), fps)
    for number in range(1, 4):
        video.add(number, frame(number), NONE)
    video.close()
    frames, written = read_video(tmp_path / "a.avi")
    assert len(frames) == 3
    assert written == pytest.approx(fps, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.xyz", "expected a name that ends in .avi, .mkv, .mp4"),
        ("folder.avi", "cannot be written as a video of 64 x 48; expected another place"),
        ("file/a.avi", "file: .*; expected a folder to write to"),
        ("bytes\udcff.avi", "OpenCV takes no name that is not UTF-8; expected another name"),
    ],
)
def test_what_is_no_place_for_a_video_is_one_line(tmp_path, name, what):
    (tmp_path / "folder.avi").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises((VideoError, ResultsError), match=what) as raised:
        VideoFile(tmp_path / name, (64, 48), 10)
    assert "\n" not in str(raised.value)


@pytest.fixture
def most_bytes():
    """Says how many bytes a file of this process may have."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("most", [2_000, 20_000, 100_000])
@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4"])
@pytest.mark.filterwarnings("ignore:.*cannot be played")
def test_a_video_whose_end_cannot_be_written_is_an_error(tmp_path, most_bytes, capfd, name, most):
    """Of over 150,000 bytes. OpenCV's writer says nothing of it."""
    most_bytes(most)
    random = np.random.default_rng(0)
    video = VideoFile(tmp_path / name, (64, 48), 10)
    for number in range(1, 201):
        video.add(number, random.integers(0, 256, (48, 64, 3), np.uint8), NONE)
    with pytest.raises(VideoError, match=r"a\..*: its end could not be written; expected"):
        video.close()


@pytest.mark.parametrize(("first", "names"), [(0, ["00000000", "00000001"]), (1, ["00000001", "00000002"])])
@pytest.mark.parametrize("prefix", ["new/p", "new/folder/"])
def test_an_image_for_each_frame(tmp_path, monkeypatch, first, names, prefix):
    monkeypatch.chdir(tmp_path)
    files = FrameFiles(prefix, first)
    for number in (1, 2):
        files.add(number, frame(number), NONE)
    files.add(3, None, NONE)
    files.close()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.jpg"))] == [
        f"{prefix}_{name}.jpg" for name in names
    ]
    for number, name in enumerate(names, 1):
        assert np.abs(load_image(f"{prefix}_{name}.jpg").astype(int) - frame(number)[..., ::-1]).max() < 6


def test_the_json_list_is_alexeyabs(tmp_path):
    """That of his -out, byte for byte, but for the files' names."""
    json_file = JsonFile(tmp_path / "new/a.json", frame_json)
    for number, found in enumerate((FOUND, NONE, FOUND), 1):
        json_file.add(number, None, found)
    json_file.close()
    text = (tmp_path / "new/a.json").read_text()
    assert text == result_json([FOUND, NONE, FOUND]).replace(' "filename":"a.jpg", \n', "").replace(
        ' "filename":"", \n', ""
    )
    assert [one["frame_id"] for one in json.loads(text)] == [1, 2, 3]
    assert [(one["name"], one["confidence"]) for one in json.loads(text)[0]["objects"]] == [("a", 0.5)]


def test_until_its_end_and_without_a_frame_the_json_file_is_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("older")
    JsonFile(path, frame_json).close()
    assert path.read_text() == "older"
    json_file = JsonFile(path, frame_json)
    json_file.add(1, None, FOUND)
    assert path.read_text() == "older"
    json_file.close()
    assert len(json.loads(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_json_file_that_cannot_be_written_stays_as_it_was(tmp_path, most_bytes):
    """At a frame, after which it is closed; or at its end alone."""
    path = tmp_path / "a.json"
    path.write_text("older")
    most_bytes(20_000)
    json_file, long = JsonFile(path, frame_json), replace(FOUND, classes=["a" * 100, "b", "c"])
    with pytest.raises(ResultsError, match=r"a.json: File too large; the file was not written"):
        deque(json_file.add(number, None, long) for number in range(1, 1000))
    json_file.close()
    most_bytes(100)
    json_file = JsonFile(path, frame_json)
    json_file.add(1, None, FOUND)
    with pytest.raises(ResultsError, match=r"a.json: File too large; the file was not written"):
        json_file.close()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_json_file_where_none_can_be_is_one_line(tmp_path):
    with pytest.raises(ResultsError, match=r"Is a directory; expected a file that can be written") as raised:
        JsonFile(tmp_path, frame_json)
    assert "\n" not in str(raised.value)


def test_both_ports():
    """At another address of this machine than the usual one; the images of AlexeyAB's quality."""
    browser, port = Browser(0, "127.0.0.2"), JsonPort(0, "127.0.0.2", frame_json)
    browser.add(4, frame(1), NONE)
    assert browser.server._number == 0, "nobody is there to see it"
    answers = [urllib.request.urlopen(f"http://127.0.0.2:{one.server.port}", timeout=10) for one in (browser, port)]
    while not (browser.server.watched and port.server._waiting):
        pass
    for output in (browser, port):
        output.add(5, frame(2), FOUND)
    browser.add(6, None, FOUND)
    lines = [answers[0].readline() for _ in range(4)]
    jpeg = cv2.imencode(".jpg", frame(2), [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()
    assert answers[0].read(int(lines[2].split()[1])) == jpeg
    for output in (browser, port):
        Thread(target=output.close).start()
    assert answers[0].read() == b"\r\n"
    assert answers[1].read().decode() == f"[\n{frame_json(FOUND, 5)}\n]"
    for answer in answers:
        answer.close()


def test_a_window(display):
    window = Window("Demo")
    display.keys += [-1, ord("q"), ESCAPE | 1 << 20]  # GTK adds the state of the keyboard's lights
    assert not window.closed
    for number in (1, 2):
        window.add(number, frame(number), NONE)
        assert not window.closed
    window.add(3, None, NONE)
    assert window.closed
    window.add(4, frame(4), NONE)
    assert window.closed
    window.close()
    assert display.windows == display.destroyed == ["Demo"]
    assert [title for title, _ in display.shown] == ["Demo"] * 3
    assert [int(image[0, 0, 0]) for _, image in display.shown] == [40, 80, 160]
    assert not display.full
    Window("Demo", full_screen=True)
    assert display.full == [("Demo", cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)]


def test_all_are_closed_where_some_fail_and_the_first_ones_error_is_raised():
    closed = []

    class Output:
        def __init__(self, name, fails):
            self.name, self.fails = name, fails

        def close(self):
            closed.append(self.name)
            if self.fails:
                raise VideoError(self.name)

    with pytest.raises(VideoError, match="b"):
        close_all([Output(name, name in "bd") for name in "abcde"])
    assert sorted(closed) == list("abcde")
