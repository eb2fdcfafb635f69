from __future__ import annotations

import json
import shutil

import pytest

from darknet_compat.cfg import read_names
from tests.cli.test_main import run
from tests.detect.test_detections import reference_detections


@pytest.fixture
def trial3(shared):
    return shared / "yolo-lite/tiny-yolov2-trial3.cfg", shared / "yolo-lite/tiny-yolov2-trial3.weights"


def test_one_picture_prints_darknets_lines(darknet, darknet_share, trial3, tmp_path):
    picture = darknet_share / "data/dog.jpg"
    result = run(
        "detector", "test", "cfg/voc.data", *trial3, picture, "-thresh", ".2", "-numerics", "cpu", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "7 layers (0-11) got numbers" in result.stderr
    names = read_names(darknet_share / "data/voc.names")
    _, probs = reference_detections(darknet, *trial3, picture, 0.2)
    expected = [f"{names[index]}: {prob[index] * 100:.0f}%" for prob in probs for index in prob.nonzero()[0]]
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{picture}: Predicted in ")
    assert lines[1:] == expected
    assert (tmp_path / "predictions.jpg").stat().st_size > 10_000


def test_many_pictures_write_one_json(darknet_share, trial3, tmp_path):
    folder = tmp_path / "bilder mit ü"
    folder.mkdir()
    for name in ("dog", "eagle"):
        shutil.copy(darknet_share / f"data/{name}.jpg", folder)
    (tmp_path / "list.txt").write_text(f"{darknet_share}/data/horses.jpg\n")
    result = run(
        "detector", "test", "cfg/voc.data", *trial3, folder, "list.txt", f"{darknet_share}/data/pers*.jpg",
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


def test_errors_are_one_line(darknet_share, shared, trial3, tmp_path):
    cfg, weights = trial3
    tiny = shared / "tiny-imagenet/tiny"
    dog = darknet_share / "data/dog.jpg"
    short = tmp_path / "short.weights"
    short.write_bytes(weights.read_bytes()[:100_000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.data").write_text("classes=20\nnames=none.names\n")
    (tmp_path / "few.data").write_text("classes=20\nnames=few.names\n")
    (tmp_path / "few.names").write_text("a\nb\n")
    (tmp_path / "text.jpg").write_text("no picture")
    for arguments, found in (
        (("cfg/voc.data", cfg, short, dog), "ends inside layer"),
        (("cfg/voc.data", cfg, weights, "empty"), "no picture in this folder"),
        (("cfg/voc.data", cfg, weights, "text.jpg"), "text.jpg"),
        (("bad.data", cfg, weights, dog), "none.names"),
        (("few.data", cfg, weights, dog), "gives 2 names; expected 20"),
        (("cfg/voc.data", "cfg/darknet19.cfg", weights, dog), "the file ends inside layer"),
        (("cfg/voc.data", f"{tiny}.cfg", f"{tiny}.weights", dog), "the network ends in [cost]"),
    ):
        result = run("detector", "test", *arguments, cwd=tmp_path)
        assert result.returncode == 1, arguments
        assert found in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "predictions.jpg").exists()
