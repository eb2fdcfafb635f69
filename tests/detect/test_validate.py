"""``valid`` over long lists, and where it goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from darknet_compat import load_detector, validate
from darknet_compat.cfg import read_cfg
from darknet_compat.detect import many
from darknet_compat.errors import ImageError, ResultsError
from darknet_compat.images import save_image
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.cli.test_several import files
from tests.compare import randomise
from tests.conftest import ROOT

TINY = """[net]
batch=1
width=32
height=32
channels=3
[convolutional]
filters=85
size=32
stride=32
activation=linear
[region]
anchors=1,1
classes=80
num=1
"""
# `make million` has a million.
IMAGES = int(os.environ.get("DARKNET_COMPAT_IMAGES", "50000"))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A function that makes a .data file over so many images, in the present folder, and its network's files."""
    monkeypatch.chdir(tmp_path)

    def make(images, kind="coco"):
        (tmp_path / "tiny.cfg").write_text(TINY)
        save_weights(randomise(Network(read_cfg("tiny.cfg")), 1), tmp_path / "tiny.weights")
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in images))
        (tmp_path / "tiny.names").write_text("".join(f"class {number}\n" for number in range(80)))
        (tmp_path / "tiny.data").write_text(f"names=tiny.names\nvalid=list.txt\nresults=results\neval={kind}\n")
        return "tiny.data", "tiny.cfg", "tiny.weights"

    return make


@pytest.fixture
def ten(tiny, tmp_path):
    """Files of ten images, each its own."""
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 24, 3)).astype(np.uint8)
        save_image(pixels, tmp_path / f"{number}.png")
    return tiny([f"{number}.png" for number in range(10)], "voc")


@pytest.mark.parametrize("broken", [0, 2, 3, 7, 9])
def test_a_run_that_was_stopped_goes_on_behind_its_last_whole_batch(ten, tmp_path, monkeypatch, broken):
    validate(load_detector(*ten, device="cpu", batch=3))
    (tmp_path / "results").rename(tmp_path / "whole")
    (tmp_path / f"{broken}.png").rename(tmp_path / "away.png")
    kept = broken - broken % 3
    says = f"; {kept} of 10 images are kept, and -resume goes on$" if kept else "check the path$"
    with pytest.raises(ImageError, match=says):
        validate(load_detector(*ten, device="cpu", batch=3))
    assert len(files(tmp_path / "results")) == bool(kept)
    (tmp_path / "away.png").rename(tmp_path / f"{broken}.png")
    looked, read_file = [], many.read_file
    monkeypatch.setattr(many, "read_file", lambda path: looked.append(path) or read_file(path))
    shown = []

    def progress(found, total):
        assert total == 10
        for one in found:
            shown.append(one.path)
            yield one

    validate(load_detector(*ten, device="cpu", batch=3), resume=True, progress=progress)
    assert sorted(looked) == [f"{number}.png" for number in range(kept, 10)], "what was written whole is not done again"
    assert shown == [f"{number}.png" for number in range(10)]
    assert files(tmp_path / "results") == files(tmp_path / "whole")


def test_a_run_goes_on_with_the_same_things_alone(ten, tmp_path):
    """Each choice that decides a bit of the files, or a file."""

    def stopped(**options):
        (tmp_path / "9.png").rename(tmp_path / "away.png")
        with pytest.raises(ImageError, match="9 of 10"):
            validate(load_detector(*ten, device="cpu", batch=3), **options)
        (tmp_path / "away.png").rename(tmp_path / "9.png")

    stopped()
    for says, change, options in (
        ("batch", {"batch": 2}, {}), ("letter_box", {"letter_box": False}, {}), ("tiles", {"tiles": 2}, {}),
        ("program.*another letter_box.*another thresh", {"program": "alexeyab"}, {}),
        ("numerics", {"numerics": "cpu"}, {}), ("mirrored", {}, {"mirrored": True}),
    ):  # fmt: skip
        with pytest.raises(ResultsError, match=f"of a run with another {says}.*; expected the same, or no -resume"):
            validate(load_detector(*ten, **{"device": "cpu", "batch": 3, **change}), resume=True, **options)
    for file, old, new, says in (
        ("list.txt", "3.png\n", "3.png\n3.png\n", None), ("list.txt", "0.png\n1.png", "1.png\n0.png", "list"),
        ("tiny.names", "class 7\n", "seven\n", "names"), ("tiny.data", "eval=voc", "eval=coco", None),
        ("tiny.cfg", "anchors=1,1", "anchors=1,2", "cfg"),
    ):  # fmt: skip
        before = (tmp_path / file).read_text()
        (tmp_path / file).write_text(before.replace(old, new))
        if says:
            with pytest.raises(ResultsError, match=f"of a run with another {says};"):
                validate(load_detector(*ten, device="cpu", batch=3), resume=True)
        (tmp_path / file).write_text(before)
    save_weights(randomise(Network(read_cfg("tiny.cfg")), 2), tmp_path / "tiny.weights")
    with pytest.raises(ResultsError, match="of a run with another weights;"):
        validate(load_detector(*ten, device="cpu", batch=3), resume=True)
    assert validate(load_detector(*ten, device="cpu", batch=3)), "without -resume it begins anew"
    assert not list((tmp_path / "results").glob(".*"))


MEMORY = """
import sys
from darknet_compat.memory import keep_memory
keep_memory()  # as the command does
from darknet_compat import load_detector, validate

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024

def progress(found, total):
    for index, one in enumerate(found):
        yield one
        if index in (1000, total - 1):
            print(resident(), flush=True)

validate(load_detector(*sys.argv[1:], device="cpu", batch=64), progress=progress)
"""


@pytest.mark.slow
@pytest.mark.posix
def test_memory_stays_flat_over_a_long_list(tiny, tmp_path):
    folder = tmp_path / "the name of a folder, as long as those of many data sets"
    folder.mkdir()
    save_image(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8), folder / "a.png")
    words = tiny([f"{folder}/a.png"] * IMAGES)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEMORY, *words], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    early, late = map(float, done.stdout.split())
    print(f"{early:.0f} MiB after 1,000 images, {late:.0f} MiB after {IMAGES:,}")
    assert late - early < 20
