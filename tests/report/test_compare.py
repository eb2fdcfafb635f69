"""Trainings side by side: what differs is shown, what does not is not, and the figures are those of their tables."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from darknet_compat.errors import DarknetError
from darknet_compat.report import compare
from tests.report.test_page import Addresses


@pytest.fixture
def runs(trainings, tmp_path, monkeypatch):
    """Copies of the trainings that may be changed."""
    shutil.copytree(trainings / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("*.report"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def change_table(path, **values):
    """Set columns of every row, or of the rows that a dictionary names by their place."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for name, value in values.items():
        for place, row in enumerate(rows):
            row[name] = value.get(place, row[name]) if isinstance(value, dict) else value
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def other(runs, old, new, **record):
    """The training of [yolo] again, in runs/other, with another cfg and other words in its record."""
    shutil.copytree(runs / "yolo", runs / "other")
    path = runs / "other/yolo.run.json"
    read = json.loads(path.read_text())
    path.write_text(json.dumps({**read, "text": read["text"].replace(old, new), **record}))


def rows(table):
    return {row[0]: row[1:] for row in table}


def test_what_differs_and_nothing_else(runs):
    other(runs, "learning_rate=0.001", "learning_rate=0.002\nmomentum=0.8", seed=4)
    compared = compare(["runs/yolo", "runs/other"])
    assert compared.names == ["runs/yolo", "runs/other"]
    assert rows(compared.settings) == {
        "seed": ["3", "4"], "[net] learning_rate": ["0.001", "0.002"], "[net] momentum": ["–", "0.8"],
    }  # fmt: skip


def test_a_training_that_went_on(runs):
    """Its first command is the one that began it."""
    other(runs, "", "", commands=["first", "second", "third"])
    settings = rows(compare(["runs/yolo", "runs/other"]).settings)
    assert settings["went on"] == ["0", "2"]
    assert settings["command"][1] == "first"
    assert settings.keys() == {"command", "went on"}


def test_a_training_that_runs_has_no_weights_yet(runs):
    other(runs, "max_batches=2", "max_batches=9")
    (runs / "other/yolo_last.weights").unlink()
    assert rows(compare(["runs/yolo", "runs/other"]).figures)["weights"] == ["yolo_final.weights", "–"]


def test_an_update_takes_what_the_one_in_the_middle_takes(runs):
    """The first sets up what the others find."""
    path = runs / "yolo/yolo.csv"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1].replace("2,4,", "3,6,", 1))
    change_table(path, seconds={0: "100", 1: "2", 2: "3"}, loading_seconds="0", map={0: ".25", 1: ".75", 2: ".5"})
    figures = rows(compare(["runs/yolo", "runs/region"]).figures)
    assert figures["an update"][0] == "3.000 s"
    assert figures["mAP, best while training"] == ["0.7500", "–"]
    assert figures["mAP, last while training"] == ["0.5000", "–"]


def test_the_curves_are_those_of_the_tables(runs, monkeypatch):
    """Loss of both, and of the one that has them its scores."""
    other(runs, "", "", versions={"torch": "0.1"})
    change_table("runs/other/yolo.csv", avg_loss={0: "12.5", 1: "7"}, map={0: "", 1: ".5"})
    change_table("runs/yolo/yolo.csv", avg_loss={0: "3", 1: "2"}, map="")
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda _, x, y, *__, **___: drawn.append((x.tolist(), y.tolist())))
    monkeypatch.setattr("matplotlib.figure.Figure.legend", lambda *_, **__: None)
    settings = rows(compare(["runs/yolo", "runs/other"]).settings)
    assert drawn == [([1, 2], [3, 2]), ([1, 2], [12.5, 7]), ([2], [0.5])]
    assert settings["torch"][1] == "0.1"


def test_another_layer(runs):
    other(runs, "[yolo]", "[dropout]\n\n[yolo]")
    settings = rows(compare(["runs/yolo", "runs/other"]).settings)
    assert settings["layer 2 [dropout]"] == ["–", "there"]
    assert settings["layer 2 [yolo]"] == ["there", "–"]
    assert settings["layer 3 [yolo] mask"] == ["–", "0,1"]


def test_figures_are_those_of_the_tables(runs):
    other(runs, "", "")
    change_table("runs/other/yolo.csv", avg_loss={1: "12.5"}, map={0: ".75", 1: ".5"}, seconds={0: "100", 1: "30"},
                 loading_seconds={0: "20", 1: ""}, images={1: "1234"})  # fmt: skip
    change_table("runs/yolo/yolo.csv", map="")
    figures = rows(compare(["runs/yolo", "runs/other"]).figures)
    assert figures["updates"] == ["2", "2"]
    assert figures["images"] == ["4", "1,234"]
    assert figures["average loss"][1] == "12.5"
    assert figures["time in updates"][1] == "2:30 min"
    assert figures["an update"][1] == "75.000 s"
    assert figures["mAP, best while training"] == ["–", "0.7500"]
    assert figures["mAP, last while training"] == ["–", "0.5000"]
    assert figures["weights"] == ["yolo_final.weights"] * 2


def test_scores_are_those_of_the_reports(runs):
    other(runs, "", "")
    one = {"truths": 3, "difficult": 0, "detections": 9}
    (runs / "yolo/yolo.report").mkdir()
    scores = {"mAP": 0.25, "classes": {"disc": {"ap": 0.5, **one}, "ring": {"ap": None, **one}}}
    (runs / "yolo/yolo.report/scores.json").write_text(json.dumps(scores))
    compared = compare(["runs/yolo", "runs/other"])
    assert compared.classes == [["disc", "0.5000", "–"], ["ring", "–", "–"], ["mean", "0.2500", "–"]]
    page = (runs.parent / "compare.html").read_text()
    assert "No scores of runs/other: darknet-compat report makes them." in page
    (runs / "yolo/yolo.report/scores.json").write_text("{")
    with pytest.raises(DarknetError, match=r"scores.json: no JSON"):
        compare(["runs/yolo", "runs/other"])


def test_a_classifiers_scores(runs):
    (runs / "classes/classes.report").mkdir()
    scores = {"top_1": 0.75, "top_k": 1.0, "k": 2, "classes": {"a": {"top_1": 1.0, "images": 4}}}
    (runs / "classes/classes.report/scores.json").write_text(json.dumps(scores))
    assert compare(["runs/classes", "runs/yolo"]).classes == [["a", "1.0000", "–"], ["mean", "0.7500", "–"]]


def test_the_page_and_the_lines(runs, tmp_path):
    shutil.copytree("runs/region", "runs/both")
    shutil.copytree("runs/yolo", "runs/both", dirs_exist_ok=True)
    compared = compare(["runs/both/region", "runs/both/yolo", "runs/classes"], tmp_path / "page.html")
    assert compared.names == ["runs/both/region", "runs/both/yolo", "runs/classes"]  # two share a folder
    parser = Addresses()
    page = (tmp_path / "page.html").read_text()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.found) == 1
    lines = compared.lines()
    for row in [*compared.figures, *compared.settings]:
        assert f"<td>{row[0]}</td>" in page.replace("&#x27;", "'")
        assert any(line.split("  ")[0] == row[0] and all(cell in line for cell in row[1:]) for line in lines), row
    heads = [line for line in lines if "runs/both/yolo" in line and "runs/both/region" in line]
    assert len(heads) >= 2
    assert not any(line.endswith(" ") for line in lines)


def test_errors(runs):
    with pytest.raises(DarknetError, match="a single run; expected two or more"):
        compare(["runs/yolo"])
    with pytest.raises(DarknetError, match="no such folder"):
        compare(["runs/yolo", "runs/none"])
    with pytest.raises(DarknetError, match=r"yolo.csv: expected a file that ends in .html"):
        compare(["runs/yolo", "runs/region"], "runs/yolo/yolo.csv")
    (runs / "page.html").mkdir()
    with pytest.raises(DarknetError, match=r"page.html: a folder"):
        compare(["runs/yolo", "runs/region"], "runs/page.html")
