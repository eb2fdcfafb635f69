"""The verbs as they are typed: output, JSON, images, exit codes, and no torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_compat.cli import main
from darknet_compat.detect import detector
from tests.evaluate.conftest import write_devkit
from tests.tools.run import run_verb

ROOT = Path(__file__).parents[2]


def run(*arguments, script=None):
    command = [sys.executable, *(["-m", "darknet_compat"] if script is None else [ROOT / "eval" / script])]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture
def voc(small):
    """The flags that score the small devkit."""
    return ["--results", small.results, "--devkit", small.devkit, "--names", small.results.parent / "small.names"]


TABLE = """\
class      AP  truths  difficult  detections
cat    1.0000       1          1           4
dog    0.5000       2          0           2
bird        -       0          0           1
mean   0.7500  over 2 of 3 classes, area under the curve, IOU > 0.5
not in the mean, no truths to find: bird
"""


def test_voc_eval_prints_the_table_and_writes_the_json(voc, tmp_path):
    # Half of the two dogs is found, behind a wrong box: precision .5 up to recall .5.
    expected = TABLE.replace("0.5000", "0.2500").replace("0.7500", "0.6250")
    done = run("voc_eval", *voc, "--metric", "area", "--json", tmp_path / "new" / "scores.json")
    assert done.returncode == 0
    assert done.stdout == expected
    assert done.stderr == "objects of class 'zebra' left out, since the names do not hold it: 1\n"
    assert json.loads((tmp_path / "new" / "scores.json").read_text()) == {
        "mAP": 0.625,
        "metric": "area",
        "iou": 0.5,
        "classes": {
            "cat": {"ap": 1.0, "truths": 1, "difficult": 1, "detections": 4},
            "dog": {"ap": 0.25, "truths": 2, "difficult": 0, "detections": 2},
            "bird": {"ap": None, "truths": 0, "difficult": 0, "detections": 1},
        },
    }


def test_one_dash_does_as_well_and_the_script_is_the_verb(voc):
    with_one = [f"-{flag[2:]}" if str(flag).startswith("--") else flag for flag in voc]
    assert run("voc_eval", *with_one).stdout == run(*voc, script="voc_eval.py").stdout != ""


def test_the_flags_say_what_is_scored(voc, small, tmp_path, capsys):
    """Each alone changes the table: another image set, year, least IOU."""
    shifted = {"one": [("cat", 0, 10, 10, 29, 27)], "two": []}  # IOU .9 with the detection
    write_devkit(tmp_path, shifted, year="2012", image_set="val")
    write_devkit(tmp_path, {"one": shifted["one"]}, image_set="some")

    def cat(*flags):
        code = main(["voc_eval", *map(str, voc), *flags])
        printed = capsys.readouterr()
        return printed.out.splitlines()[1].split()[1:3] if code == 0 else printed.err.splitlines()[-1]

    # write_devkit has replaced one.xml of 2007 too.
    assert cat() == ["1.0000", "1"]
    assert cat("--iou", ".89") == ["1.0000", "1"]
    assert cat("--iou", ".91") == ["0.0000", "1"]
    assert "image two is not in the image set" in cat("--image-set", "some")
    assert "test.txt: no such file; sets there: val" in cat("--year", "2012")
    assert cat("--year", "2012", "--image-set", "val") == ["1.0000", "1"]


def test_a_missing_class_file_is_named_and_fails_the_job(voc, small, tmp_path):
    (small.results / "comp4_det_test_dog.txt").unlink()
    done = run("voc_eval", *voc, "--json", tmp_path / "scores.json")
    assert done.returncode == 1
    assert "over 1 of 3 classes" in done.stdout
    assert "dog         -       2          0      absent" in done.stdout
    assert f"result files that do not exist: 1, the first {small.results / 'comp4_det_test_dog.txt'}" in done.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["mAP"] is None


def test_images_are_drawn(voc, small, tmp_path):
    folder = small.devkit / "VOC2007" / "JPEGImages"
    done = run("voc_eval", *voc, "--plots", tmp_path / "plots")
    assert done.returncode == 0
    assert f"contact_sheet.png left out: no images in {folder}" in done.stderr
    (tmp_path / "elsewhere").mkdir()
    for name in ("one", "two"):
        cv2.imwrite(str(tmp_path / "elsewhere" / f"{name}.png"), np.full((80, 100, 3), 128, np.uint8))
    done = run("voc_eval", *voc, "--plots", tmp_path / "plots", "--images", tmp_path / "elsewhere")
    assert done.returncode == 0
    for name in ("precision_recall", "ap", "contact_sheet"):
        image = cv2.imread(str(tmp_path / "plots" / f"{name}.png"))
        assert min(image.shape[:2]) > 300
        assert image[0, 0].tolist() == [255, 255, 255]


def test_images_are_drawn_of_next_to_nothing(voc, small, tmp_path):
    for name in ("cat", "bird"):
        (small.results / f"comp4_det_test_{name}.txt").write_text("")
    (small.results / "comp4_det_test_dog.txt").unlink()
    assert run("voc_eval", *voc, "--plots", tmp_path / "plots").returncode == 1
    assert (tmp_path / "plots" / "ap.png").stat().st_size > 1000


def test_padilla_files_are_written_and_score_the_same(voc, small, tmp_path):
    first = run("voc_eval", *voc, "--to-padilla", tmp_path / "padilla")
    again = run("voc_eval", "--results", tmp_path / "padilla", *voc[2:], "--padilla")
    assert (first.returncode, again.returncode) == (0, 0)
    assert again.stdout == first.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--results", "nowhere"], 2, "--devkit"),
        (["--results", "nowhere", "--devkit", "nowhere"], 1, "no such folder"),
        (["--results", "nowhere", "--data", "nowhere.data"], 1, "nowhere.data"),
        (["--results", "nowhere", "--devkit", "nowhere", "--iou", "50"], 1, "-iou is 50; expected 0 to 1"),
        (["--results", "nowhere", "--devkit", "nowhere", "--metric", "coco"], 2, "--metric"),
    ],
)
def test_a_wrong_command_gets_one_line(arguments, code, word):
    done = run("voc_eval", *arguments)
    assert done.returncode == code
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


def test_coco_eval(tmp_path):
    pytest.importorskip("faster_coco_eval", reason="needs the extra coco: pip install 'darknet_compat[coco]'")
    from tests.evaluate.test_coco import made_set

    truth, results = made_set(0)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    flags = ["--results", tmp_path / "results.json", "--annotations", tmp_path / "truth.json"]
    done = run("coco_eval", *flags, "--json", tmp_path / "scores.json")
    assert (done.returncode, done.stderr) == (0, "")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert done.stdout.splitlines()[0].split()[:2] == ["AP", f"{scores['AP']:.4f}"]
    assert run(*flags, script="coco_eval.py").stdout == done.stdout
    (tmp_path / "results.json").write_text("[")
    done = run("coco_eval", *flags)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_scoring_loads_neither_torch_nor_opencv_nor_matplotlib(voc):
    code = (
        "import sys; from darknet_compat.cli import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'cv2', 'matplotlib'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "voc_eval", *map(str, voc)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0
    assert done.stderr.endswith("\n[]\n")


NETWORK = ["cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights"]


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """The images that cfg/shapes.data names, in a folder of their own, under names that are not Darknet's."""
    folder = tmp_path / "data" / "made" / "shapes"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    names = ["x_jpg.rf.0a1b.jpg", "my photo 1.jpg", "plain.jpg", os.fsdecode(b"caf\xe9.jpg")]
    for name in names:
        shutil.copy(ROOT / "data" / "shapes-sample.jpg", folder / "images" / name)
        (folder / "labels" / name).with_suffix(".txt").write_text("3 .5 .5 .2 .2\n")
    (folder / "2007_test.txt").write_bytes(b"".join(os.fsencode(f"data/made/shapes/images/{name}\n") for name in names))
    monkeypatch.chdir(tmp_path)
    return folder


def test_what_valid_writes_is_scored_whatever_the_images_are_called(shapes, capsys):
    """From another folder, where cfg/, data/*.names and weights/ are the stock ones, for all verbs alike."""
    assert main(["detector", "valid", *NETWORK]) == 0
    capsys.readouterr()
    flags = ["--results", "runs/quickstart/results", "--data", "cfg/shapes.data"]
    assert main(["voc_eval", *flags, "--json", "scores.json"]) == 0
    printed = capsys.readouterr()
    assert "over 1 of 6 classes" in printed.out
    assert printed.err == ""
    lines = Path("runs/quickstart/results/comp4_det_test_square.txt").read_bytes().splitlines()
    assert {line.rsplit(None, 5)[0] for line in lines} == {b"x_jpg", b"my photo 1", b"plain", b"caf\xe9"}
    assert json.loads(Path("scores.json").read_text())["classes"]["square"]["detections"] == len(lines)
    compared = run_verb("compare_results", *[flags[1]] * 2, *flags[2:], cwd=shapes.parents[2])
    assert (compared.returncode, compared.stderr) == (0, "")
    assert "only in A: 0 of" in compared.stdout


@pytest.mark.parametrize("verb", ["valid", "valid2"])
def test_two_images_of_one_id_are_refused_before_the_first_is_looked_at(shapes, capsys, verb):
    (shapes / "2007_test.txt").write_text("images/x.1.jpg\nimages/x.2.jpg\n")
    assert main(["detector", verb, *NETWORK]) == 1
    assert capsys.readouterr().err.splitlines(keepends=True)[1:] == [
        "darknet-compat: data/made/shapes/2007_test.txt: images/x.2.jpg has the image id 'x', as images/x.1.jpg has, "
        "and result files name images by that alone; rename one, or take it out of the list\n"
    ]
    assert not Path("runs").exists()


def test_two_images_of_one_coco_number_are_warned_of(shapes, capsys):
    text = (ROOT / "cfg" / "shapes.data").read_text().replace("eval = voc", "eval = coco")
    Path("coco.data").write_text(text)
    assert main(["detector", "valid", "coco.data", *NETWORK[1:]]) == 1  # for its 6 classes
    warned = "warning: data/made/shapes/2007_test.txt: images share an image id, the number in the name of a COCO"
    assert capsys.readouterr().err.splitlines()[1].startswith(warned)


@pytest.mark.parametrize("verb", ["map", "recall", "voc_eval"])
def test_boxes_in_pixels_are_refused_and_missing_label_files_warned_of(shapes, capsys, verb):
    if verb == "voc_eval":
        for name in (ROOT / "data" / "shapes.names").read_text().split():
            Path(f"comp4_det_test_{name}.txt").touch()
        words = ["voc_eval", "--results", ".", "--data", "cfg/shapes.data"]
    else:
        words = ["detector", verb, *NETWORK]
    label = shapes / "labels" / "plain.txt"
    label.write_text("3 .5 .5 .2 .2\n3 60 60 20 20\n")
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "plain.txt:2: a box outside of 0..1; x, y, w, h are parts of the image's width" in printed.err
    assert printed.out == ""
    label.unlink()
    assert main(words) == 0
    assert "plain.txt: no such label file; 1 of 4 images have none" in capsys.readouterr().err


def test_names_beside_a_data_file(shapes, capsys):
    """Those of the .data file are as many as its classes; -names are taken as they are."""
    text = (ROOT / "cfg" / "shapes.data").read_text()
    Path("my.names").write_text("a\nb\nc\nd\n")
    Path("my.data").write_text(text.replace("data/shapes.names", "my.names"))
    for name in "abcd":
        Path(f"comp4_det_test_{name}.txt").touch()
    assert main(["voc_eval", "--results", ".", "--data", "my.data"]) == 1
    assert "names = my.names: 4 names; expected 6, the classes= of my.data" in capsys.readouterr().err
    assert main(["voc_eval", "--results", ".", "--data", "cfg/shapes.data", "--names", "my.names"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:5]] == list("abcd")


def test_difficult_objects_of_map(shapes, capsys):
    """AlexeyAB's difficult= takes what meets them out of the AP."""
    counts = []
    (shapes / "labels" / "hard.txt").write_text("0 .148 .207 .246 .26\n")  # the disc, by eye
    Path("hard.txt").write_text("data/made/shapes/images/hard.jpg\n" * 4)
    for line in ("", "difficult = hard.txt\n"):
        Path("my.data").write_text((ROOT / "cfg" / "shapes.data").read_text() + line)
        assert main(["detector", "map", "my.data", *NETWORK[1:]]) == 0
        counts.append(int(re.search(r"detections_count = (\d+)", capsys.readouterr().out)[1]))
    assert counts[1] < counts[0]


@pytest.mark.parametrize("words", [["detector", "map"], ["voc_eval", "--results", ".", "--data"]])
def test_a_list_of_difficult_objects_belongs_to_the_valid_list_line_by_line(shapes, capsys, words):
    Path("hard.txt").write_text("data/made/shapes/images/plain.jpg\n")
    Path("my.data").write_text((ROOT / "cfg" / "shapes.data").read_text() + "difficult = hard.txt\n")
    assert main([*words, "my.data", *(NETWORK[1:] if words[0] == "detector" else [])]) == 1
    assert "difficult = hard.txt: 1 lines in it; expected 4, as in the valid list" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["test", "valid", "map", "recall"])
def test_names_of_another_network_are_refused(shapes, capsys, verb):
    """More names than classes would print a person for a square; fewer have always been refused."""
    text = (ROOT / "cfg" / "shapes.data").read_text().replace("data/shapes.names", "data/coco.names")
    Path("my.data").write_text(text)
    images = ["data/made/shapes/images/plain.jpg"] if verb == "test" else []
    assert main(["detector", verb, "my.data", *NETWORK[1:], *images]) == 1
    assert "my.data:5: names = data/coco.names: 80 names; expected 6, the classes= of " in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "letter_box"), [((), True), (("-letter_box", "0"), False)])
def test_map_letterboxes_unless_told(shapes, monkeypatch, flags, letter_box):
    asked, real = [], detector.detect_files

    def spy(*arguments, **options):
        asked.append(options["letter_box"])
        return real(*arguments, **options)

    monkeypatch.setattr(detector, "detect_files", spy)
    assert main(["detector", "map", *NETWORK, *flags]) == 0
    assert asked == [letter_box]
