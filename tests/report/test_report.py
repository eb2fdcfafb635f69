"""A report of a training: what it shows is what the commands that stand on it print, of the weights it names."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shlex
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import darknet_compat.report
from darknet_compat.cli import build_parser
from darknet_compat.errors import DarknetError
from darknet_compat.images import load_image
from darknet_compat.labels import label_path
from darknet_compat.progress import unseen
from darknet_compat.report import report
from darknet_compat.report.detector import DetectorReport
from darknet_compat.report.runs import Run, find_run
from darknet_compat.report.steps import Steps
from tests.report.test_page import Addresses
from tests.train.test_record import RECORD
from tests.trainings import run


@pytest.fixture
def person(trainings, monkeypatch):
    """In the folder in which the trainings were started."""
    monkeypatch.chdir(trainings)
    return trainings


def commands(page):
    """Those that stand on a page, by the title of their part."""
    found = {}
    for part in re.findall(r"<section>(.*?)</section>", page.read_text(), re.DOTALL):
        title = re.search(r"<h2>\d+\. (.*?)</h2>", part)[1]
        typed = re.findall(r'class="scroll command".*?<pre>(.*?)(?:  <small>.*?)?</pre>', part, re.DOTALL)
        found[title] = [unescape(command) for command in typed]
    return found


def copied(training, to):
    """The record of a copy of a training."""
    shutil.copytree(training, to, ignore=shutil.ignore_patterns("*.report"))
    return next(to.glob("*.run.json"))


def record(path, **values):
    """Change what a record says."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", ["region", pytest.param("yolo", marks=pytest.mark.slow)])
def test_the_commands_on_the_page_give_what_it_shows(person, name, tmp_path):
    done = report(f"runs/{name}", out=tmp_path / "shown", thresh=0.001, images=3)
    shown = tmp_path / "shown"
    page = done.page.read_text()
    parser = Addresses()
    parser.feed(page)
    assert parser.open == []
    assert all(address.startswith("data:image/") for address in parser.found)
    typed = commands(done.page)
    assert list(typed) == ["The data", "The network", "Training", "Scores", "Detections", "From here"]
    map_every = " -map 1" * (name == "yolo")
    assert typed["Training"] == [
        f"darknet-compat detector train shapes.data {name}.cfg -seed 3 -workers 0{map_every} -backup runs/{name}"
    ]
    before = {
        file: (shown / file).read_bytes()
        for file in ("scores.json", "found.json", "data.png", "plots/ap.png", "plots/contact_sheet.png")
    }
    before |= {f"results/{file.name}": file.read_bytes() for file in (shown / "results").iterdir()}
    assert len(before) == 5 + 6
    for file in before:
        (shown / file).unlink()
    for part in ("The data", "The network", "Scores", "Detections"):
        for command in typed[part]:
            words = shlex.split(command)
            assert words[0] == "darknet-compat"
            printed = run(person, *words[1:])
            if part == "The network":
                assert printed.rstrip() in unescape(page)
    assert {file: (shown / file).read_bytes() for file in before} == before
    scores = json.loads(before["scores.json"])
    assert (f"{scores['mAP']:.4f}", "mAP, 11 points of recall") == done.tiles[0]
    assert f"<td>mean</td><td>{scores['mAP']:.4f}</td>" in page
    assert len(list((shown / "pairs").iterdir())) == 6
    assert len(json.loads(before["found.json"])) == 3
    assert ("2", "updates") in done.tiles


def test_it_scores_the_cfg_that_was_trained_and_the_weights_of_its_end(person, tmp_path):
    """The cfg on the disk may be another by now; and an own folder takes what results= would."""
    kept = (person / "region.cfg").read_text()
    first = report("runs/region", out=tmp_path / "one")
    (person / "region.cfg").write_text(kept.replace("stride=16", "stride=32"))
    try:
        second = report("runs/region", out=tmp_path / "two")
    finally:
        (person / "region.cfg").write_text(kept)
    assert first.weights == find_run("runs/region").path("_final.weights")
    assert (tmp_path / "one/region.cfg").read_text() == (tmp_path / "two/region.cfg").read_text() == kept
    one, two = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("one", "two"))
    assert one == two
    assert second.tiles[0] == first.tiles[0]
    assert not (person / "results").exists()


def test_other_weights_a_devkit_and_scores_beside(person, tmp_path):
    shutil.copy("runs/yolo/yolo_last.weights", tmp_path / "own.weights")
    done = report("runs/yolo", out=tmp_path / "a", weights=tmp_path / "own.weights", devkit="shapes/VOCdevkit")
    assert done.weights == tmp_path / "own.weights"
    typed = commands(done.page)["Scores"]
    assert f"{tmp_path}/own.weights" in typed[0]
    assert "-devkit shapes/VOCdevkit -year 2007 -image-set test -names shapes.names -metric voc07" in typed[1]
    scores = json.loads((tmp_path / "a/scores.json").read_text())
    assert sum(one["difficult"] for one in scores["classes"].values()) > 0  # which label files have not
    other = {**scores, "mAP": 0.125, "classes": {name: {**one, "ap": 0.125} for name, one in scores["classes"].items()}}
    (tmp_path / "his.json").write_text(json.dumps(other))
    record(copied("runs/yolo", tmp_path / "own"), numerics="cpu")
    beside = [tmp_path / "his.json"]
    done = report(tmp_path / "own", out=tmp_path / "b", beside=beside, metric="area", images=99)
    listed = (tmp_path / "b/some.txt").read_text().splitlines()
    valid = (person / "valid.txt").read_text().splitlines()
    assert len(listed) < len(valid)
    # Those that show something.
    assert listed == [path for path in valid if Path(label_path(path, "alexeyab")).read_text()]
    typed = commands(done.page)
    for part, line in (("Scores", 0), ("Detections", 0)):
        assert "-program alexeyab -numerics cpu" in typed[part][line]
    assert ("0.1250", "mAP, his") in done.tiles
    assert done.tiles[0][1] == "mAP, area under the curve"
    assert "<th>AP, his</th>" in done.page.read_text()


def test_others_beside_that_are_called_alike(person, tmp_path, monkeypatch):
    """As all reports call theirs; each has a column."""
    asked = {}
    monkeypatch.setattr(darknet_compat.report, "_by_family", lambda *_, **options: asked.update(options) or 1 / 0)
    for name, mean in (("a", 0.25), ("b", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}/scores.json").write_text(json.dumps({"mAP": mean, "classes": {}}))
    (tmp_path / "own.json").write_text('{"mAP": null, "classes": {}}')
    beside = [str(tmp_path / name) for name in ("a/scores.json", "b/scores.json", "own.json")]
    with pytest.raises(ZeroDivisionError):
        report("runs/region", out=tmp_path / "page", beside=beside)
    assert {name: one["mAP"] for name, one in asked["beside"].items()} == {
        beside[0]: 0.25, beside[1]: 0.5, "own": None,
    }  # fmt: skip


def test_truth_is_read_where_the_trainings_program_has_it(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("darknet_compat.report.detector.voc_eval", lambda *_, **options: asked.update(options))
    training = Run(tmp_path, "a", dataclasses.replace(RECORD, program="alexeyab"))
    DetectorReport(training, tmp_path, tmp_path / "a.weights", steps=Steps(), progress=unseen, beside={})._score(
        tmp_path
    )
    assert asked == {"data": tmp_path / "a.data", "metric": "voc07", "program": "alexeyab"}


def test_a_head_with_a_map_needs_a_devkit(person, tmp_path):
    """Labels have other numbers than names there."""
    path, classes = copied("runs/region", tmp_path / "own"), tmp_path / "my.map"
    classes.write_text("5\n4\n3\n2\n1\n0\n")
    record(path, text=json.loads(path.read_text())["text"].replace("num=2", f"num=2\nmap={classes}"))
    with pytest.raises(DarknetError, match=r"region\.cfg:\d+: .*expected a devkit to score against"):
        report(tmp_path / "own", out=tmp_path / "page")


@pytest.mark.parametrize("family", ["detector", "yolo", "classifier", "rnn"])
def test_what_comes_next_can_be_typed(tmp_path, family):
    training = Run(tmp_path, "a", dataclasses.replace(RECORD, family=family))
    [section] = darknet_compat.report._next(training, tmp_path / "a.weights", tmp_path / "a.cfg")
    typed = [unescape(re.search(r"<pre>(.*?)</pre>", part)[1]) for part in section.parts]
    assert len(typed) == {"detector": 5, "yolo": 4}.get(family, 1)
    for line in typed:
        command, *words = shlex.split(line)
        assert command == "darknet-compat"
        assert build_parser().parse_args(words)


def test_a_training_that_went_on_has_each_command_and_the_time_of_all(tmp_path):
    """What each took of it nothing says."""
    begun = dataclasses.replace(RECORD, commands=["darknet-compat one", "darknet-compat two"])
    (tmp_path / "a.csv").write_text("batch,images,loss,avg_loss,seconds,loading_seconds\n1,2,9,8,30,5\n2,4,7,6.5,20,\n")
    (tmp_path / "a.log").write_text("".join(f"line {number}\n" for number in range(30)))
    section, tiles = darknet_compat.report._training(Run(tmp_path, "a", begun), tmp_path, Steps())
    page = "".join(section.parts)
    assert "<pre>darknet-compat one</pre>" in page
    assert "<pre>darknet-compat two</pre>" in page
    assert "line 29" in page
    assert "line 5" not in page
    assert tiles == [("2", "updates"), ("55.0 s", "in updates, on cpu"), ("6.5", "average loss at the end")]
    alone = dataclasses.replace(begun, commands=["darknet-compat one"])
    section, _ = darknet_compat.report._training(Run(tmp_path, "a", alone), tmp_path, Steps())
    assert "<small># 55.0 s</small>" in "".join(section.parts)


def test_a_classifier(person, tmp_path):
    """Its images get their classes as they did in training."""
    record(copied("runs/classes", tmp_path / "own"), numerics="cpu", labels="folder")
    done = report(tmp_path / "own", out=tmp_path / "page")
    typed = commands(done.page)
    assert "-numerics cpu -labels folder" in typed["Scores"][0]
    assert list(typed) == ["The network", "Training", "Scores", "From here"]
    scores = json.loads((tmp_path / "page/scores.json").read_text())
    assert done.tiles[:2] == [(f"{scores['top_1']:.4f}", "top 1"), (f"{scores['top_k']:.4f}", "top 2")]
    written = (tmp_path / "page/classes/classes.csv").read_bytes()
    shutil.rmtree(tmp_path / "page/classes")
    printed = run(person, *shlex.split(typed["Scores"][0])[1:])
    assert (tmp_path / "page/classes/classes.csv").read_bytes() == written
    last = printed.splitlines()[-1]
    assert f"{scores['top_1']:f}" in last
    assert f"{scores['top_k']:f}" in last


def test_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.txt").write_text("To be, or not to be. " * 100)
    (tmp_path / "char.cfg").write_text(
        "[net]\nbatch=4\nsubdivisions=1\ntime_steps=2\ninputs=256\nmax_batches=2\nlearning_rate=.01\n"
        "[rnn]\noutput=8\nhidden=8\nactivation=leaky\n[connected]\noutput=256\nactivation=leaky\n[softmax]\n"
    )
    run(tmp_path, "rnn", "train", "char.cfg", "-file", "some.txt", "-srand", "1", "-backup", "runs")
    done = report("runs")
    assert done.page == tmp_path.joinpath("runs/char.report/index.html").relative_to(tmp_path)
    assert list(commands(done.page)) == ["The network", "Training", "From here"]
    assert commands(done.page)["Training"] == ["darknet-compat rnn train char.cfg -srand 1 -file some.txt -backup runs"]


def test_pictures(person, tmp_path):
    """Samples with their boxes in the colours of their classes; anchors."""
    report("runs/region", out=tmp_path / "page", images=1)
    samples = load_image(tmp_path / "page/samples.png")
    vivid = (samples.max(2) == 255) & (samples.min(2) == 0)
    assert vivid.mean() > 0.01
    for name in ("anchors", "data", "chart"):
        assert len(np.unique(load_image(tmp_path / f"page/{name}.png"))) > 10


def test_errors(person, tmp_path):
    def error(given, **options):
        with pytest.raises(DarknetError) as raised:
            report(given, out=tmp_path / "none", **options)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "no such folder; expected that of a training" in error("runs/none")
    assert "no *.run.json in it" in error("runs")
    both = tmp_path / "both"
    shutil.copytree("runs/region", both)
    shutil.copytree("runs/yolo", both, dirs_exist_ok=True)
    assert f"several trainings; expected one of {both}/region, {both}/yolo" in error(both)
    assert find_run(both / "yolo").name == "yolo"
    (both / "region.csv").unlink()
    assert "region.csv: No such file or directory; expected the table" in error(both / "region")
    (both / "region.csv").write_text("1,2\n3,4\n")
    assert "region.csv: no row of a training's table" in error(both / "region")
    assert "none.weights" in error("runs/region", weights="none.weights")
    assert "none.json: No such file" in error("runs/region", beside=["none.json"])
    for text, what in (("[]", "expected mAP"), ("{", "no JSON"), ('{"mAP": 1, "classes": {"a": {}}}', "expected mAP"),
                       ('{"mAP": NaN, "classes": {}}', "expected mAP"), ("[" * 10**5, "no JSON"),
                       ('{"mAP": 1, "classes": {"a": {"ap": 1, "truths": "x"}}}', "expected mAP")):  # fmt: skip
        (tmp_path / "bad.json").write_text(text)
        assert what in error("runs/region", beside=[tmp_path / "bad.json"])
    (both / "yolo_final.weights").unlink()
    assert report(both / "yolo", out=tmp_path / "early").weights.name == "yolo_last.weights"
    (both / "yolo_last.weights").unlink()
    assert "yolo_final.weights: no such file of this training, nor yolo_last.weights" in error(both / "yolo")


def test_of_a_pair_one_is_the_truth_and_one_what_was_found(person, tmp_path):
    """With a threshold that nothing reaches the second is the image as it is."""
    done = report("runs/region", out=tmp_path, thresh=1, images=1)
    image = load_image((tmp_path / "some.txt").read_text().strip()).astype(int)
    truth, found = (load_image(tmp_path / f"pairs/0-{name}.jpg") for name in ("truth", "found"))
    assert np.abs(found - image).mean() < 6
    assert np.abs(truth - image).max() > 150
    assert np.abs(truth - image).mean() > np.abs(found - image).mean() + 2
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)" alt="[^"]*, (truth|found)"', done.page.read_text())
    assert [what for _, what in shown] == ["truth", "found"]
    assert base64.b64decode(shown[0][0]) == (tmp_path / "pairs/0-truth.jpg").read_bytes()


def test_it_writes_over_no_file_that_it_reads(person, tmp_path):
    """As with -out of the folder in which the .data file and the cfg stand."""
    for name in ("region.cfg", "region.data"):
        file = tmp_path / name
        file.write_text((person / ("region.cfg" if name == "region.cfg" else "shapes.data")).read_text())
    run(person, "detector", "train", tmp_path / "region.data", tmp_path / "region.cfg", "-backup", tmp_path / "own")
    before = {path: path.read_bytes() for path in tmp_path.glob("region.*")}
    with pytest.raises(DarknetError, match=r"region.cfg: the command reads this file too, and would overwrite it"):
        report(tmp_path / "own", out=tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_elsewhere_it_says_where_to_type(trainings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DarknetError, match=f"the training was started in {re.escape(str(trainings))}"):
        report(trainings / "runs/region", out=tmp_path / "page")
