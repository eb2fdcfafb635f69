"""train/detector.py: images that show a class and have no box, trained beside those that have boxes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_compat.errors import CfgError, DataError, TrainingError
from darknet_compat.labels import Labels, class_labels
from darknet_compat.train.augment import CLASS_ONLY
from darknet_compat.train.detector import DetectorTraining, train_detector
from darknet_compat.train.log import Log
from tests.train.nets import data_set, of_heads
from tests.train.test_distributed import opened_in_two, print_opened

TREE = "warm -1\ncold -1\nred 0\norange 0\ngreen 1\nblue 1\n"
NAMES = [line.split()[0] for line in TREE.splitlines()]


@pytest.fixture
def joint(tmp_path, monkeypatch):
    """Files of a joint training: 12 images with boxes, 5 of a class alone; a small network with a tree of 6 classes."""
    monkeypatch.setattr(Log, "draw", lambda log: None)
    data = data_set(tmp_path)
    (tmp_path / "the.tree").write_text(TREE)
    (tmp_path / "class.names").write_text("".join(f"{name}\n" for name in NAMES))
    (tmp_path / "the.labels").write_text("".join(f"/{name}/\n" for name in NAMES))
    data.write_text(data.read_text().replace("classes=3", "classes=6") + f"labels={tmp_path}/the.labels\n")
    paths = []
    for number, name in enumerate(["red", "blue", "blue", "orange", "green"]):
        path = tmp_path / "shown" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((30, 40, 3), 50 * number, np.uint8))
        paths.append(str(path))
    (tmp_path / "classify.txt").write_text("".join(f"{path}\n" for path in paths))
    (tmp_path / "net.cfg").write_text(cfg(f"tree={tmp_path}/the.tree\n"))
    return tmp_path


def cfg(tree, **net):
    text = of_heads("region", **net).replace("filters=16", "filters=22")
    return text.replace("classes=3", "classes=6") + tree


def made(folder, **options):
    given = {"device": "cpu", "workers": 0, "seed": 3, "classify": folder / "classify.txt", **options}
    return DetectorTraining(folder / "set.data", folder / "net.cfg", **given)


def test_both_lists_are_taken_from_by_their_ratio(joint):
    """And each image as often as the others of its list."""
    for ratio in (4, 0.5):
        images = made(joint, ratio=ratio).images
        assert len(images) == 17
        drawn = Counter(images.choose(sample)[1] for sample in range(6000))
        classified = sum(drawn[index] for index in range(12, 17))
        share = ratio / (1 + ratio)
        assert abs(classified - 6000 * share) < 4.5 * (6000 * share * (1 - share)) ** 0.5
        for part in (range(12), range(12, 17)):
            mean = sum(drawn[index] for index in part) / len(part)
            assert all(abs(drawn[index] - mean) < 5 * mean**0.5 for index in part)


def print_made(folder):
    """What each of the two processes of the next test does."""
    print_opened(folder, lambda **given: made(Path(folder), map_every=0, augment="device", **given))


def test_lists_are_read_by_one_process_and_the_images_by_each_a_part(joint):
    code = "import sys; from tests.train.test_detector import print_made; print_made(sys.argv[1])"
    first, second = opened_in_two(joint, code)
    both = ["class.names", "net.cfg", "set.data", "the.tree"]
    lists = ["classify.txt", "list.txt", "list.txt", "the.labels"]  # the one of train= is that of valid= too
    boxes, shown = ([str(path.relative_to(joint)) for path in sorted(joint.glob(files))]
                    for files in ("JPEGImages/*", "shown/*/*"))  # fmt: skip
    labels = [path.replace("JPEGImages", "labels").replace("png", "txt") for path in boxes]
    shown.sort(key=os.path.basename)
    # Of the images the sizes, and their labels; of those that are scored the first reads all labels.
    assert first == sorted([*both, *lists, *labels, *labels[:6], *boxes[:8]])
    assert second == sorted([*both, *labels[6:], *boxes[8:], *shown])


def test_without_a_ratio_it_is_that_of_yolo9000(joint):
    """Redmon and Farhadi, 2017, section 4: ImageNet to COCO 4:1."""
    assert made(joint).images.mix == (12, 4)


def test_what_shows_a_class_has_no_place(joint):
    images = made(joint).images
    slot, seen = np.empty((3, 32, 32), np.float32), set()
    for sample in range(80):
        truth = np.empty(images.truth_shape, np.float32)
        path = images.fill(sample, slot, truth)
        if "shown" in path:
            assert truth[0].tolist() == [CLASS_ONLY] * 4 + [NAMES.index(path.split("/")[-2])]
            assert not truth[1:].any()
            seen.add(path)
        else:
            assert (truth[:, :4] <= 1).all()
    assert len(seen) == 5


def test_it_trains_and_goes_on_with_the_same_list_and_ratio(joint):
    options = {"device": "cpu", "workers": 0, "seed": 3, "classify": joint / "classify.txt", "ratio": 2}
    files = joint / "set.data", joint / "net.cfg"
    straight = train_detector(*files, **options).weights.read_bytes()
    (joint / "net.cfg").write_text(cfg(f"tree={joint}/the.tree\n", max_batches=2))
    train_detector(*files, **options)
    (joint / "net.cfg").write_text(cfg(f"tree={joint}/the.tree\n"))
    with pytest.raises(TrainingError, match=r"that training has -ratio 2, this command 4"):
        train_detector(*files, resume=True, **{**options, "ratio": 4.0})
    with pytest.raises(TrainingError, match=r"that training has -classify .*classify\.txt, this command None"):
        train_detector(*files, resume=True, device="cpu", workers=0)
    done = train_detector(*files, resume=True, **options)
    assert done.weights.read_bytes() == straight
    text = (joint / "backup/net.log").read_text()
    boxes = sum(len(path.read_text().splitlines()) for path in (joint / "labels").iterdir())
    shown = "5 images that show a class alone, 2 of them for each one with boxes; seed 3"
    assert f"12 images, {boxes} objects; and {shown}" in text


def test_what_cannot_be_trained_so_is_one_line(joint, recwarn):
    with pytest.raises(TrainingError, match=r"-epochs shows every image once, -classify draws from two lists"):
        made(joint, epochs=True)
    with pytest.raises(TrainingError, match=r"ratio is 0; expected more than 0"):
        made(joint, ratio=0)
    with pytest.raises(TrainingError, match=r"-ratio counts the images of -classify, which is not given"):
        made(joint, classify=None, ratio=2)
    data = joint / "set.data"
    text = data.read_text()
    data.write_text(text.replace("classes=6\n", ""))
    with pytest.raises(DataError, match=r"no `classes` line"):
        made(joint)
    data.write_text(text)
    given = (joint / "classify.txt").read_text()
    (joint / "classify.txt").write_text(f"{given}{joint}/JPEGImages/000.png\n")
    recwarn.clear()
    with pytest.raises(DataError, match=r"Images/000\.png: no label of .*set\.data is in the path; .* and 1 have none"):
        made(joint)
    assert not recwarn.list  # the error says it all
    (joint / "classify.txt").write_text(f"{given}{joint}/shown/red/none.png\n")
    with pytest.raises(
        DataError, match=r"red/none\.png: no such image; 1 of 6 images .* are missing, .* in .*classify\.txt"
    ):
        made(joint)
    (joint / "net.cfg").write_text(cfg(""))
    with pytest.raises(CfgError, match=r"-classify trains along a tree of classes, and this network has none"):
        made(joint)


def test_in_one_list_a_class_alone_is_a_node_and_that_of_a_box_goes_through_the_map(joint):
    """As Darknet has it: a label file says `5 0 0 0 0`, and the classes of boxes are those that map= has lines for."""
    (joint / "the.map").write_text("2\n5\n4\n")
    (joint / "net.cfg").write_text(cfg(f"tree={joint}/the.tree\nmap={joint}/the.map\n"))
    label = joint / "labels/000.txt"
    label.write_text("5 0 0 0 0\n")
    images = made(joint, classify=None).images
    assert images.labels[0].tolist() == [[5, 0, 0, 0, 0]]
    for line, says in (
        ("6 0 0 0 0", "class 6, expected one of 0..5"),
        ("3 .5 .5 .1 .1", "class 3, expected one of 0..2"),
        ("3 0 .5 .1 .1", "class 3, expected one of 0..2"),  # a place, on the edge
    ):
        label.write_text(f"{line}\n")
        with pytest.raises(DataError, match=says):
            made(joint, classify=None)


def test_alexeyabs_loader_takes_nothing_without_a_place(joint):
    """load_data_detection: "Wrong annotation: x = 0, y = 0"; such an image would say that nothing is there."""
    with pytest.raises(CfgError, match=r"-classify is not for AlexeyAB's Darknet, .*; expected -program pjreddie"):
        made(joint, program="alexeyab")
    (joint / "labels/000.txt").write_text("5 0 0 0 0\n")
    with pytest.raises(DataError, match=r"000\.txt:1: x = y = 0 marks an object without a place"):
        made(joint, classify=None, program="alexeyab")
    made(joint, classify=None)


def test_labels_are_joined():
    one = Labels(np.arange(15, dtype=np.float32).reshape(3, 5), np.array([0, 2, 3]), ["a"], ["b"])
    both = one.join(class_labels(np.array([7, 9])))
    assert [both[index][:, 0].tolist() for index in range(4)] == [[0, 5], [10], [7], [9]]
    assert not both[3][:, 1:].any()
    assert (both.missing, both.bad, both.objects.dtype) == (["a"], ["b"], np.float32)
