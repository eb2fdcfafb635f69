"""The stock files of Darknet: all are read, and ours mean the same."""

import pytest

from darknet_compat.cfg import format_cfg, parse_cfg, read_cfg, read_data, read_names
from tests.conftest import ROOT

OURS = [
    "alexnet",
    "darknet",
    "darknet19",
    "darknet19_448",
    "darknet53",
    "densenet201",
    "extraction",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "tiny",
    "vgg-16",
    "yolov1",
    "yolov1-tiny",
    "yolov2",
    "yolov2-tiny",
    "yolov2-tiny-voc",
    "yolov2-voc",
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
]
OURS_OF_ALEXEYAB = ["yolov4", "yolov4-csp", "yolov4-tiny", "yolov7-tiny"]
OWN = ["char-gru", "char-lstm", "char-rnn", "cifar-bccd", "cifar-resnet", "cifar-small", "cifar-white",
       "resnet18-cifar", "resnet18-yolov1", "resnet18-yolov1-bccd", "resnet18-yolov2-bccd", "resnet18-yolov2-voc",
       "yolov2-bccd", "yolov2-bccd-sgd", "yolov2-shapes", "yolov4-bccd", "yolov4-bccd-sgd", "yolov4-small"]  # fmt: skip


def test_all_stock_cfgs_parse(darknet_share):
    paths = sorted((darknet_share / "cfg").glob("*.cfg"))
    assert len(paths) >= 45
    for path in paths:
        cfg = read_cfg(path)
        lines = path.read_text().split("\n")
        for section in cfg.sections:
            assert lines[section.line - 1] == section.text
            for option in section.options:
                name, value = "".join(lines[option.line - 1].split()).split("=", 1)
                assert (name, value) == (option.name, option.value)
        count = sum(bool(line.strip()) and line.strip()[0] not in "#;" for line in lines)
        assert count == sum(1 + len(section.options) for section in cfg.sections)
        assert parse_cfg(format_cfg(cfg)).meaning() == cfg.meaning()


def test_all_stock_data_files_parse(darknet_share):
    paths = [*(darknet_share / "cfg").glob("*.data"), *(darknet_share / "cfg").glob("*.dataset")]
    assert len(paths) >= 7
    for path in paths:
        assert read_data(path).integer("classes") > 0


@pytest.mark.parametrize("name", OURS)
def test_our_cfg_means_the_same(name, darknet_share):
    ours, stock = ROOT / "cfg" / f"{name}.cfg", darknet_share / "cfg" / f"{name}.cfg"
    assert read_cfg(ours).meaning() == read_cfg(stock).meaning()


@pytest.mark.parametrize("name", OURS_OF_ALEXEYAB)
def test_our_cfg_means_the_same_as_alexeyabs(name, alexeyab):
    assert read_cfg(ROOT / "cfg" / f"{name}.cfg").meaning() == read_cfg(alexeyab / "cfg" / f"{name}.cfg").meaning()


def test_every_cfg_here_is_compared():
    assert sorted(path.stem for path in (ROOT / "cfg").glob("*.cfg")) == sorted(OURS + OURS_OF_ALEXEYAB + OWN)


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_our_names_are_the_same(name, darknet_share):
    assert read_names(ROOT / "data" / f"{name}.names") == read_names(darknet_share / "data" / f"{name}.names")
