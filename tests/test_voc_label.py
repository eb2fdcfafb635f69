"""voc_label as a person runs it; its files are compared with Darknet's in tests/test_labels.py."""

from __future__ import annotations

import shutil

import pytest

from darknet_compat.labels import read_labels
from tests.test_labels import random_devkit, xml
from tests.tools.run import one_line, run_verb


@pytest.fixture
def devkit(tmp_path):
    root = tmp_path / "with blank é"
    root.mkdir()
    random_devkit(root, ["cat", "dog"])
    return root / "VOCdevkit"


def test_all_sets(devkit):
    result = run_verb("voc_label", devkit)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("60 images, ")
    assert "difficult objects (--keep-difficult keeps them)" in lines[1]
    assert lines[2].startswith("left out, their class is not in the names: ")
    assert lines[2].endswith(" hat")
    assert len((devkit.parent / "train.txt").read_text().splitlines()) == 48
    assert len((devkit.parent / "2007_test.txt").read_text().splitlines()) == 12


def test_keep_difficult(devkit):
    def count():
        return sum(len(read_labels(path)) for path in devkit.glob("*/labels/*.txt"))

    run_verb("voc_label", devkit)
    without = count()
    assert "left out: " not in run_verb("voc_label", devkit, "--keep-difficult").stdout.splitlines()[1][:14]
    assert count() > without


def test_one_folder_with_its_own_names(devkit, tmp_path):
    folder = tmp_path / "cells"
    shutil.copytree(devkit / "VOC2012", folder)
    (tmp_path / "cells.names").write_text("hat\n")
    result = run_verb(
        "voc_label", folder, "--sets", "train,val", "--names", tmp_path / "cells.names", "--out", tmp_path / "lists"
    )
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "lists" / "cells_val.txt").read_text().splitlines()) == 12
    assert sorted(path.name for path in tmp_path.rglob("cells*.txt")) == ["cells_train.txt", "cells_val.txt"]


def test_errors(devkit):
    assert "VOC1999/Annotations: no such folder" in one_line(run_verb("voc_label", devkit, "--sets", "1999:train"))
    assert "trainval.txt: no such file; sets there: test, train, val" in one_line(
        run_verb("voc_label", devkit, "--sets", "2007:trainval")
    )
    (devkit / "file").write_text("")
    assert "file: File exists; expected a folder to write to" in one_line(
        run_verb("voc_label", devkit, "--out", devkit / "file")
    )
    (devkit / "none.names").write_text("zebra\n")
    assert "no object has a class of" in one_line(run_verb("voc_label", devkit, "--names", devkit / "none.names"))
    (devkit / "VOC2007" / "Annotations" / "400003.xml").write_text(xml([("dog", 0, 9, 9, 8, 12)]))
    assert "400003.xml: object 1: <bndbox> is 9, 9, 8, 12" in one_line(run_verb("voc_label", devkit))
