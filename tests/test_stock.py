"""What comes with the project is found from any folder, and works."""

from __future__ import annotations

import pytest

from darknet_compat import load_network, stock
from darknet_compat.cfg import read_cfg, read_data
from darknet_compat.classify.labels import match_labels, read_classes, read_labels, read_top
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


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("cifar-small", 24_570), ("cifar-resnet", 1_648_362), ("cifar-white", 1_975_970), ("cifar-bccd", 829_434)],
)
def test_cifars_networks_have_the_classes_of_its_data(tmp_path, monkeypatch, name, numbers):
    monkeypatch.chdir(tmp_path)
    data = read_data(find_stock("cfg/cifar.data"))
    network = load_network(find_stock(f"cfg/{name}.cfg"))
    assert network.layers[-1].output.outputs == read_classes(data) == len(set(read_labels(data))) == 10
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == numbers
    assert read_top(data) == 2


def test_a_classifier_of_cifar_has_the_layers_that_a_detector_starts_with():
    for first, second, layers in (
        ("cifar-bccd", "yolov2-bccd", 13), ("resnet18-cifar", "resnet18-yolov2-bccd", 35),
        ("resnet18-cifar", "resnet18-yolov1-bccd", 35),
    ):  # fmt: skip
        classifier, detector = (read_cfg(ROOT / f"cfg/{name}.cfg").meaning()[1:] for name in (first, second))
        assert classifier[:layers] == detector[:layers]
        assert (classifier[layers], detector[layers][0]) != (detector[layers], classifier[layers][0])


def test_cifars_labels_stand_once_in_each_path(tmp_path, monkeypatch):
    """As folders, and as pjreddie's archive of CIFAR-10 names its images."""
    monkeypatch.chdir(tmp_path)
    labels = read_labels(read_data(find_stock("cfg/cifar.data")))
    for path in ("data/cifar/train/{}/0001.jpg", "data/cifar/train/0_{}.png"):
        found = match_labels([path.format(label) for label in labels], labels)
        assert [found[index].tolist() for index in range(len(labels))] == [[index] for index in range(len(labels))]


def test_the_sample_weights_detect_at_once_from_an_empty_folder(tmp_path):
    result = run(
        "detector", "test", "cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights",
        "data/shapes-sample.jpg", "-engine", "torch", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = {line.split(":")[0] for line in result.stdout.splitlines()[1:]}
    assert found == {"square", "disc"}
    assert (tmp_path / "predictions.jpg").is_file()
