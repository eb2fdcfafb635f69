from __future__ import annotations

import json
import re
import shutil

from darknet_compat.cfg import read_cfg, read_names
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.cli.test_main import run
from tests.compare import randomise
from tests.conftest import ROOT, SHAPES
from tests.detect.test_detections import reference_detections


def test_one_picture_prints_darknets_lines(darknet, darknet_share, detector, tmp_path):
    picture = darknet_share / "data/dog.jpg"
    _, probs = reference_detections(darknet, *detector, picture, 0.2)
    stem = "shapes" if detector == SHAPES else "voc"
    data = f"cfg/{stem}.data"
    result = run("detector", "test", data, *detector, picture, "-thresh", ".2", "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"(11 layers \(0-16\)|7 layers \(0-11\)) got numbers", result.stderr)
    names = read_names(ROOT / f"data/{stem}.names")
    expected = [f"{names[index]}: {prob[index] * 100:.0f}%" for prob in probs for index in prob.nonzero()[0]]
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{picture}: Predicted in ")
    assert lines[1:] == expected
    assert (tmp_path / "predictions.jpg").stat().st_size > 10_000


def test_many_pictures_write_one_json(darknet_share, tmp_path):
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
    pictures = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [picture["picture"].rsplit("/", 1)[1] for picture in pictures] == [
        "dog.jpg", "eagle.jpg", "horses.jpg", "person.jpg"
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "drawn here").iterdir()) == [
        "dog.jpg", "eagle.jpg", "horses.jpg", "person.jpg"
    ]  # fmt: skip
    assert "4 pictures" in result.stdout


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
    (tmp_path / "text.jpg").write_text("no picture")
    for arguments, found in (
        (("cfg/shapes.data", cfg, short, dog), "ends inside layer"),
        (("cfg/shapes.data", cfg, weights, "empty"), "no picture in this folder"),
        (("cfg/shapes.data", cfg, weights, "text.jpg"), "text.jpg"),
        (("bad.data", cfg, weights, dog), "none.names"),
        (("few.data", cfg, weights, dog), "gives 2 names; expected 6"),
        (("cfg/voc.data", "cfg/darknet19.cfg", weights, dog), "the file ends inside layer"),
        (("cfg/voc.data", *classifier, dog), "the network ends in [softmax]"),
    ):
        result = run("detector", "test", *arguments, cwd=tmp_path)
        assert result.returncode == 1, arguments
        assert found in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "predictions.jpg").exists()
