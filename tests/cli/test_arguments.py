"""The flags that all verbs share which run a network: each changes what comes out, of every verb that offers it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from darknet_compat import engines, load_network, save_weights
from darknet_compat.cli.arguments import table
from darknet_compat.engines import Calibration
from darknet_compat.errors import DarknetError, ExportError
from darknet_compat.images import FITTED, STRETCHED
from darknet_compat.stock import find_stock
from tests.cli.conftest import CFG, WEIGHTS

VERBS = ("test", "valid", "valid2", "map", "recall")


@pytest.fixture
def outcome(verb, wide, data, tmp_path, capsys):
    """A function that gives what a verb wrote and printed about one wide image, but for times."""

    def run(name, *flags, cfg=CFG, weights=WEIGHTS, copies=1):
        # A disc that the network finds, and a cross where it thinks of one with a probability of 2 %.
        paths = [wide, *(shutil.copy(wide, wide.with_stem(f"wide{number}")) for number in range(1, copies))]
        file = data(paths, {path: "0 .14 .37 .27 .49\n5 .27 .6 .45 .8\n2 .3 .5 .4 .9\n" for path in paths})
        words = ["detector", name, file, cfg, weights, *flags]
        if name == "test":
            assert verb(*words, *paths, "-thresh", ".01", "-json", "found.json") == 0
            return json.loads((tmp_path / "found.json").read_text())
        assert verb(*words) == 0
        printed = capsys.readouterr().out
        if name == "map":
            # Behind the line that says how images were fitted, the table that must show it.
            return printed.partition("\n")[2]
        if name == "recall":
            return printed
        return {path.name: path.read_text() for path in (tmp_path / "results").iterdir()}

    return run


@pytest.mark.parametrize("name", ["test", "valid", "valid2", "map"])
def test_letter_box_is_the_flags_or_else_the_cfgs(outcome, tmp_path, name):
    stretch = tmp_path / "stretch.cfg"
    stretch.write_text(CFG.read_text().replace("batch = 8", "letter_box = 0\nbatch = 8", 1))
    for cfg, letter_box in ((CFG, 1), (stretch, 0)):
        asked = [outcome(name, "-letter_box", flag, cfg=cfg) for flag in (0, 1)]
        assert asked[0] != asked[1]
        assert outcome(name, cfg=cfg) == asked[letter_box]


def test_recall_only_stretches(outcome):
    """As in AlexeyAB's program, which takes the flag all the same."""
    assert outcome("recall", "-letter_box") == outcome("recall")


@pytest.mark.parametrize("name", VERBS)
def test_numerics(outcome, tmp_path, name):
    """In a layer of hardly any variance, the epsilons of cuDNN and of the C program are far apart."""
    network = load_network(CFG, WEIGHTS)
    with torch.no_grad():
        for tensor, factor in (("rolling_variance", 1e-6), ("rolling_mean", 1e-3), ("weights", 1e-3)):
            dict(network.layers[4].numbers())[tensor].mul_(factor)
    save_weights(network, tmp_path / "flat.weights")
    cudnn, cpu = (outcome(name, "-numerics", kind, weights=tmp_path / "flat.weights") for kind in ("cudnn", "cpu"))
    assert cudnn != cpu
    assert outcome(name, weights=tmp_path / "flat.weights") == cudnn


@pytest.fixture
def started(monkeypatch):
    """What engines were started with, and the sizes of the batches that they ran."""
    seen = {"batches": []}

    def start(network, name, precision, batch, threads, calibration):
        def run(images):
            seen["batches"].append(len(images))
            return engine.run(images)

        engine = original(network, "torch", "float32", batch, threads)
        seen.update(name=name, precision=precision, batch=batch, calibration=calibration)
        return replace(engine, run=run)

    original = engines.start_engine
    monkeypatch.setattr(engines, "start_engine", start)
    return seen


@pytest.mark.parametrize("name", VERBS)
def test_engine_precision_and_batch(outcome, started, name):
    outcome(name, copies=5)
    assert (started["name"], started["precision"], started["batch"]) == ("torch", "float32", 4)
    assert set(started["batches"]) == {4, 1}
    started["batches"].clear()
    outcome(name, "-engine", "openvino", "-precision", "bf16", "-batch", 2, copies=5)
    assert (started["name"], started["precision"], started["batch"]) == ("openvino", "bf16", 2)
    assert set(started["batches"]) == {2, 1}
    views = STRETCHED if name == "recall" else FITTED
    outcome(name, "-precision", "int8", "-calibration", find_stock("data/shapes-sample.jpg"))
    assert (started["name"], started["precision"]) == ("openvino", "int8")
    assert started["calibration"] == Calibration((find_stock("data/shapes-sample.jpg"),), views)


@pytest.mark.parametrize("name", VERBS)
def test_the_device_is_the_gpu_where_there_is_one(outcome, monkeypatch, name):
    class Loaded(Exception):
        pass

    def load(*_, device, **__):
        raise Loaded(str(device))

    def device(*flags):
        with pytest.raises(Loaded) as loaded:
            outcome(name, *flags)
        return str(loaded.value)

    monkeypatch.setattr(engines, "load_network", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device() == "cuda"
    assert device("-device", "cuda:1") == "cuda:1"
    assert device("-device", "cpu") == "cpu"
    for engine in ("onnxruntime", "openvino"):  # they run on the processor
        assert device("-engine", engine) == "cpu"


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("device", ["cuda", "mps", "foo"])
def test_a_device_that_is_not_there_is_one_line(outcome, monkeypatch, name, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DarknetError, match=f"^-device {device}: .*; expected cpu$"):
        outcome(name, "-device", device)


def test_bf16_is_another_arithmetic_or_an_error(outcome):
    if engines.has_bf16():
        assert outcome("test", "-precision", "bf16") != outcome("test")
    else:
        with pytest.raises(ExportError, match="does not multiply bf16"):
            outcome("test", "-precision", "bf16")


def test_stock_files_are_found_from_any_folder(verb, capsys):
    words = ("cfg/shapes.data", "cfg/yolov2-shapes.cfg", "weights/yolov2-shapes.weights", "data/shapes-sample.jpg")
    assert verb("detector", "test", *words) == 0
    assert capsys.readouterr().out.startswith(f"{find_stock(words[3])}: Predicted in")


def test_a_table_keeps_its_columns_whatever_the_names_are():
    """A Chinese letter takes two columns of a terminal, an accent of its own none."""
    rows = [("cell", [1, 20]), ("\u7ea2\u8840\u7403\u7403", [300, 4]), ("ame\u0301ba", [5, 0])]
    assert table(["train", "valid"], rows) == [
        "            train    valid",
        "cell            1       20",
        "\u7ea2\u8840\u7403\u7403      300        4",
        "ame\u0301ba           5        0",
    ]
