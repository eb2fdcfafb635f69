"""The verb ``demo`` as it is typed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from darknet_compat.cli import main
from darknet_compat.detect import Detections
from tests.conftest import ROOT, SHAPES
from tests.video.conftest import free_port, read_video, write_video


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
    assert main([*words, str(video), "-dont_show"]) == 0
    found = capsys.readouterr().out
    assert found.endswith("\ninput video stream closed. \n")
    assert "cvWriteFrame" not in found


def test_who_reads_a_pipe_has_each_frame_at_once(monkeypatch):
    from darknet_compat.cli import video

    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    detector = SimpleNamespace(network=SimpleNamespace(program="pjreddie"))
    options = SimpleNamespace(prefix=None, out_filename=None, ext_output=False)
    nothing = Detections("", 9, 9, np.zeros((0, 4)), np.zeros((0, 1)), True, ["a"])
    video._print(SimpleNamespace(found=nothing, fps=2.0, average_fps=0.0), detector, options)
    assert pipe.getvalue() == b"\033[2J\033[1;1H\nFPS:2.0\nObjects:\n\n"


def test_a_file_that_ends_early(words, video, tmp_path, capsys):
    data = video.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    assert main([*words, str(tmp_path / "cut.avi"), "-dont_show", "-json_file_output", str(tmp_path / "a.json")]) == 1
    said = capsys.readouterr().err
    assert "cut.avi: it ends after" in said
    assert "of 6 frames; the file is cut off" in said
    assert 1 <= len(json.loads((tmp_path / "a.json").read_text())) < 6


def test_a_whole_file_that_says_too_many_frames_is_a_warning_alone(words, video, capsys):
    """As of Matroska, whose number is the length in time, where frames were left out."""
    data = bytearray(video.read_bytes())
    for place in (48, data.index(b"strh") + 40):  # both numbers of frames in an .avi
        assert data[place] == 6
        data[place] = 9
    video.write_bytes(data)
    assert main([*words, str(video), "-dont_show"]) == 0
    assert f"warning: {video}: it ends after 6 of 9 frames; it is damaged, or" in capsys.readouterr().err


def test_a_cut_file_that_is_left_before_is_no_error(words, video, tmp_path, capsys):
    (tmp_path / "cut.avi").write_bytes(video.read_bytes()[:-9000])
    assert main([*words, str(tmp_path / "cut.avi"), "-dont_show", "-time_limit_sec", "1e-9"]) == 0
    said = capsys.readouterr().err
    assert "1 frames in" in said
    assert "it ends after" not in said


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
    assert said[-1].startswith(f"darknet-compat: {what}")


@pytest.mark.parametrize("port", ["70000", "x"])
def test_a_port_is_one(words, video, capsys, port):
    assert main([*words, str(video), "-mjpeg_port", port]) == 2
    assert "-mjpeg_port" in capsys.readouterr().err


@pytest.fixture
def asked(monkeypatch):
    """What the function is asked for instead of running; "source" is its video."""
    import darknet_compat.video

    asked = {}

    def demo(detector, source, **options):
        asked.update(options, detector=detector, source=source)
        return darknet_compat.video.Watched(6, 1.0, 6)

    monkeypatch.setattr(darknet_compat.video, "demo", demo)
    monkeypatch.setenv("DISPLAY", ":9")
    return asked


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"thresh": None, "hier": None, "out_filename": None, "prefix": None, "json_file_output": None,
              "json_port": None, "mjpeg_port": None, "host": "127.0.0.1", "window": True, "full_screen": False,
              "draw": True, "time_limit": None, "size": None, "fps": None}),
        ("-c 3", {"source": "a.avi"}),
        ("-w 640 -fps 15", {"size": (640, 640), "fps": 15}),  # the height too (demo.c)
        ("-thresh .3 -hier .6", {"thresh": 0.3, "hier": 0.6}),
        ("-out_filename o.avi -json_file_output o.json", {"out_filename": "o.avi", "json_file_output": "o.json"}),
        ("-prefix p", {"prefix": "p", "window": False}),
        ("-dont_show", {"window": False}),
        ("-fullscreen", {"full_screen": True}),
        ("-dontdraw_bbox", {"draw": False}),
        ("-time_limit_sec .5", {"time_limit": 0.5}),
        ("-json_port 8070", {"json_port": 8070, "mjpeg_port": None}),
        ("-mjpeg_port 8090 -host 0.0.0.0", {"json_port": None, "mjpeg_port": 8090, "host": "0.0.0.0"}),
        ("-json_port -1 -mjpeg_port 0", {"json_port": None, "mjpeg_port": None}),  # -1 is AlexeyAB's default
    ],
)  # fmt: skip
def test_each_flag_counts(words, asked, flags, expected):
    assert main([*words, "a.avi", *flags.split()]) == 0
    assert {name: asked[name] for name in expected} == expected


@pytest.mark.parametrize(("flags", "number"), [("", 0), ("-c 3", 3)])
def test_without_a_file_it_is_a_camera(words, asked, flags, number):
    assert main([*words, *flags.split()]) == 0
    assert asked["source"] == number


@pytest.mark.parametrize(("flags", "expected"), [("", (1, 1)), ("-tiles 3 -letter_box 0", (3, 0))])
def test_flags_of_the_detector(words, asked, flags, expected):
    assert main([*words, "a.avi", *flags.split()]) == 0
    assert (asked["detector"].tiles, asked["detector"].letter_box) == expected


def test_one_of_yolov1_has_no_tree(tmp_path, asked):
    """The verb of that family: without -hier."""
    section = "side=1\nnum=2\ncoords=4\nclasses=20\n"
    (tmp_path / "a.cfg").write_text(
        f"[net]\nwidth=8\nheight=8\nchannels=3\n[connected]\noutput=30\nactivation=linear\n[detection]\n{section}"
    )
    (tmp_path / "a.weights").write_bytes(bytes(16 + 4 * (30 + 30 * 192)))
    assert main(["yolo", "demo", str(tmp_path / "a.cfg"), str(tmp_path / "a.weights"), "a.avi"]) == 0
    assert (asked["source"], asked["hier"]) == ("a.avi", None)


@pytest.mark.parametrize("variable", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_a_display_of_either_kind_has_a_window(words, asked, monkeypatch, capsys, variable):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "0")
    assert main([*words, "a.avi"]) == 0
    assert asked["window"]
    assert "display" not in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-time_limit_sec 0", "-time_limit_sec inf", "-w 0", "-fps -1", "-c -1", "-tiles 0"])
def test_a_number_that_cannot_be_is_refused(words, capsys, flag):
    assert main([*words, "a.avi", *flag.split()]) == 2
    assert f"argument {flag.split()[0]}/" in capsys.readouterr().err


def test_a_cameras_line(words, monkeypatch, capsys):
    """pjreddie's program says nothing of it."""
    from darknet_compat.cli import video

    frames = SimpleNamespace(source=3, width=640, height=480)
    for program, said in (("alexeyab", "Webcam index: 3\nVideo stream: 640 x 480 \n"), ("pjreddie", "")):
        video._print_stream(frames, program)
        assert capsys.readouterr().out == said


def test_pjreddies_frames_a_second_but_for_images(words, video, tmp_path, capsys):
    """demo.c: with -prefix none are counted."""
    for flags, none in (("-dont_show", False), (f"-prefix {tmp_path}/p", True)):
        assert main([*words, str(video), *flags.split(), "-program", "pjreddie"]) == 0
        said = [float(line[4:]) for line in capsys.readouterr().out.splitlines() if line.startswith("FPS:")]
        assert len(said) == 6
        assert not any(said) if none else all(said)


def test_a_hangup_is_ignored_where_it_was(words, asked):
    """By nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main([*words, "a.avi"]) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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
