"""Videos and what they show as a whole: beside both programs' ``classifier demo``."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import Classifier, load_network, save_weights
from darknet_compat.cli import main
from darknet_compat.video import classify_frames, demo
from tests.conftest import ROOT
from tests.oracle import PROGRAM
from tests.video.conftest import read_video

CFG = """[net]
batch=1
subdivisions=1
width=64
height=80
channels=3
[convolutional]
filters=8
size=5
stride=2
pad=1
activation=leaky
[convolutional]
filters=6
size=3
stride=2
pad=1
activation=linear
[avgpool]
[softmax]
groups=1
"""


@pytest.fixture
def toy(tmp_path):
    """.data, cfg and .weights of a random classifier, of another shape than the video."""
    files = [tmp_path / f"toy.{end}" for end in ("data", "cfg", "weights")]
    files[0].write_text(f"classes=6\nlabels={ROOT}/data/shapes.names\nnames={ROOT}/data/shapes.names\ntop=3\n")
    files[1].write_text(CFG)
    network = load_network(files[1])
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for numbers in network.parameters():
            numbers.copy_(torch.randn(numbers.shape, generator=random) * 0.3)
    save_weights(network, files[2])
    return [str(file) for file in files]


def printed(text):
    """Without how many frames a second there were."""
    return re.sub(r"FPS: ?[\d.]+", "FPS", text)


@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
def test_its_lines_are_both_programs(program, darknet, alexeyab_opencv, xvfb, shapes_video, toy, capfd):
    """Byte for byte. At the end of a file both programs fail, when everything is printed."""
    his = PROGRAM if program == "pjreddie" else Path(alexeyab_opencv.lib._name).parent / "darknet"
    words = ["classifier", "demo", *toy, str(shapes_video)]
    done = subprocess.run([*xvfb, "stdbuf", "-o0", his, *words], capture_output=True, timeout=120, check=False)
    theirs = done.stdout.decode()
    start = "Classifier Demo" if program == "pjreddie" else "Video stream"
    assert main([*words, "-program", program, "-numerics", "cpu", "-batch", "3", "-dont_show"]) == 0
    ours = capfd.readouterr().out
    assert ours.startswith("Classifier Demo\n")
    assert ours.count("%") == 14 * 3
    assert printed(ours[ours.index(start) :]) == printed(theirs[theirs.index(start) :])


def test_each_frame_comes_out_in_order(shapes_video, toy, tmp_path):
    frames, _ = read_video(shapes_video)
    classifier = Classifier(*toy[1:], ROOT / "data/shapes.names", batch=4)
    seen = []
    watched = demo(
        classifier, shapes_video, top=2, out_filename=tmp_path / "out.avi", prefix=f"{tmp_path}/p",
        json_file_output=tmp_path / "out.json", progress=seen.append,
    )  # fmt: skip
    assert watched.frames == len(frames) == len(seen) == 14
    alone = classifier(frames)  # pjreddie's predict prepares an image as its demo does
    for shown, frame, other in zip(seen, frames, alone, strict=True):
        assert np.allclose(shown.found.prob, other.prob, atol=1e-6)
        assert np.array_equal(shown.found.pixels, frame[..., ::-1])
    listed = json.loads((tmp_path / "out.json").read_text())
    assert [one["frame_id"] for one in listed] == list(range(1, 15))
    for one, other in zip(listed, alone, strict=True):
        assert [each["class_id"] for each in one["classes"]] == other.top(2).tolist()
        assert [each["name"] for each in one["classes"]] == [other.name_of(index) for index in other.top(2)]
        assert np.allclose([each["confidence"] for each in one["classes"]], other.prob[other.top(2)], atol=1e-5)
    written, _ = read_video(tmp_path / "out.avi")
    image = cv2.imread(str(tmp_path / "p_00000000.jpg"))
    assert len(written) == 14
    for drawn in (image, written[0]):
        changed = np.abs(drawn.astype(int) - frames[0]).max(2) > 60
        assert changed[:40].mean() > 0.2  # two lines of text on white stand over its left upper corner
        assert changed[60:].mean() < 0.1


def test_of_a_tree_only_leaves_are_named(toy, tmp_path):
    """hierarchy_predictions with only_leaves, as both programs call it here."""
    (tmp_path / "toy.tree").write_text("a -1\nb -1\nc 0\nd 0\ne 1\nf 1\n")
    (tmp_path / "tree.cfg").write_text(CFG.replace("groups=1", f"tree={tmp_path}/toy.tree"))
    for program in ("pjreddie", "alexeyab"):
        classifier = Classifier(tmp_path / "tree.cfg", toy[2], program=program)
        (found,) = classify_frames(classifier, [np.full((48, 64, 3), 90, np.uint8)])
        assert found.prob[:2].tolist() == [0, 0]
        assert found.prob[2:].sum() == pytest.approx(1, abs=1e-5)
        assert found.name in "cdef"


def test_live_frames_are_looked_at_one_by_one(toy):
    classifier = Classifier(*toy[1:])
    asked = []

    def frames():
        for number in range(5):
            asked.append(number)
            yield np.full((48, 64, 3), number * 50, np.uint8)

    found = classify_frames(classifier, frames(), live=True)
    next(found)
    assert len(asked) < 5
    assert len(list(found)) == 4


def test_its_flags(toy, shapes_video, capsys):
    assert main(["classifier", "demo", *toy, str(shapes_video), "-dont_show", "-t", "1", "-benchmark"]) == 0
    said = capsys.readouterr()
    assert said.out.count("%") == 14
    assert "14 frames in" in said.err
    assert main(["classifier", "demo", *toy, "none.avi", "-dont_show"]) == 1
    assert "none.avi: no such file" in capsys.readouterr().err
    assert main(["classifier", "demo", *toy, str(shapes_video), "-thresh", ".5"]) == 2
