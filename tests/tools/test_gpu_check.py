"""tools/gpu_check.py, as far as a CPU can run it: its checks, and that each of them sees what it is there to see."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.layers import TYPES
from tests.conftest import ROOT
from tests.tools.run import load_tool, one_line, run_tool
from tests.train import classes
from tests.train.fake_cuda import FakeCopies, install


@pytest.fixture
def tool():
    return load_tool("gpu_check")


@pytest.fixture
def place(tool):
    return tool.Place("cpu", True, 0.0, 2)


def passed(rows):
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
    title, *rows, end = said.out.split("\n")[1:]
    assert [re.split("  +", line) for line in rows] == [
        ["a difference", "2.0e-05", "at most 1e-04", "pass"],
        ["a time", "3 ms"],
        ["another", "nan", "at most 1e-04", "FAILED"],
        ["check second", "RuntimeError: CUDA error: out of luck", "to end", "FAILED"],
        ["a last one", "left out: it needs a GPU"],
    ]
    assert {line.find("at most") for line in rows} - {-1} == {title.index("goal")}
    assert end == ""
    assert said.err.endswith("gpu_check: 2 of 3 checks failed\n")
    assert [row["passed"] for row in json.loads((tmp_path / "x").read_text())["rows"]] == [
        True,
        None,
        False,
        False,
        None,
    ]
    monkeypatch.setattr(tool, "CHECKS", [check_first, check_third])
    assert tool.main() == 0


# --- the checks


def test_every_section_type_is_checked(tool):
    assert tool.LAYERS.keys() | {name for name, *_ in tool.HEADS} == TYPES.keys()


@pytest.mark.parametrize("name", ["check_layers", "check_losses", "check_boxes"])
def test_what_a_gpu_computes_otherwise_is_seen(tool, place, monkeypatch, name):
    """The same on both sides passes; a value that differs by 1/1000, be it the first or the last, does not."""
    monkeypatch.setattr(tool, "LAYERS", {key: tool.LAYERS[key] for key in ("connected", "dropout", "shortcut")})
    monkeypatch.setattr(tool, "HEADS", tool.HEADS[1:8:3])
    monkeypatch.setattr(tool, "TYPES", {key: None for key in (*tool.LAYERS, *(head for head, *_ in tool.HEADS))})
    relative, calls = tool.relative, []

    def check(wrong):
        calls.clear()
        return passed(getattr(tool, name)(place)).count(False)

    def other(a, b):
        calls.append(a)
        return relative(a * 1.001 if len(calls) == wrong else a, b)

    monkeypatch.setattr(tool, "relative", other)
    wrong = 0
    none = check(wrong)
    count = len(calls)
    found = []
    for wrong in (1, count):
        found.append(check(wrong))
    assert (none, found) == (0, [1, 1])
    assert count > 5


def test_a_nan_is_a_difference(tool):
    assert tool.relative(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0])) == float("inf")
    assert tool.relative(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])) == pytest.approx(0.2)


def test_boxes_that_are_suppressed_otherwise_are_seen(tool, place, monkeypatch):
    nms, calls = tool.nms_sort, []

    def other(*arguments):
        calls.append(arguments[-1])
        *kept, prob = nms(*arguments)
        return *kept, prob * (len(calls) != 4)

    monkeypatch.setattr(tool, "nms_sort", other)
    assert passed(tool.check_boxes(place)) == [True, False]
    assert calls == [kind for kind in ("default", "greedynms", "diounms") for _ in range(2)]


def quick_to_trace(tool, monkeypatch):
    """A small classifier in the place of all that are trained."""
    cfg = parse_cfg(classes.classifier())
    monkeypatch.setattr(tool, "read_cfg", lambda path: cfg)
    monkeypatch.setattr(tool, "TRAINED", ("tiny",))
    monkeypatch.setattr(tool, "QUICK", ("tiny",))


@pytest.mark.parametrize("fault", ["none", "cost", "tensors", "nan", "repeat", "half"])
def test_a_training_that_goes_otherwise_is_seen(tool, place, monkeypatch, fault):
    """The first training is the CPU's, the second and third are the GPU's, the fourth is in bf16."""
    quick_to_trace(tool, monkeypatch)
    train, calls = tool.train, []

    def other(*arguments, **options):
        calls.append(options)
        costs, tensors = train(*arguments, **options)
        if (fault, len(calls)) in (("cost", 2), ("cost", 3), ("half", 4)):
            costs = [1.1 * cost for cost in costs]
        if (fault, len(calls)) in (("tensors", 2), ("tensors", 3)):
            tensors = {name: 1.1 * tensor for name, tensor in tensors.items()}
        if (fault, len(calls)) in (("nan", 2), ("nan", 3)):  # of one tensor, which is neither the first nor the last
            tensors[list(tensors)[1]] = torch.full((), float("nan"))
        if (fault, len(calls)) == ("repeat", 3):
            tensors = {name: torch.nextafter(tensor, tensor + 1) for name, tensor in tensors.items()}
        return costs, tensors

    monkeypatch.setattr(tool, "train", other)
    found = dict(zip(("cost", "tensors", "repeat", "half"), passed(tool.check_training(place)), strict=True))
    expected = {"none": [], "nan": ["tensors", "repeat"]}.get(fault, [fault])
    assert [name for name, one in found.items() if not one] == expected
    assert calls == [{}, {}, {}, {"amp": "bf16"}]


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

    def other(copies, sent):
        batch = arrive(copies, sent)
        return batch._replace(images=batch.images * (torch.arange(len(batch.images)) != 1)[:, None, None, None])

    monkeypatch.setattr(FakeCopies, "arrive", other)
    _, rows = copied(tool, place, monkeypatch)
    assert rows[0].passed is False


def test_a_copy_that_keeps_the_host_waiting_is_seen(tool, place, monkeypatch):
    """As one from memory that is not page-locked."""
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
    augment, calls = tool.on_device.augment, []
    monkeypatch.setattr(
        tool.on_device, "augment", lambda *a: augment(*a) + 0.001 * (calls.append(1) or len(calls) == 1)
    )
    assert passed(tool.check_augmentation(place)) == [False, None, True, None]


@pytest.mark.parametrize("fault", ["none", "programs", "later", "costs"])
def test_what_fast_does_otherwise_is_seen(tool, place, monkeypatch, fault):
    """A program for each size, one more in the second round, and other costs; of a network that is quick to trace."""
    quick_to_trace(tool, monkeypatch)
    compiled = tool.compiled

    def other(network, losses):
        run, calls = compiled(network, losses), []

        def losses_of(*batch):
            calls.append(batch)
            if fault == "later" and len(calls) == 4:
                torch._dynamo.reset()
            return [one * 1.1 for one in run(*batch)] if fault == "costs" else run(*batch)

        return losses_of

    monkeypatch.setattr(tool, "compiled", other)
    if fault == "programs":
        monkeypatch.setattr(torch._dynamo, "maybe_mark_dynamic", lambda *_: None)
    rows = {row.check: row.passed for row in tool.check_fast(place)}
    assert rows == {
        "-fast tiny, one size: programs": fault != "later",
        "-fast tiny, one size: costs": fault != "costs",
        "-fast tiny, 3 sizes: programs": fault not in ("programs", "later"),
        "-fast tiny, 3 sizes: costs": fault != "costs",
    }


def test_the_goals_are_measured(tool, monkeypatch):
    """Detection of one image; training from decoded images and from JPEG files, on the loader's way to a GPU."""
    as_on_a_gpu(tool, monkeypatch)
    monkeypatch.setattr(tool, "copies_to", FakeCopies)
    fake = install(monkeypatch)
    monkeypatch.setattr(tool, "SIZE", 64)
    place = tool.Place("cpu", False, 0.0, 2)
    detection, of_decoded, of_files = [*tool.check_detection(place), *tool.check_training_in_time(place)]
    for row, what, goal in (
        (detection, "detection of one image, yolov2-tiny at 64 in bf16", "under 1.5 ms"),
        (of_decoded, "training yolov2-tiny at 64, batch 2, bf16, from decoded images to updates", "4300 images/s"),
        (of_files, "training yolov2-tiny at 64, batch 2, bf16, from JPEG files", "4300 images/s"),
    ):
        assert row.check.startswith(what)
        assert row.goal == goal
        assert row.passed is False
        assert float(row.found.split()[0]) > 0
    assert not fake.locked
    copies = [number for what, number in fake.order if what == "copy"]
    arrived = [number for what, number in fake.order if what == "arrives"]
    assert len(copies) > len(arrived) > 15
