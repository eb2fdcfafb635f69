"""What comes with the project is found from any folder, and works."""

from __future__ import annotations

from darknet_compat import stock
from darknet_compat.stock import find_stock, stock_files
from tests.cli.test_main import run
from tests.conftest import ROOT


def test_a_file_of_the_project_is_found_by_its_place_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_stock("cfg/tiny.cfg") == str(ROOT / "cfg/tiny.cfg")
    assert find_stock("cfg/none.cfg") == "cfg/none.cfg"
    assert find_stock("tiny.cfg") == "tiny.cfg"
    assert find_stock("tools/quickstart.py") == "tools/quickstart.py"


def test_ones_own_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg/tiny.cfg").write_text("")
    assert find_stock("cfg/tiny.cfg") == "cfg/tiny.cfg"


def test_what_cannot_come_along_is_debians(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stock, "DEBIAN", tmp_path / "debian")
    (tmp_path / "debian/cfg").mkdir(parents=True)
    for name in ("tiny.cfg", "imagenet1k.data"):
        (tmp_path / "debian/cfg" / name).write_text("")
    assert find_stock("cfg/imagenet1k.data") == str(tmp_path / "debian/cfg/imagenet1k.data")
    assert find_stock("cfg/tiny.cfg") == str(ROOT / "cfg/tiny.cfg")


def test_all_cfgs_are_there():
    assert {path.stem for path in stock_files("cfg", ".cfg")} >= {"yolov2-voc", "yolov2-shapes", "darknet19"}


def test_the_sample_weights_detect_at_once_from_an_empty_folder(tmp_path):
    result = run(
        "detector", "test", "cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights",
        "data/shapes-sample.jpg", "-engine", "torch", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = {line.split(":")[0] for line in result.stdout.splitlines()[1:]}
    assert found == {"square", "triangle", "disc"}
    assert (tmp_path / "predictions.jpg").is_file()
