"""Each program's own rule for label files reaches every job that reads them."""

from __future__ import annotations

import shutil

import pytest

from darknet_compat import calc_anchors, load_detector, mean_average_precision, recall, validate, voc_eval
from darknet_compat.cli import main
from darknet_compat.train import detector as train_detector
from darknet_compat.train.detector import DetectorTraining
from tests.conftest import ROOT

CFG, WEIGHTS = ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights"
OBJECTS = {"pjreddie": 3, "alexeyab": 1}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An image with three objects in labels/ and one beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "data/shapes-sample.jpg", "images/a.jpg")
    lines = ["0 .2 .2 .2 .2\n", "1 .5 .5 .3 .3\n", "2 .7 .7 .2 .3\n"]
    (tmp_path / "labels/a.txt").write_text("".join(lines))
    (tmp_path / "images/a.txt").write_text(lines[0])
    (tmp_path / "list.txt").write_text("images/a.jpg\n")
    (tmp_path / "a.data").write_text(
        f"classes=6\ntrain=list.txt\nvalid=list.txt\ndifficult=list.txt\nnames={ROOT}/data/shapes.names\nbackup=backup\n"
        "results=results\n"
    )
    return tmp_path / "a.data"


@pytest.mark.parametrize("program", OBJECTS)
def test_every_job_reads_the_label_files_of_its_program(data, program, monkeypatch):
    count = OBJECTS[program]
    detector = load_detector(data, CFG, WEIGHTS, program=program, device="cpu")
    assert mean_average_precision(detector).truths == count
    assert recall(detector).total.tolist() == [count]
    validate(detector)
    # The valid list once more, as difficult ones.
    assert len(voc_eval("results", data=data, program=program).truths.box) == 2 * count
    assert len(calc_anchors(data, num_of_clusters=1, program=program).boxes) == count
    scored, read = [], train_detector.read_label_files
    monkeypatch.setattr(train_detector, "read_label_files", lambda *words: scored.append(read(*words)) or scored[-1])
    made = DetectorTraining(data, CFG, WEIGHTS, program=program, device="cpu", map_every=1, clear=True)
    assert len(made.images.labels.objects) == count
    assert [len(found.box) for found in scored] == [count]


@pytest.mark.parametrize("program", [None, *OBJECTS])
def test_verbs_that_see_no_cfg_take_the_program(data, program, capsys):
    flags = [] if program is None else ["-program", program]
    count = OBJECTS[program or "pjreddie"]
    assert main(["detector", "calc_anchors", str(data), "-num_of_clusters", "1", *flags]) == 0
    assert capsys.readouterr().out.startswith(f"{count} boxes in 1 images")
    validate(load_detector(data, CFG, WEIGHTS, device="cpu"))
    main(["voc_eval", "--results", "results", "--data", str(data), *flags])
    told = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("disc", "ring", "triangle"))
    ]
    assert sum(int(words[2]) for words in told) == count
    assert sum(int(words[3]) for words in told) == count
