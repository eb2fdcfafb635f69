from __future__ import annotations

import errno
import json
import os
import resource
from dataclasses import replace

import numpy as np
import pytest

from darknet_compat.detect.detections import Detections
from darknet_compat.detect.results import (
    COCO_IDS,
    DrawingNames,
    LabelFiles,
    ResultFiles,
    coco_image_id,
    result_json,
    write_result_json,
)
from darknet_compat.errors import ResultsError
from darknet_compat.image_files import write_objects

NAMES = ["cat", "dog"]


def found(path, boxes, prob, size=(100, 80)):
    return Detections(
        path, *size, np.array(boxes, np.float32), np.array(prob, np.float32), relative=False, classes=NAMES
    )


def test_comp4_lines_are_darknets(tmp_path):
    """print_detector_detections: +1, clipped to 1..w and 1..h, six %f fields."""
    with ResultFiles(str(tmp_path / "results"), "voc", NAMES) as files:
        boxes = [[10, 20, 8, 6], [95, 79, 40, 40], [1, 2, 9, 9]]
        files.add(found("a/b.c/000012.x.jpg", boxes, [[0.5, 0], [0.25, 0.125], [0.75, 0]]))
    folder = tmp_path / "results"
    assert (folder / "comp4_det_test_cat.txt").read_text() == (
        "000012 0.500000 7.000000 18.000000 15.000000 24.000000\n"
        "000012 0.250000 76.000000 60.000000 100.000000 80.000000\n"
        "000012 0.750000 1.000000 1.000000 6.500000 7.500000\n"
    )
    assert (folder / "comp4_det_test_dog.txt").read_text() == (
        "000012 0.125000 76.000000 60.000000 100.000000 80.000000\n"
    )


def test_coco_results_are_valid_json(tmp_path):
    with ResultFiles(str(tmp_path), "coco", NAMES) as files:
        files.add(found("val/COCO_val2014_000000000139.jpg", [[10, 20, 8, 6], [1, 1, 9, 9]], [[0.5, 0], [0, 0.25]]))
        files.add(found("val/000000000140.jpg", [[10, 20, 8, 6]], [[0, 0]]))
    content = json.loads((tmp_path / "coco_results.json").read_text())
    assert content[0] == {"image_id": 139, "category_id": 1, "bbox": [6, 17, 8, 6], "score": 0.5}
    assert content[1] == {"image_id": 139, "category_id": 2, "bbox": [0, 0, 5.5, 5.5], "score": 0.25}
    assert len(content) == 2


def test_no_detection_at_all_is_valid_json(tmp_path):
    with ResultFiles(str(tmp_path), "coco", NAMES):
        pass
    assert json.loads((tmp_path / "coco_results.json").read_text()) == []


def test_imagenet_lines(tmp_path):
    with ResultFiles(str(tmp_path), "imagenet", NAMES, "mine") as files:
        files.add(found("a.jpg", [[1, 1, 9, 9]], [[0, 0]]))
        files.add(found("none.jpg", np.zeros((0, 4)), np.zeros((0, 2))))
        files.add(found("b.jpg", [[1, 1, 9, 9]], [[0, 0.25]]))
    assert (tmp_path / "mine.txt").read_text() == "3 2 0.250000 0.000000 0.000000 5.500000 5.500000\n"


def test_files_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")

    def stopped():
        with ResultFiles(str(tmp_path), "voc", NAMES) as files:
            files.add(found("a.jpg", [[10, 20, 8, 6]], [[0.5, 0.5]]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["comp4_det_test_cat.txt"]
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == "older\n"


def all_files(folder):
    return {path.name: path.read_text() if path.is_file() else None for path in folder.iterdir()}


def write(folder, prob=0.5):
    with ResultFiles(str(folder), "voc", NAMES) as files:
        files.add(found("a.jpg", [[10, 20, 8, 6]], [[prob, prob]]))
        return files


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_plain_file_is_refused_before_the_block(tmp_path, kind):
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")
    odd = tmp_path / "comp4_det_test_dog.txt"
    {"folder": odd.mkdir, "pipe": lambda: os.mkfifo(odd), "link": lambda: odd.symlink_to("elsewhere")}[kind]()
    with pytest.raises(ResultsError, match=r"dog\.txt: not a plain file"), ResultFiles(str(tmp_path), "voc", NAMES):
        pytest.fail("the block began")
    assert sorted(os.listdir(tmp_path)) == ["comp4_det_test_cat.txt", "comp4_det_test_dog.txt"]
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == "older\n"


def test_a_file_that_cannot_take_its_name_takes_none_with_it(tmp_path):
    """A folder of the second file's name comes up during the run: the first file keeps its older content."""
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")

    def stopped():
        with ResultFiles(str(tmp_path), "voc", NAMES) as files:
            files.add(found("a.jpg", [[10, 20, 8, 6]], [[0.5, 0.5]]))
            (tmp_path / "comp4_det_test_dog.txt").mkdir()

    with pytest.raises(ResultsError, match=r"comp4_det_test_dog\.txt: Is a directory; no result file was written"):
        stopped()
    assert all_files(tmp_path) == {"comp4_det_test_cat.txt": "older\n", "comp4_det_test_dog.txt": None}


def test_files_without_forerunners_vanish_again(tmp_path):
    with pytest.raises(ResultsError, match=r"dog\.txt"), ResultFiles(str(tmp_path), "voc", NAMES):
        (tmp_path / "comp4_det_test_dog.txt").mkdir()
    assert all_files(tmp_path) == {"comp4_det_test_dog.txt": None}


def test_older_results_that_cannot_come_back_are_not_deleted(tmp_path, monkeypatch):
    """The disk fails while the older file should take its place again: it stays where it was put aside."""
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")
    rename, calls = os.rename, []

    def fail(source, target):
        calls.append(target)
        if len(calls) > 2:
            raise OSError(5, "Input/output error", str(source), None, str(target))
        rename(source, target)

    with (
        pytest.raises(ResultsError, match=r"Input/output error.*; the older result files are in .*/aside now$"),
        ResultFiles(str(tmp_path), "voc", NAMES),
    ):
        monkeypatch.setattr(os, "rename", fail)
    assert [path.read_text() for path in tmp_path.rglob("aside/*")] == ["older\n"]


@pytest.mark.parametrize(("room", "count"), [(20_000, 1000), (20, 1)], ids=["on the way", "at the end"])
def test_a_full_disk_leaves_all_as_it_was(tmp_path, room, count):
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = found("a.jpg", [[10, 20, 8, 6]] * count, [[0.5, 0.5]] * count)

    def filled():
        with ResultFiles(str(tmp_path), "voc", NAMES) as files:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
            files.add(many)

    try:
        with pytest.raises(ResultsError, match="File too large; no result file was written"):
            filled()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all_files(tmp_path) == {"comp4_det_test_cat.txt": "older\n"}


@pytest.mark.parametrize("what", ["the last bytes", "the disk"])
def test_no_file_takes_its_name_before_its_bytes_are_on_the_disk(tmp_path, monkeypatch, what):
    """Lines wait in memory up to the end, and the disk may be full or broken by then."""
    (tmp_path / "comp4_det_test_cat.txt").write_text("older\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    def written():
        with ResultFiles(str(tmp_path), "voc", NAMES) as files:
            files.add(found("a.jpg", [[10, 20, 8, 6]], [[0.5, 0.5]]))
            if what == "the disk":
                monkeypatch.setattr(os, "fsync", fail)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))

    try:
        with pytest.raises(ResultsError, match="no result file was written"):
            written()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all_files(tmp_path) == {"comp4_det_test_cat.txt": "older\n"}


def test_what_a_killed_run_left_is_cleared(tmp_path):
    files = ResultFiles(str(tmp_path), "voc", NAMES).__enter__()
    files.add(found("a.jpg", [[10, 20, 8, 6]], [[0.5, 0.5]]))
    assert len(list(tmp_path.iterdir())) == 1
    write(tmp_path)
    files._stack.pop_all()  # a killed run closes nothing
    assert sorted(os.listdir(tmp_path)) == ["comp4_det_test_cat.txt", "comp4_det_test_dog.txt"]
    assert all("0.500000" in text for text in all_files(tmp_path).values())


def test_finished_files_have_the_rights_of_any_new_file(tmp_path):
    write(tmp_path)
    (tmp_path / "plain").write_text("")
    rights = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(rights) == 1


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cat", "dog", "cat"], "the.names: lines 1 and 3 are both 'cat'"),
        (["cat", "", "dog", ""], "the.names: lines 2 and 4 are both ''"),
        (["cat", "a/b"], "the.names:2: 'a/b' cannot be part of a file's name"),
        (["cat", "a\0b"], r"the.names:2: 'a\\x00b' cannot be part of a file's name"),
        (["cat", "x" * 237], "the.names:2: .* with comp4_det_test_ and .txt at most 255 bytes"),
        (["cat", "ü" * 119], "the.names:2: .* at most 255 bytes"),
    ],
)
def test_names_that_cannot_be_files(tmp_path, names, found):
    with pytest.raises(ResultsError, match=found):
        ResultFiles(str(tmp_path), "voc", names, names_file="the.names")
    for kind in ("coco", "imagenet"):  # one file for all classes
        ResultFiles(str(tmp_path), kind, names)


def test_of_a_long_name_60_letters_are_shown(tmp_path):
    with pytest.raises(ResultsError, match=f"^the.names:1: '{'x' * 60}' cannot be part of a file's name"):
        ResultFiles(str(tmp_path), "voc", ["x" * 237], names_file="the.names")


def test_the_folder_is_made_with_those_above_it(tmp_path):
    with ResultFiles(str(tmp_path / "a" / "b"), "voc", ["cat"]):
        pass
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["comp4_det_test_cat.txt"]


def test_the_longest_names_can_be_files(tmp_path):
    names = ["x" * 236, "ü" * 118, ".", ".."]
    with ResultFiles(str(tmp_path), "voc", names):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {f"comp4_det_test_{name}.txt" for name in names}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ResultsError, match="expected a folder to write to"),
        ResultFiles(str(tmp_path / "file/results"), "voc", NAMES),
    ):
        pass


def test_ids():
    # The ten categories that COCO numbers and never shows.
    assert [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)] == COCO_IDS
    for path, pjreddies, alexeyabs in (
        ("val2014/COCO_val2014_000000581929.jpg", 581929, 0), ("val2017/000000000139.jpg", 139, 139),
        ("a_1/12_34.jpg", 34, 12), ("a_1/12.jpg", 1, 12), ("val2017/dog.jpg", 0, 0),
        ("x/ +42.jpg", 42, 42), ("x_-7.jpg", -7, 0), ("x/-7.jpg", -7, -7),  # as atoi has them
    ):  # fmt: skip
        assert coco_image_id(path, "pjreddie") == pjreddies
        assert coco_image_id(path, "alexeyab") == alexeyabs


def test_drawings_of_the_same_name_do_not_overwrite_each_other():
    names = DrawingNames()
    assert [names[path] for path in ("a/x.jpg", "b/x.png", "y.jpg")] == ["x.jpg", "x_2.jpg", "y.jpg"]
    assert [names[path] for path in ("a/x.jpg", "b/x.png", "c/x.jpg")] == ["x.jpg", "x_2.jpg", "x_3.jpg"]
    for order in (("a/x.jpg", "b/x.png", "x_2.jpg"), ("x_2.jpg", "a/x.jpg", "b/x.png")):
        names = DrawingNames()
        assert {names[path] for path in order} == {"x.jpg", "x_2.jpg", names[order[-1]]}
        assert len({names[path] for path in order}) == 3


def test_the_text_of_the_json(tmp_path):
    """Probabilities to six places, pixels to three."""
    boxes, prob = [[10.12345, 20.5, 8.25, 6.5]], [[0, 0.12345678]]
    write_objects([found("ä.jpg", boxes, prob).as_json()], tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text(encoding="utf-8").split("\n") == [
        "[", " {", '  "image": "ä.jpg",', '  "width": 100,', '  "height": 80,', '  "detections": [', "   {",
        '    "class_id": 1,', '    "name": "dog",', '    "prob": 0.123457,', '    "box": [',
        "     5.998,", "     17.25,", "     8.25,", "     6.5", "    ]", "   }", "  ]", " }", "]", "",
    ]  # fmt: skip


def test_json_is_written_whole(tmp_path):
    write_objects([found("ä.jpg", [[10, 20, 8, 6]], [[0.5, 0]]).as_json()], tmp_path / "out.json")
    (image,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert image["image"] == "ä.jpg"
    assert image["detections"] == [{"class_id": 0, "name": "cat", "prob": 0.5, "box": [6, 17, 8, 6]}]
    path = os.fsdecode(b"\xe4.jpg")  # a byte that is no UTF-8
    write_objects([found(path, np.zeros((0, 4)), np.zeros((0, 2))).as_json()], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[0]["image"] == path
    with pytest.raises(ResultsError, match="the file was not written"):
        write_objects([], tmp_path / "none" / "out.json")


def test_result_json_is_json_whatever_is_in_it(tmp_path):
    """Under .005 nothing is listed, whatever the threshold was; bytes of a path that are no UTF-8 stay as they are."""
    boxes = np.array([[0.5, 0.25, np.inf, 0.5], [0.5, 0.5, 0.1, 0.1], [0.25, 0.5, 0.1, 0.125]], np.float32)
    prob = np.array([[0.5, 0], [0.004, 0.0049], [0, 1]], np.float32)
    one = Detections('a "b"\\c \udce9.png', 640, 480, boxes, prob, True, ['the "x"', "y\tz"])
    write_result_json([one, replace(one, path="n.png", prob=prob * 0)], tmp_path / "r.json")
    text = (tmp_path / "r.json").read_bytes()
    assert b"c \xe9.png" in text
    first, second = json.loads(text.decode("latin-1"))
    assert (first["frame_id"], second["frame_id"], second["objects"]) == (1, 2, [])
    assert first["filename"] == 'a "b"\\c \xe9.png'
    assert [(found["class_id"], found["name"], found["confidence"]) for found in first["objects"]] == [
        (0, 'the "x"', 0.5), (1, "y\tz", 1.0)
    ]  # fmt: skip
    assert first["objects"][0]["relative_coordinates"]["width"] == pytest.approx(3.4e38, rel=0.01)
    assert result_json([]) == "[\n\n]"


def test_boxes_in_pixels_become_parts_of_the_image(tmp_path, monkeypatch):
    """As a label file has them; and lines give the same box in either form, rounded as C rounds, halves away from 0."""
    monkeypatch.chdir(tmp_path)
    boxes = np.array([[0.125, 0.5, 0.25, 0.5], [0, 0.5, 0.0625, 0.5]], np.float32)
    prob = np.array([[0.5], [0.9]], np.float32)
    parts = Detections("a.png", 40, 20, boxes, prob, True, ["it"])
    pixels = replace(parts, path="b.png", boxes=boxes * np.array([40, 20, 40, 20], np.float32), relative=False)
    labels = LabelFiles()
    for one in (parts, pixels):
        labels.write(one)
        assert one.lines("alexeyab", ext_output=True) == [
            "it: 90%\t(left_x:   -1   top_y:    5   width:    3   height:   10)",
            "it: 50%\t(left_x:    0   top_y:    5   width:   10   height:   10)",
        ]
    assert (
        (tmp_path / "a.txt").read_text()
        == (tmp_path / "b.txt").read_text()
        == ("0 0.1250 0.5000 0.2500 0.5000\n0 0.0000 0.5000 0.0625 0.5000\n")
    )
    assert labels.kept == []


def test_lines_go_from_left_to_right_and_the_likeliest_shown_class_comes_first():
    """Boxes that begin at one place stay in their order; one whose classes nobody shall see is left out."""
    boxes = [[50, 9, 20, 9], [20, 9, 20, 9], [20, 9, 20, 9], [15, 9, 10, 9], [5, 9, 4, 9]]
    prob = [[0.3, 0.2, 0.9, 0.4], [0, 0.5, 0, 0], [0.6, 0, 0, 0], [0.1, 0.2, 0, 0.15], [0, 0, 0.7, 0]]
    one = replace(found("a.png", boxes, prob), classes=["a", "b", "dont_show it", "d"])
    assert one.lines("alexeyab") == [
        "b: 50%", "a: 60%", "b: 20%", "a: 10%", "d: 15%", "d: 40%", "a: 30%", "b: 20%", "dont_show it: 90%",
    ]  # fmt: skip
    assert one.lines("pjreddie")[:4] == ["a: 30%", "b: 20%", "dont_show it: 90%", "d: 40%"]


def test_a_label_file_has_a_line_for_each_box_that_has_a_class(tmp_path):
    one = found(str(tmp_path / "a.png"), [[50, 40, 10, 8], [20, 20, 10, 8]], [[0, 0], [0.2, 0.6]])
    LabelFiles().write(one)
    assert (tmp_path / "a.txt").read_text() == "1 0.2000 0.2500 0.1000 0.1000\n"


def test_a_link_to_a_label_file_that_is_not_there_stays(tmp_path):
    """The annotation may be on a disk that is away."""
    (tmp_path / "a.txt").symlink_to(tmp_path / "away.txt")
    labels = LabelFiles()
    labels.write(found(str(tmp_path / "a.png"), [[50, 40, 10, 8]], [[0.2, 0.6]]))
    assert labels.kept == [str(tmp_path / "a.txt")]
    assert not (tmp_path / "away.txt").exists()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a"])
def test_an_image_without_a_label_file(name, tmp_path):
    """AlexeyAB's program would write over the image."""
    with pytest.raises(ResultsError, match=rf"^{name}: AlexeyAB's Darknet has no label file"):
        LabelFiles(overwrite=True).path(name)


def test_a_label_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "a.txt").mkdir()
    one = Detections(str(tmp_path / "a.png"), 4, 4, np.zeros((0, 4), np.float32), np.zeros((0, 1), np.float32), True)
    with pytest.raises(ResultsError, match=r"a\.txt: .*; the file was not written$"):
        LabelFiles(overwrite=True).write(one)
    with pytest.raises(ResultsError, match=r"none/r\.json: .*; the file was not written$"):
        write_result_json([one], tmp_path / "none/r.json")
