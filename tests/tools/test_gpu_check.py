"""tools/gpu_check.py, as far as a CPU can run it: its checks, and that each of them sees what it is there to see."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.tools.run import load_tool, one_line, run_tool
from tests.train.fake_cuda import FakeCopies, install


@pytest.fixture
def tool():
    return load_tool("gpu_check")


@pytest.fixture
def place(tool):
    return tool.Place("cpu", True, 0.0, 2)


def passed(rows):
    """By the word that a row's check begins with."""
    return [row.passed for row in rows]


# --- the script


def bare(folder, *needed):
    """A folder with these distributions and what they need, to stand in the place of site-packages."""
    tops: dict[str, set[str]] = {}
    for top, names in importlib.metadata.packages_distributions().items():
        for name in names:
            tops.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(top)
    wanted, seen = list(needed), set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen or name not in tops:
            continue
        seen.add(name)
        needs = importlib.metadata.requires(name) or []
        wanted += [re.match(r"[\w.-]+", one)[0] for one in needs if "extra ==" not in one]
        site = Path(importlib.metadata.distribution(name).locate_file(""))
        beside = {f"{name.replace('-', '_')}.libs"}  # of a wheel's libraries
        for top in tops[name] | beside:
            for path in (site / top, *site.glob(f"{top}.py"), *site.glob(f"{top}.*.so")):
                if path.exists() and not (folder / path.name).exists():
                    (folder / path.name).symlink_to(path)
    assert not {"cv2", "tqdm", "matplotlib"} & {path.name for path in folder.iterdir()}
    return folder


@pytest.mark.slow
@pytest.mark.posix
def test_it_runs_with_torch_numpy_and_lark_alone(tmp_path, tool):
    """And ends in one table."""
    (tmp_path / "site").mkdir()
    result = subprocess.run(
        [sys.executable, "-S", ROOT / "tools/gpu_check.py", "--device", "cpu", "--quick", "--json", tmp_path / "x"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(bare(tmp_path / "site", "torch", "numpy", "lark"))},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "x").read_text())["rows"]
    title, *lines = result.stdout.split("\n")[1:-1]
    assert title.split() == ["check", "found", "goal"]
    assert [line.split("  ")[0] for line in lines] == [row["check"] for row in rows]
    left_out = [row["check"] for row in rows if row["found"].startswith("left out")]
    assert [name.split()[0] for name in left_out] == ["times", "batches", "training"]
    assert "No module named 'cv2'" in next(row["found"] for row in rows if "JPEG" in row["check"])
    checked = [row for row in rows if row["passed"] is not None]
    assert len(checked) > 35
    assert all(row["passed"] and row["goal"] for row in checked)


def test_without_a_gpu_it_says_so():
    assert one_line(run_tool("gpu_check")) == (
        "gpu_check: -device cuda: torch finds no such device here; expected cpu; --device cpu --quick shows that the "
        "script runs"
    )


def test_it_ends_in_one_table(tool, monkeypatch, capsys, tmp_path):
    """A check that breaks is one that fails, and those behind it run."""

    def check_first(place):
        yield tool.within("a difference", 2e-5, 1e-4)
        yield tool.Row("a time", "3 ms")

    def check_second(place):
        yield tool.within("another", float("nan"), 1e-4)
        raise RuntimeError("CUDA error: out of luck\nmore of it")

    def check_third(place):
        yield tool.left_out("a last one", "a GPU")

    monkeypatch.setattr(tool, "CHECKS", [check_first, check_second, check_third])
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu", "--quick", "--json", str(tmp_path / "x")])
    assert tool.main() == 1
    said = capsys.readouterr()
    assert said.out.split("\n")[1:] == [
        "check         found                                    goal",
        "a difference  2.0e-05                                  at most 1e-04  pass",
        "a time        3 ms",
        "another       nan                                      at most 1e-04  FAILED",
        "check second  RuntimeError: CUDA error: out of luck    to end         FAILED",
        "a last one    left out: it needs a GPU",
        "",
    ]
    assert said.err.endswith("gpu_check: 2 of 3 checks failed\n")
    assert [row["passed"] for row in json.loads((tmp_path / "x").read_text())["rows"]] == [True, None, False, False, None]
    monkeypatch.setattr(tool, "CHECKS", [check_first, check_third])
    assert tool.main() == 0


# --- the checks


def test_every_section_type_is_checked(tool):
    from darknet_compat.layers import TYPES

    assert tool.LAYERS.keys() | {name for name, *_ in tool.HEADS} == TYPES.keys()


@pytest.mark.parametrize("name", ["check_layers", "check_losses", "check_boxes"])
def test_what_a_gpu_computes_otherwise_is_seen(tool, place, monkeypatch, name):
    """The same on both sides is the same; and every number that is compared is seen where it differs by 1/1000."""
    check = getattr(tool, name)
    assert all(passed(check(place)))
    relative, compared = tool.relative, []

    def spy(a, b):
        compared.append((a.shape, relative(a * 1.001 if len(compared) == wrong else a, b)))
        return compared[-1][1]

    wrong = -1
    monkeypatch.setattr(tool, "relative", spy)
    list(check(place))
    count = len(compared)
    assert count > 5
    for wrong in (0, count // 2, count - 1):
        compared.clear()
        assert passed(check(place)).count(False) == 1


def test_a_nan_is_a_difference(tool):
    assert tool.relative(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0])) == float("inf")
    assert tool.relative(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])) == pytest.approx(0.2)


def test_boxes_that_are_suppressed_otherwise_are_seen(tool, place, monkeypatch):
    nms, calls = tool.nms_sort, []

    def other(*arguments):
        calls.append(arguments[-1])
        boxes, objectness, prob = nms(*arguments)
        return boxes, objectness, prob * (len(calls) != 4)

    monkeypatch.setattr(tool, "nms_sort", other)
    assert passed(tool.check_boxes(place)) == [True, False]


@pytest.mark.parametrize("what", ["none", "cost", "tensors", "repeat"])
def test_a_training_that_goes_otherwise_is_seen(tool, place, monkeypatch, what):
    """The first training is the CPU's, the second and third the GPU's, the fourth in bf16."""
    made, calls = tool.make_network, []

    def make(*arguments, **options):
        network = made(*arguments, **options)
        calls.append(network)
        if (what, len(calls)) in (("tensors", 2), ("tensors", 3), ("repeat", 3)):
            with torch.no_grad():
                network.layers[-2].biases += 0.5
        return network

    monkeypatch.setattr(tool, "make_network", make)
    monkeypatch.setattr(tool, "TRAINED", ("yolov2-tiny-voc",))
    trained = tool.train
    if what == "cost":
        monkeypatch.setattr(
            tool, "train", lambda *a, **k: ([1.01 * one for one in trained(*a, **k)[0]], trained(*a, **k)[1])
            if calls else trained(*a, **k),
        )  # fmt: skip
    costs, tensors, repeat, half = passed(tool.check_training(place))
    assert repeat == (what != "repeat")
    assert costs == (what not in ("cost", "tensors"))
    assert tensors == (what != "tensors")
    assert half


def as_on_a_gpu(tool, monkeypatch):
    """The checks that a GPU alone has, on the CPU."""
    monkeypatch.setattr(tool.Place, "gpu", property(lambda place: True))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_waits_are_counted(tool, place, monkeypatch, count):
    as_on_a_gpu(tool, monkeypatch)
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    class Trainer:
        def __init__(self, network, fast):
            self.updates = 0

        def update(self, batches):
            assert len(batches) == 2
            warnings.warn("what else there is to say", stacklevel=1)
            for _ in range(count if modes[-1:] == ["warn"] else 9):
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    monkeypatch.setattr(tool, "Trainer", Trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = list(tool.check_waits(place))
    assert len(rows) == 2 * len(tool.TRAINED)
    assert [(row.found, row.passed) for row in rows] == [(str(count), count == 1)] * len(rows)
    assert modes == ["warn", "default"] * len(rows)


def copied(tool, place, monkeypatch, **options):
    as_on_a_gpu(tool, monkeypatch)
    monkeypatch.setattr(tool, "Copies", FakeCopies)
    fake = install(monkeypatch, **options)
    return fake, list(tool.check_copies(place))


def test_copies_are_checked(tool, place, monkeypatch):
    """FakeCopies asserts that no memory is filled again while it is copied."""
    fake, rows = copied(tool, place, monkeypatch, patience=10**9)
    assert [row.passed for row in rows[:3]] == [True, True, None]
    assert not fake.locked
    assert not fake.under_way


def test_memory_that_is_not_locked_is_seen(tool, place, monkeypatch):
    with pytest.warns(UserWarning, match="cannot page-lock"):
        _, rows = copied(tool, place, monkeypatch, lock_error=2)
    assert next(row for row in rows if "page-locked" in row.check).passed is False


def test_a_batch_that_is_not_whole_is_seen(tool, place, monkeypatch):
    arrive = FakeCopies.arrive
    monkeypatch.setattr(FakeCopies, "arrive", lambda copies, sent: (sent.batch.images[1:].zero_(), arrive(copies, sent))[1])
    _, rows = copied(tool, place, monkeypatch)
    assert rows[0].passed is False


def test_a_copy_that_keeps_the_host_waiting_is_seen(tool, place, monkeypatch):
    """As one from memory that is not page-locked."""
    import time

    send, clock = FakeCopies.send, tool.clock
    monkeypatch.setattr(FakeCopies, "send", lambda copies, make: (time.sleep(0.1), send(copies, make))[1])
    monkeypatch.setattr(tool, "clock", lambda run, place: 0.1)
    _, rows = copied(tool, place, monkeypatch)
    assert rows[-1].passed is False
    monkeypatch.setattr(FakeCopies, "send", send)
    monkeypatch.setattr(tool, "clock", lambda run, place: 100 * clock(run, place))
    _, rows = copied(tool, place, monkeypatch)
    assert rows[-1].passed is True


def test_augmentation_that_differs_is_seen(tool, place, monkeypatch):
    assert passed(tool.check_augmentation(place)) == [True, None, True, None]
    augment, calls = tool.on_device.augment, []
    monkeypatch.setattr(
        tool.on_device, "augment", lambda *a: augment(*a) + 0.001 * (calls.append(1) or len(calls) == 1)
    )
    assert passed(tool.check_augmentation(place)) == [False, None, True, None]


@pytest.mark.parametrize("fault", ["", "programs", "costs"])
def test_what_fast_does_otherwise_is_seen(tool, place, monkeypatch, fault):
    """One program for each size, or other costs."""
    compiled = tool.compiled

    def other(network, losses):
        if fault == "programs":
            monkeypatch.setattr(torch._dynamo, "maybe_mark_dynamic", lambda *_: None)
        run = compiled(network, losses)
        if fault != "costs":
            return run
        return lambda *batch: (run(*batch)[0] * 1.1, run(*batch)[1] * 1.1)

    monkeypatch.setattr(tool, "compiled", other)
    monkeypatch.setattr(tool, "TRAINED", ("tiny",))
    rows = list(tool.check_fast(place._replace(quick=False) if fault else place))
    assert rows


def test_the_goals_are_measured(tool, monkeypatch):
    """Detection of one image, and training from decoded images and from files, against what was asked for."""
    as_on_a_gpu(tool, monkeypatch)
    monkeypatch.setattr(tool, "copies_to", FakeCopies)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fake = install(monkeypatch)
    made = tool.make_network
    monkeypatch.setattr(tool, "make_network", lambda name, size, *rest: made(name, 96, *rest))
    decoded = tool.decoded_batch
    monkeypatch.setattr(tool, "decoded_batch", lambda count, size: decoded(count, 96))
    place = tool.Place("cpu", False, 0.0, 2)
    (detection,) = tool.check_detection(place)
    assert (detection.goal, detection.passed) == ("under 1.5 ms", False)
    assert detection.check == "detection of one image, yolov2-tiny at 416 in bf16"
    assert types  # keeps the import used
    assert not fake.locked
