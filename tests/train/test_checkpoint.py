"""Snapshots: their names and rhythm, and what a .state brings back."""

from __future__ import annotations

import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import TrainingError
from darknet_compat.train.checkpoint import Snapshots, passed
from darknet_compat.train.step import Trainer
from darknet_compat.weights import read_header
from tests.train.nets import batches, small

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
        assert {path.name for path in snapshots.due(batch - 1, batch)} == expected, batch


def test_a_multiple_that_several_gpus_step_over_counts(tmp_path):
    _, snapshots = make(tmp_path)
    assert [batch for batch in range(3, 400, 3) if passed(batch - 3, batch, 100)] == [102, 201, 300]
    assert {path.name for path in snapshots.due(99, 102)} == {"net.backup", "net_102.weights"}
    assert snapshots.due(102, 105) == []


def test_training_writes_version_0_2_0(tmp_path):
    trainer, snapshots = make(tmp_path)
    snapshots.make_folder()
    trainer.network.version = (0, 1, 0)
    trainer.update(batches(1, 1)[0])
    snapshots.save(trainer, snapshots.backup)
    with open(snapshots.backup, "rb") as file:
        header = read_header(file, "it")
    assert (header.version, header.seen) == ((0, 2, 0), 8)


@pytest.mark.parametrize("net", ["", "adam=1"], ids=["sgd", "adam"])
@pytest.mark.parametrize("amp", [None, "fp16"])
def test_a_state_goes_on_to_the_last_bit(tmp_path, net, amp):
    updates = batches(2, 6)
    text = small(net)
    straight, snapshots = make(tmp_path / "a", text)
    snapshots.make_folder()
    straight = Trainer(straight.network, amp=amp)
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
    assert sorted({group["weight_decay"] for group in trainer.optimizer.param_groups}) == [0, 0.125]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (small("batch=16"), "batch was 8 and is 16"),
        (small().replace("filters=12", "filters=16"), r"layer 4 \[convolutional\]: filters was 12 and is 16"),
        (small().replace("anchors=1.0,1.2", "anchors=1.0,1.3"), r"layer 11 \[region\]: anchors was"),
        (
            "[net]\nwidth=8\nheight=8\nchannels=3\nmax_batches=9\n[conv]\nfilters=8\n[region]\nclasses=3\n",
            "other types",
        ),
    ],
)
def test_a_state_of_another_cfg_is_refused_in_one_line(tmp_path, text, words):
    saved(tmp_path)
    trainer, snapshots = make(tmp_path, text)
    with pytest.raises(TrainingError, match=words) as caught:
        snapshots.resume(trainer)
    assert "\n" not in str(caught.value)


def test_other_settings_are_refused(tmp_path):
    saved(tmp_path)
    trainer, snapshots = make(tmp_path, settings={**SETTINGS, "numerics": "cpu"})
    with pytest.raises(TrainingError, match="has -numerics cudnn, this command cpu"):
        snapshots.resume(trainer)


def test_no_state_and_damaged_ones_are_errors_of_one_line(tmp_path):
    trainer, snapshots = make(tmp_path)
    with pytest.raises(TrainingError, match="No such file"):
        snapshots.resume(trainer)
    whole = saved(tmp_path).state.read_bytes()
    for damage in (b"", b"no zip", whole[: len(whole) // 2], whole[:-30]):
        snapshots.state.write_bytes(damage)
        with pytest.raises(TrainingError) as caught:
            snapshots.resume(trainer)
        assert "\n" not in str(caught.value)
    torch.save({"format": "another"}, snapshots.state)
    with pytest.raises(TrainingError, match="expected the format"):
        snapshots.resume(trainer)


def test_what_cannot_be_written_leaves_what_was(tmp_path, monkeypatch):
    snapshots = saved(tmp_path)
    before = snapshots.state.read_bytes()
    trainer, _ = make(tmp_path)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(TrainingError, match="No space left on device; the file was not written"):
        snapshots.save(trainer, snapshots.backup)
    assert snapshots.state.read_bytes() == before
    assert sorted(path.name for path in snapshots.folder.iterdir()) == ["net.backup", "net.backup.state"]


def test_a_cfg_from_text_trains_too():
    assert Trainer(load_network(parse_cfg(small()))).batch == 0
