"""Classifiers train as both programs train them: update by update with their libraries, and from files as processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_network, read_cfg
from darknet_compat.cfg import parse_cfg
from darknet_compat.classify.classifier import load_classifier
from darknet_compat.classify.validate import judge_paths, validate_classifier
from darknet_compat.errors import CfgError, DataError, TrainingError
from darknet_compat.processes import join, leave
from darknet_compat.train import classifier as module
from darknet_compat.train import loop
from darknet_compat.train.classifier import ClassifierTraining, train_classifier
from darknet_compat.train.log import Log
from darknet_compat.train.schedule import CLASSIFICATION
from darknet_compat.train.step import Trainer, network_cost, strict
from darknet_compat.weights import save_weights
from tests.oracle import PROGRAM
from tests.train.classes import ENDS, LABELS, batches, classifier, data_set
from tests.train.shard_cases import make_shards
from tests.train.test_distributed import in_processes, opened_in_two, print_opened
from tests.train.test_heads import press_ctrl_c, rows

LINE = re.compile(
    r"(\d+), (\d+\.\d{3}): (\S+), (\S+) avg, (\S+) rate, (\S+) seconds, (\d+) images(?:, (\S+) hours left)?$"
)
EVERY = ("weights", "biases", "scales", "rolling_mean", "rolling_variance")
SCHEDULE = {"max_batches": 1000, "burn_in": 5, "policy": "steps", "steps": "20,40", "scales": "2,.5"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    data_set(folder)
    return folder


@pytest.fixture
def train(images, tmp_path, monkeypatch):
    """Train a classifier from files, in a folder by that name. A chart would take longer than the training."""
    monkeypatch.setattr(Log, "draw", lambda log: None)

    def call(end="softmax", folder="a", net=None, **flags):
        given = {"device": "cpu", "workers": 0, "seed": 3, **flags}
        return train_classifier(*written(images, tmp_path / folder, end, **net or {}), **given)

    return call


def written(images, folder, end="softmax", **net):
    folder.mkdir(exist_ok=True)
    data, cfg = folder / "set.data", folder / "net.cfg"
    data.write_text((images / "set.data").read_text().replace(f"{images}/backup", f"{folder}/backup"))
    cfg.write_text(classifier(end, **net))
    return data, cfg


def check_updates(library, folder, text, numerics, names, updates=50, truth=None):
    """Costs of every mini-batch to 1e-4, and in the end each tensor to 1e-3 of its movement."""
    (folder / "net.cfg").write_text(text)
    torch.manual_seed(5)
    ours = load_network(read_cfg(folder / "net.cfg"), numerics=numerics, program=library.program)
    save_weights(ours, folder / "start.weights")
    theirs = library.load_network(folder / "net.cfg", folder / "start.weights")
    start = [tensor.detach().clone() for layer in ours.layers for _, tensor in layer.numbers()]
    trainer = Trainer(ours)
    right = []
    for number, update in enumerate(batches(2, updates, truth=truth), 1):
        expected = [theirs.train_step(batch.images.numpy(), batch.truth.numpy()).cost for batch in update]
        figures = trainer.update(update).figures
        assert [float(network_cost(heads)) for heads in figures] == pytest.approx(expected, rel=1e-4, abs=1e-6), number
        right += [heads[0].right for heads in figures]
    assert np.mean(right[-20:]) > 2.4 > 1.8 > np.mean(right[:4]), "the nets learnt nothing, so prove nothing"
    worst, compared = 0, 0
    tensors = [(layer, *one) for layer in ours.layers for one in layer.numbers()]
    for (layer, name, tensor), was in zip(tensors, start, strict=True):
        if name in names:
            there = theirs.layer_tensor(layer.index, name).reshape(tensor.shape)
            distance = np.linalg.norm(tensor.detach().numpy() - there) / np.linalg.norm(there - was.numpy())
            worst, compared = max(worst, float(np.nan_to_num(distance, nan=np.inf))), compared + 1
    print(f"after update {updates}: {worst:.2g} of a tensor's movement, of {compared} tensors")
    assert compared >= 3 * len(set(names) & {"weights", "biases"})
    assert worst < 1e-3
    assert ours.seen == theirs.seen


@pytest.mark.parametrize("end", [*ENDS, "[softmax]\ntemperature=2\n[cost]\nscale=.5\n", "[cost]\ntype=L1\n"])
def test_50_updates_are_pjreddies(darknet, tmp_path, end):
    check_updates(darknet, tmp_path, classifier(end, **SCHEDULE), "cpu", EVERY)


@pytest.mark.parametrize("end", ["softmax", "cost", "noloss"])
@pytest.mark.parametrize("smooth", [0, 0.1])
def test_50_updates_are_alexeyabs(alexeyab_darknet, tmp_path, end, smooth):
    """Without batch normalisation, whose biases his CPU does not train, and without [avgpool], whose delta it does not
    clear from one mini-batch to the next."""

    def truth(rows):
        return np.where(rows, 1 - smooth, smooth / 2).astype(np.float32)

    text = classifier(end, norm="", mean="", **SCHEDULE)
    check_updates(alexeyab_darknet, tmp_path, text, "gpu", ("weights", "biases"), truth=truth)


def one_image(folder):
    """A .data file whose images are one of a single colour: every crop of it that needs no other size is the same."""
    (folder / "red").mkdir()
    cv2.imwrite(str(folder / "red/1.png"), np.full((64, 64, 3), (40, 90, 200), np.uint8))
    (folder / "list.txt").write_text(f"{folder}/red/1.png\n" * 10)
    (folder / "the.labels").write_text("".join(f"{label}\n" for label in LABELS))
    for name in ("theirs", "ours"):
        (folder / name).mkdir()
        (folder / f"{name}.data").write_text(
            f"classes=3\ntrain={folder}/list.txt\nlabels={folder}/the.labels\nbackup={folder}/{name}\n"
        )


PLAIN = {"min_crop": 40, "max_crop": 64, "angle": 0, "hue": 0, "saturation": 1, "exposure": 1, "aspect": 1}


def run_theirs(program, folder):
    """``classifier train`` of a C program: its lines on standard output."""
    words = [program, "classifier", "train", "theirs.data", "net.cfg", "start.weights"]
    done = subprocess.run([*words, "-dont_show"], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_process(program, folder, numerics, follows, norm, mean, written_files):
    """The same lines but for the seconds, the same files, and after 12 updates the same numbers."""
    one_image(folder)
    net = {**PLAIN, "max_batches": 12, "burn_in": 4, "policy": "poly", "power": 2, "learning_rate": 0.05}
    (folder / "net.cfg").write_text(classifier("cost", norm, mean, **net))
    start = load_network(read_cfg(folder / "net.cfg"), program=follows)
    save_weights(start, folder / "start.weights")
    theirs = [line for line in map(str.strip, run_theirs(program, folder)) if LINE.match(line)]
    done = train_classifier(
        folder / "ours.data", folder / "net.cfg", folder / "start.weights", device="cpu", workers=0,
        numerics=numerics, program=follows, snapshot=5,
    )  # fmt: skip
    ours = [line for line in (folder / "ours/net.log").read_text().splitlines() if LINE.match(line)]
    assert len(ours) == len(theirs) == 12
    for mine, other in zip(ours, theirs, strict=True):
        (*a, _, seen, left), (*b, _, their_seen, their_left) = (LINE.match(line).groups() for line in (mine, other))
        assert (a[:2], seen) == (b[:2], their_seen)
        assert left is not None
        assert (their_left is None) == (follows == "pjreddie")
        assert [float(value) for value in a[2:]] == pytest.approx([float(value) for value in b[2:]], rel=1e-4, abs=2e-6)
    files = {path.name for path in (folder / "theirs").iterdir()}
    assert files == set(written_files)
    assert files <= {path.name for path in (folder / "ours").iterdir()}
    last = load_network(folder / "net.cfg", folder / "theirs" / done.weights.name, program=follows)
    for key, tensor in last.state_dict().items():
        was, now = start.state_dict()[key], done.network.state_dict()[key]
        if not (norm and follows == "alexeyab" and key.endswith("biases")):
            assert (now - tensor).norm() <= 1e-3 * (tensor - was).norm() + 1e-7, key
    return ours


def test_the_c_program_trains_the_same_from_files(darknet, tmp_path, handlers, monkeypatch):
    """With [avgpool], batch normalisation and the gradient that counts twice; a snapshot behind each epoch of 10."""
    monkeypatch.setattr(Log, "draw", lambda log: None)
    names = [f"net_{epoch}.weights" for epoch in range(1, 10)] + ["net.weights"]
    check_process(PROGRAM, tmp_path, "cpu", "pjreddie", "batch_normalize=1\n", "[avgpool]\n", names)
    text = (tmp_path / "ours/net.log").read_text()
    assert text.count("the gradient counts twice, and the loss is the mean of both") == 1


def test_alexeyabs_program_trains_the_same_from_files(alexeyab, tmp_path, handlers, monkeypatch):
    monkeypatch.setattr(Log, "draw", lambda log: None)
    check_process(alexeyab / "darknet", tmp_path, "gpu", "alexeyab", "", "", ["net_final.weights"])


@pytest.mark.parametrize(
    ("end", "net"), [("softmax", {}), ("cost", {"random": 1}), ("noloss", {"label_smooth_eps": 0.1, "mixup": 3})]
)
def test_ctrl_c_and_resume_change_nothing(train, monkeypatch, handlers, end, net):
    monkeypatch.setattr(loop, "CLASSIFICATION", CLASSIFICATION._replace(sizes=range(32, 97, 32), every=2))
    straight = train(end, "straight", net, topk_every=2)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 3)
        stopped = train(end, "broken", net, topk_every=2)
    assert (stopped.signal, stopped.batch) == (signal.SIGINT, 3)
    done = train(end, "broken", net, resume=True, topk_every=2)
    assert (done.signal, done.batch, done.best) == (0, 6, straight.best)
    assert done.weights.read_bytes() == straight.weights.read_bytes()
    assert rows(done) == rows(straight)
    assert [bool(row["top_1"]) for row in rows(done)] == [False, True] * 3
    assert (len({row["size"] for row in rows(done)}) > 1) == ("random" in net)
    text = (straight.weights.parent / "net.log").read_text()
    assert text.count("Resizing\n") == (3 if "random" in net else 0)


def test_what_it_writes_and_says(train):
    done = train("cost", net={"max_batches": 7}, snapshot=3)
    folder = done.weights.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "net.backup", "net.backup.state", "net.csv", "net.log", "net.run.json", "net.weights",
        "net_1.weights", "net_2.weights", "net_3.weights", "net_4.weights",
    ]  # fmt: skip
    assert load_network(folder.parent / "net.cfg", folder / "net_3.weights").seen == 40, "the first batch past 36"
    lines = (folder / "net.log").read_text().splitlines()
    assert lines[0] == "net"
    assert lines[2].startswith("12 images, 3 classes; sides of 32 to 48; seed 3; cpu")
    assert lines[3] == (
        "layer 6 [cost] adds truth - p to what layer 5 [softmax] has added already, as in Darknet: the gradient counts "
        "twice, and the loss is the mean of both"
    )
    table = rows(done)
    assert list(table[0]) == ["batch", "images", "loss", "avg_loss", "rate", "cost_5", "accuracy_5", "cost_6",
                              "accuracy_6", "size", "top_1", "top_2"]  # fmt: skip
    for row in table:
        assert float(row["loss"]) == pytest.approx((float(row["cost_5"]) + float(row["cost_6"])) / 2, rel=1e-6)
        assert 0 <= float(row["accuracy_5"]) <= 1


def test_a_loss_that_rises_is_announced(train):
    """With smoothed labels: from 3 ln 3, the least of the sum of -ln p of three classes."""
    done = train("softmax", net={"max_batches": 40, "max_crop": 34, "label_smooth_eps": 0.1})
    said = "label_smooth_eps=0.1 gives every class a truth, and layer 5 [softmax] sums -ln p over all of them"
    assert (done.weights.parent / "net.log").read_text().count(said) == 1
    costs = [float(row["cost"]) for row in rows(done)]
    assert min(costs) > 3 * np.log(3) - 1e-6
    assert np.mean(costs[-5:]) > np.mean(costs[:5]) + 0.2
    for end, net in (("softmax", {}), ("noloss", {"label_smooth_eps": 0.1})):
        done = train(end, end, net | {"max_batches": 1})
        assert "label_smooth_eps" not in (done.weights.parent / "net.log").read_text()


def test_it_learns_and_its_scores_are_those_of_the_verb(train):
    done = train(net={"max_batches": 40, "max_crop": 34}, topk_every=20)
    data, cfg = done.weights.parent.parent / "set.data", done.weights.parent.parent / "net.cfg"
    scores = validate_classifier(load_classifier(data, cfg, done.weights, device="cpu"))
    last = rows(done)[-1]
    assert (float(last["top_1"]), float(last["top_2"])) == pytest.approx((scores.top1, scores.topk))
    assert done.best >= scores.top1 > 0.6
    assert float(last["loss"]) < 0.6 * float(rows(done)[0]["loss"])
    text = (done.weights.parent / "net.log").read_text()
    assert f"top 1 {100 * scores.top1:.2f} %, top 2 {100 * scores.topk:.2f} %, best {100 * done.best:.2f} %" in text


def test_alexeyabs_snapshots_are_his(images, tmp_path):
    made = ClassifierTraining(*written(images, tmp_path / "a", label_smooth_eps=0.1), device="cpu")
    snapshots = made.snapshots
    due = [
        batch for batch in range(1, 3001) if snapshots.path(f"_{batch}.weights") in snapshots.due(batch - 1, batch, 1)
    ]
    assert due == [1000, 2000, 3000]
    assert snapshots.final.name == "net_final.weights"
    assert [path.name for path in (snapshots.backup, snapshots.state)] == ["net_last.weights", "net_last.weights.state"]
    assert made.images.smooth == 0.1


def test_snapshots_come_in_each_programs_rhythm_or_as_asked(images, tmp_path):
    plain, smooth = written(images, tmp_path / "a"), written(images, tmp_path / "b", label_smooth_eps=0.1)
    for files, given, every in ((plain, {}, 1000), (smooth, {}, 100), (plain, {"snapshot": 7}, 7)):
        assert ClassifierTraining(*files, device="cpu", **given).snapshots.every == every


def test_scores_come_every_2_epochs_but_not_before_100_batches(images, tmp_path, monkeypatch):
    files = written(images, tmp_path / "a")
    assert ClassifierTraining(*files, device="cpu").scoring is None
    for given, least, every in ((0, 100, 100), (0, 2, 2 * 12 // 8), (7, 100, 7)):
        monkeypatch.setattr(module, "TOP_LEAST", least)
        scoring = ClassifierTraining(*files, device="cpu", topk_every=given).scoring
        assert (scoring.every, scoring.first) == (every, 0 if given else every)
    files[1].write_text(files[1].read_text().replace("[net]", "[net]\nburn_in=250", 1))
    for given, first in ((0, 250), (7, 0)):
        assert ClassifierTraining(*files, device="cpu", topk_every=given).scoring.first == first


@pytest.mark.parametrize(("given", "scores"), [(None, [1, 2]), (1, [1]), (3, [1, 3]), (9, [1, 3])])
def test_top_is_the_commands_or_else_the_data_files(images, tmp_path, given, scores):
    made = ClassifierTraining(*written(images, tmp_path / "a"), device="cpu", topk_every=0, top=given, seed=1)
    assert made._scores() == {f"top_{number}": f"top {number}" for number in scores}
    found = made.scoring.score()
    assert len(found) == len(scores)
    assert found[0] < 0.5, "it is not trained"
    assert (found[-1] == 1) == (scores[-1] == 3), "of three classes"


def test_the_valid_list_is_scored_by_the_rule_of_the_labels(images, tmp_path, monkeypatch):
    """By path all of its images are red, for a folder above them is."""
    judged = []
    monkeypatch.setattr(
        module, "judge_paths", lambda _, truths, top, **rest: judged.append(truths) or SimpleNamespace(top1=0, topk=0)
    )
    (tmp_path / "red").symlink_to(images)
    (tmp_path / "valid.txt").write_text("".join(f"{tmp_path}/red/set/{label}/{i:03d}.png\n" for i, label in
                                                ((4, "green"), (2, "blue"))))  # fmt: skip
    data, cfg = written(images, tmp_path / "a")
    data.write_text(data.read_text().replace(f"valid={images}/list.txt", f"valid={tmp_path}/valid.txt"))
    for labels, truths in (("folder", [1, 2]), ("path", [0, 0])):
        with warnings.catch_warnings(record=True):
            made = ClassifierTraining(data, cfg, device="cpu", labels=labels, topk_every=0)
        made.scoring.score()
        assert judged[-1].first().tolist() == truths


def test_what_goes_on_has_the_best_score_and_the_seed_of_before(images, tmp_path):
    files = written(images, tmp_path / "a")
    made = ClassifierTraining(*files, device="cpu", seed=4)
    made.trainer.update(batches(1, 1)[0])
    made.snapshots.save(made.trainer, made.snapshots.backup, {"best": 0.25})
    again = ClassifierTraining(*files, device="cpu", resume=True, topk_every=0)
    assert again.scoring.best == 0.25
    assert made.images.seed == again.images.seed == again.trainer.seed == 4


def test_images_are_cached_where_it_is_asked_for(images, tmp_path):
    files = written(images, tmp_path / "a")
    assert ClassifierTraining(*files, device="cpu").images.cached is None
    assert len(ClassifierTraining(*files, device="cpu", cache=True).images.cached) == 12


def test_random_draws_classifiers_sizes_every_40_updates():
    trainer = Trainer(load_network(parse_cfg(classifier(random=1, max_batches=10000))))
    sizes = loop.Sizes(trainer)
    assert sizes.largest == (448, 448)
    assert {sizes.of(update)[0] for update in range(0, 9999, 40)} == set(range(128, 449, 32))
    assert all(len({sizes.of(first + more) for more in range(40)}) == 1 for first in range(0, 4000, 40))
    assert (
        CLASSIFICATION.size(trainer.net, 1, 40, 10000)[0] != 448
        or CLASSIFICATION.size(trainer.net, 2, 40, 10000)[0] != 448
    ), "the last batches see any size"
    assert not loop.Sizes(Trainer(load_network(parse_cfg(classifier())))).drawn


TREE = "warm -1\ncold -1\nred 0\norange 0\ngreen 1\nblue 1\n"


def test_along_a_tree(images, tmp_path, monkeypatch):
    monkeypatch.setattr(Log, "draw", lambda log: None)
    (tmp_path / "the.tree").write_text(TREE)
    end = f"[softmax]\ntree={tmp_path}/the.tree\n[cost]\ntype=masked\n"
    data, cfg = written(images, tmp_path / "a", end, max_batches=30)
    cfg.write_text(cfg.read_text().replace("filters=3\n", "filters=6\n"))
    (tmp_path / "tree.labels").write_text("".join(f"{line.split()[0]}\n" for line in TREE.splitlines()))
    data.write_text(data.read_text().replace("classes=3", "classes=6").replace(f"{images}/the", f"{tmp_path}/tree"))
    made = ClassifierTraining(data, cfg, device="cpu", workers=0, seed=1, topk_every=30)
    truth, slot = np.empty(6, np.float32), np.empty((3, 32, 32), np.float32)
    path = made.images.fill(0, slot, truth)
    known = {"red": [1, 0, 1, 0], "green": [0, 1, -1234, -1234, 1, 0], "blue": [0, 1, -1234, -1234, 0, 1]}
    expected = next(values for label, values in known.items() if label in path)
    assert truth.tolist() == [*expected, -1234, -1234][:6]
    judged = []
    monkeypatch.setattr(
        module,
        "judge_paths",
        lambda classifier, *rest, **more: judged.append(classifier.tree) or judge_paths(classifier, *rest, **more),
    )
    done = made.run()
    assert [tree.names for tree in judged] == [["warm", "cold", "red", "orange", "green", "blue"]]
    losses = [float(row["loss"]) for row in rows(done)]
    assert all(np.isfinite(losses))
    assert losses[-1] < 0.7 * losses[0]
    assert done.best > 0.5


@pytest.mark.parametrize(
    ("net", "changes", "says"),
    [
        ({"width": 64}, {}, r"width=64: an input of 64 x 32; expected a square"),
        ({}, {"classes=3": "classes=4"}, r"classes=4: 4 classes; expected classes=3, as .*net\.cfg has them"),
        ({}, {"top=2": "top=2\ntag=1"}, r"training by tags is not built here"),
        ({}, {"labels=": "labels=no"}, r"no.*the\.labels"),
        ({}, {"valid=": "valid=no"}, r"no.*list\.txt: no such file"),
        ({"min_crop": 0}, {}, r"min_crop"),
        ({"max_batches": 0}, {}, r"nothing to train"),
        ({"label_smooth_eps": 1.5}, {}, r"label_smooth_eps=1.5; expected 0 to 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_wrong_is_said_before_the_start(images, tmp_path, net, changes, says):
    data, cfg = written(images, tmp_path / "a", **net)
    text = data.read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    data.write_text(text)
    with pytest.raises((CfgError, DataError, TrainingError), match=says) as raised:
        ClassifierTraining(data, cfg, device="cpu", topk_every=0)
    assert "\n" not in str(raised.value)


def test_images_of_the_valid_list_are_looked_for_before_the_start(images, tmp_path):
    data, cfg = written(images, tmp_path / "a")
    (tmp_path / "valid.txt").write_text(f"{images}/set/red/000.png\n{images}/set/red/gone.png\n")
    data.write_text(data.read_text().replace(f"valid={images}/list.txt", f"valid={tmp_path}/valid.txt"))
    ClassifierTraining(data, cfg, device="cpu")
    with pytest.raises(
        DataError, match=r"set/red/gone\.png: no such image; 1 of 2 images .* are missing, .*valid\.txt"
    ):
        ClassifierTraining(data, cfg, device="cpu", topk_every=0)


def test_without_a_head_it_cannot_be_trained(images, tmp_path):
    with pytest.raises(CfgError, match=r"no layer of the network has a loss; expected a head, such as .*\[softmax\]"):
        ClassifierTraining(*written(images, tmp_path / "a", "\n"), device="cpu")


def test_a_network_of_one_size_and_random_sizes(train, tmp_path, monkeypatch):
    """Before the first update, though that one is of the cfg's size."""
    resizing = CLASSIFICATION._replace(sizes=range(32, 65, 32), every=1)
    monkeypatch.setattr(loop, "CLASSIFICATION", resizing)
    seed = next(seed for seed in range(9) if resizing.size(SimpleNamespace(max_batches=6), seed, 0, 0) == (32, 32))
    with pytest.raises(CfgError, match=r"a network with \[connected\] cannot take another size"):
        train("[connected]\noutput=3\nactivation=linear\n[softmax]\n", net={"random": 1, "mean": ""}, seed=seed)
    assert "Loaded" not in (tmp_path / "a/backup/net.log").read_text()


def test_networks_that_find_boxes_are_for_detector(images, tmp_path):
    data, cfg = written(images, tmp_path / "a", "[region]\nclasses=3\nnum=1\nanchors=1,1\n", mean="")
    cfg.write_text(cfg.read_text().replace("filters=3\n", "filters=8\n"))
    with pytest.raises(CfgError, match=r"finds boxes in \[region\]; expected `detector`"):
        ClassifierTraining(data, cfg, device="cpu")


def test_the_final_weights_do_not_take_the_place_of_those_that_are_read(train, images, tmp_path):
    done = train(net={"max_batches": 1})
    with pytest.raises(TrainingError, match=r"net\.weights: this file is read as WEIGHTS, and would be overwritten"):
        train_classifier(*written(images, tmp_path / "a"), done.weights, device="cpu")


def test_labels_by_folder(images, tmp_path):
    """A label that is a part of the way to the image is a truth of every image by path, and of none by folder."""
    data, cfg = written(images, tmp_path / "a")
    (tmp_path / "some.labels").write_text(f"{images.name}\ngreen\nblue\n")
    data.write_text(data.read_text().replace(f"{images}/the.labels", f"{tmp_path}/some.labels"))
    with pytest.warns(UserWarning, match="-labels folder takes the parent folder's name alone"):
        made = ClassifierTraining(data, cfg, device="cpu")
    assert all(0 in made.images.images[index] for index in range(12))
    with pytest.raises(DataError, match=r"its folder is called 'red', which is none of the 3 labels"):
        ClassifierTraining(data, cfg, device="cpu", labels="folder")
    made = ClassifierTraining(*written(images, tmp_path / "b"), device="cpu", labels="folder")
    assert [made.images.images[index].tolist() for index in range(4)] == [[0], [1], [2], [0]]


def test_half_precision_ends_before_the_heads_and_fast_changes_the_last_digits():
    found = {}
    try:
        for name, options in {"exact": {}, "bf16": {"amp": "bf16"}, "fast": {"fast": True}}.items():
            torch.manual_seed(5)
            trainer = Trainer(load_network(parse_cfg(classifier("cost"))), **options)
            found[name] = [trainer.update(update).loss for update in batches(3, 3)]
            assert all(tensor.dtype == torch.float32 for tensor in trainer.network.state_dict().values())
    finally:
        strict()
    assert found["fast"] == pytest.approx(found["exact"], rel=1e-3)
    assert found["bf16"] == pytest.approx(found["exact"], rel=0.05)
    assert found["bf16"] != found["exact"]


MIXED = [{}, {"mixup": 1}, {"cutmix": 1}]


@pytest.mark.parametrize("net", MIXED, ids=str)
def test_a_cache_changes_no_bit_and_the_device_the_last_ones(train, net):
    plain = train(folder="plain", net=net)
    assert train(folder="cached", net=net, cache=True).weights.read_bytes() == plain.weights.read_bytes()
    assert train(folder="workers", net=net, workers=2).weights.read_bytes() == plain.weights.read_bytes()
    for cache in (False, True):
        device = train(folder=f"device {cache}", net=net, augment="device", cache=cache)
        for key, ours in device.network.state_dict().items():
            torch.testing.assert_close(ours, plain.network.state_dict()[key], atol=1e-4, rtol=1e-4)


def test_what_mixes_images_changes_them(train):
    losses = [[row["loss"] for row in rows(train(folder=str(number), net=net))] for number, net in enumerate(MIXED)]
    assert losses[0] != losses[1] != losses[2] != losses[0]


def print_made(folder):
    """What each of the two processes of the next test does."""
    files = f"{folder}/a.data", f"{folder}/a.cfg"
    print_opened(folder, lambda **given: ClassifierTraining(*files, topk_every=0, **given))


@pytest.mark.parametrize("given", ["set", "shards/train-{000..001}.tar"])
def test_lists_and_folders_are_read_by_one_process_and_shards_by_each_a_part(tmp_path, given):
    data = data_set(tmp_path)
    shards = make_shards(tmp_path / "shards", (tmp_path / "list.txt").read_text().split(), 2)
    (tmp_path / "a.cfg").write_text(classifier())
    text = data.read_text().replace(f"train={tmp_path}/list.txt", f"train={tmp_path}/{given}")
    (tmp_path / "a.data").write_text(text)
    code = "import sys; from tests.train.test_classifier import print_made; print_made(sys.argv[1])"
    both = ["a.cfg", "a.data", *["the.labels"] * 2]  # for train= and valid=
    firsts, seconds = ["set", *(f"set/{label}" for label in sorted(LABELS))], []
    if given != "set":
        firsts, seconds = ([os.path.relpath(shard, tmp_path)] for shard in shards)
    assert opened_in_two(tmp_path, code) == [sorted([*both, *firsts, "list.txt"]), sorted([*both, *seconds])]


PAIR = {"policy": "constant", "max_batches": 100, "norm": ""}


def in_two(folder):
    """What each of the two processes of the next test does."""
    processes = join("cpu")
    results = {}
    for end in ENDS:
        torch.manual_seed(5)
        trainer = Trainer(load_network(parse_cfg(classifier(end, batch=4, learning_rate=0.01, **PAIR))), processes)
        update = [trainer.update(four[processes.rank :: 2]) for four in batches(3, 3, subdivisions=4, count=2)][-1]
        results[end] = update.loss, trainer.network.state_dict()
    if processes.first:
        torch.save(results, f"{folder}/results.pt")
    leave()


def test_two_processes_are_one_with_twice_the_images(tmp_path):
    code = "import sys; from tests.train.test_classifier import in_two; in_two(sys.argv[1])"
    codes, _, error = in_processes(2, [sys.executable, "-c", code, str(tmp_path)])
    assert (codes, error) == ([0, 0], "")
    results = torch.load(tmp_path / "results.pt")
    for end in ENDS:
        torch.manual_seed(5)
        net = {**PAIR, "batch": 8, "subdivisions": 4, "learning_rate": 0.02}
        one = Trainer(load_network(parse_cfg(classifier(end, **net))))
        update = [one.update(four) for four in batches(3, 3, subdivisions=4, count=2)][-1]
        loss, state = results[end]
        assert loss == pytest.approx(update.loss, rel=1e-4), end
        for (key, ours), theirs in zip(one.network.state_dict().items(), state.values(), strict=True):
            assert (ours - theirs).norm() <= 1e-5 * ours.norm(), (end, key)
