"""All that training has, for every head and both programs: each test runs over the networks of nets.HEADS."""

from __future__ import annotations

import csv
import re
import signal
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError, TrainingError
from darknet_compat.layers.base import ALEXEYAB
from darknet_compat.layers.head import Boxes
from darknet_compat.processes import join, leave
from darknet_compat.train import loop
from darknet_compat.train.detector import DetectorTraining, train_detector
from darknet_compat.train.log import FIRST, SIZE, Log
from darknet_compat.train.schedule import Resizing
from darknet_compat.train.step import AMP, Trainer, strict
from tests.train.nets import HEADS, batches, data_set, of_heads
from tests.train.test_distributed import in_processes
from tests.train.test_loop import LINE

DRAW = Log.draw
every_head = pytest.mark.parametrize("name", HEADS)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    data_set(folder)
    return folder


def written(images, folder, name, **net):
    """The .data and the .cfg file of a training whose files go into ``folder``."""
    folder.mkdir(exist_ok=True)
    data, cfg = folder / "set.data", folder / "net.cfg"
    data.write_text((images / "set.data").read_text().replace(f"{images}/backup", f"{folder}/backup"))
    cfg.write_text(of_heads(name, **net))
    return data, cfg


@pytest.fixture
def train(images, tmp_path, monkeypatch):
    """Train a network of HEADS from files, in a folder by that name. A chart would take longer than the training."""
    monkeypatch.setattr(Log, "draw", lambda log: None)

    def call(name, folder="a", net=None, **flags):
        given = {"device": "cpu", "workers": 0, "seed": 3, **flags}
        return train_detector(*written(images, tmp_path / folder, name, **net or {}), **given)

    return call


def rows(done):
    """The table, without what the clock says."""
    with open(done.weights.parent / "net.csv", newline="") as file:
        return [
            {name: cell for name, cell in row.items() if not name.endswith("seconds")} for row in csv.DictReader(file)
        ]


def trainer_of(name, net=None, **options):
    torch.manual_seed(5)
    return Trainer(load_network(parse_cfg(of_heads(name, **net or {}))), **options)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def press_ctrl_c(monkeypatch, updates):
    """In the midst of the update behind so many."""
    datum, taken = Trainer._datum, []

    def pressing(trainer, *arguments):
        figures = datum(trainer, *arguments)
        taken.append(trainer.updates)
        if taken.count(updates) == 2:
            signal.raise_signal(signal.SIGINT)
        return figures

    monkeypatch.setattr(Trainer, "_datum", pressing)


@every_head
def test_ctrl_c_and_resume_change_nothing(train, monkeypatch, handlers, name):
    """To the last bit of the weights and of every figure, with mAP on the way."""
    straight = train(name, "straight", map_every=2)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 3)
        stopped = train(name, "broken", map_every=2)
    assert (stopped.signal, stopped.batch) == (signal.SIGINT, 3)
    done = train(name, "broken", resume=True, map_every=2)
    assert (done.signal, done.batch, done.best) == (0, 4, straight.best)
    assert done.weights.read_bytes() == straight.weights.read_bytes()
    assert rows(done) == rows(straight)
    assert [bool(row["map"]) for row in rows(done)] == [False, True, False, True]
    assert (done.weights.parent / "net_best.weights").exists()


@pytest.fixture
def small_sizes(monkeypatch):
    """For random=1: two updates of a size, up to 96 x 96."""
    quick(lambda module, name, value: monkeypatch.setattr(module, name, value))


def quick(change):
    change(loop, "DETECTION", Resizing(range(32, 97, 32), every=2, last=1))


DRAWING = ["region", "yolo", "yolo and region"]


@pytest.mark.parametrize("name", DRAWING)
def test_random_sizes_go_on_as_they_were(train, monkeypatch, handlers, small_sizes, name):
    net = {"random": 1, "max_batches": 7}
    straight = train(name, "straight", net)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 3)
        train(name, "broken", net)
    done = train(name, "broken", net, resume=True)
    assert done.weights.read_bytes() == straight.weights.read_bytes()
    assert rows(done) == rows(straight)
    assert len({row["size"] for row in rows(done)}) > 1


PAIR = {"learning_rate": 0.0002, "drawn": False, "norm": False}
ALONE = {**PAIR, "learning_rate": 0.0004, "batch": 8, "subdivisions": 4}


def in_two(images, folder):
    """What each of the two processes of the next test does."""
    quick(setattr)
    processes = join("cpu")
    results = {}
    for name in HEADS:
        trainer = trainer_of(name, PAIR, processes=processes)
        update = [trainer.update(four[processes.rank :: 2]) for four in batches(3, 3, subdivisions=4, count=2)][-1]
        results[name] = update.loss, trainer.network.state_dict()
    if processes.first:
        torch.save(results, folder / "results.pt")
    for name in DRAWING:
        if processes.first:
            written(images, folder / name, name, random=1, max_batches=8)
        processes.barrier()
        files = folder / name / "set.data", folder / name / "net.cfg"
        train_detector(*files, device="cpu", workers=0, resume=True, processes=processes)
    leave()


def test_two_processes_are_one_with_twice_the_images(images, tmp_path, train, small_sizes):
    """And a training with random=1 goes on in two, and in one again."""
    for name in DRAWING:
        train(name, name, {"random": 1, "max_batches": 2}, workers=0)
    code = "import sys, pathlib; from tests.train.test_heads import in_two; in_two(*map(pathlib.Path, sys.argv[1:]))"
    codes, out, error = in_processes(2, [sys.executable, "-c", code, str(images), str(tmp_path)])
    assert (codes, error) == ([0, 0], "")
    assert out.count("changed since: the number of processes was 1 and is 2") == len(DRAWING)
    results = torch.load(tmp_path / "results.pt")
    for name in HEADS:
        one = trainer_of(name, ALONE)
        update = [one.update(four) for four in batches(3, 3, subdivisions=4, count=2)][-1]
        loss, state = results[name]
        assert loss == pytest.approx(update.loss, rel=1e-4), name
        for (key, ours), theirs in zip(one.network.state_dict().items(), state.values(), strict=True):
            assert (ours - theirs).norm() <= 1e-5 * ours.norm(), (name, key)
    for name in DRAWING:
        done = train(name, name, {"random": 1, "max_batches": 10}, resume=True)
        assert [row["batch"] for row in rows(done)] == ["1", "2", "4", "6", "8", "9", "10"]
        assert all(row[column] for row in rows(done) for column in row if column.startswith("no_obj"))


@every_head
def test_map_counts_what_every_head_finds(images, tmp_path, name):
    """Each finds one object of each image."""
    data, cfg = written(images, tmp_path, name)
    data.write_text(data.read_text().replace(f"valid={images}/list.txt", f"valid={tmp_path}/valid.txt"))
    path = tmp_path / "JPEGImages" / "0.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "valid.txt").write_text(f"{path}\n")
    places = [(0.3, 0.5, 0.2, 0.4), (0.7, 0.5, 0.2, 0.4)][: max(len(HEADS[name]), 1)]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("".join("1 {} {} {} {}\n".format(*place) for place in places))
    job = DetectorTraining(data, cfg, device="cpu", map_every=0)
    network = job.trainer.network.eval()

    def finding(head, place, objects):
        def boxes(output, thresh, hier=0.5, class_map=None):
            prob = torch.tensor([[[0.0, 0.9, 0.0]]])[:, :objects]
            return Boxes(torch.tensor([[place]])[:, :objects], prob[..., 1], prob)

        head.boxes = head.listed = boxes

    def score(silent=None):
        for number, (head, place) in enumerate(zip(network.heads, places, strict=True)):
            finding(head, place, number != silent)
        return job.scoring.score()[0]

    whole = score()
    assert whole > 0
    for number in range(len(places)):
        assert score(silent=number) < 0.6 * whole


def exactly(name, updates, net=None, **options):
    trainer = trainer_of(name, net, **options)
    return trainer, [trainer.update(update) for update in updates]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@every_head
def test_half_precision_ends_before_the_heads(name, amp):
    """The gradient is that of float32 but for rounding; one that the scale of fp16 spoils is left out."""
    made = batches(7, 2, count=2)
    exact, found = exactly(name, made)
    half = trainer_of(name, amp=amp)
    half.scaler = torch.amp.GradScaler("cpu", init_scale=16, enabled=amp == "fp16")
    close = [half.update(update) for update in made]
    assert [one.loss for one in close] == pytest.approx([one.loss for one in found], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in half.network.state_dict().values() if tensor.ndim)
    for head, other in zip(exact.network.heads, half.network.heads, strict=True):
        ours, theirs = (
            trainer.network.layers[one.index - 1].biases.grad for trainer, one in ((exact, head), (half, other))
        )
        assert (ours - theirs).norm() < 0.1 * ours.norm()
    images, truth, _ = made[0][0]
    with torch.no_grad(), torch.autocast("cpu", AMP[amp]):
        for head, raw in zip(half.network.heads, half.network.raw_maps(images), strict=True):
            assert raw.dtype == AMP[amp]
            ours, theirs = (head.loss(one, truth, 8) for one in (raw, raw.float()))
            assert ours.loss.dtype == torch.float32
            torch.testing.assert_close(ours.figures, theirs.figures, rtol=0, atol=0, equal_nan=True)
    if amp == "fp16":
        before = {key: tensor.clone() for key, tensor in half.network.named_parameters()}
        spoilt = half.network.layers[half.network.heads[-1].index - 1].biases
        hook = spoilt.register_hook(lambda gradient: gradient * torch.inf)
        half.update(made[0])
        hook.remove()
        assert same(dict(half.network.named_parameters()), before)
        assert half.scaler.get_scale() == 8
        half.update(made[1])
        assert not same(dict(half.network.named_parameters()), before)


@every_head
def test_what_is_not_finite_is_said_of_the_head_and_of_the_layer(name):
    made = batches(7, 1, count=2)[0]
    for place in range(len(trainer_of(name).network.heads)):
        trainer = trainer_of(name)
        head = trainer.network.heads[place]
        layer = trainer.network.layers[head.index - 1]
        with torch.no_grad():
            layer.biases.fill_(torch.nan)
        says = (
            f"update 1: the loss of layer {head.index} [{head.type}] is not finite; "
            f"layer {layer.index} [{layer.type}] is the first whose output is not finite"
        )
        with pytest.raises(TrainingError, match=f"^{re.escape(says)}; a lower"):
            trainer.update(made)
    trainer = trainer_of(name)
    first = next(layer for layer in trainer.network.layers if layer.numbers())
    with torch.no_grad():
        first.biases.fill_(torch.nan)
    names = " and ".join(f"layer {head.index} [{head.type}]" for head in trainer.network.heads)
    says = f"update 1: the loss of {names} is not finite; layer {first.index} [convolutional] is the first whose"
    with pytest.raises(TrainingError, match=f"^{re.escape(says)}"):
        trainer.update(made)


@every_head
def test_lines_and_columns_are_those_of_each_head(train, monkeypatch, name):
    updates, scalars, update = [], [], Trainer.update
    writer = SimpleNamespace(
        add_scalar=lambda name, value, batch: scalars.append((name, value, batch)), close=lambda: None
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=lambda *_, **__: writer))

    def recorded(*arguments):
        updates.append(update(*arguments))
        return updates[-1]

    monkeypatch.setattr(Trainer, "update", recorded)
    monkeypatch.setattr(Log, "draw", DRAW)
    done = train(name, net={"max_batches": 2}, tensorboard=True)
    heads, folder = done.network.heads, done.weights.parent
    lines = (folder / "net.log").read_text().splitlines()
    expected = [head.line(one) for each in updates for figures in each.figures
                for head, one in zip(heads, figures, strict=True)]  # fmt: skip
    assert [line for line in lines if "Avg" in line] == expected
    assert [int(match[1]) for line in lines if (match := LINE.match(line))] == [1, 2]
    numbered = [line for line in lines if f"Region {heads[0].index} " in line]
    assert len(numbered) in (0, 4), "of each of 2 mini-batches of 2 updates"
    counted = [line for line in lines if line.startswith(" total_bbox = ")]
    assert len(counted) in (0, 4)
    assert bool(counted) == any(head.rewritten(one)[1] for each in updates for figures in each.figures
                                for head, one in zip(heads, figures, strict=True))  # fmt: skip

    table = rows(done)
    columns = list(table[0])
    own = [column for column in columns if column not in (*FIRST, SIZE, "map")]
    assert len(set(columns)) == len(columns)
    ends = [f"_{head.index}" if len(heads) > 1 else "" for head in heads]
    assert own == [f"{name}{end}" for head, end in zip(heads, ends, strict=True) for name in head.columns]
    seen = {(name, batch) for name, _, batch in scalars}
    for row, each in zip(table, updates, strict=True):
        for place, (head, end) in enumerate(zip(heads, ends, strict=True)):
            totals = head.totals([figures[place] for figures in each.figures])
            for column, value in totals.items():
                assert float(row[f"{column}{end}"] or "nan") == pytest.approx(value, rel=1e-6, nan_ok=True)
                assert (f"{column}{end}", each.batch) in seen or column == "count" or not np.isfinite(value)
    assert (folder / "net.png").read_bytes()[:4] == b"\x89PNG"


@every_head
def test_a_cache_changes_no_bit_and_the_device_the_last_ones(train, name):
    net = {"max_batches": 2}
    plain = train(name, "plain", net)
    assert train(name, "cached", net, cache=True).weights.read_bytes() == plain.weights.read_bytes()
    if plain.network.program == ALEXEYAB:
        return  # his loader works on bytes: tests/train/test_alexeyab_augment.py
    for cache in (False, True):
        device = train(name, f"device {cache}", net, augment="device", cache=cache)
        for key, ours in device.network.state_dict().items():
            torch.testing.assert_close(ours, plain.network.state_dict()[key], atol=1e-4, rtol=1e-4)


@every_head
def test_the_true_gradient_is_for_iou_losses_alone(name):
    if ("alexeyab" not in name and "Gaussian" not in name) or name.startswith("region"):
        with pytest.raises(CfgError, match=r"-gradient true is for heads with an IOU loss"):
            trainer_of(name, gradient="true")
        return
    made = batches(7, 1, count=2)
    (his, found), (true, other) = (exactly(name, made, gradient=gradient) for gradient in ("darknet", "true"))
    assert [[one.avg_iou for one in heads] for heads in found[0].figures] == [
        [one.avg_iou for one in heads] for heads in other[0].figures
    ]
    for head in his.network.heads:
        ours, theirs = (trainer.network.layers[head.index - 1].weights.grad for trainer in (his, true))
        assert theirs.isfinite().all()
        assert (ours - theirs).norm() > 1e-3 * ours.norm()


@every_head
def test_fast_changes_the_last_digits(name):
    made = batches(7, 2, count=2)
    _, exact = exactly(name, made)
    try:
        _, fast = exactly(name, made, fast=True)
    finally:
        strict()
    assert [one.loss for one in fast] == pytest.approx([one.loss for one in exact], rel=1e-3)
