"""check.py: every mistake, made on purpose in a data set that is sound without it, is found; and nothing else."""

import json
import os

import cv2
import numpy as np
import pytest

from darknet_compat.anchors import network_boxes
from darknet_compat.check import SMALL, Findings, Part, check, draw, write_json
from darknet_compat.cli import main
from darknet_compat.errors import DarknetError
from darknet_compat.labels import Labels

CFG = """[net]
batch=8
max_batches=10
width=64
height=32
channels=3

[convolutional]
filters=14
size=3
stride=8
activation=linear

[region]
anchors=2.1,2, 1.6,2
classes=2
num=2
max=9
"""


class DataSet:
    """60 training images and 10 to score on, sound, with a class in all and one in half of them."""

    def __init__(self, root, monkeypatch):
        monkeypatch.chdir(root)
        self.root = root
        random = np.random.default_rng(0)
        (root / "images").mkdir()
        (root / "labels").mkdir()
        self.train = [f"images/t{index:02}.jpg" for index in range(60)]
        self.valid = [f"images/v{index:02}.jpg" for index in range(10)]
        for index, path in enumerate(self.train + self.valid):
            pixels = cv2.resize(random.integers(0, 256, (8, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(path, pixels)
            self.label(path, "0 .5 .5 .4 .5", *(["1 .3 .4 .3 .5"] if index % 2 else ["0 .3 .4 .3 .5"]))
        (root / "my.names").write_text("ant\nbee\n")
        (root / "my.data").write_text("classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=my.names\n")
        (root / "my.cfg").write_text(CFG)
        for index in range(60):
            self.label(self.train[index], "0 .5 .5 .4 .5", "1 .3 .4 .3 .5")

    def label(self, image, *lines):
        (self.root / "labels" / os.path.basename(image)).with_suffix(".txt").write_text("\n".join(lines) + "\n")

    def check(self, **options):
        (self.root / "train.txt").write_text("".join(f"{path}\n" for path in self.train))
        (self.root / "valid.txt").write_text("".join(f"{path}\n" for path in self.valid))
        return check("my.data", "my.cfg", **options)


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    return DataSet(tmp_path, monkeypatch)


def test_a_sound_data_set_has_no_problem(data_set):
    found = data_set.check()
    assert not found.problems
    assert found.sound
    assert [(part.name, len(part.images), part.counts(2).tolist(), part.empty) for part in found.parts] == [
        ("train", 60, [60, 60], 0), ("valid", 10, [15, 5], 0),
    ]  # fmt: skip


def test_sizes_are_those_that_the_network_sees(data_set):
    """As calc_anchors measures them, and counted by the shorter side."""
    data_set.label(data_set.train[0], "0 .5 .5 .1 .3", "1 .5 .5 .9 .9")
    found = data_set.check()
    for part in found.parts:
        assert np.array_equal(part.sizes, network_boxes(part.images, 64, 32))
    sides = np.concatenate([part.sizes for part in found.parts]).min(1)
    assert sum(count for _, count in found.size_counts()) == len(sides) == 140
    for text, count in found.size_counts():
        low, high = (float(word) for word in (text.replace("and more", "to inf").split(" to ")))
        assert count == ((sides >= low) & (sides < high)).sum()
    wide = check("my.data", size=416)
    assert (wide.width, wide.height) == (416, 416)
    assert np.array_equal(wide.parts[0].sizes, network_boxes(wide.parts[0].images, 416, 416))


def test_each_object_is_counted_from_nothing_to_any_size():
    sides = np.array([0, 0.5, 7.9, 8, 15, 16, 33, 64, 100, 128, 5000])
    sizes = np.stack([sides, sides + 1], 1)
    sizes[::2] = sizes[::2, ::-1]
    part = Part("train", [], Labels(np.zeros((11, 5)), np.array([0, 11])), sizes)
    assert Findings("a.data", [], 416, 416, [part]).size_counts() == [
        ("0 to 8", 3), ("8 to 16", 2), ("16 to 32", 1), ("32 to 64", 1), ("64 to 128", 2), ("128 and more", 2),
    ]  # fmt: skip


def remove(data_set):
    os.remove(data_set.train[3])


def truncate(data_set):
    with open(data_set.valid[3], "r+b") as file:
        file.truncate(300)


def number(data_set):
    data_set.label(data_set.train[3], "2 .5 .5 .2 .5")


def unlabel(data_set):
    os.remove("labels/t03.txt")


def unlabel_all(data_set):
    for path in data_set.valid:
        os.remove(f"labels/{path[7:10]}.txt")


def reach_out(data_set):
    data_set.label(data_set.train[3], "0 .1 .5 .4 .5", "1 .5 .5 .2 .5")


def corner(data_set):
    for path in data_set.train:
        data_set.label(path, "0 .5 .5 .8 .8", "1 .6 .3 .9 .5")


def repeat_box(data_set):
    data_set.label(data_set.valid[3], "0 .5 .5 .4 .5", "1 .5 .5 .4 .5", "0 .5 .5 .4 .5")


def flatten(data_set):
    data_set.label(data_set.train[3], "0 .5 .5 .4 .5", "1 .3 .4 .3 0", "1 .3 .4 .3 .5")


def crowd(data_set):
    data_set.label(data_set.train[3], *(f"0 .5 .{index} .4 .5" for index in range(3, 8)), *["1 .5 .5 .4 .5"],
                   *(f"0 .4 .{index} .4 .5" for index in range(3, 8)))  # fmt: skip


def repeat_line(data_set):
    data_set.train.append(data_set.train[3])


def same_name(data_set):
    cv2.imwrite("images/v03.b.jpg", np.random.default_rng(5).integers(0, 256, (9, 9, 3), np.uint8))
    data_set.label("images/v03.b.jpg", "0 .5 .5 .4 .5")
    data_set.valid.append("images/v03.b.jpg")


def train_on_valid(data_set):
    data_set.train.append(data_set.valid[3])


def link(data_set):
    """The same file by another name."""
    os.symlink(os.path.abspath(data_set.valid[3]), "images/t99.jpg")
    data_set.label("images/t99.jpg", "0 .5 .5 .4 .5")
    data_set.train.append("images/t99.jpg")


def near(data_set):
    image = cv2.imread(data_set.train[3])
    cv2.imwrite(data_set.valid[3], cv2.convertScaleAbs(image, alpha=1, beta=2))


def lose_a_class(data_set):
    for path in data_set.valid:
        data_set.label(path, "0 .5 .5 .4 .5")


def make_rare(data_set):
    for path in data_set.train[2:]:
        data_set.label(path, "0 .5 .5 .4 .5")


def shrink(data_set):
    for path in data_set.train[:10]:
        data_set.label(path, "0 .5 .5 .1 .5", "1 .3 .4 .3 .5")


def anchors_in_pixels(data_set):
    change_cfg(data_set, "2.1,2, 1.6,2", "17,16, 13,16")


def one_image_an_update(data_set):
    change_cfg(data_set, "batch=8", "batch=1")


def steps_in_percent(data_set):
    change_cfg(data_set, "batch=8", "batch=8\npolicy=steps\nsteps=80%,90%\nscales=.1,.1")


def change_cfg(data_set, old, new):
    path = data_set.root / "my.cfg"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "kinds", "text"),
    [
        (remove, ["missing images!"], "1 of 70 images are not there, images/t03.jpg for one"),
        (truncate, ["unreadable images!"], "1 images cannot be read: images/v03.jpg: "),
        (number, ["bad label lines!"], "labels/t03.txt:1: class 2, expected one of 0..1"),
        (unlabel, ["missing label files"], "1 of 60 images have no label file: labels/t03.txt"),
        (unlabel_all, ["missing label files!", "classes without objects"], "10 of 10 images"),
        (reach_out, ["boxes outside"], "1 boxes reach out of their images, first in images/t03.jpg"),
        (corner, ["corners!", "anchors"], "100% of the boxes would be corners"),
        (repeat_box, ["boxes twice"], "valid: 1 objects are in their label files twice, first in images/v03.jpg"),
        (flatten, ["flat boxes"], "1 boxes have no width or height, first in images/t03.jpg"),
        (crowd, ["too many objects"], "images/t03.jpg has 11 objects, and the cfg says max=9"),
        (repeat_line, ["images twice"], "train: 1 lines of the list"),
        (same_name, ["equal names!"], "images/v03.b.jpg has the image id 'v03', as images/v03.jpg has"),
        (train_on_valid, ["train in valid!"], "1 images are trained on and scored on"),
        (link, ["train in valid!"], "1 images are trained on and scored on"),
        (
            near,
            ["near-duplicates"],
            "1 images to score on are near-duplicates of some to train on, as images/v03.jpg of",
        ),
        (lose_a_class, ["classes without objects"], "valid: no object of bee"),
        (make_rare, ["few objects", "uneven classes"], "60 objects of ant and 2 objects of bee"),
        (anchors_in_pixels, ["anchors"], "average IOU with the boxes is 2%; 2 others have 100%"),
        (one_image_an_update, ["schedule"], "my.cfg:2: batch=1: one image per update"),
        (steps_in_percent, ["schedule!"], "my.cfg:4: steps=80%,90%: steps=80%,90% holds a percentage"),
        (shrink, ["small objects"], "7% of the objects have a side under 8 pixels at 64 x 32"),
    ],
)
def test_each_mistake_is_found_and_nothing_else(data_set, spoil, kinds, text, capsys, monkeypatch):
    spoil(data_set)
    found = data_set.check()
    assert [problem.kind + "!" * problem.error for problem in found.problems] == kinds
    assert text in " ".join(problem.text for problem in found.problems)
    assert all(problem.advice for problem in found.problems)
    sound = "!" not in "".join(kinds)
    assert found.sound == sound
    assert main(["check", "my.data", "-cfg", "my.cfg"]) == (0 if sound else 1)
    out = capsys.readouterr().out
    assert f"{'warning' if sound else 'error'}: " in out
    assert text in out


def test_small_is_under_8_pixels(data_set):
    """60 rows at 32 pixels of height: a box of a third of the height has 32/3 pixels, one of a quarter 8."""
    for path in data_set.train:
        data_set.label(path, f"0 .5 .5 .5 {SMALL / 32}", f"1 .3 .4 .3 {SMALL / 32}")
    assert [problem.kind for problem in data_set.check().problems] == ["anchors"]
    for path in data_set.train:
        data_set.label(path, f"0 .5 .5 .5 {SMALL / 32 - 0.001}", f"1 .3 .4 .3 {SMALL / 32}")
    assert [problem.kind for problem in data_set.check().problems] == ["small objects", "anchors"]


def corners(data_set, others):
    """120 boxes that would be corners, of which ``others`` are none."""
    for index, path in enumerate(data_set.train):
        second = "1 .5 .5 .4 .5" if index < others else "1 .6 .3 .9 .5"
        data_set.label(path, "0 .5 .5 .8 .8", second)


def rare(data_set, objects):
    """So many of the second class, beside 60 of the first."""
    for path in data_set.train[objects:]:
        data_set.label(path, "0 .5 .5 .4 .5")


def reach(data_set, by):
    data_set.label(data_set.train[3], f"0 {0.2 - by} .5 .4 .5", "1 .5 .5 .2 .5")


@pytest.mark.parametrize(
    ("make", "number", "kinds"),
    [
        (reach, 0.001, []), (reach, 0.003, ["boxes outside"]),
        (corners, 6, ["boxes outside", "anchors"]), (corners, 5, ["corners", "anchors"]),
        (rare, 50, []), (rare, 49, ["few objects"]),
        (rare, 3, ["few objects"]), (rare, 2, ["few objects", "uneven classes"]),
    ],
)  # fmt: skip
def test_where_a_warning_begins(data_set, make, number, kinds):
    make(data_set, number)
    assert [problem.kind for problem in data_set.check().problems] == kinds


@pytest.mark.parametrize(("height", "kinds"), [(1.85, []), (1.75, ["anchors"])])
def test_anchors_may_lack_a_tenth(data_set, height, kinds):
    """Boxes of 17.07 x 16 and 12.8 x 16 pixels are 2.13 x 2 and 1.6 x 2 cells."""
    change_cfg(data_set, "2.1,2, 1.6,2", f"2.1333,{height}, 1.6,{height}")
    assert [problem.kind for problem in data_set.check().problems] == kinds


def test_errors_come_first(data_set):
    unlabel(data_set)
    same_name(data_set)
    assert [problem.error for problem in data_set.check().problems] == [True, False]


def test_classes_that_are_not_as_many_as_the_names_are_an_error_without_a_cfg_too(data_set):
    data_set.check()
    path = data_set.root / "my.data"
    path.write_text("classes=3\n" + "".join(line for line in path.open() if not line.startswith("classes")))
    with pytest.raises(DarknetError, match="there are 2 names"):
        check("my.data")


def test_a_cfg_says_whose_rules_count(data_set):
    """AlexeyAB's program stretches images, and looks for labels beside them."""
    data_set.check()
    text = (
        CFG.replace("[region]", "[yolo]")
        .replace("2.1,2, 1.6,2", "26,16, 19,16")
        .replace("max=9", "max=9\nscale_x_y=1.05")
    )
    (data_set.root / "my.cfg").write_text(text)
    found = data_set.check()
    assert [problem.kind for problem in found.problems][:2] == ["missing label files"] * 2
    for path in data_set.train + data_set.valid:
        name = os.path.basename(path)[:3]
        os.rename(f"labels/{name}.txt", f"images/{name}.txt")
    found = data_set.check()
    assert not found.problems
    assert np.allclose(found.parts[0].sizes[0], (0.4 * 64, 0.5 * 32))


@pytest.mark.parametrize("head", ["[region]", "[yolo]\nmask=0,1"])
def test_labels_count_classes_by_the_map_of_the_head(data_set, head):
    """As those of COCO do for YOLO9000; ant and bee are the last and the first of three."""
    data_set.check()
    (data_set.root / "my.map").write_text("2\n0\n")
    (data_set.root / "my.names").write_text("bee\nwasp\nant\n")
    (data_set.root / "my.data").write_text("classes=3\ntrain=train.txt\nvalid=valid.txt\nnames=my.names\n")
    text = CFG.replace("filters=14", "filters=16").replace("classes=2", "classes=3\nmap=my.map")
    (data_set.root / "my.cfg").write_text(text.replace("[region]", head))
    data_set.label(data_set.valid[3], "2 .5 .5 .4 .5")  # a class of the network, and none of the map
    found = data_set.check()
    assert [part.counts(3).tolist() for part in found.parts] == [[60, 0, 60], [4, 0, 14]]
    assert "labels/v03.txt:1: class 2, expected one of 0..1" in str(found.problems[0])


@pytest.mark.parametrize("second", [12, 10])
def test_of_several_heads_the_least_max_counts(data_set, second):
    """Each passes over what is beyond its own."""
    data_set.check()
    crowd(data_set)
    head = CFG[CFG.index("[region]") :]
    text = CFG.replace("max=9", "max=12") + "\n[route]\nlayers=0\n\n" + head.replace("max=9", f"max={second}")
    (data_set.root / "my.cfg").write_text(text)
    kinds = [problem.kind for problem in data_set.check().problems]
    assert kinds == ["too many objects"] * (second == 10)


def test_flags_without_a_cfg(data_set, capsys):
    data_set.check()
    assert main(["check", "my.data", "-size", "96", "-program", "alexeyab"]) == 1
    out = capsys.readouterr().out
    assert "shorter side in pixels at 96 x 96: " in out
    assert "60 of 60 images have no label file: images/t00.txt" in out


@pytest.mark.parametrize("flag", ["-json", "-show"])
def test_a_file_that_cannot_be_written_is_an_error_at_once(data_set, capsys, flag):
    data_set.check()
    assert main(["check", "my.data", flag, "images"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("darknet-compat: images: a folder")
    assert said.err.count("\n") == 1


def test_nothing_to_learn_is_an_error(data_set):
    for path in data_set.train:
        data_set.label(path)
    found = data_set.check()
    assert [(one.kind, one.error) for one in found.problems] == [("classes without objects", True)]
    assert found.problems[0].text == "train: no object of ant, bee"


def test_what_it_found_as_json_and_as_an_image(data_set, tmp_path, capsys):
    make_rare(data_set)
    found = data_set.check()
    write_json(found, tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["lists"]["train"] == {"images": 60, "without objects": 0, "objects": {"ant": 60, "bee": 2}}
    assert content["input"] == [64, 32]
    assert [problem["kind"] for problem in content["problems"]] == ["few objects", "uneven classes"]
    assert sum(content["shorter side in pixels"].values()) == 62 + 20
    draw(found, tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")).std() > 10
    assert main(["check", "my.data", "-cfg", "my.cfg", "-json", "b.json", "-show", "b.png"]) == 0
    assert (tmp_path / "b.json").read_text() == (tmp_path / "a.json").read_text()
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"
    out = capsys.readouterr().out.splitlines()
    assert out[:5] == [
        "                   train    valid",
        "images                60       10",
        "without objects        0        0",
        "ant                   60       15",
        "bee                    2        5",
    ]


def test_a_data_file_that_names_nothing_is_an_error(data_set):
    data_set.check()
    (data_set.root / "my.data").write_text("train=train.txt\nnames=my.names\n")
    with pytest.raises(DarknetError, match=r"my\.data"):
        check("my.data")
    (data_set.root / "my.data").write_text("classes=3\ntrain=train.txt\nvalid=valid.txt\nnames=my.names\n")
    with pytest.raises(DarknetError, match=r"my\.data:1: .*there are 2 names"):
        check("my.data")
