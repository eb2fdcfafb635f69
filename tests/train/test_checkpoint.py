"""Snapshots: their names and rhythm, and what a .state brings back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource

import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import TrainingError
from darknet_compat.processes import Processes
from darknet_compat.train.checkpoint import FORMAT, Snapshots, passed
from darknet_compat.train.step import Trainer
from darknet_compat.weights import read_header
from tests.hostile import no_longer_than
from tests.train.nets import batches, dropping, small

SETTINGS = {"numerics": "cudnn", "amp": None, "epochs": False}


def make(folder, text=None, seed=0, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    (folder / "net.v1.cfg").write_text(text or small())
    cfg = read_cfg(folder / "net.v1.cfg")
    torch.manual_seed(seed)
    return Trainer(load_network(cfg), seed=seed), Snapshots(folder / "backup", cfg, settings)


def darknets(batch):
    """train_detector's conditions, for one GPU."""
    return (batch % 100 == 0, batch % 10000 == 0 or (batch < 1000 and batch % 100 == 0))


def test_snapshots_come_in_darknets_rhythm(tmp_path):
    _, snapshots = make(tmp_path)
    for batch in range(1, 40201):
        backup, numbered = darknets(batch)
        expected = {"net.backup"} if backup else set()
        expected |= {f"net_{batch}.weights"} if numbered else set()
        assert {path.name for path in snapshots.due(batch - 1, batch, 1)} == expected, batch


def test_a_multiple_that_several_gpus_step_over_counts(tmp_path):
    _, snapshots = make(tmp_path)
    assert [batch for batch in range(3, 400, 3) if passed(batch - 3, batch, 100)] == [102, 201, 300]
    assert [batch for batch in range(3, 400, 3) if passed(batch - 3, batch, 100, first=170)] == [171, 270, 372]
    assert {path.name for path in snapshots.due(99, 102, 1)} == {"net.backup", "net_102.weights"}
    assert snapshots.due(102, 105, 1) == []
    assert {path.name for path in snapshots.due(899, 999, 1)} == {"net.backup", "net_999.weights"}


def test_the_folder_is_made_with_those_above_it(tmp_path):
    trainer, _ = make(tmp_path)
    snapshots = Snapshots(tmp_path / "a" / "b", trainer.network.cfg, {})
    for _ in range(2):
        snapshots.make_folder()
    assert snapshots.last is None
    snapshots.save(trainer, snapshots.backup)
    assert snapshots.last == f"{snapshots.backup} (batch 0)"
    assert {path.name for path in snapshots.folder.iterdir()} == {"net.backup", "net.backup.state"}
    snapshots.folder = snapshots.backup
    with pytest.raises(TrainingError, match=r"net\.backup: cannot make the folder for snapshots: File exists"):
        snapshots.make_folder()


@pytest.mark.parametrize(("program", "version"), [("pjreddie", (0, 2, 0)), ("alexeyab", (0, 2, 5))])
def test_training_writes_its_programs_version(tmp_path, program, version):
    _, snapshots = make(tmp_path)
    trainer = Trainer(load_network(parse_cfg(small()), program=program))
    snapshots.make_folder()
    trainer.network.version = (0, 1, 0)
    trainer.update(batches(1, 1)[0])
    snapshots.save(trainer, snapshots.backup)
    with open(snapshots.backup, "rb") as file:
        header = read_header(file, "it")
    assert (header.version, header.seen) == (version, 8)


@pytest.mark.parametrize("text", [small(), small("adam=1"), dropping()], ids=["sgd", "adam", "dropout"])
@pytest.mark.parametrize("amp", [None, "fp16"])
def test_a_state_goes_on_to_the_last_bit(tmp_path, text, amp):
    updates = batches(2, 6)
    straight, snapshots = make(tmp_path / "a", text)
    snapshots.make_folder()
    straight = Trainer(straight.network, amp=amp, seed=3)
    for update in updates[:3]:
        straight.update(update)
    snapshots.save(straight, snapshots.backup, {"best": 0.5})
    done = [straight.update(update) for update in updates[3:]]

    resumed, _ = make(tmp_path / "a", text, seed=99)
    resumed = Trainer(resumed.network, amp=amp)
    extra, changed = snapshots.resume(resumed)
    assert (extra, changed) == ({"best": 0.5}, [])
    assert [resumed.update(update) for update in updates[3:]][-1].avg == done[-1].avg
    assert (resumed.updates, resumed.images, resumed.network.seen) == (6, 48, 48)
    for (name, ours), theirs in zip(
        resumed.network.state_dict().items(), straight.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def saved(folder):
    trainer, snapshots = make(folder)
    snapshots.make_folder()
    trainer.update(batches(1, 1)[0])
    snapshots.save(trainer, snapshots.backup)
    return snapshots


def test_the_schedule_may_change_and_is_told(tmp_path):
    saved(tmp_path)
    trainer, snapshots = make(tmp_path, small("learning_rate=0.1\ndecay=0.125"))
    _, changed = snapshots.resume(trainer)
    assert changed == ["decay was 0.0005 and is 0.125", "learning_rate was 0.002 and is 0.1"]
    assert snapshots.last == f"{snapshots.backup} (batch 1)"
    assert sorted({group["weight_decay"] for group in trainer.optimizer.param_groups}) == [0, 0.125]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (small("batch=16"), "batch was 8 and is 16"),
        (small().replace("filters=12", "filters=16"), r"layer 4 \[convolutional\]: filters was 12 and is 16"),
        (small().replace("anchors=1.0,1.2", "anchors=1.0,1.3"), r"layer 11 \[region\]: anchors was"),
        (
            "[net]\nwidth=8\nheight=8\nchannels=3\nmax_batches=9\n[conv]\nfilters=8\n[region]\nclasses=3\n",
            "that training has 12 layers of other types",
        ),
    ],
)
def test_a_state_of_another_cfg_is_refused_in_one_line(tmp_path, text, words):
    saved(tmp_path)
    trainer, snapshots = make(tmp_path, text)
    with pytest.raises(TrainingError, match=words) as caught:
        snapshots.resume(trainer)
    assert "\n" not in str(caught.value)


def test_a_job_that_is_started_again_knows_its_own_state(tmp_path):
    """By its launchers: one that wrote it is enough, as machines come and go."""
    trainer, snapshots = make(tmp_path)
    snapshots.make_folder()
    left = make(tmp_path)[1]
    left.launchers = ["here", "there"]
    assert left.read_own_state() is None, "nothing was saved yet"
    for launchers, own in ((["here", "there"], True), (["there", "where"], True), (["where"], False), ([], False)):
        snapshots.launchers = launchers
        snapshots.save(trainer, snapshots.backup)
        assert left.read_own_state() == (left.read_state() if own else None)


@pytest.mark.parametrize("content", [b"damaged", [1, 2], {}, {"launchers": 3}, {"launchers": [[]]}], ids=str)
def test_a_state_that_this_job_did_not_write_is_not_its_own(tmp_path, content):
    """It will be overwritten, and is no reason to end."""
    snapshots = saved(tmp_path)
    snapshots.launchers = ["here"]
    if isinstance(content, bytes):
        snapshots.state.write_bytes(content)
    else:
        write_state(snapshots, content)
    assert snapshots.read_own_state() is None


def test_other_settings_are_refused(tmp_path):
    saved(tmp_path)
    trainer, snapshots = make(tmp_path, settings={**SETTINGS, "numerics": "cpu"})
    with pytest.raises(TrainingError, match="has -numerics cudnn, this command cpu"):
        snapshots.resume(trainer)


def test_no_state_is_an_error_that_says_what_to_do(tmp_path):
    trainer, snapshots = make(tmp_path)
    with pytest.raises(TrainingError, match=r"No such file.*name it after CFG instead"):
        snapshots.resume(trainer)


def damaged(whole, random):
    """Copies of the bytes ``whole``, each damaged in another way and place."""
    for _ in range(80):
        place = random.randrange(len(whole))
        yield whole[:place] + bytes([whole[place] ^ 1 << random.randrange(8)]) + whole[place + 1 :]
        yield whole[:place]
        yield whole + random.randbytes(random.randrange(1, 9))
        end = min(len(whole), place + random.choice((16, 512, 4096)))
        yield whole[:place] + bytes(end - place) + whole[end:]
        yield whole[:place] + random.randbytes(end - place) + whole[end:]


def test_a_state_with_any_damage_is_refused_in_one_line(tmp_path):
    whole = saved(tmp_path).state.read_bytes()
    trainer, snapshots = make(tmp_path, seed=1)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    copies = [copy for copy in damaged(whole, random.Random(20)) if copy != whole]
    assert len(copies) > 300
    for copy in copies:
        snapshots.state.write_bytes(copy)
        with pytest.raises(
            TrainingError, match=r"net\.backup\.state: (damaged|no training state).*; start anew"
        ) as caught:
            snapshots.resume(trainer)
        assert "\n" not in str(caught.value)
    assert trainer.images == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())
    snapshots.state.write_bytes(whole)
    assert snapshots.resume(trainer) == ({}, [])


class Planted:
    """A pickle of it makes a file called ``planted``."""

    def __reduce__(self):
        return open, ("planted", "w")


def write_state(snapshots, content):
    """A .state that holds these bytes, or this object."""
    payload = content
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        payload = buffer.getvalue()
    snapshots.state.write_bytes(FORMAT + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


FOREIGN = {
    "no zip": b"some bytes",
    "a list": [1, 2],
    "a tensor": torch.zeros(3),
    "nothing in it": {},
    "a cfg that is none": {"cfg": "{", "settings": {}, "trainer": {}, "extra": {}},
    "a cfg of numbers": {"cfg": "[1, 2]", "settings": {}, "trainer": {}, "extra": {}},
    "settings of another kind": {"cfg": None, "settings": 3, "trainer": {}, "extra": {}},
    "a trainer without its network": {"cfg": None, "settings": SETTINGS, "trainer": {"world": 1}, "extra": {}},
    "code": Planted(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_state_that_another_program_wrote_is_refused_in_one_line(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    trainer, snapshots = make(tmp_path)
    snapshots.make_folder()
    if isinstance(content, dict) and content.get("cfg", 1) is None:
        content = {**content, "cfg": json.dumps(snapshots.cfg.meaning())}
    write_state(snapshots, content)
    with pytest.raises(TrainingError, match=r"no state of this training .*; start anew") as caught:
        snapshots.resume(trainer)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "planted").exists()


def test_a_state_of_an_older_version_is_refused(tmp_path):
    snapshots = saved(tmp_path)
    torch.save({"format": "darknet_compat training state 1"}, snapshots.state)
    with pytest.raises(TrainingError, match="expected `darknet_compat training state 5` at its start"):
        snapshots.resume(make(tmp_path)[0])


NO_FILES = {
    "a device or a pipe": os.mkfifo,
    "Is a directory": os.mkdir,
    "a device": lambda path: os.symlink("/dev/zero", path),
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_regular_file_is_not_read(tmp_path, what):
    trainer, snapshots = make(tmp_path)
    snapshots.make_folder()
    NO_FILES[what](snapshots.state)
    with pytest.raises(TrainingError, match=rf"net\.backup\.state: {what}.*; -resume goes on from"), no_longer_than(10):
        snapshots.resume(trainer)


def test_another_number_of_processes_is_told(tmp_path):
    saved(tmp_path)
    trainer, snapshots = make(tmp_path)
    trainer.processes = Processes(trainer.device, rank=1, world=3)
    assert snapshots.resume(trainer)[1] == ["the number of processes was 1 and is 3"]


def test_what_cannot_be_written_leaves_what_was(tmp_path):
    snapshots = saved(tmp_path)
    before = snapshots.state.read_bytes()
    trainer, _ = make(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk, the weights still fit, and the state stops in the midst.
    resource.setrlimit(resource.RLIMIT_FSIZE, (snapshots.backup.stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(TrainingError, match="File too large; the file was not written"):
            snapshots.save(trainer, snapshots.backup)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert snapshots.state.read_bytes() == before
    assert sorted(path.name for path in snapshots.folder.iterdir()) == ["net.backup", "net.backup.state"]


def test_a_cfg_from_text_trains_too():
    assert Trainer(load_network(parse_cfg(small()))).batch == 0
