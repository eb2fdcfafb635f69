"""A training that was: its table as far as it goes, the end of its log, and weights that are its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from darknet_compat.errors import DataError
from darknet_compat.report.runs import Run
from tests.train.test_record import RECORD

HEAD = "batch,images,loss,avg_loss,seconds,loading_seconds,map\r\n"
ROWS = "1,2,9.5,9.5,1.5,0.25,\r\n2,4,8.5,9.25,2.5,0.5,.125\r\n"


@pytest.fixture
def training(tmp_path):
    """A training of three updates, of which two are done."""
    (tmp_path / "a.csv").write_text(HEAD + ROWS)
    text = "[net]\nmax_batches=3\nwidth=32\nheight=32\nchannels=3\n"
    return Run(tmp_path, "a", dataclasses.replace(RECORD, text=text))


@pytest.mark.parametrize(
    "more",
    [
        "",
        "3,6,7.5",
        "3,6,7.5,9,1,1,,,",
        "nan,6,7,9,1,1,\r\n",
        "3,,7,9,1,1,\r\n",
        "-3,6,7,9,1,1,\r\n",
        "3\0",
        f"3{'0' * 400},6,7,9,1,1,\r\n",
    ],
)
def test_rows_that_are_none_are_passed_over(training, more):
    """As a kill leaves them, or a hand."""
    with training.path(".csv").open("a") as file:
        file.write(more)
    figures = training.figures
    assert figures["batch"].tolist() == [1, 2]
    assert figures["images"].tolist() == [2, 4]
    assert figures["loading_seconds"].tolist() == [0.25, 0.5]
    assert np.array_equal(figures["map"], [np.nan, 0.125], equal_nan=True)


def test_a_figure_that_is_none_is_none(training):
    training.path(".csv").write_text(HEAD + ROWS.replace("9.25", "much").replace("2.5", "inf"))
    assert np.isnan(training.figures["avg_loss"][1])
    assert np.isnan(training.figures["seconds"][1])


@pytest.mark.parametrize("text", ["", HEAD, ROWS, HEAD.replace("seconds", "hours") + ROWS])
def test_a_table_without_rows_is_one_line(training, text):
    training.path(".csv").write_text(text)
    with pytest.raises(DataError, match=r"a\.csv: no row of a training's table; expected columns batch, images") as one:
        _ = training.figures
    assert "\n" not in str(one.value)


def test_weights_are_those_of_this_training(training):
    """While it runs, those of the end of a training before it may still lie there."""
    final, last = (training.folder / name for name in (RECORD.final, RECORD.last))
    with pytest.raises(DataError, match=r"a_final\.weights: no such file of this training, nor a\.backup"):
        _ = training.weights
    final.touch()
    assert training.written is None
    last.touch()
    assert training.weights == last
    with training.path(".csv").open("a") as file:
        file.write("3,6,7.5,9,1,1,\r\n")
    ended = dataclasses.replace(training)
    assert ended.weights == final
    final.unlink()
    assert ended.weights == last


def test_the_end_of_the_log(training):
    assert training.lines(3) == ""
    lines = [f"{number}: é" for number in range(20_000)]
    training.path(".log").write_text("\n".join(lines) + "\n")
    assert training.lines(3).splitlines() == lines[-3:]
    training.path(".log").write_bytes(b"\xff\n2\n")
    assert training.lines(3) == "\ufffd\n2"
