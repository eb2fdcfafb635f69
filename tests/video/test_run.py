"""Videos: what both C programs print and write of them, and files and images that hold every frame."""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import Detector, load_network
from darknet_compat.cli import main
from darknet_compat.detect.detector import load_detector
from darknet_compat.engines import Engine
from darknet_compat.errors import CfgError, DarknetError, VideoError
from darknet_compat.images import letterbox_image, load_image, resize_image
from darknet_compat.video import Frames, Watched, demo, detect_frames, outputs, run
from darknet_compat.video.run import BEHIND
from tests.conftest import SHAPES
from tests.oracle import PROGRAM
from tests.video.conftest import Capture, free_port, read_video, write_video


@pytest.mark.parametrize("thresh", ["0.05", "0.3"])
def test_its_lines_are_pjreddies(darknet, shapes_video, shapes_detector, tmp_path, capfd, thresh):
    """Byte for byte: the mean of three frames, from zeros on, and boxes that fall by their objectness."""
    words = ["detector", "demo", shapes_detector.data.file, *map(str, SHAPES), str(shapes_video), "-thresh", thresh]
    his = subprocess.run([PROGRAM, *words, "-prefix", tmp_path / "his"], capture_output=True, check=True).stdout
    capfd.readouterr()
    assert main([*words, "-prefix", str(tmp_path / "ours"), "-numerics", "cpu", "-batch", "3"]) == 0
    ours = capfd.readouterr().out.encode()
    assert his[his.index(b"Demo") :] == ours
    assert ours.count(b"%") > 14


def his_demo(folder, words, cwd):
    """What AlexeyAB's program prints: the lines of each frame, without its frames a second."""
    done = subprocess.run([folder / "darknet", *words, "-dont_show"], capture_output=True, cwd=cwd, check=True)
    # Another of his threads says this, in the midst of a line as it happens.
    return blocks(done.stdout.decode().replace("Stream closed.\n", ""))


def blocks(printed):
    return [
        re.sub(r"FPS:.*|\n cvWriteFrame \n.*", "", block, flags=re.DOTALL)
        for block in printed.split("\033[H\033[J")[1:]
    ]


@pytest.mark.real_data
def test_what_it_finds_is_alexeyabs(alexeyab_opencv, shared, darknet_share, tmp_path, capfd):
    """Its frames begin with the second one and end with the last but one; ours are all."""
    folder = Path(alexeyab_opencv.lib._name).parent
    photo = cv2.resize(cv2.imread(str(darknet_share / "data/dog.jpg")), (480, 360))
    video = write_video(tmp_path / "dog.avi", [np.roll(photo, 6 * k, 1) for k in range(9)])
    (tmp_path / "coco.data").write_text(f"classes=80\nnames={shared.parent.parent}/nowhere\n")
    (tmp_path / "coco.data").write_text(f"classes=80\nnames={darknet_share}/data/coco.names\n")
    network = [str(shared / f"yolo-fastest/yolo-fastest-1.1.{end}") for end in ("cfg", "weights")]
    words = ["detector", "demo", "coco.data", *network, video.name, "-ext_output", "-thresh", ".2"]
    theirs = his_demo(folder, [*words, "-json_file_output", "his.json"], tmp_path)
    capfd.readouterr()
    data = str(tmp_path / "coco.data")
    assert main([*words[:2], data, *network, str(video), *words[6:], "-dont_show",
                 "-json_file_output", str(tmp_path / "ours.json")]) == 0  # fmt: skip
    ours = blocks(capfd.readouterr().out)
    his_frames, our_frames = (json.loads((tmp_path / f"{whose}.json").read_text()) for whose in ("his", "ours"))
    assert [frame["frame_id"] for frame in our_frames] == list(range(1, 10))
    assert len(his_frames) == 7
    assert sum(len(frame["objects"]) for frame in his_frames) > 14
    for his in his_frames:
        our = our_frames[his["frame_id"]]
        assert [one["name"] for one in our["objects"]] == [one["name"] for one in his["objects"]]
        for one, other in zip(our["objects"], his["objects"], strict=True):
            assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
            assert one["relative_coordinates"] == pytest.approx(other["relative_coordinates"], abs=1e-5)
    # Of the first he prints no boxes, since there is no image yet to draw them on.
    assert theirs[1:] == ours[2 : len(theirs) + 1]


def test_every_frame_comes_out_in_order(shapes_video, shapes_detector, tmp_path):
    frames, _ = read_video(shapes_video)
    seen = []
    watched = demo(
        shapes_detector, shapes_video, thresh=0.1, out_filename=tmp_path / "new/out.avi", prefix=f"{tmp_path}/new/p",
        json_file_output=tmp_path / "new/out.json", progress=seen.append,
    )  # fmt: skip
    assert watched.frames == len(frames) == 14
    assert watched.whole
    assert [shown.number for shown in seen] == list(range(1, 15))
    alone = list(detect_frames(shapes_detector, frames, thresh=0.1))
    listed = json.loads((tmp_path / "new/out.json").read_text())
    written, fps = read_video(tmp_path / "new/out.avi")
    assert fps == 10
    assert len(written) == len(listed) == 14
    for number, (frame, shown, found) in enumerate(zip(frames, seen, alone, strict=True), 1):
        assert np.array_equal(shown.found.pixels, frame[..., ::-1])
        assert np.array_equal(shown.found.boxes, found.boxes)
        assert listed[number - 1]["frame_id"] == number
        assert len(listed[number - 1]["objects"]) == (found.prob > 0).sum()
        # pjreddie's program counts its files from 0.
        image = load_image(tmp_path / f"new/p_{number - 1:08d}.jpg")
        drawn = [other.found.draw(bgr=False) for other in seen]
        for lossy in (image, written[number - 1][..., ::-1]):
            assert np.argmin([np.abs(lossy.astype(int) - other).mean() for other in drawn]) == number - 1
            boxes = np.abs(drawn[number - 1].astype(int) - frame[..., ::-1]).max(2) > 100
            assert np.abs(lossy.astype(int) - drawn[number - 1])[boxes].sum() <= 3 * 60 * boxes.sum()
    assert any((shown.found.prob > 0).any() for shown in seen)
    assert len(list((tmp_path / "new").iterdir())) == 16


@pytest.fixture
def alexeyabs_detector(shapes_detector):
    return load_detector(shapes_detector.data.file, *SHAPES, device="cpu", program="alexeyab", batch=2)


def test_alexeyabs_images_are_counted_from_1(shapes_video, alexeyabs_detector, tmp_path):
    demo(alexeyabs_detector, shapes_video, prefix=f"{tmp_path}/p")
    assert sorted(path.name for path in tmp_path.glob("p*")) == [f"p_{number:08d}.jpg" for number in range(1, 15)]


def said_by(detector):
    """A function that takes frames, and gives for each batch of them what the network was given."""
    given = []

    def engine(inputs):
        def run(images):
            given.append(images.clone())
            return detector.network.predict(images)

        asked.append(inputs)
        return Engine(run, 1), min(inputs, 4)

    asked = []
    detector.engine = engine
    return given, asked


@pytest.mark.parametrize("letter_box", [False, True])
@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
def test_a_frame_is_fitted_as_its_program_does(shapes_video, shapes_detector, program, letter_box):
    """AlexeyAB's stretches it by OpenCV's arithmetic (get_image_from_stream_resize), and fits it in by Darknet's."""
    frames, _ = read_video(shapes_video)
    detector = Detector(*SHAPES, device="cpu", program=program, letter_box=letter_box)
    given, _ = said_by(detector)
    list(detect_frames(detector, frames[:1]))
    rgb = np.ascontiguousarray(frames[0][..., ::-1])
    expected = np.empty((3, 128, 128), np.float32)
    if letter_box:
        letterbox_image(rgb, expected)
    elif program == "pjreddie":
        resize_image(rgb, expected)
    else:
        expected[:] = cv2.resize(rgb, (128, 128), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(given[0][0], expected, atol=1e-6)


def test_of_a_live_source_one_frame_is_looked_at_at_a_time(shapes_video, alexeyabs_detector, tmp_path, monkeypatch):
    frames, _ = read_video(shapes_video)
    given, asked = said_by(alexeyabs_detector)
    for live, expected in ((True, [1] * 5), (False, [1, 4])):
        given.clear()
        assert len(list(detect_frames(alexeyabs_detector, frames[:5], live=live))) == 5
        assert sorted(len(images) for images in given) == expected
    asked.clear()
    camera = Capture(3)
    monkeypatch.setattr(cv2, "VideoCapture", camera)
    monkeypatch.chdir(tmp_path)
    demo(alexeyabs_detector, 5, size=(640, 480), fps=15, json_file_output="5")  # a file, and no camera
    assert len(json.loads((tmp_path / "5").read_text())) >= 1
    assert asked == [1]
    assert camera.opened == 5
    assert list(camera.asked.values()) == [640, 480, 15]


def test_alexeyabs_letterboxed_frame_is_an_image_as_any_other(shapes_video, shapes_detector):
    frames, _ = read_video(shapes_video)
    detector = Detector(*SHAPES, shapes_detector.names, device="cpu", program="alexeyab", letter_box=True, thresh=0.1)
    for one, other in zip(detect_frames(detector, frames[:4]), detector(frames[:4]), strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-5)
        assert (one.names, one.width, one.height) == (other.names, 128, 96)
        assert len(one.names) > 0
        assert ((one.prob == 0) | (one.prob > 0.1)).all()
        assert (one.prob[one.prob > 0] < 0.25).any(), "the detector's own threshold is lower than the program's"


TREE = """[net]
width=64
height=64
channels=3
[convolutional]
filters=20
size=3
stride=8
pad=1
activation=linear
[region]
anchors=4,4, 6,3
classes=5
num=2
softmax=1
tree={tree}
"""


def test_how_sure_a_tree_must_be(shapes_video, tmp_path):
    (tmp_path / "tree").write_text("a -1\nb -1\nc 0\nd 0\ne 1\n")
    (tmp_path / "tree.cfg").write_text(TREE.format(tree=tmp_path / "tree"))
    torch.manual_seed(1)
    network = load_network(tmp_path / "tree.cfg", numerics="cpu")
    with torch.no_grad():
        network.layers[0].weights.mul_(6)
    detector = Detector(network, thresh=0.2)

    def found(**options):
        seen = []
        demo(detector, shapes_video, progress=lambda shown: seen.append(shown.found.prob), **options)
        return np.concatenate(seen)

    unasked, half, sure = found(), found(hier=0.5), found(hier=0.9)
    assert np.array_equal(unasked, half)
    assert not np.array_equal(half, sure)


def test_a_network_that_takes_no_rgb_is_an_error_before_its_first_frame(tmp_path):
    (tmp_path / "grey.cfg").write_text(TREE.format(tree="").replace("channels=3", "channels=1").replace("tree=", ""))
    detector = Detector(load_network(tmp_path / "grey.cfg"))
    with pytest.raises(CfgError, match=r"grey\.cfg:4: channels=1: .*expected channels=3"):
        next(detect_frames(detector, iter([])))


def test_frames_without_boxes_and_a_limit_of_time(shapes_video, shapes_detector, tmp_path):
    frames, _ = read_video(shapes_video)
    demo(shapes_detector, shapes_video, thresh=0.01, draw=False, prefix=str(tmp_path / "p"))
    assert np.abs(load_image(tmp_path / "p_00000000.jpg").astype(int) - frames[0][..., ::-1]).mean() < 4
    watched = demo(shapes_detector, shapes_video, time_limit=1e-6, json_file_output=tmp_path / "a.json")
    assert watched.frames == 1
    assert len(json.loads((tmp_path / "a.json").read_text())) == 1


def test_letterboxed_or_stretched_as_the_detector_says(shapes_video, shapes_detector):
    frames, _ = read_video(shapes_video)
    fitted = [found.boxes for found in detect_frames(shapes_detector, frames, thresh=0.05)]
    other = load_detector(shapes_detector.data.file, *SHAPES, device="cpu", numerics="cpu", letter_box=False)
    stretched = [found.boxes for found in detect_frames(other, frames, thresh=0.05)]
    assert not all(np.array_equal(one, two) for one, two in zip(fitted, stretched, strict=True))


def test_with_tiles_a_frame_is_an_image_as_any_other(shapes_video, shapes_detector):
    """But that boxes of one object fall over an IOU of .4, as in all its frames."""
    frames = read_video(shapes_video)[0][:5]
    tiled = load_detector(
        shapes_detector.data.file, *SHAPES, device="cpu", numerics="cpu", tiles=2, batch=2, letter_box=False
    )
    few, many = tiled(frames, thresh=0.1, nms=0.4), tiled(frames, thresh=0.1, nms=0.9)
    assert sum(len(one.boxes) for one in few) < sum(len(one.boxes) for one in many)
    for alone, options in ((few, {}), (many, {"nms": 0.9})):
        found = detect_frames(tiled, frames, thresh=0.1, **options)
        for one, other in zip(found, alone, strict=True):
            assert np.allclose(one.boxes, other.boxes, atol=1e-5)
            assert np.array_equal(one.pixels, other.pixels)
            assert one.names == other.names


def test_an_error_in_the_midst_leaves_whole_files(shapes_video, shapes_detector, tmp_path):
    def stop(shown):
        if shown.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo(shapes_detector, shapes_video, out_filename=tmp_path / "a.avi", json_file_output=tmp_path / "a.json",
             progress=stop)  # fmt: skip
    assert 1 <= len(json.loads((tmp_path / "a.json").read_text())) <= 5
    assert 1 <= len(read_video(tmp_path / "a.avi")[0]) <= 5
    assert sorted(path.name for path in tmp_path.glob("*a.*")) == ["a.avi", "a.json"]


@pytest.mark.parametrize("frames", [5, 13])
def test_a_full_disk_is_one_line_and_what_was_written_is_playable(
    shapes_video, shapes_detector, tmp_path, monkeypatch, frames
):
    """At the last of 14 frames, too."""
    free = iter([2**30] * (1 + frames) + [2**20] * 20)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: type("", (), {"free": next(free)}))
    with pytest.raises(VideoError, match=r"a.avi: the disk is full"):
        demo(shapes_detector, shapes_video, out_filename=tmp_path / "a.avi")
    assert len(read_video(tmp_path / "a.avi")[0]) == frames


def test_a_window_shows_every_frame_and_escape_ends_it(shapes_video, shapes_detector, display):
    seen = []
    watched = demo(shapes_detector, shapes_video, thresh=0.1, window=True, full_screen=True, progress=seen.append)
    assert (watched.frames, watched.whole, watched.expected) == (14, True, 14)
    assert len(display.shown) == 14
    for (_, image), shown in zip(display.shown, seen, strict=True):
        assert np.array_equal(image, shown.found.draw())
    assert display.windows == display.destroyed == ["Demo"]
    assert display.full
    display.keys += [-1, -1, outputs.ESCAPE]
    watched = demo(shapes_detector, shapes_video, window=True)
    assert 3 <= watched.frames < 14
    assert watched.whole, "which it was left before it could be"
    assert display.destroyed == ["Demo", "Demo"]


def test_no_more_than_a_few_frames_wait_to_be_written(shapes_video, shapes_detector):
    free, seen, written = threading.Event(), [], []

    class Slow:
        def add(self, number, drawn, found):
            free.wait(10)
            written.append(number)

    def progress(shown):
        seen.append(shown.number)
        if shown.number == BEHIND:
            threading.Timer(0.3, lambda: written.append(len(seen)) or free.set()).start()

    with Frames(shapes_video) as frames:
        look = run._detecting(shapes_detector, 0.5, None, False, True, frames.fps)
        run._run(look, frames, [Slow()], None, None, progress)
    assert written == [BEHIND, *range(1, 15)]


def test_frames_a_second_are_smoothed_and_counted(shapes_video, shapes_detector, monkeypatch):
    """demo.c of pjreddie's: .9 of what it was and .1 of this frame's; AlexeyAB's: those of 3 seconds."""
    steps = [0, *[0.5] * 6, *[1.0] * 6, 0.25, 0.25, 0]
    clock = itertools.accumulate(steps)
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    seen = []
    watched = demo(shapes_detector, shapes_video, progress=seen.append)
    fps, expected = 0.0, []
    for step in steps[1:15]:
        fps = 0.9 * fps + 0.1 / step
        expected.append(fps)
    assert [shown.fps for shown in seen] == pytest.approx(expected)
    assert [shown.average_fps for shown in seen] == [0] * 5 + [2] * 3 + [1] * 6
    assert watched.seconds == 9.5


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"mjpeg_port": 70000}, "expected a port that is free"),
        ({"json_port": 70000}, "expected a port that is free"),
        ({"window": True}, "no window can be opened"),
        ({"prefix": "file/p"}, "file"),
        ({"json_file_output": "file/a.json"}, "file"),
        ({"json_file_output": "./older.avi"}, "older.avi: another output has this name too"),
    ],
)
def test_an_older_video_and_list_stay_where_another_output_cannot_be(
    shapes_video, shapes_detector, tmp_path, monkeypatch, options, what
):
    monkeypatch.chdir(tmp_path)
    for name in ("older.avi", "older.json", "file"):
        (tmp_path / name).write_text("older")
    with pytest.raises(DarknetError, match=what):
        demo(
            shapes_detector, shapes_video, **{"json_file_output": "older.json", "out_filename": "older.avi", **options}
        )
    assert (tmp_path / "older.avi").read_text() == (tmp_path / "older.json").read_text() == "older"


def test_both_ports_are_free_at_the_end_and_at_the_host(shapes_video, shapes_detector):
    """What a viewer of each gets of a video: the list of those frames that it was there for, and images."""
    ports, got = [free_port(), free_port()], {}

    def view(port):
        with urllib.request.urlopen(f"http://127.0.0.2:{port}", timeout=10) as answer:
            got[port] = answer.read()

    viewers = [threading.Thread(target=view, args=(port,)) for port in ports]

    def progress(shown):
        if shown.number == 1:
            for viewer in viewers:
                viewer.start()
        time.sleep(0.05)

    demo(
        shapes_detector, shapes_video, json_port=ports[0], mjpeg_port=ports[1], host="127.0.0.2", progress=progress,
        thresh=0.1,
    )  # fmt: skip
    for viewer in viewers:
        viewer.join()
    numbers = [frame["frame_id"] for frame in json.loads(got[ports[0]])]
    assert len(numbers) > 1
    assert numbers == list(range(numbers[0], 15))
    assert got[ports[1]].count(b"Content-Type: image/jpeg") > 1
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=2)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"out_filename": "out.xyz"}, "expected a name that ends in .avi"),
        ({"out_filename": "file/out.avi"}, "file"),
        ({"json_file_output": "file/out.json"}, "file"),
        ({"prefix": "file/p"}, "file"),
        ({"mjpeg_port": 70000}, "70000: .*expected a port that is free"),
        ({"window": True}, "no window can be opened"),
    ],
)
def test_what_cannot_be_written_is_an_error_before_the_first_frame(
    shapes_video, shapes_detector, tmp_path, monkeypatch, options, what
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    seen = []
    with pytest.raises(Exception, match=what) as raised:
        demo(shapes_detector, shapes_video, progress=seen.append, **options)
    assert "\n" not in str(raised.value)
    assert not seen


@pytest.mark.parametrize("output", ["out_filename", "json_file_output"])
def test_the_source_is_not_written_over(shapes_video, shapes_detector, tmp_path, output):
    before = shapes_video.read_bytes()
    (tmp_path / "link.avi").symlink_to(shapes_video)
    for source, name in itertools.permutations((shapes_video, tmp_path / "link.avi", shapes_video), 2):
        with pytest.raises(VideoError, match="reads this file too"):
            demo(shapes_detector, source, **{output: name})
    assert shapes_video.read_bytes() == before


def test_what_does_not_say_how_many_frames_it_has_is_whole():
    assert Watched(3, 1.0, None).whole
    assert [Watched(frames, 1.0, 3).whole for frames in (2, 3, 4)] == [False, True, True]
