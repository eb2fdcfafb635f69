"""tools/joint_shapes.py: from shapes with boxes to some that have boxes and others that show a class alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.cfg import read_cfg, read_data, read_list
from darknet_compat.classify.labels import match_labels, read_labels
from darknet_compat.images import load_image, save_image
from darknet_compat.labels import label_path
from darknet_compat.network import Network
from darknet_compat.tree import read_tree
from tests.conftest import ROOT
from tests.tools.run import load_tool

tool = load_tool("joint_shapes")
# A disc and a square; a ring alone, and a cross and a star that touch; a ring of 10 x 5 pixels.
OBJECTS = (
    "0 .25 .25 .2 .2\n3 .75 .75 .3 .2\n",
    "1 .5 .25 .3 .25\n5 .3 .8 .2 .2\n4 .45 .8 .2 .2\n",
    "1 .8 .8 .05 .05\n",
)


@pytest.fixture
def shapes(tmp_path):
    """Three images of 200 x 100, each place in them of its own colour."""
    for folder in ("images", "labels"):
        (tmp_path / "shapes" / folder).mkdir(parents=True)
    image = np.zeros((100, 200, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(200), np.arange(100)[:, None]
    paths = [tmp_path / f"shapes/images/{name}.png" for name in "abc"]
    for path, text in zip(paths, OBJECTS, strict=True):
        save_image(image, path)
        (tmp_path / f"shapes/labels/{path.stem}.txt").write_text(text)
    (tmp_path / "shapes/train.txt").write_text("".join(f"{path}\n" for path in paths))
    return tmp_path / "shapes"


def test_what_has_boxes_and_what_shows_a_class(shapes, tmp_path):
    dest = tmp_path / "joint"
    assert tool.prepare(shapes, dest) == {"images with boxes": 1, "cut-outs with a class alone": 2}
    (boxed,) = read_list(dest / "train.txt")
    # By the tree's numbers: disc is 2 there, and square 5.
    expected = "2 0.250000 0.250000 0.200000 0.200000\n5 0.750000 0.750000 0.300000 0.200000\n"
    assert Path(label_path(boxed)).read_text() == expected
    assert (load_image(boxed) == load_image(shapes / "images/a.png")).all()
    shown, small = read_list(dest / "classify.txt")
    assert (shown, small) == (str(dest / "classes/ring/b-0.png"), str(dest / "classes/ring/c-0.png"))
    assert load_image(small).shape == (43, 51, 3)  # 20 around it, but for what is below the image
    part = load_image(shown)
    # The ring of 60 x 25 pixels from (70, 12.5) on, and 30 around it: 60 would reach into the cross.
    assert (part[0, 0].tolist()[:2], part[-1, -1].tolist()[:2]) == ([40, 0], [160, 67])


def test_cut_outs_stay_in_the_image_and_what_is_touched_is_left():
    image, cross = np.zeros((100, 200, 3), np.uint8), [5, 0.1, 0.15, 0.2, 0.3]
    # 40 x 30 pixels at the upper left, and 80 around them.
    ((name, part),) = tool.cut_outs(image, np.array([cross]))
    assert (name, part.shape) == ("cross", (100, 121, 3))
    # A star so near that only the least margin of 6 pixels, or none, is free of it.
    assert tool.cut_outs(image, np.array([cross, [4, 0.275, 0.15, 0.1, 0.1]])) == []
    ((_, part),) = tool.cut_outs(image, np.array([cross, [4, 0.285, 0.15, 0.1, 0.1]]))
    assert part.shape == (37, 47, 3)


def test_its_files_are_those_of_a_joint_training(shapes, tmp_path):
    dest = tmp_path / "joint"
    tool.prepare(shapes, dest)
    data, tree = read_data(dest / "joint.data"), read_tree(dest / "joint.tree")
    labels = read_labels(data)
    assert [label.strip("/") for label in labels] == (dest / "joint.names").read_text().split() == tree.names
    assert match_labels(read_list(dest / "classify.txt"), labels).first().tolist() == 2 * [tree.names.index("ring")]
    assert (dest / "joint.map").read_text().split() == [str(number) for number in range(8)]
    for name, batches in (("boxes", 5000), ("joint", 2500), ("boxes-alone", 2500)):
        network = Network(read_cfg(dest / f"{name}.cfg"))
        detector = network.detector
        assert network.net.max_batches == batches
        assert detector.class_only
        assert detector.o.classes == data.integer("classes") == tree.n == 8
    above = {name: tree.names[parent] for name, parent in zip(tree.names, tree.parent, strict=True) if parent >= 0}
    cornered = dict.fromkeys(("triangle", "square", "star", "cross"), "cornered")
    assert above == {"disc": "round", "ring": "round", **cornered}
    assert (ROOT / "data/shapes.names").read_text().split() == list(tool.NAMES)


def test_another_class_is_an_error_that_leaves_nothing_behind(shapes, tmp_path, monkeypatch, capsys):
    (shapes / "labels/b.txt").write_text("6 .5 .5 .2 .2\n")
    monkeypatch.setattr(sys, "argv", ["joint_shapes.py", str(shapes), str(tmp_path / "joint")])
    assert tool.main() == 1
    assert capsys.readouterr().err.endswith("b.txt: a class that is none of the 6 of tools/make_shapes.py\n")
    assert not (tmp_path / "joint").exists()
    # Nor does it take away what was there before.
    (tmp_path / "joint").mkdir()
    assert tool.main() == 1
    assert (tmp_path / "joint").exists()
