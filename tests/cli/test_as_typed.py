"""Command lines of both programs' ``detector test``, as they were typed: what is printed and written is theirs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_compat import detect_each, load_detector
from darknet_compat.errors import ImageError, ResultsError
from tests.cli.conftest import CFG, WEIGHTS
from tests.compat.test_darknet import FASTEST, weights_of
from tests.conftest import ROOT, SHAPES, real

PHOTOGRAPHS = ("dog", "horses", "person")
NUMBER = re.compile(r"-?\d+(?:\.(\d+))?")
TIME = re.compile(r"(?<=Predicted in )[\d.]+")


@pytest.fixture
def photographs(darknet_share, tmp_path):
    """Three as PNG, half as large, and a list of them, in tmp_path; coco.data with COCO's names."""
    for name in PHOTOGRAPHS:
        image = cv2.imread(str(darknet_share / f"data/{name}.jpg"))
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.resize(image, None, fx=0.5, fy=0.5))
    (tmp_path / "list.txt").write_text("".join(f"{name}.png\n" for name in PHOTOGRAPHS))
    (tmp_path / "coco.data").write_text(f"classes=80\nnames={darknet_share}/data/coco.names\n")
    return tmp_path


def same(ours, theirs):
    """But for times the same text; numbers within the last digit, and with six digits within 2e-6."""
    ours, theirs = (TIME.sub("0", text) for text in (ours, theirs))
    assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    for mine, other in zip(NUMBER.finditer(ours), NUMBER.finditer(theirs), strict=True):
        last = 10.0 ** -len(other[1] or "")
        assert abs(float(mine[0]) - float(other[0])) <= last * (2.01 if last < 1e-5 else 1.01), (mine, other)


def files_of(alexeyab, name, folder, size=(224, 160)):
    if name == "yolo-fastest":
        return [FASTEST / f"yolo-fastest-1.1.{suffix}" for suffix in ("cfg", "weights")]
    text = (alexeyab / f"cfg/{name}.cfg").read_text()
    for key, value in zip(("width", "height"), size, strict=True):
        text = re.sub(rf"(?m)^{key}=\d+", f"{key}={value}", text)
    (folder / "net.cfg").write_text(text)
    return [folder / "net.cfg", weights_of(folder / "net.cfg", folder)]


@pytest.mark.parametrize(
    ("name", "flags", "least"),
    [real("yolo-fastest", [], 18), ("yolov3-tiny", ["-thresh", ".35"], 100), ("yolov4-tiny", ["-thresh", ".55"], 20)],
)
def test_a_list_of_images_and_all_files_are_alexeyabs(alexeyab, photographs, typed, name, flags, least):
    """The line unchanged but for -numerics: paths on standard input, -ext_output, result.json and label files."""
    files = files_of(alexeyab, name, photographs)
    words = ["detector", "test", "-dont_show", "coco.data", *files, "-ext_output", *flags, "-save_labels"]
    text = (photographs / "list.txt").read_text()
    theirs = subprocess.run(
        [alexeyab / "darknet", *words, "-out", "theirs.json"], input=text, capture_output=True, text=True, check=True,
        cwd=photographs,
    ).stdout  # fmt: skip
    labels = {}
    for one in PHOTOGRAPHS:
        labels[one] = (photographs / f"{one}.txt").read_text()
        os.unlink(f"{one}.txt")
    os.unlink("predictions.jpg")
    code, ours, _ = typed(text, *words, "-out", "ours.json", "-numerics", "gpu")
    assert code == 0
    same(ours, theirs[theirs.index("Enter Image Path: ") :])
    assert ours.count("(left_x: ") >= least
    same(Path("ours.json").read_text(), Path("theirs.json").read_text())
    assert [image["filename"] for image in json.loads(Path("ours.json").read_text())] == text.split()
    for one, lines in labels.items():
        assert lines
        same(Path(f"{one}.txt").read_text(), lines)
    assert Path("predictions.jpg").stat().st_size > 5000


def test_names_that_are_not_shown_letter_box_and_classes_behind_the_first(alexeyab, photographs, verb, capfd):
    """One image, named on the line; boxes of several classes, one of which nobody shall see."""
    files = files_of(alexeyab, "yolov4-tiny", photographs)
    names = [f"dont_show {index}" if index % 3 else f'thing {index} "a"' for index in range(80)]
    Path(photographs / "some.names").write_text("".join(f"{name}\n" for name in names))
    Path(photographs / "coco.data").write_text("classes=80\nnames=some.names\n")
    words = ["detector", "test", "coco.data", *files, "./dog.png", "-thresh", ".45", "-letter_box", "-dont_show"]
    run = [alexeyab / "darknet", *words, "-out", "theirs.json"]
    theirs = subprocess.run(run, capture_output=True, text=True, check=True, cwd=photographs).stdout
    assert verb(*words, "-out", "ours.json", "-numerics", "gpu") == 0
    ours = capfd.readouterr().out
    same(ours, theirs[theirs.index(" Detection layer") :])
    assert len(re.findall(r"^dont_show", ours, re.MULTILINE)) > 3
    assert len(re.findall(r"^thing", ours, re.MULTILINE)) > 10
    # His names are as they are, which is no JSON.
    same(Path("ours.json").read_text().replace('\\"', '"'), Path("theirs.json").read_text())
    assert '"name":"dont_show' not in Path("ours.json").read_text()
    assert json.loads(Path("ours.json").read_text())[0]["filename"] == "./dog.png"


def test_a_list_of_images_is_pjreddies(pjreddie, photographs, typed, darknet_share):
    """His needs a display for its window, unless -out names the drawing."""
    words = ["detector", "test", ROOT / "cfg/shapes.data", *SHAPES, "-thresh", ".02"]
    text = "dog.png\nhorses.png"  # no end of the last line
    shutil.copytree(ROOT / "data", photographs / "data", ignore=shutil.ignore_patterns("made", "cifar", "labels"))
    os.symlink(darknet_share / "data/labels", "data/labels")
    run = [pjreddie, *words, "-out", "drawn"]
    theirs = subprocess.run(run, input=text, capture_output=True, text=True, check=True, cwd=photographs).stdout
    code, ours, _ = typed(text, *words, "-numerics", "cpu")
    assert code == 0
    same(ours, theirs[theirs.index("Enter Image Path: ") :])
    assert len(re.findall(r"^\w+: \d+%$", ours, re.MULTILINE)) > 3


def test_an_answer_comes_before_the_next_path_is_typed(wide, data, tmp_path):
    """On a terminal; and one path that is none costs nothing but a line."""
    file = data([wide])
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONUNBUFFERED", None)  # with it nothing waits to be written
    program = subprocess.Popen(
        [sys.executable, "-m", "darknet_compat", "detector", "test", str(file), *map(str, SHAPES), "-thresh", ".1"],
        stdin=theirs, stdout=theirs, stderr=subprocess.STDOUT, cwd=tmp_path,
        env=env,
    )  # fmt: skip
    os.close(theirs)

    def read_until(end, said=""):
        while not said.endswith(end):
            assert select.select([ours], [], [], 120)[0], said
            said += os.read(ours, 4096).decode()
        return said

    try:
        read_until("Enter Image Path: ")
        os.write(ours, b"  JPEGImages/wide.png \n")
        assert re.search(r"wide\.png: Predicted in [\d.]+ seconds\.\r\n(\w+: \d+%\r\n)+", read_until("Path: "))
        assert (tmp_path / "predictions.jpg").is_file()
        os.write(ours, b"none.png\n")
        assert "darknet-compat: none.png: " in read_until("Enter Image Path: ")
        os.write(ours, b"\n")
        read_until("\r\nEnter Image Path: ")
        os.write(ours, b"\x04")  # Ctrl-D
        read_until("Path: \r\n", "Path: ")
        assert program.wait(60) == 1
    finally:
        program.kill()
        os.close(ours)


def test_paths_that_cannot_be_read_cost_no_other_image_anything(typed, data, wide, tmp_path):
    shutil.copy(wide, tmp_path / "a.png")
    shutil.copy(wide, tmp_path / "b.png")
    (tmp_path / "text.png").write_text("no image")
    words = ["detector", "test", data([wide]), CFG, WEIGHTS, "-out", "found.json", "-json", "all.json", "-save_labels"]
    code, out, error = typed("a.png\ntext.png\n\nnone.png\nb.webp\npredictions.jpg\nb.png", *words)
    assert code == 1
    assert re.findall(r"(\S+): Predicted", out) == ["a.png", "b.png"]
    lines = error.splitlines()[1:]
    assert [line.split(": ")[1] for line in lines] == ["text.png", "none.png", "b.webp", "predictions.jpg"]
    assert "AlexeyAB's Darknet has no label file" in lines[2]
    assert "the command reads this file too, and would overwrite it" in lines[3]
    assert [image["filename"] for image in json.loads(Path("found.json").read_text())] == ["a.png", "b.png"]
    assert [image["image"] for image in json.loads(Path("all.json").read_text())] == ["a.png", "b.png"]
    assert Path("a.txt").read_text() == Path("b.txt").read_text() != ""


def test_what_is_no_path_is_one_line(typed, data, wide):
    """A name too long for a file; and no text at all, which may never have an end."""
    words = ["detector", "test", data([wide]), CFG, WEIGHTS]
    code, out, error = typed(f"cfg/{'x' * 5000}\n{wide}\n", *words)
    assert (code, out.count("Predicted in")) == (1, 1)
    assert "File name too long" in error
    for text, found in (("x" * 10**6, "a line of 65,536 bytes or more"), ("a\0b\n", "a zero byte")):
        with pytest.raises(ImageError, match=rf"^standard input: {found}; expected paths, one a line$"):
            typed(f"{wide}\n{text}", *words, "-out", "found.json")
        assert len(json.loads(Path("found.json").read_text())) == 1
        os.unlink("found.json")


def test_typed_images_are_drawn_into_a_folder(typed, data, wide, tmp_path):
    shutil.copy(wide, tmp_path / "a.png")
    words = ["detector", "test", data([wide]), CFG, WEIGHTS, "-out", "drawn"]
    assert typed("a.png\nJPEGImages/wide.png\n", *words)[0] == 0
    assert sorted(os.listdir("drawn")) == ["a.jpg", "wide.jpg"]
    assert not Path("predictions.jpg").exists()


def test_what_is_asked_for_counts_where_paths_are_typed(tmp_path, wide, data, monkeypatch):
    """And where to write is looked at before the first path."""
    detector = load_detector(data([wide]), *SHAPES)
    asked, detect = [], detector.detect
    monkeypatch.setattr(detector, "detect", lambda paths, **options: asked.append(options) or detect(paths, **options))
    (found,) = detect_each(detector, [str(wide)], thresh=0.1, nms=0.2, hier=0.7, json=tmp_path / "found.json")
    assert len(found.boxes) > 0
    list(detect_each(detector, [str(wide)]))
    usual = {"thresh": detector.thresh, "nms": detector.nms, "hier": 0.5}
    assert asked == [{"thresh": 0.1, "nms": 0.2, "hier": 0.7}, usual]
    with pytest.raises(ResultsError, match=r"JPEGImages: a folder; expected a file's name$"):
        list(detect_each(detector, iter(lambda: pytest.fail("a path was asked for"), None), json=wide.parent))
    # A drawing that cannot be written costs its own image nothing.
    (tmp_path / "drawn/wide.jpg").mkdir(parents=True)
    refused = []
    lists = {"json": tmp_path / "all.json", "out": tmp_path / "drawn", "refused": refused.append}
    assert len(list(detect_each(detector, [str(wide)], **lists))) == len(refused) == 1
    assert len(json.loads((tmp_path / "all.json").read_text())) == 1


def test_ctrl_c_loses_nothing_that_was_found(tmp_path, wide, data):
    detector = load_detector(data([wide]), *SHAPES)

    def paths():
        yield "none.png"
        yield str(wide)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match=r"^none\.png: .*; skipped$"):
        list(detect_each(detector, paths(), result=tmp_path / "found.json"))
    assert len(json.loads((tmp_path / "found.json").read_text())) == 1


def test_label_files_that_are_there_stay(verb, data, wide, tmp_path, capsys):
    """The others of the list are written; the exit code says that not all are."""
    file = data([wide])
    for name in ("a", "b", "c"):
        shutil.copy(wide, tmp_path / f"{name}.png")
    Path("b.txt").write_text("5 .5 .5 .5 .5\n")
    words = ["detector", "test", file, CFG, WEIGHTS, "a.png", "b.png", "c.png", "-save_labels"]
    assert verb(*words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "b.txt: it is there, and stays; -overwrite replaces label files"
    )
    assert Path("b.txt").read_text() == "5 .5 .5 .5 .5\n"
    assert Path("a.txt").read_text() == Path("c.txt").read_text() != ""
    assert verb(*words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "a.txt and 2 more: they are there, and stay; -overwrite replaces label files"
    )
    assert verb(*words, "-overwrite") == 0
    assert Path("b.txt").read_text() == Path("a.txt").read_text()


def test_label_files_stand_where_alexeyabs_program_reads_them(verb, data, wide, tmp_path):
    """In labels/, which is made, for JPEGImages/; and of two images with one label file the first has it."""
    shutil.rmtree(tmp_path / "labels", ignore_errors=True)
    file = data([wide])
    shutil.rmtree(tmp_path / "labels")
    os.mkdir("labels2")
    shutil.copy(wide, tmp_path / "a.png")
    cv2.imwrite("a.jpg", np.zeros((60, 80, 3), np.uint8))
    words = ["detector", "test", file, CFG, WEIGHTS, wide, "-save_labels"]
    assert verb(*words) == 0
    lines = (tmp_path / "labels/wide.txt").read_text()
    assert re.fullmatch(r"(\d 0\.\d{4} 0\.\d{4} 0\.\d{4} 0\.\d{4}\n)+", lines)
    assert verb(*words, "a.png", "a.jpg", "-overwrite") == 1
    assert Path("a.txt").read_text() == lines


def test_a_list_beside_its_image_is_no_label_file(verb, data, wide, tmp_path):
    shutil.copy(wide, tmp_path / "a.png")
    Path("a.txt").write_text("a.png\n")
    words = ["detector", "test", data([wide]), CFG, WEIGHTS, "a.txt", "-save_labels"]
    with pytest.raises(ResultsError, match=r"^a\.txt: the command reads this file too"):
        verb(*words, "-overwrite")
    assert verb(*words) == 1
    assert Path("a.txt").read_text() == "a.png\n"


def test_out_json_of_many_images_is_the_one_file(verb, data, wide, tmp_path, capsys):
    shutil.copy(wide, tmp_path / "a.png")
    words = ["detector", "test", data([wide]), CFG, WEIGHTS, wide, "a.png", "-out", "found.json", "-ext_output"]
    assert verb(*words) == 0
    found = json.loads(Path("found.json").read_text())
    assert [(image["frame_id"], image["filename"]) for image in found] == [(1, str(wide)), (2, "a.png")]
    assert not Path("predictions.json").exists()
    out = capsys.readouterr().out
    assert out.count("Predicted in") == 2
    assert out.count("(left_x: ") == sum(len(image["objects"]) for image in found)


def test_detect_is_the_short_form(verb, data, wide, tmp_path, capsys):
    """cfg/coco.data, and AlexeyAB's threshold of .24."""
    os.mkdir("cfg")
    shutil.move(data([wide]), "cfg/coco.data")
    for flags, thresh in (([], 0.5), (["-ext_output"], 0.24), (["-thresh", ".1"], 0.1)):
        assert verb("detect", CFG, WEIGHTS, wide, *flags) == 0
        short, report = capsys.readouterr()
        assert report.endswith("program alexeyab, as -ext_output says\n" if thresh == 0.24 else "program pjreddie\n")
        assert verb("detector", "test", "cfg/coco.data", CFG, WEIGHTS, wide, *flags, "-thresh", thresh) == 0
        assert TIME.sub("", short) == TIME.sub("", capsys.readouterr().out)
