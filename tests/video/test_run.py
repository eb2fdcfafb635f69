"""Videos: what both C programs print and write of them, and files and images that hold every frame."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_compat.cli import main
from darknet_compat.detect.detector import load_detector
from darknet_compat.errors import VideoError
from darknet_compat.images import load_image
from darknet_compat.video import demo, detect_frames
from tests.conftest import SHAPES
from tests.oracle import PROGRAM
from tests.video.conftest import read_video, write_video


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
    frames, _ = read_video(shapes_video)
    tiled = load_detector(shapes_detector.data.file, *SHAPES, device="cpu", numerics="cpu", tiles=2, batch=2)
    found = list(detect_frames(tiled, frames, thresh=0.2, nms=0.45))
    alone = tiled(frames, thresh=0.2)
    assert len(found) == 14
    for one, other in zip(found, alone, strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-5)
        assert np.array_equal(one.pixels, other.pixels)
    assert any(len(one.boxes) for one in found)


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


def test_a_full_disk_is_one_line_and_what_was_written_is_playable(shapes_video, shapes_detector, tmp_path, monkeypatch):
    from darknet_compat.video import outputs

    free = iter([2**30] * 6 + [2**20] * 20)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: type("", (), {"free": next(free)}))
    with pytest.raises(VideoError, match=r"a.avi: the disk is full"):
        demo(shapes_detector, shapes_video, out_filename=tmp_path / "a.avi")
    assert len(read_video(tmp_path / "a.avi")[0]) == 5


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


def test_the_source_is_not_written_over(shapes_video, shapes_detector):
    before = shapes_video.read_bytes()
    with pytest.raises(VideoError, match="the command reads this file too"):
        demo(shapes_detector, shapes_video, out_filename=shapes_video)
    assert shapes_video.read_bytes() == before
