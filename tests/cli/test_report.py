"""The verbs ``report`` and ``compare`` as they are typed."""

from __future__ import annotations

import json

import pytest

from darknet_compat.cli import main


@pytest.fixture
def person(trainings, monkeypatch):
    monkeypatch.chdir(trainings)
    return trainings


def test_report_hands_on_every_flag(person, tmp_path, capsys):
    beside = tmp_path / "theirs.json"
    beside.write_text(json.dumps({"mAP": 0.5, "classes": {"disc": {"ap": 0.5}}}))
    words = ["report", "runs/region", "-out", tmp_path / "page", "-weights", "runs/region/region_final.weights",
             "-devkit", "shapes/VOCdevkit", "-year", "2007", "-image-set", "test", "-metric", "area", "-thresh", ".01",
             "-images", "2", "-beside", beside, "-batch", "3", "-device", "cpu"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(" mAP, area under the curve")
    assert said[1] == "0.5000 mAP, theirs"
    assert said[-1] == f"open {tmp_path}/page/index.html"
    page = (tmp_path / "page/index.html").read_text()
    for shown in ("-devkit shapes/VOCdevkit", "-batch 3", "-thresh 0.01", "-metric area"):
        assert shown in page
    assert len(list((tmp_path / "page/pairs").iterdir())) == 4


@pytest.mark.parametrize("flags", [["-year", "1999"], ["-image-set", "none"]])
def test_the_devkits_year_and_set_count(person, tmp_path, capsys, flags):
    words = ["report", "runs/region", "-out", str(tmp_path / "page"), "-devkit", "shapes/VOCdevkit", *flags]
    assert main(words) == 1
    assert flags[1] in capsys.readouterr().err


def test_compare(person, tmp_path, capsys):
    assert main(["compare", "runs/region", "runs/yolo", "-out", str(tmp_path / "both.html")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["runs/region", "runs/yolo"]
    assert said[-1] == f"open {tmp_path}/both.html"
    assert any(line.split() == ["program", "pjreddie", "alexeyab"] for line in said)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["report", "none"], "none: no such folder"),
        (["report", "runs"], "no *.run.json in it"),
        (["report", "runs/region", "-weights", "none"], "none"),
        (["report", "runs/region", "-out", "train.txt"], "train.txt"),
        (["compare", "runs/region"], "a single run"),
        (["compare", "runs/region", "runs/yolo", "-out", "."], ".: expected a file that ends in .html"),
    ],
)
def test_errors_are_one_line(person, capsys, words, what):
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert what in said
    assert "this should not happen" not in said
