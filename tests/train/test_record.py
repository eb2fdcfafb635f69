"""The record of a training: what it was, and only that, comes back."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import pytest

from darknet_compat.errors import TrainingError
from darknet_compat.train.record import Record, read_record, write_record
from tests.trainings import REGION, run

RECORD = Record(
    family="detector", cfg="a.cfg", text="[net]\n# \udcff\n", data="a.data", labels="", folder="/somewhere",
    final="a_final.weights", last="a.backup", program="pjreddie", numerics="cudnn", seed=7, device="cpu",
    started="2026-01-02 03:04:05", commands=["darknet-compat detector train a.data a.cfg"],
)  # fmt: skip


def test_what_was_written_comes_back(tmp_path):
    write_record(tmp_path / "a.run.json", RECORD)
    assert read_record(tmp_path / "a.run.json") == RECORD


def test_a_folder_that_takes_none_is_one_line(tmp_path):
    with pytest.raises(TrainingError, match=r"none/a\.run\.json: cannot be written: No such file or directory$"):
        write_record(tmp_path / "none/a.run.json", RECORD)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda read: [read], "expected the record of a training"),
        (lambda read: {**read, "more": 1}, "expected the record of a training"),
        (lambda read: {key: value for key, value in read.items() if key != "seed"}, "expected the record"),
        (lambda read: {**read, "seed": "7"}, "`seed` is '7'"),
        (lambda read: {**read, "seed": True}, "`seed` is 'True'"),
        (lambda read: {**read, "cfg": None}, "`cfg` is 'None'"),
        (lambda read: {**read, "commands": []}, "`commands` is empty"),
        (lambda read: {**read, "commands": [1]}, "`commands` is"),
        (lambda read: {**read, "versions": {"torch": 2}}, "`versions` is"),
        (lambda read: {**read, "family": "segmenter"}, "`family` is 'segmenter'"),
        (lambda read: {**read, "labels": "guess"}, "`labels` is 'guess'"),
        (lambda read: {**read, "program": "theirs"}, "`program` is 'theirs'"),
        (lambda read: {**read, "numerics": "fine"}, "`numerics` is 'fine'"),
        (lambda read: {**read, "data": "a\0b"}, r"`data` is 'a\x00b'"),
    ],
)
def test_anything_else_is_an_error_of_one_line(tmp_path, change, what):
    path = tmp_path / "a.run.json"
    path.write_text(json.dumps(change(dataclasses.asdict(RECORD))))
    with pytest.raises(TrainingError, match=f"a.run.json: .*{re.escape(what)}") as raised:
        read_record(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("data", "what"), [(b"{", "no JSON"), (b"[" * 10**5, "no JSON"), (b"\xff\xfe", "no JSON")])
def test_no_json(tmp_path, data, what):
    (tmp_path / "a.run.json").write_bytes(data)
    with pytest.raises(TrainingError, match=what):
        read_record(tmp_path / "a.run.json")
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_record(tmp_path / "none.run.json")


def test_a_training_writes_it_and_adds_what_goes_on_with_it(trainings, tmp_path):
    """The cfg is the one of the last command: its schedule may be another."""
    (tmp_path / "region.cfg").write_text(REGION)
    words = ["detector", "train", "shapes.data", tmp_path / "region.cfg", "-backup", tmp_path / "own"]
    run(trainings, *words, "-seed", "5", "-snapshot", "1", "-workers", "0")
    first = read_record(tmp_path / "own/region.run.json")
    assert (first.family, first.data, first.seed, first.device) == ("detector", "shapes.data", 5, "cpu")
    assert (first.folder, first.program, first.numerics) == (os.path.realpath(trainings), "pjreddie", "cudnn")
    assert (first.final, first.last, first.labels) == ("region_final.weights", "region.backup", "")
    assert first.text == REGION
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", first.started)
    assert first.commands == [
        f"darknet-compat detector train shapes.data {tmp_path}/region.cfg -seed 5 -workers 0 -backup {tmp_path}/own "
        "-snapshot 1"
    ]
    (tmp_path / "region.cfg").write_text(REGION.replace("max_batches=2", "max_batches=3"))
    run(trainings, *words, "-resume", "-workers", "0")
    then = read_record(tmp_path / "own/region.run.json")
    assert "max_batches=3" in then.text
    assert then.seed == 5
    went_on = f"shapes.data {tmp_path}/region.cfg -resume -workers 0 -backup {tmp_path}/own"
    assert then.commands == [*first.commands, f"darknet-compat detector train {went_on}"]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == [
        "region.backup", "region.backup.state", "region.csv", "region.log", "region.png", "region.run.json",
        "region_final.weights",
    ]  # fmt: skip
    (tmp_path / "own/region.run.json").write_text("{")
    (tmp_path / "region.cfg").write_text(REGION.replace("max_batches=2", "max_batches=4"))
    run(trainings, *words, "-resume", "-workers", "0")  # a damaged record stops no training
    assert len(read_record(tmp_path / "own/region.run.json").commands) == 1
    run(trainings, *words, "-seed", "6", "-workers", "0")  # anew
    assert len(read_record(tmp_path / "own/region.run.json").commands) == 1


def test_other_families(trainings):
    classes, yolo = (read_record(trainings / f"runs/{name}/{name}.run.json") for name in ("classes", "yolo"))
    assert (classes.family, classes.labels, classes.final) == ("classifier", "path", "classes.weights")
    assert (yolo.program, yolo.final, yolo.last) == ("alexeyab", "yolo_final.weights", "yolo_last.weights")
