"""What a training says ends no training: a full disk, a screen that nobody reads, a chart that cannot be drawn."""

from __future__ import annotations

import csv
import errno
import os
import sys
from types import SimpleNamespace

import pytest

from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.train.log import Hours, Lines, Log
from tests.train.nets import COLUMNS, small
from tests.train.test_loop import Training


class Full:
    """A file on a disk with so many bytes left: it takes what fits, and then no more."""

    def __init__(self, file, room):
        self.file = file
        self.room = room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_lines_are_whole_and_what_did_not_fit_comes_later(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one\n")
    lines = Lines(str(path), more=True)
    lines.file = Full(lines.file, 6)
    lines.add("two\n")
    for text in ("three\n", "four\n"):
        with pytest.raises(OSError, match="No space"):
            lines.add(text)
        assert path.read_text() == "one\ntwo\n"
    lines.file.room = 100
    lines.add("five\n")
    assert path.read_text() == "one\ntwo\nthree\nfour\nfive\n"


@pytest.mark.parametrize(("end", "room"), [(".csv", 200), (".csv", 0), (".log", 500)])
def test_a_full_disk_is_warned_of_once_and_the_training_goes_on(tmp_path, end, room):
    training = Training(tmp_path, "max_batches=6")
    lines = {".csv": training.log.table, ".log": training.log.text}[end]
    lines.file = full = Full(lines.file, room)
    update = training.trainer.update

    def later(*arguments):
        if training.trainer.updates == 4:
            full.room = 10**6
            # Until then there are whole lines alone.
            text = training.snapshots.path(end).read_text()
            assert text.endswith("\n")
            assert text.count("batch") <= 1
        return update(*arguments)

    training.trainer.update = later
    with pytest.warns(UserWarning, match=rf"net\{end}: No space left on device; training continues") as caught:
        assert training.run() == 0
    assert len(caught) == 1
    assert [row["batch"] for row in training.rows()] == list("123456")
    log = training.snapshots.path(".log").read_text()
    assert [line.split(":")[0] for line in log.splitlines() if line.endswith(" hours left")] == list("123456")


@pytest.mark.parametrize("end", [".csv", ".log"])
def test_what_a_full_disk_did_not_take_is_written_at_the_end_if_it_can_be(tmp_path, end):
    training = Training(tmp_path, "max_batches=3")
    lines = {".csv": training.log.table, ".log": training.log.text}[end]
    lines.file = full = Full(lines.file, 0)
    close = training.log.close

    def room_again():
        full.room = 10**6
        close()

    training.log.close = room_again
    with pytest.warns(UserWarning, match="No space left on device"):
        assert training.run() == 0
    assert [row["batch"] for row in training.rows()] == list("123")
    assert training.snapshots.path(".log").read_text().count(" hours left\n") == 3


def test_a_new_training_begins_its_files_anew(tmp_path):
    for _ in range(2):
        training = Training(tmp_path, "max_batches=2")
        training.run()
    assert [row["batch"] for row in training.rows()] == list("12")
    assert training.snapshots.path(".log").read_text().count(" hours left\n") == 2


def test_a_table_that_is_none_is_written_anew(tmp_path):
    table = tmp_path / "net.csv"
    good = ",".join(["1", "8", *["0.5"] * 10, "4", "32x32", ""])
    rows = [",".join(COLUMNS), good, good.replace("0.5", "x"), "2,16,0.5", "\xff\0garbage"]
    table.write_bytes("\r\n".join(rows).encode("latin-1"))
    log = Log(tmp_path / "net", Network(parse_cfg(small())).heads, batch=5, last_batch=9, resumed=True)
    log.close()
    with open(table, newline="") as file:
        assert [row["batch"] for row in csv.DictReader(file)] == ["1"]
    assert list(log.columns["loss"]) == [0.5]


def test_tensorboard_that_cannot_write_ends_no_training(tmp_path, monkeypatch):
    class Writer:
        def __init__(self, folder, purge_step):
            pass

        def add_scalar(self, *_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        close = add_scalar

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    training = Training(tmp_path, "max_batches=3", tensorboard=True)
    with pytest.warns(UserWarning, match=r"^TensorBoard's figures cannot be written: No space left") as caught:
        assert training.run() == 0
    assert len(caught) == 1


@pytest.mark.parametrize("why", ["folder", "fails"])
def test_a_chart_that_cannot_be_drawn_ends_no_training(tmp_path, monkeypatch, why):
    monkeypatch.setattr("darknet_compat.train.log.CHART_EVERY", 0.0)
    monkeypatch.setattr("darknet_compat.train.log.CHART_SHARE", 1e9)
    training = Training(tmp_path, "max_batches=3")
    chart = training.snapshots.path(".png")
    if why == "folder":
        chart.mkdir()
    else:
        monkeypatch.setattr("darknet_compat.train.chart.draw_chart", lambda *_: 1 / 0)
    reason = {"folder": "Is a directory", "fails": "division by zero"}[why]
    with pytest.warns(UserWarning, match=rf"net\.png: the chart cannot be written: {reason}") as caught:
        assert training.run() == 0
    assert len(caught) == 1


def test_hours_that_are_left_are_alexeyabs_mean(monkeypatch):
    now = iter([0.0, 36.0, 108.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    hours = Hours(100)
    assert hours(10) == pytest.approx(90 * 36 / 3600)
    assert hours(11) == pytest.approx(0.99 * 0.9 + 0.01 * 89 * 72 / 3600)
    now = iter([0.0, 36.0])
    assert Hours(100)(12, world=4) == pytest.approx(22 * 36 / 3600), "of four processes an update is four batches"
