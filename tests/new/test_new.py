"""new/__init__.py: the folder that `new` makes, of every form of data, is one that trains."""

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.cfg import read_cfg, read_data, read_list, read_names
from darknet_compat.errors import DarknetError
from darknet_compat.labels import label_path, read_labels
from darknet_compat.network import Network
from darknet_compat.new import collect, new, seconds_per_update
from darknet_compat.new.collect import Labelled
from darknet_compat.train.detector import train_detector
from tests.conftest import ROOT

from .conftest import MAKERS, NAMES

TINY = """[net]
batch=4
subdivisions=2
width=64
height=32
channels=3
learning_rate=0.001
policy=steps
steps=10,20
scales=.1,.1
max_batches=30

[convolutional]
filters=4
size=3
stride=8
pad=1
activation=leaky

[convolutional]
filters=12
size=1
activation=linear

{head}
classes=1
num=2
jitter=.1
"""
HEADS = {
    "pjreddie": "[region]\nanchors=1,1, 2,2\nsoftmax=1\nrescore=1",
    "alexeyab": "[yolo]\nanchors=8,8, 16,16\nscale_x_y=1.05\niou_loss=ciou",
}


@pytest.fixture
def tiny(tmp_path):
    def make(program="pjreddie"):
        path = tmp_path / f"{program}.cfg"
        path.write_text(TINY.format(head=HEADS[program]))
        return path

    return make


def net_of(cfg):
    return Network(read_cfg(cfg), device="meta").net


def many(data_set, images=24):
    """Images of two classes, of which the second is rarer."""
    for index in range(images):
        data_set.image(f"x/{index:03}.jpg", (60 + index, 40))
        objects = [(0, index, 5, 12 + index % 9, 10), *([(1, 3, 4, 9 + index % 5, 20)] if index % 3 == 0 else [])]
        data_set.xml(f"x/{index:03}.xml", (60 + index, 40), objects)


# Each form once, and each program; all pairs take a while.
@pytest.mark.parametrize(
    ("form", "program"),
    [pytest.param(form, program, marks=[pytest.mark.slow] * ((place + number) % len(HEADS) > 0))
     for place, form in enumerate(MAKERS) for number, program in enumerate(HEADS)],
)  # fmt: skip
def test_every_form_becomes_a_folder_that_trains(data_set, tiny, tmp_path, form, program):
    MAKERS[form](data_set)
    project = new(tmp_path / "my set", data_set.root, cfg=tiny(program), size=64, minutes=0.001, share=0.25)
    folder = tmp_path / "my set"
    data = read_data(folder / "my set.data")
    train, valid = (read_list(data.require(name)) for name in ("train", "valid"))
    assert read_names(data.require("names")) == NAMES
    assert data.integer("classes") == 2
    assert [data.require(name) for name in ("backup", "results")] == [f"{folder}/backup", f"{folder}/results"]
    assert len(train) == 3
    assert len(valid) == 1
    assert project.program == program
    # What a program finds for an image is what was labelled.
    labelled = {os.path.realpath(image.path): image.objects for image in collect(data_set.root).images}
    for image in train + valid:
        assert np.array_equal(read_labels(label_path(image, program)), labelled[os.path.realpath(image)])
    cfg = folder / "my set.cfg"
    trained = train_detector(folder / "my set.data", cfg, seed=1)
    assert trained.batch == net_of(cfg).max_batches == 200
    assert (folder / "backup").is_dir()


def test_data_that_comes_divided_stays_so(data_set, tiny, tmp_path):
    for part in ("train", "valid", "test"):
        for index in range(4):
            data_set.image(f"{part}/{part}{index}.jpg")
            data_set.xml(f"{part}/{part}{index}.xml", (60, 40), [(index % 2, 5, 5, 10 + index, 20)])
    # A frame of the same video: the test image is one that is trained on.
    same = data_set.root / "train/train0.jpg"
    (data_set.root / "test/test0.jpg").write_bytes(same.read_bytes())
    project = new(tmp_path / "own", data_set.root, cfg=tiny(), size=64, minutes=0.001)
    assert project.divided
    for part in ("train", "valid", "test"):
        listed = read_list(tmp_path / f"own/{part}.txt")
        assert [Path(path).name for path in listed] == [f"{part}_{part}{index}.jpg" for index in range(4)]
    assert project.duplicates == [("train/train0.jpg", "test/test0.jpg")]
    again = new(tmp_path / "anew", data_set.root, cfg=tiny(), size=64, minutes=0.001, share=0.25)
    assert not again.divided
    assert not again.duplicates
    assert again.alike == 1
    assert not (tmp_path / "anew/test.txt").exists()
    sides = {path: part for part in ("train", "valid") for path in read_list(tmp_path / f"anew/{part}.txt")}
    assert len({part for path, part in sides.items() if Path(path).name in ("train_train0.jpg", "test_test0.jpg")}) == 1


def test_of_data_that_comes_divided_the_rest_is_trained_on(data_set, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: 1.0)
    for index, name in enumerate(("a", "b", "val/c")):
        data_set.image(f"{name}.jpg")
        data_set.xml(f"{name}.xml", (60, 40), [(0, 5, 5, 10 + index, 20)])
    new(tmp_path / "own", data_set.root, cfg=tiny())
    assert [Path(path).name for path in read_list(tmp_path / "own/train.txt")] == ["a.jpg", "b.jpg"]
    assert [Path(path).name for path in read_list(tmp_path / "own/valid.txt")] == ["val_c.jpg"]
    mode = os.umask(0)
    os.umask(mode)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o777 & ~mode  # as of any folder


def test_a_test_set_alone_is_scored_on(data_set, tiny, tmp_path):
    for part in ("train", "test"):
        for index in range(2):
            data_set.image(f"{part}/{part}{index}.jpg")
            data_set.xml(f"{part}/{part}{index}.xml", (60, 40), [(0, 5, 5, 10 + index, 20 - index)])
    new(tmp_path / "own", data_set.root, cfg=tiny(), size=64, minutes=0.001)
    assert [Path(path).name for path in read_list(tmp_path / "own/valid.txt")] == ["test_test0.jpg", "test_test1.jpg"]


@pytest.mark.parametrize(
    ("images", "share", "message"),
    [
        (6, 0.0, "of 6 images none is left to score on; expected a larger -split than 0"),
        (6, 1.0, "of 6 images none is left to train on; expected a smaller -split than 1"),
        (1, None, "of 1 images none is left to score on; expected two or more"),
        (1, 0.5, "of 1 images none is left to .* on; expected two or more"),
    ],
)
def test_a_part_without_images_is_an_error_that_says_the_cure(data_set, tiny, tmp_path, images, share, message):
    many(data_set, images)
    with pytest.raises(DarknetError, match=message):
        new(tmp_path / "own", data_set.root, cfg=tiny(), share=share)
    assert not (tmp_path / "own").exists()


def test_what_cannot_be_divided_says_why(data_set, tiny, tmp_path):
    """Frames that are all alike; parts of which none is called train; a part to train on that shows nothing."""
    for name in ("test/a", "test/b"):
        data_set.image(f"{name}.jpg")
        data_set.xml(f"{name}.xml", (60, 40), [(0, 5, 5, 10, 20)])
    with pytest.raises(DarknetError, match="none is left to train on; expected -split SHARE, which divides"):
        new(tmp_path / "own", data_set.root, cfg=tiny())
    data_set.image("train/c.jpg")
    data_set.xml("train/c.xml", (60, 40), [])
    with pytest.raises(DarknetError, match="no object in the 1 images to train on"):
        new(tmp_path / "own", data_set.root, cfg=tiny())
    frames = type(data_set)(tmp_path / "frames")
    for name in "abc":
        frames.image(f"{name}.jpg")
        frames.xml(f"{name}.xml", (60, 40), [(0, 5, 5, 10, 20)])
        (frames.root / f"{name}.jpg").write_bytes((frames.root / "a.jpg").read_bytes())
    with pytest.raises(DarknetError, match="expected some that are no near-duplicates of the others"):
        new(tmp_path / "own", frames.root, cfg=tiny())
    assert not (tmp_path / "own").exists()


def test_names_are_such_that_result_files_tell_them_apart(data_set, tiny, tmp_path):
    """And suffixes for which both programs find labels: pjreddie's knows no .jpeg and no .bmp."""
    for index, name in enumerate(("a/1.jpg", "b/1.jpg", "1.2.jpg", "1.3.JPG", "c.jpeg", "d.bmp", "e.png", "a_1.jpg")):
        suffix = Path(name).suffix
        data_set.image(name, (60 + index, 40), suffix.lower())
        data_set.txt(Path(name).with_suffix(".txt"), (60 + index, 40), [(0, 5, 5, 10 + index, 20)])
    (data_set.root / "x.names").write_text("bird\n")
    originals = {path: path.read_bytes() for path in data_set.root.rglob("*.*")}
    for copy in (False, True):
        folder = tmp_path / f"own{copy}"
        new(folder, data_set.root, cfg=tiny(), size=64, minutes=0.001, copy=copy)
        images = sorted((folder / "images").iterdir())
        assert [path.name for path in images] == [
            "1_2.jpg", "1_3.jpg", "a_1.jpg", "a_1_2.jpg", "b_1.jpg", "c.jpg", "d.png", "e.png",
        ]  # fmt: skip
        assert [path.name for path in images if path.is_symlink()] == (
            [] if copy else [path.name for path in images if path.name != "d.png"]
        )
        for path in images:
            assert read_labels(label_path(str(path))).shape == (1, 5)
        turned = cv2.imread(str(folder / "images/d.png"))
        assert np.array_equal(turned, cv2.imread(str(data_set.root / "d.bmp")))
    assert {path: path.read_bytes() for path in originals} == originals


def test_anchors_are_those_of_the_boxes_as_the_network_sees_them(data_set, tiny, tmp_path):
    """60 x 40 in an input of 64 x 64: pjreddie's letterbox is 64 x 42 of it, AlexeyAB's stretch all."""
    for index, (w, h) in enumerate([(15, 10)] * 3 + [(30, 20)] * 3):
        data_set.image(f"{index}.jpg")
        data_set.xml(f"{index}.xml", (60, 40), [(0, 5, 5, w, h)])
    expected = {"pjreddie": np.array([16, 10.5, 32, 21]) / 8, "alexeyab": [16, 16, 32, 32]}
    for program in HEADS:
        project = new(tmp_path / program, data_set.root, cfg=tiny(program), size=64, minutes=0.001)
        assert project.average == pytest.approx(1)
        head = Network(read_cfg(tmp_path / f"{program}/{program}.cfg")).detector
        assert head.o.anchors == pytest.approx(expected[program], abs=1e-4)


@pytest.mark.parametrize(
    ("seconds", "minutes", "expected"),
    [(0.1, None, 6000), (1.0, None, 2400), (1.0, 10, 600), (60.0, 10, 200), (0.001, 10, 6000), (1.0, np.inf, 6000)],
)
def test_updates_are_what_the_time_allows(data_set, tiny, tmp_path, monkeypatch, seconds, minutes, expected):
    many(data_set)
    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: seconds)
    project = new(tmp_path / "own", data_set.root, cfg=tiny(), minutes=minutes)
    assert project.asked == 6000
    net = net_of(tmp_path / "own/own.cfg")
    assert (net.max_batches, net.steps) == (expected, [int(0.8 * expected), int(0.9 * expected)])
    assert net.burn_in == expected // 20
    # Boxes of 9 of 40 to 48 pixels of height are large enough at the smallest size.
    assert net.width == 224


def test_the_time_of_an_update_is_that_of_its_images_too(data_set, tiny, tmp_path, monkeypatch):
    """They are loaded meanwhile, by a process that the updates wait for where it is slower."""
    from darknet_compat.train.data import TrainingSet

    many(data_set)
    cfg = tiny()
    batch = net_of(cfg).batch
    fill = TrainingSet.fill

    def slow(*arguments):
        time.sleep(0.3 / batch)
        return fill(*arguments)

    monkeypatch.setattr(TrainingSet, "fill", slow)
    monkeypatch.setattr("darknet_compat.new.TIMED", 3.0)
    assert new(tmp_path / "slow", data_set.root, cfg=cfg).seconds > 0.27


@pytest.mark.parametrize(("minutes", "expected"), [(None, 6000), (10, 600)])
def test_on_a_gpu_the_network_is_larger_and_the_time_free(data_set, tmp_path, monkeypatch, minutes, expected):
    many(data_set)
    monkeypatch.setattr("darknet_compat.new.find_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: 1.0)
    project = new(tmp_path / "own", data_set.root, minutes=minutes)
    assert project.template == "cfg/yolov4-tiny.cfg"
    net = net_of(tmp_path / "own/own.cfg")
    assert (net.width, net.height, net.batch, net.subdivisions, net.max_batches) == (416, 416, 64, 8, expected)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([0, 5, 6, 7, 9], 1.5),  # of two updates, behind 8 seconds
        ([0, 50, 90, 91], 20.5),  # four at the least
        ([0.0] * 29 + [0.1 * index for index in range(31)] + [99], 0.1),  # 60 at the most
    ],
)
def test_the_second_half_of_the_updates_counts(tiny, monkeypatch, ends, expected):
    """The first sets up what the others find, and what is loaded meanwhile would not last."""
    net = net_of(tiny())
    done, left = [], iter(ends)

    class Trainer:
        network = None

        def __init__(self, *_, **__):
            self.net = net

        def update(self, batches):
            done.append(len(list(batches)))

    monkeypatch.setattr("darknet_compat.new.Trainer", Trainer)
    monkeypatch.setattr("darknet_compat.new.detection_set", lambda *_: None)
    monkeypatch.setattr("darknet_compat.new.load_batches", lambda *_, **__: (index for index in range(1000)))
    monkeypatch.setattr("darknet_compat.new.time", SimpleNamespace(perf_counter=lambda: next(left)))
    image = Labelled("a.jpg", "a.jpg", np.zeros((1, 5)))
    assert seconds_per_update(read_cfg(tiny()), torch.device("cpu"), [image]) == pytest.approx(expected)
    assert done == [net.subdivisions] * min(len(ends), 60)


def test_the_input_is_as_large_as_the_boxes_need_and_a_head_takes_all_of_an_image(
    data_set, tiny, tmp_path, monkeypatch
):
    """Boxes of 2 of 60 pixels have 8 at an input of 256, and not at 224."""
    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: 1.0)
    for index in range(6):
        data_set.image(f"{index}.jpg", (60, 60))
        boxes = [(0, 20 + 2 * place, 30, 2 + index % 2 * place / 5, 10) for place in range(40 if index == 1 else 4)]
        data_set.xml(f"{index}.xml", (60, 60), boxes)
    new(tmp_path / "own", data_set.root, cfg=tiny())
    network = Network(read_cfg(tmp_path / "own/own.cfg"), device="meta")
    assert (network.net.width, network.net.height, network.detector.o.max) == (256, 256, 40)


def test_a_seed_divides_and_the_cfg_says_what_its_updates_are(data_set, tiny, tmp_path, monkeypatch):
    """The rule counts the images that are trained on."""
    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: 0.5)
    monkeypatch.setattr("darknet_compat.new.updates", lambda classes, images: 1000 * classes * images)
    many(data_set)
    divided = set()
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", 2)):
        project = new(tmp_path / name, data_set.root, cfg=tiny(), seed=seed, minutes=10)
        assert project.asked == 2000 * len(project.parts["train"])
        divided.add(tuple(image.name for image in project.parts["valid"]))
        text = (tmp_path / name / f"{name}.cfg").read_text()
        assert f"asks for {project.asked} updates: " in text
        assert "\n# 1200 are what 10 minutes allow, at 0.50 s each.\n" in text
    assert 1 < len(divided) < 4
    new(tmp_path / "all", data_set.root, cfg=tiny(), minutes=np.inf)
    assert "minutes allow" not in (tmp_path / "all/all.cfg").read_text()


def test_where_links_are_not_for_everyone_images_are_copied(data_set, tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not privileged")

    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: 1.0)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    many(data_set, 6)
    new(tmp_path / "own", data_set.root, cfg=tiny())
    images = sorted((tmp_path / "own/images").glob("*.jpg"))
    assert [path.read_bytes() for path in images] == [
        path.read_bytes() for path in sorted((data_set.root / "x").glob("*.jpg"))
    ]
    assert not any(path.is_symlink() for path in images)


def test_a_cfg_for_detection_becomes_one_for_training(data_set, tiny, tmp_path, monkeypatch):
    """As most of the stock cfgs, which say batch=1; another batch is the cfg's own."""
    many(data_set)
    monkeypatch.setattr("darknet_compat.new.seconds_per_update", lambda *_: 1.0)
    cfg = tiny()
    new(tmp_path / "own", data_set.root, cfg=cfg)
    own = net_of(tmp_path / "own/own.cfg")
    assert (own.batch, own.subdivisions) == (4, 2)
    cfg.write_text(cfg.read_text().replace("batch=4", "batch=1").replace("subdivisions=2", "subdivisions=1"))
    new(tmp_path / "other", data_set.root, cfg=cfg)
    other = net_of(tmp_path / "other/other.cfg")
    assert (other.batch, other.subdivisions) == (16, 2)


def test_the_usual_networks_are_there():
    from darknet_compat.new import CPU_CFG, GPU_CFG

    assert (ROOT / CPU_CFG).is_file()
    assert (ROOT / GPU_CFG).is_file()


def test_an_error_leaves_nothing_behind(data_set, tiny, tmp_path, monkeypatch):
    many(data_set, 6)
    before = set(tmp_path.rglob("*"))

    def fail(*_):
        raise DarknetError("full")

    for what in ("seconds_per_update", "write_cfg", "_write_data"):
        with monkeypatch.context() as patched:
            patched.setattr(f"darknet_compat.new.{what}", fail)
            with pytest.raises(DarknetError, match="full"):
                new(tmp_path / "own", data_set.root, cfg=tiny(), minutes=0.001)
        assert set(tmp_path.rglob("*")) - before <= {tmp_path / "pjreddie.cfg"}
        with monkeypatch.context() as patched:
            patched.setattr(f"darknet_compat.new.{what}", fail)
            with pytest.raises(DarknetError, match="full"):
                new(tmp_path / "made/for/own", data_set.root, cfg=tiny(), minutes=0.001)
        assert not (tmp_path / "made").exists()


def test_what_is_there_is_not_overwritten(data_set, tiny, tmp_path):
    many(data_set, 6)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("own", "file"):
        with pytest.raises(DarknetError, match="exists already"):
            new(tmp_path / name, data_set.root, cfg=tiny())
    for name in ("file/own", "file/for/own"):
        with pytest.raises(DarknetError, match=f"{name}: .*; expected a folder that can be made"):
            new(tmp_path / name, data_set.root, cfg=tiny())
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "own/precious").read_text() == "mine"


@pytest.mark.parametrize("theirs", ["own/theirs.cfg", "own"])
def test_of_two_at_once_the_first_stays_and_the_second_is_one_line(data_set, tiny, tmp_path, monkeypatch, theirs):
    """The other makes the folder, or a file of that name, while this one is at work."""
    many(data_set, 6)

    def meanwhile(*_):
        path = tmp_path / theirs
        path.parent.mkdir(exist_ok=True)
        path.write_text("theirs")
        return 1.0

    monkeypatch.setattr("darknet_compat.new.seconds_per_update", meanwhile)
    with pytest.raises(DarknetError, match=r"/own: (Directory not empty|Not a directory); expected the name of a"):
        new(tmp_path / "own", data_set.root, cfg=tiny())
    assert (tmp_path / theirs).read_text() == "theirs"
    assert not list(tmp_path.glob(".own*"))


@pytest.mark.parametrize("name", [None, "x.txt"])
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(data_set, tiny, tmp_path, monkeypatch, name):
    many(data_set, 6)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", name)

    monkeypatch.setattr("darknet_compat.new.label_line", full)
    what = f"{name}: No space" if name else "No space"
    with pytest.raises(DarknetError, match=f"made/own: cannot be made: {what} left on device; nothing of it is left$"):
        new(tmp_path / "made/own", data_set.root, cfg=tiny(), minutes=0.001)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("size", "near"), [(100, "96 or 128"), (31, "32"), (417, "416 or 448")])
def test_a_size_at_which_maps_do_not_fit_is_refused(data_set, tiny, tmp_path, size, near):
    with pytest.raises(DarknetError, match=f"^-size {size}: expected a multiple of 32, such as {near}$"):
        new(tmp_path / "own", data_set.root, cfg=tiny(), size=size)


def test_ctrl_c_leaves_nothing_behind(data_set, tiny, tmp_path, monkeypatch):
    many(data_set, 6)

    def stop(*_):
        assert list(tmp_path.glob(".own.*/images/*"))
        raise KeyboardInterrupt

    monkeypatch.setattr("darknet_compat.new.seconds_per_update", stop)
    with pytest.raises(KeyboardInterrupt):
        new(tmp_path / "own", data_set.root, cfg=tiny())
    assert not list(tmp_path.glob("*own*"))
    assert not list(tmp_path.glob(".own*"))


def test_line_breaks_come_into_no_list_and_no_cfg(data_set, tiny, tmp_path):
    data_set = type(data_set)(tmp_path / "da\nta")
    many(data_set, 6)
    data_set.image("x/n\nl.jpg")
    data_set.xml("x/n\nl.xml", (60, 40), [(0, 5, 5, 20, 10)])
    new(tmp_path / "own", data_set.root, cfg=tiny(), minutes=0.001)
    listed = read_list(tmp_path / "own/train.txt") + read_list(tmp_path / "own/valid.txt")
    assert tmp_path / "own/images/n_l.jpg" in map(Path, listed)
    assert all(Path(path).is_file() for path in listed)
    assert (tmp_path / "own/own.cfg").read_text().startswith("# Made by ")
    assert "da\\nta.\n# AlexeyAB's rule" in (tmp_path / "own/own.cfg").read_text()
    with pytest.raises(DarknetError, match=r"ow\\nn': a line break; expected a NAME without one"):
        new(tmp_path / "ow\nn", data_set.root, cfg=tiny())


def test_a_place_where_darknet_would_not_find_labels_is_refused(data_set, tiny, tmp_path):
    many(data_set, 6)
    with pytest.raises(DarknetError, match=r"pjreddie's program looks for labels in .*; expected a NAME"):
        new(tmp_path / "raw/own", data_set.root, cfg=tiny(), minutes=0.001)
    assert not (tmp_path / "raw").exists()
    assert new(tmp_path / "raw/own", data_set.root, cfg=tiny("alexeyab"), minutes=0.001).program == "alexeyab"


def test_what_does_not_decode_is_named_or_left_out(data_set, tiny, tmp_path):
    many(data_set, 6)
    path = data_set.root / "x/003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DarknetError, match=r"003\.jpg.*\(1 such files; -skip leaves them out\)"):
        new(tmp_path / "own", data_set.root, cfg=tiny(), minutes=0.001)
    project = new(tmp_path / "own", data_set.root, cfg=tiny(), minutes=0.001, skip=True)
    assert sum(len(images) for images in project.parts.values()) == 5
    assert project.collection.left_out["images that do not decode"] == 1
    for path in (data_set.root / "x").glob("*.jpg"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DarknetError, match=r"000\.jpg.*\(6 such files; -skip leaves them out\)"):
        new(tmp_path / "none", data_set.root, cfg=tiny(), skip=True)
