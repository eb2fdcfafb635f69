"""The verb ``demo`` as it is typed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from darknet_compat.cli import main
from tests.conftest import ROOT, SHAPES
from tests.video.conftest import read_video, write_video


@pytest.fixture
def words(tmp_path):
    (tmp_path / "shapes.data").write_text(f"classes=6\nnames={ROOT}/data/shapes.names\n")
    return ["detector", "demo", str(tmp_path / "shapes.data"), *map(str, SHAPES)]


@pytest.fixture
def video(tmp_path):
    random = np.random.default_rng(0)
    return write_video(tmp_path / "in.avi", [random.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(6)])


def test_all_its_files(words, video, tmp_path, capsys):
    outputs = ["-out_filename", tmp_path / "out.avi", "-json_file_output", tmp_path / "out.json"]
    command = [*words, video, *outputs, "-dont_show", "-program", "pjreddie", "-thresh", ".01", "-device", "cpu"]
    assert main([str(word) for word in command]) == 0
    found = capsys.readouterr()
    assert found.out.startswith(f"Demo\nvideo file: {video}\n\033[2J\033[1;1H\nFPS:")
    assert found.out.count("Objects:") == 6
    assert "6 frames in" in found.err
    assert len(read_video(tmp_path / "out.avi")[0]) == len(json.loads((tmp_path / "out.json").read_text())) == 6


def test_without_a_display_it_says_so_and_goes_on(words, video, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main([*words, str(video)]) == 0
    assert "there is no display for a window; use -dont_show" in capsys.readouterr().err


def test_alexeyabs_frame(words, video, capsys):
    assert main([*words, str(video), "-dont_show", "-out_filename", str(video.with_name("o.mkv"))]) == 0
    found = capsys.readouterr().out
    assert f"Demo\nvideo file: {video}\nVideo stream: 128 x 96 \n\033[H\033[JObjects:\n\n" in found
    assert found.count(" \t AVG_FPS:0.0\n\n cvWriteFrame \n") == 6
    assert found.endswith("input video stream closed. \noutput_video_writer closed. \n")


def test_a_file_that_ends_early(words, video, tmp_path, capsys):
    data = video.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    assert main([*words, str(tmp_path / "cut.avi"), "-dont_show", "-json_file_output", str(tmp_path / "a.json")]) == 1
    said = capsys.readouterr().err
    assert "cut.avi: it ends after" in said
    assert "of 6 frames; the file is damaged" in said
    assert 1 <= len(json.loads((tmp_path / "a.json").read_text())) < 6


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["none.avi"], "none.avi: no such file"),
        (["-c", "77", "-dont_show"], "camera 77: no frame can be read"),
        (["VIDEO", "-dont_show", "-out_filename", "a.xyz"], "a.xyz: expected a name that ends in"),
    ],
)
def test_errors_are_one_line(words, video, capfd, more, what):
    assert main([*words, *(str(video) if word == "VIDEO" else word for word in more)]) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if "darknet-compat: " in line]
    assert len([line for line in said if "display" not in line]) == 1
    assert what in said[-1]


@pytest.mark.parametrize("port", ["70000", "x"])
def test_a_port_is_one(words, video, capsys, port):
    assert main([*words, str(video), "-mjpeg_port", port]) == 2
    assert "-mjpeg_port" in capsys.readouterr().err


def test_a_port_under_1_is_none(words, video, monkeypatch):
    """-1 is the default of AlexeyAB's program."""
    import darknet_compat.video

    asked = {}
    watched = darknet_compat.video.Watched(6, 1.0, 6)
    monkeypatch.setattr(darknet_compat.video, "demo", lambda *_, **options: asked.update(options) or watched)
    for port, expected in (("-1", None), ("0", None), ("8070", 8070)):
        assert main([*words, str(video), "-dont_show", "-json_port", port, "-mjpeg_port", port]) == 0
        assert asked["json_port"] == asked["mjpeg_port"] == expected


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_whole_files_and_a_free_port(words, tmp_path, number):
    random = np.random.default_rng(0)
    video = write_video(tmp_path / "long.avi", [random.integers(0, 256, (96, 128, 3), np.uint8)] * 3000)
    port = free_port()
    command = [sys.executable, "-m", "darknet_compat", *words, video, "-dont_show", "-json_port", str(port),
               "-out_filename", tmp_path / "o.avi", "-json_file_output", tmp_path / "o.json"]  # fmt: skip
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        end = time.monotonic() + 60
        while True:
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10)
                break
            except OSError:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.05)
        assert answer.read(2) == b"[\n"
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    frames = json.loads((tmp_path / "o.json").read_text())
    assert 1 <= len(frames) < 3000
    assert len(read_video(tmp_path / "o.avi")[0]) >= 1
    answer.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2)


def test_a_kill_leaves_a_video_that_plays(words, tmp_path):
    random = np.random.default_rng(0)
    video = write_video(tmp_path / "long.avi", [random.integers(0, 256, (96, 128, 3), np.uint8)] * 3000)
    out = tmp_path / "o.avi"
    command = [sys.executable, "-m", "darknet_compat", *words, video, "-dont_show", "-out_filename", out]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        end = time.monotonic() + 60
        while not out.exists() or out.stat().st_size < 2**20:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert len(read_video(out)[0]) > 10
