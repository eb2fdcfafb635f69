"""Every mistake of docs/train-your-own.md's table, made on purpose: what `check`, `train` and the others say of it.

What `check` finds besides stands in tests/test_check.py.
"""

from __future__ import annotations

import os
import re

import cv2
import numpy as np
import pytest

from darknet_compat.cli import main
from darknet_compat.weights import load_network, save_weights
from tests.conftest import ROOT
from tests.test_check import DataSet, change_cfg

ROWS = dict(
    line.strip("| \n").split(" | ", 1)
    for line in (ROOT / "docs/train-your-own.md").read_text().split("## Usual mistakes")[1].splitlines()
    if line.startswith("| ") and not line.startswith("| mistake")
)


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    made = DataSet(tmp_path, monkeypatch)
    made.check()  # writes the lists
    change_cfg(made, "max_batches=10", "max_batches=1")
    save_weights(load_network("my.cfg"), "my.weights")
    return made


def said(capsys, *words):
    code = main([str(word) for word in words])
    found = capsys.readouterr()
    return code, found.out + found.err


TRAIN = "detector", "train", "my.data", "my.cfg", "-device", "cpu", "-seed", "1", "-workers", "0"


def relative(data_set):
    os.mkdir("elsewhere")
    for name in ("train.txt", "valid.txt"):
        path = data_set.root / name
        path.write_text(path.read_text().replace("images/", "../images/"))


def pixels(data_set):
    for path in data_set.train:
        data_set.label(path, "0 40 30 16 15")


def corners(data_set):
    for path in data_set.train:
        data_set.label(path, "0 .5 .5 .8 .8", "1 .6 .3 .9 .5")


def one_name(data_set):
    for name in ("images/v03.a.jpg", "images/v03.b.jpg"):
        cv2.imwrite(name, np.full((60, 80, 3), 7, np.uint8))
        data_set.label(name, "0 .5 .5 .4 .5")
        data_set.valid.append(name)
    data_set.check()


def other_names(data_set):
    (data_set.root / "my.names").write_text("ant\nbee\ncat\n")
    change = data_set.root / "my.data"
    change.write_text(change.read_text().replace("classes=2\n", ""))


def from_1(data_set):
    for path in data_set.train:
        data_set.label(path, "1 .5 .5 .4 .5", "2 .3 .4 .3 .5")


def from_1_and_a_class_too_many(data_set):
    from_1(data_set)
    (data_set.root / "my.names").write_text("ant\nbee\ncat\n")
    change = data_set.root / "my.data"
    change.write_text(change.read_text().replace("classes=2", "classes=3"))
    change_cfg(data_set, "classes=2", "classes=3")
    change_cfg(data_set, "filters=14", "filters=16")


def stock_batch(data_set):
    change_cfg(data_set, "batch=8", "batch=1")


def tiny(data_set):
    for path in data_set.train:
        data_set.label(path, "0 .5 .5 .01 .01", "1 .3 .4 .01 .01")


def tested(data_set):
    data_set.valid += data_set.train
    data_set.check()


def other_anchors(data_set):
    change_cfg(data_set, "2.1,2, 1.6,2", "17,16, 13,16")


CHECK = "check", "my.data", "-cfg", "my.cfg"
WEIGHTS = "my.data", "my.cfg", "my.weights"


@pytest.mark.parametrize(
    ("row", "make", "words", "code", "what"),
    [
        ("paths in the list files", relative, CHECK, 1, "70 of 70 images are not there, ../images/t00.jpg for one"),
        ("paths in the list files", relative, TRAIN, 1, "no such image"),
        ("labels in pixels", pixels, CHECK, 1, "bad label lines|labels/t00.txt:1"),
        ("labels in pixels", pixels, TRAIN, 1, "labels/t00.txt:1"),
        ("labels as corners", corners, CHECK, 1, "100% of the boxes would be corners"),
        ("two images of one name", one_name, CHECK, 1, "has the image id 'v03'"),
        ("two images of one name", one_name, ("detector", "valid", *WEIGHTS), 1, "has the image id 'v03'"),
        ("a names file of another", other_names, CHECK, 1, "3 names; expected 2"),
        ("a names file of another", other_names, ("detector", "valid", *WEIGHTS), 1, "3 names; expected 2"),
        ("a names file of another", other_names, ("detector", "map", *WEIGHTS), 1, "3 names; expected 2"),
        ("a names file of another", other_names, (*TRAIN, "-map"), 1, "3 names; expected 2"),
        ("a names file of another", other_names, ("detector", "test", *WEIGHTS, "images/v00.jpg"), 1, "3 names"),
        ("a names file of another", other_names, TRAIN, 0, ""),
        ("classes counted from 1", from_1, CHECK, 1, "class 2, expected one of 0..1"),
        ("classes counted from 1", from_1, TRAIN, 1, "class 2, expected one of 0..1"),
        ("classes counted from 1", from_1_and_a_class_too_many, CHECK, 0, "train: no object of ant"),
        ("classes counted from 1", from_1_and_a_class_too_many, TRAIN, 0, ""),
        ("`batch=1`", stock_batch, CHECK, 0, "warning: my.cfg:2: batch=1: one image per update"),
        ("`batch=1`", stock_batch, TRAIN, 0, "warning: my.cfg:2: batch=1: one image per update"),
        ("objects of 10 pixels", tiny, CHECK, 0, "of the objects have a side under 8 pixels"),
        ("tested on training images", tested, CHECK, 1, "60 images are trained on and scored on"),
        ("anchors of other boxes", other_anchors, CHECK, 0, "the anchors' average IOU with the boxes is 2%"),
    ],
)  # fmt: skip
def test_each_is_said(data_set, capsys, row, make, words, code, what):
    assert sum(name.startswith(row) for name in ROWS) == 1
    assert said(capsys, *CHECK)[0] == 0
    make(data_set)
    done, text = said(capsys, *words)
    assert done == code, text
    assert re.search(what, text) if "|" in what else what in text
    assert "Traceback" not in text
    if code and words != CHECK:
        assert len([line for line in text.splitlines() if "darknet-compat: " in line]) == 1


def test_a_threshold_too_high_hides_what_there_is(data_set, capsys):
    assert any(name.startswith("`-thresh` too high") for name in ROWS)
    code, text = said(capsys, "detector", "test", *WEIGHTS, "images/v00.jpg", "-thresh", "1")
    assert code == 0
    assert "ant" not in text
    code, text = said(capsys, "detector", "map", *WEIGHTS)
    assert "ant" in text
    assert code == 0


def test_every_row_is_made_here():
    here = [row for row in ROWS if any(row.startswith(start) for start in STARTS)]
    assert here == list(ROWS)


STARTS = (
    "paths in the list files", "labels in pixels", "labels as corners", "two images of one name",
    "a names file of another", "classes counted from 1", "`batch=1`", "objects of 10 pixels",
    "tested on training images", "anchors of other boxes", "`-thresh` too high",
)  # fmt: skip
