"""The verbs as they are typed: output, JSON, pictures, exit codes, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

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


def test_a_missing_class_file_is_named_and_fails_the_job(voc, small, tmp_path):
    (small.results / "comp4_det_test_dog.txt").unlink()
    done = run("voc_eval", *voc, "--json", tmp_path / "scores.json")
    assert done.returncode == 1
    assert "over 1 of 3 classes" in done.stdout
    assert "dog         -       2          0      absent" in done.stdout
    assert f"result files that do not exist: 1, the first {small.results / 'comp4_det_test_dog.txt'}" in done.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["mAP"] is None


def test_pictures_are_drawn(voc, small, tmp_path):
    folder = small.devkit / "VOC2007" / "JPEGImages"
    done = run("voc_eval", *voc, "--plots", tmp_path / "plots")
    assert done.returncode == 0
    assert f"contact_sheet.png left out: no pictures in {folder}" in done.stderr
    (tmp_path / "elsewhere").mkdir()
    for name in ("one", "two"):
        cv2.imwrite(str(tmp_path / "elsewhere" / f"{name}.png"), np.full((80, 100, 3), 128, np.uint8))
    done = run("voc_eval", *voc, "--plots", tmp_path / "plots", "--pictures", tmp_path / "elsewhere")
    assert done.returncode == 0
    for name in ("precision_recall", "ap", "contact_sheet"):
        picture = cv2.imread(str(tmp_path / "plots" / f"{name}.png"))
        assert min(picture.shape[:2]) > 300
        assert picture[0, 0].tolist() == [255, 255, 255]


def test_pictures_are_drawn_of_next_to_nothing(voc, small, tmp_path):
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
