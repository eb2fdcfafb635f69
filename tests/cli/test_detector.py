from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.cfg import read_cfg, read_names
from darknet_compat.errors import ImageError, ResultsError
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.cli.conftest import CFG, WEIGHTS
from tests.cli.test_main import run
from tests.cli.test_valid import tree_cfg
from tests.compare import randomise
from tests.conftest import ROOT, SHAPES
from tests.detect.test_detections import reference_detections


def test_one_image_prints_darknets_lines(darknet, darknet_share, detector, tmp_path):
    image = darknet_share / "data/dog.jpg"
    _, probs = reference_detections(darknet, *detector, image, 0.2)
    stem = "shapes" if detector == SHAPES else "voc"
    data = f"cfg/{stem}.data"
    result = run("detector", "test", data, *detector, image, "-thresh", ".2", "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"(11 layers \(0-16\)|7 layers \(0-11\)) got numbers", result.stderr)
    names = read_names(ROOT / f"data/{stem}.names")
    expected = [f"{names[index]}: {prob[index] * 100:.0f}%" for prob in probs for index in prob.nonzero()[0]]
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{image}: Predicted in ")
    assert lines[1:] == expected
    assert (tmp_path / "predictions.jpg").stat().st_size > 10_000


@pytest.mark.real_data
@pytest.mark.parametrize(("options", "hidden", "least"), [([], "none", 2), (["-thresh", ".01"], "dog", 30)])
def test_a_v4_network_finds_what_alexeyabs_program_finds(
    alexeyab, shared, darknet_share, verb, data, tmp_path, capsys, options, hidden, least
):
    """In his order, over .25 or what is asked for; and what is named so that he does not show it."""
    cv2.imwrite(str(tmp_path / "dog.png"), cv2.imread(str(darknet_share / "data/dog.jpg")))
    names = (alexeyab / "cfg/coco.names").read_text().splitlines()[:80]
    names = [f"dont_show {name}" if name == hidden else name for name in names]
    (tmp_path / "the.names").write_text("".join(f"{name}\n" for name in names))
    file = data([], classes=80, names=tmp_path / "the.names")
    files = [shared / f"yolo-fastest/yolo-fastest-1.1.{suffix}" for suffix in ("cfg", "weights")]
    theirs = subprocess.run(
        [alexeyab / "darknet", "detector", "test", file, *files, "dog.png", "-dont_show", *options],
        check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path,
    ).stdout  # fmt: skip
    expected = [line for line in theirs.splitlines() if re.fullmatch(r"[a-z_ ]+: \d+%", line)]
    assert len(expected) >= least
    assert ("dog: 65%" in expected) == (hidden != "dog")
    assert verb("detector", "test", file, *files, "dog.png", "-numerics", "gpu", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "Predicted in" not in line and "Detection layer" not in line] == expected


def test_many_images_write_one_json(darknet_share, tmp_path):
    folder = tmp_path / "bilder mit ü"
    folder.mkdir()
    for name in ("dog", "eagle"):
        shutil.copy(darknet_share / f"data/{name}.jpg", folder)
    (tmp_path / "list.txt").write_text(f"{darknet_share}/data/horses.jpg\n")
    result = run(
        "detector", "test", "cfg/shapes.data", *SHAPES, folder, "list.txt", f"{darknet_share}/data/pers*.jpg",
        "-json", "all.json", "-out", "drawn here", "--batch", "3", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    images = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [image["image"].rsplit("/", 1)[1] for image in images] == [
        "dog.jpg", "eagle.jpg", "horses.jpg", "person.jpg"
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "drawn here").iterdir()) == [
        "dog.jpg", "eagle.jpg", "horses.jpg", "person.jpg"
    ]  # fmt: skip
    assert "4 images" in result.stdout


def read_json(path="predictions.json"):
    return json.loads(Path(path).read_text())


def picked(image):
    return [(one["class_id"], one["prob"], tuple(one["box"])) for one in image["detections"]]


def test_thresh_and_nms_are_the_c_librarys(verb, data, darknet, darknet_share):
    path = darknet_share / "data/dog.jpg"
    file, counts = data([path]), []
    for thresh, nms, flags in (
        (0.5, 0.45, []),
        (0.1, 0.45, ["-thresh", 0.1]),
        (0.1, 0.2, ["-thresh", 0.1, "-nms", 0.2]),
        (0.1, 0, ["-thresh", 0.1, "-nms", 0]),
    ):
        assert verb("detector", "test", file, CFG, WEIGHTS, path, "-numerics", "cpu", "-json", "all.json", *flags) == 0
        _, prob = reference_detections(darknet, CFG, WEIGHTS, path, thresh, nms)
        (image,) = read_json("all.json")
        ours = sorted(one["prob"] for one in image["detections"])
        np.testing.assert_allclose(ours, sorted(prob[prob > 0]), atol=1e-4)
        counts.append(len(ours))
    assert len(set(counts)) == 4


def test_hier_is_how_sure_a_tree_must_be(verb, data, wide, tmp_path):
    file, cfg, classes = data([wide]), tree_cfg(tmp_path), {}
    for hier in (0, 0.5, 1):
        words = file, cfg, WEIGHTS, wide, "-thresh", 0.01, "-json", "all.json"
        assert verb("detector", "test", *words, *([] if hier == 0.5 else ["-hier", hier])) == 0
        classes[hier] = {one["class_id"] for one in read_json("all.json")[0]["detections"]}
    assert classes[0] == {2, 3, 4, 5}  # the leaves
    assert classes[1] == {0, 1}  # no deeper than the top
    assert classes[0.5] & classes[0]
    assert classes[0.5] & classes[1]


@pytest.fixture
def eight(wide, tmp_path):
    """Eight images in a list, of which the fourth is text and the seventh is missing."""
    for number in (0, 1, 2, 4, 5, 7):
        shutil.copy(wide, tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_text("no image")
    (tmp_path / "eight.txt").write_text("".join(f"{number}.png\n" for number in range(8)))
    return tmp_path / "eight.txt"


@pytest.mark.parametrize("batch", [1, 4])
def test_an_unreadable_image_costs_no_other_image_its_results(verb, data, eight, wide, tmp_path, batch):
    words = "detector", "test", data([wide]), CFG, WEIGHTS, eight, "-out", "drawn", "-thresh", 0.1, "-batch", batch
    kept = r"what was found in 3 images before it stands in predictions\.json"
    with pytest.raises(ImageError, match=rf"^3\.png: .*; or add -skip to pass over such images; {kept}$"):
        verb(*words)
    found = read_json()
    assert [image["image"] for image in found] == ["0.png", "1.png", "2.png"]
    assert sorted(os.listdir("drawn")) == ["0.jpg", "1.jpg", "2.jpg"]
    with pytest.warns(UserWarning, match="skipped") as warned:
        assert verb(*words, "-skip") == 1
    assert [str(one.message).split(":")[0] for one in warned] == ["3.png", "6.png"]
    skipped = read_json()
    assert [image["image"] for image in skipped] == [f"{number}.png" for number in (0, 1, 2, 4, 5, 7)]
    assert sorted(os.listdir("drawn")) == [f"{number}.jpg" for number in (0, 1, 2, 4, 5, 7)]
    assert len({tuple(picked(image)) for image in (*found, *skipped)}) == 1
    assert picked(found[0])


def test_nothing_readable_writes_over_no_older_results(verb, data, wide, tmp_path):
    (tmp_path / "predictions.json").write_text("older")
    (tmp_path / "bad.txt").write_text("none.png\n1.png\n")
    with pytest.raises(ImageError):
        verb("detector", "test", data([wide]), CFG, WEIGHTS, "bad.txt")
    assert (tmp_path / "predictions.json").read_text() == "older"


def test_one_unreadable_image_alone(verb, data, wide, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    words = "detector", "test", data([wide]), CFG, WEIGHTS, "text.png"
    with pytest.raises(ImageError, match=r"text\.png"):
        verb(*words)
    with pytest.warns(UserWarning, match="skipped"):
        assert verb(*words, "-skip") == 1
    assert "1 of 1 images could not be read" in capsys.readouterr().err
    assert not (tmp_path / "predictions.jpg").exists()


def test_a_drawing_that_cannot_be_written_loses_no_detections(verb, data, wide, tmp_path):
    shutil.copy(wide, tmp_path / "a.png")
    (tmp_path / "drawn/wide.jpg").mkdir(parents=True)
    with pytest.raises(ImageError, match=r"wide\.jpg"):
        verb("detector", "test", data([wide]), CFG, WEIGHTS, "a.png", wide, "-out", "drawn")
    assert [image["image"] for image in read_json()] == ["a.png", str(wide)]
    assert (tmp_path / "drawn/a.jpg").is_file()


def test_where_to_write_is_looked_at_before_the_run(verb, data, wide, tmp_path, monkeypatch):
    monkeypatch.setattr("darknet_compat.detect.detect_files", lambda *_, **__: pytest.fail("it ran"))
    words = "detector", "test", data([wide]), CFG, WEIGHTS, wide
    for flags, found in (
        (("-json", "JPEGImages"), "JPEGImages: a folder; expected a file's name$"),
        (("-json", "list.txt/x.json"), r"list\.txt: File exists; expected a folder to write to"),
        (("-out", "my.data"), r"my\.data: File exists; expected a folder to write to"),
    ):
        with pytest.raises(ResultsError, match=found):
            verb(*words, *flags)


@pytest.mark.parametrize("name", ["drawn/x.jpg", "X.PNG", "x.txt"])
def test_out_names_a_folder(verb, data, wide, tmp_path, capsys, name):
    """But for AlexeyAB's -out x.json; another file's name would become a folder."""
    words = "detector", "test", data([wide]), CFG, WEIGHTS, wide, "-out", name
    with pytest.raises(SystemExit) as exit:
        verb(*words)
    assert exit.value.code == 2
    assert f"-out/--out: {name} is a file's name; expected a folder" in capsys.readouterr().err
    (tmp_path / name).mkdir(parents=True)
    assert verb(*words) == 0
    assert (tmp_path / name / "predictions.jpg").is_file()


@pytest.mark.parametrize(
    ("images", "flags", "written"),
    [
        (["a.jpg", "JPEGImages/wide.png"], ["-out", "."], "a.jpg"),
        (["a.jpg"], ["-json", "images/../a.jpg"], "images/../a.jpg"),
        (["link.jpg"], ["-json", "a.jpg"], "a.jpg"),
        (["a.jpg"], ["-json", "link.jpg"], "link.jpg"),
        (["a.jpg"], ["-json", "my.data"], "my.data"),
        (["a.jpg"], ["-json", "my.weights"], "my.weights"),
        (["a.jpg"], ["-out", "my.names.json"], "my.names.json"),
        (["a.jpg"], ["-json", "my.cfg"], "my.cfg"),
        (["some.txt"], ["-json", "some.txt"], "some.txt"),
        (["predictions.jpg"], [], "predictions.jpg"),
    ],
    ids=" ".join,
)
def test_nothing_that_is_read_is_written_over(verb, data, wide, tmp_path, images, flags, written):
    """A * in place of a name makes the shell give an image to -json."""
    for name in ("a.jpg", "predictions.jpg"):
        shutil.copy(ROOT / "data/shapes-sample.jpg", name)
    shutil.copy(WEIGHTS, "my.weights")
    shutil.copy(CFG, "my.cfg")
    shutil.copy(ROOT / "data/shapes.names", "my.names.json")
    os.symlink("a.jpg", "link.jpg")
    Path("some.txt").write_text("a.jpg\nJPEGImages/wide.png\n")
    data([wide], names="my.names.json")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(
        ResultsError, match=rf"^{re.escape(written)}: the command reads this file too, and would overwrite it"
    ):
        verb("detector", "test", "my.data", "my.cfg", "my.weights", *images, *flags)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def test_two_lists_have_two_names(verb, data, wide, tmp_path):
    with pytest.raises(ResultsError, match=r"^\./x\.json: two lists of detections would get this name"):
        verb("detector", "test", data([wide]), CFG, WEIGHTS, wide, "-json", "x.json", "-out", "./x.json")
    assert not (tmp_path / "x.json").exists()


def test_an_empty_name_is_no_folder(verb, data, wide):
    """As a shell variable without a value gives it; the present folder may hold anything."""
    with pytest.raises(ImageError, match="no such image"):
        verb("detector", "test", data([wide]), CFG, WEIGHTS, "")


def test_boxes_without_end_are_drawn_and_written(verb, data, wide, tmp_path):
    """e to the power of what an untrained network gives is infinite; JSON knows no such number."""
    (tmp_path / "start.weights").write_bytes(WEIGHTS.read_bytes()[:20])  # the header alone: start values
    torch.manual_seed(0)
    assert verb("detector", "test", data([wide]), CFG, "start.weights", wide, "-json", "all.json") == 0
    boxes = [one["box"] for one in read_json("all.json")[0]["detections"]]
    assert np.isfinite(boxes).all()
    assert np.max(boxes) > 1e30
    assert (tmp_path / "predictions.jpg").stat().st_size > 1000


def test_json_goes_to_a_folder_yet_to_be_made(verb, data, wide):
    assert verb("detector", "test", data([wide]), CFG, WEIGHTS, wide, "-json", "new/found.json") == 0
    assert len(read_json("new/found.json")) == 1


def test_errors_are_one_line(darknet_share, tmp_path):
    cfg, weights = SHAPES
    classifier = ROOT / "cfg/tiny.cfg", tmp_path / "classifier.weights"
    save_weights(randomise(Network(read_cfg(classifier[0]))), classifier[1])
    dog = darknet_share / "data/dog.jpg"
    short = tmp_path / "short.weights"
    short.write_bytes(weights.read_bytes()[:100_000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.data").write_text("classes=6\nnames=none.names\n")
    (tmp_path / "few.data").write_text("classes=6\nnames=few.names\n")
    (tmp_path / "few.names").write_text("a\nb\n")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "head.bmp").write_bytes(b"BM" + bytes(24))  # of which OpenCV has more to say, and shall not
    for arguments, found in (
        (("cfg/shapes.data", cfg, short, dog), "ends inside layer"),
        (("cfg/shapes.data", cfg, weights, "empty"), "no image in this folder"),
        (("cfg/shapes.data", cfg, weights, "text.jpg"), "text.jpg"),
        (("cfg/shapes.data", cfg, weights, "head.bmp"), "head.bmp: 26 bytes that do not decode"),
        (("bad.data", cfg, weights, dog), "none.names"),
        (("few.data", cfg, weights, dog), "few.data:2: names=few.names: 2 names; expected 6"),
        (("cfg/voc.data", "cfg/darknet19.cfg", weights, dog), "the file ends inside layer"),
        (("cfg/voc.data", *classifier, dog), "the network ends in [softmax]"),
    ):
        result = run("detector", "test", *arguments, cwd=tmp_path)
        assert result.returncode == 1, arguments
        assert found in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
        assert result.stderr.count("\n") <= 2  # what the weights held may stand above
    assert not (tmp_path / "predictions.jpg").exists()
