"""The journal of ``valid``: what a killed run has left, and what is refused."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from darknet_compat.detect.detections import Detections
from darknet_compat.detect.journal import RECORD, Journal, made_by
from darknet_compat.errors import ResultsError
from darknet_compat.weights import load_network
from tests.conftest import ROOT, SHAPES

MADE = {"cfg": "a", "weights": "b", "batch": 2}
PATHS = [f"{number}.jpg" for number in range(6)]
BATCHES = (0, 2), (2, 4), (4, 5)


def detections(number):
    """Of an image as no other: no box at all for one of them, a class above 255, numbers that are not finite."""
    rng = np.random.default_rng(number)
    prob = np.where(rng.random((number, 300)) < 0.1, rng.random((number, 300)), 0).astype(np.float32)
    boxes = rng.normal(size=(number, 4)).astype(np.float32)
    boxes[:1, 0], prob[:1, 299] = np.inf, np.nan
    return Detections(PATHS[number], 100 + number, 70000, boxes, prob, False, ["name"])


def same(one, other):
    for name in ("path", "width", "height", "relative", "classes"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("boxes", "prob"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def killed(path, batches=BATCHES, made=MADE):
    """Leave a journal as a process does that is killed after some batches."""
    code = "import os, sys; sys.path.insert(0, sys.argv[1]); from tests.detect.test_journal import *\n"
    code += f"with Journal(Path(sys.argv[2]), {made!r}) as journal:\n"
    for start, end in batches:
        code += f"    journal.add([detections(number) for number in range({start}, {end})])\n"
    code += "    os.kill(os.getpid(), 9)\n"
    code = "from pathlib import Path\n" + code
    done = subprocess.run([sys.executable, "-c", code, str(ROOT), str(path)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / ".name.journal"


def going_on(path, made=MADE):
    """How many images a run goes on behind, and their detections; the file as it stands then."""
    with suppress(KeyboardInterrupt), Journal(path, made, resume=True) as journal:
        found = list(journal.read(PATHS, ["name"]))
        assert len(found) == journal.images
        raise KeyboardInterrupt
    return found


@pytest.mark.posix
def test_a_killed_run_leaves_what_it_added(path):
    killed(path)
    for number, one in enumerate(going_on(path)):
        same(one, detections(number))
    assert number == 4


@pytest.mark.posix
def test_a_run_that_goes_on_adds_behind(path):
    killed(path, BATCHES[:1])
    with suppress(KeyboardInterrupt), Journal(path, MADE, resume=True) as journal:
        list(journal.read(PATHS))
        journal.add([detections(2), detections(3)])
        assert journal.images == 4
        raise KeyboardInterrupt
    for number, one in enumerate(going_on(path)):
        same(one, detections(number))
    assert number == 3


@pytest.mark.posix
def test_a_record_that_is_torn_or_damaged_is_none_nor_what_follows(path):
    killed(path)
    whole = path.read_bytes()
    ends = [whole.index(b"\n") + 1]
    while ends[-1] < len(whole):
        ends.append(ends[-1] + RECORD.size + RECORD.unpack_from(whole, ends[-1])[0])
    assert len(ends) == 4
    images = [0, 2, 4, 5]
    for size in sorted({*ends, *(end + more for end in ends for more in (-1, 1, RECORD.size))}):
        if ends[0] <= size <= len(whole):
            path.write_bytes(whole[:size])
            expected = max(count for end, count in zip(ends, images, strict=True) if end <= size)
            assert len(going_on(path)) == expected, size
            assert path.exists() == (expected > 0)
    for damaged, expected in ((ends[1] - 1, 0), (ends[1] + 5, 2), (ends[2] - 3, 2), (ends[3] - 1, 4)):
        path.write_bytes(whole[:damaged] + bytes([whole[damaged] ^ 1]) + whole[damaged + 1 :])
        assert len(going_on(path)) == expected
        assert not path.exists() or path.stat().st_size == ends[images.index(expected)], "what is torn is cut off"
    path.write_bytes(whole + struct.pack("<III", 2**31, 0, 1))
    assert len(going_on(path)) == 5


@pytest.mark.posix
def test_a_journal_of_another_run_is_refused(path):
    killed(path)
    before = path.read_bytes()
    for made, says in (
        ({**MADE, "cfg": "c"}, "another cfg"),
        ({**MADE, "weights": "x", "batch": 4}, "another weights, another batch"),
        ({"cfg": "a", "weights": "b"}, "another batch"),
        ({**MADE, "tiles": 1}, "another tiles"),
    ):
        with pytest.raises(ResultsError, match=rf"^\S+\.journal: it is of a run with {says}; expected the same, or "):
            going_on(path, made)
        assert path.read_bytes() == before
    for damaged in (b"no JSON\n", b"[]\n", before.split(b"\n")[0]):
        path.write_bytes(damaged)
        with pytest.raises(ResultsError, match="no journal of a run; remove it, or run without -resume"):
            going_on(path)
        assert path.read_bytes() == damaged


@pytest.mark.posix
def test_without_resume_an_old_journal_is_overwritten(path):
    killed(path)
    with suppress(KeyboardInterrupt), Journal(path, {"cfg": "c"}) as journal:
        assert (journal.images, list(journal.read(PATHS))) == (0, [])
        journal.add([detections(3)])
        raise KeyboardInterrupt
    assert json.loads(path.read_bytes().split(b"\n")[0]) == {"journal": 1, "cfg": "c"}
    [one] = going_on(path, {"cfg": "c"})
    np.testing.assert_array_equal(one.prob, detections(3).prob)


def test_without_one_a_run_begins_anew(path):
    with Journal(path, MADE, resume=True) as journal:
        assert journal.images == 0
        journal.add([detections(1)])
    assert list(path.parent.iterdir()) == [], "it goes away at the end"
    path.touch()  # of a run that was killed before it wrote a byte
    assert going_on(path) == []
    assert not path.exists(), "an error before the first batch leaves nothing"


def test_whole_batches_are_kept_and_the_rest_at_the_end(path):
    found = [detections(number) for number in range(5)]
    with Journal(path, MADE) as journal:
        kept = []
        for number, one in enumerate(journal.kept(iter(found), 2)):
            assert one is found[number]
            kept.append(journal.images)
        assert kept == [0, 0, 2, 2, 4]
        assert journal.images == 5

    def broken():
        yield from found[:3]
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), Journal(path, MADE) as journal:
        list(journal.kept(broken(), 2))
    assert len(going_on(path)) == 2


@pytest.mark.posix
def test_two_runs_do_not_write_the_same_files(path):
    with Journal(path, MADE) as journal:
        journal.add([detections(1)])
        for resume in (False, True):
            with (
                pytest.raises(ResultsError, match="another run writes these result files; let it end first"),
                Journal(path, MADE, resume),
            ):
                pass
        assert path.stat().st_size > RECORD.size


def test_a_full_disk_is_one_line(path, monkeypatch):
    def full(self, found):
        raise OSError(28, "No space left on device")

    with Journal(path, MADE) as journal:
        monkeypatch.setattr(journal, "_file", type("File", (), {"write": full, "flush": full})())
        with pytest.raises(ResultsError, match=r"^\S+journal: No space left on device; no result file was written$"):
            journal.add([detections(1)])
        assert journal.images == 0


def test_ctrl_c_behind_the_last_byte_keeps_the_batch(path, monkeypatch):
    """And with it the journal, where it is the first."""

    def interrupted():
        flush()
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), Journal(path, MADE) as journal:
        flush = journal._file.flush
        journal._file = SimpleNamespace(write=journal._file.write, flush=interrupted)
        journal.add([detections(0)])
    assert journal.images == 1
    (read,) = going_on(path)
    same(read, detections(0))


def test_what_made_detections():
    """Each thing that decides them changes one word."""
    network = load_network(*SHAPES)
    usual = made_by(network, ["a", "b"], batch=4)
    assert usual == made_by(load_network(*SHAPES), ["a", "b"], batch=4)

    def changed(other):
        assert other.keys() == usual.keys()
        return [name for name in usual if usual[name] != other[name]]

    assert changed(made_by(network, ["a", "b"], batch=2)) == ["batch"]
    for paths in (["a"], ["b", "a"], ["a\nb"], ["ab"], ["a", "b", "c"]):
        # A path holds no end of a line: lists are files of lines.
        assert changed(made_by(network, paths, batch=4)) == (["list"] if paths != ["a\nb"] else [])
    assert changed(made_by(load_network(*SHAPES, program="alexeyab"), ["a", "b"], batch=4)) == ["program"]
    assert changed(made_by(load_network(*SHAPES, numerics="cpu"), ["a", "b"], batch=4)) == ["numerics"]
    next(network.parameters()).data.flatten()[7] += 1e-6
    assert changed(made_by(network, ["a", "b"], batch=4)) == ["weights"]
    other = load_network(*SHAPES)
    other.cfg = load_network(ROOT / "cfg/yolov3-tiny.cfg").cfg
    assert changed(made_by(other, ["a", "b"], batch=4)) == ["cfg"]


def test_a_path_that_is_no_utf8(path):
    network = load_network(*SHAPES)
    assert made_by(network, [os.fsdecode(b"\xff.jpg")])["list"] != made_by(network, ["a.jpg"])["list"]
