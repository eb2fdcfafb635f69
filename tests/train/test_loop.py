"""The whole training, run from files in this process."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import read_cfg, read_list
from darknet_compat.errors import CfgError, ImageError, TrainingError
from darknet_compat.processes import Processes
from darknet_compat.train import data, loop
from darknet_compat.train.augment import Augmentation
from darknet_compat.train.checkpoint import Snapshots
from darknet_compat.train.data import TrainingSet, check_labels
from darknet_compat.train.log import Log
from darknet_compat.train.schedule import DETECTION
from darknet_compat.train.step import Trainer
from darknet_compat.weights import load_weights
from tests.train.nets import COLUMNS, data_set, small

LINE = re.compile(r"(\d+): (\S+), (\S+) avg, (\S+) rate, (\S+) seconds, (\d+) images, (\S+) hours left$")


class Alike(Processes):
    """The first of ``world`` processes, each of which brings what it brings."""

    def all_reduce(self, tensor):
        tensor.mul_(self.world)
        return lambda: None

    def broadcast(self, tensor):
        pass


class Training:
    """A small training ready to run; ``run`` returns what ``train`` does."""

    def __init__(self, folder, net="max_batches=6", seed=5, every=100, random=0, resume=False, world=1, **log):
        if not (folder / "set.data").exists():
            data_set(folder)
        (folder / "net.cfg").write_text(small(net, random=random))
        cfg = read_cfg(folder / "net.cfg")
        torch.manual_seed(seed)
        self.network = load_network(cfg)
        self.trainer = Trainer(self.network, Alike(torch.device("cpu"), world=world), seed=seed)
        self.snapshots = Snapshots(folder / "backup", cfg, {}, every)
        self.snapshots.make_folder()
        if resume:
            self.snapshots.resume(self.trainer)
        images = read_list(folder / "list.txt")
        self.data = TrainingSet(images, check_labels(images, 3), Augmentation(), seed=seed)
        trainer, heads = self.trainer, self.network.heads
        self.log = Log(self.snapshots.path(""), heads, trainer.batch, trainer.net.max_batches, resume, **log)

    def run(self, **options):
        try:
            with loop.Stopping() as stopping:
                return loop.train(self.trainer, self.data, self.snapshots, self.log, stopping, **options)
        finally:
            self.log.close()

    def files(self):
        return sorted(path.name for path in self.snapshots.folder.iterdir())

    def rows(self):
        with open(self.snapshots.path(".csv"), newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def no_chart(monkeypatch):
    """However slow the machine."""
    monkeypatch.setattr("darknet_compat.train.log.CHART_EVERY", float("inf"))


def interrupt(training, updates, number):
    """Send this process the signal ``number`` when so many updates are done."""
    update = training.trainer.update

    def interrupted(*arguments, **options):
        done = update(*arguments, **options)
        if training.trainer.updates == updates:
            signal.raise_signal(number)
        return done

    training.trainer.update = interrupted


def test_lines_table_and_files_are_darknets(tmp_path, capsys):
    training = Training(tmp_path)
    assert training.run() == 0
    lines = capsys.readouterr().out.splitlines()
    # Of each update: Loaded, a region line for each subdivision, the update's line.
    assert [line.split(" ")[0] for line in lines[:4]] == ["Loaded:", "Region", "Region", "1:"]
    updates = [match for line in lines if (match := LINE.match(line))]
    assert [int(match[1]) for match in updates] == [1, 2, 3, 4, 5, 6]
    assert [int(match[6]) for match in updates] == [8, 16, 24, 32, 40, 48]
    hours = [float(match[7]) for match in updates]
    assert all(0 < left < 0.1 for left in hours[:-1])
    assert 0 < hours[-1] <= hours[-2], "behind the last update its share of the mean is 0"
    assert training.files() == ["net.backup", "net.backup.state", "net.csv", "net.log", "net_final.weights"]
    assert training.snapshots.path(".log").read_text().splitlines() == lines

    rows = training.rows()
    assert tuple(rows[0]) == COLUMNS
    assert [row["images"] for row in rows] == ["8", "16", "24", "32", "40", "48"]
    for row, match in zip(rows, updates, strict=True):
        for name, value in zip(("loss", "avg_loss", "rate"), match.groups()[1:4], strict=True):
            assert float(row[name]) == pytest.approx(float(value), abs=1e-6)
    assert (
        load_weights(
            load_network(read_cfg(tmp_path / "net.cfg")), training.snapshots.path("_final.weights")
        ).header.seen
        == 48
    )


def test_a_training_can_be_repeated(tmp_path):
    results = []
    for workers in (0, 1, 2):
        training = Training(tmp_path)
        training.run(workers=workers)
        results.append(training.snapshots.path("_final.weights").read_bytes())
    assert results[0] == results[1] == results[2]


def test_snapshots_are_written_on_the_way(tmp_path):
    training = Training(tmp_path, "max_batches=103", every=50)
    training.run()
    assert training.files() == [
        "net.backup", "net.backup.state", "net.csv", "net.log", "net_100.weights", "net_final.weights",
    ]  # fmt: skip
    text = training.snapshots.path(".log").read_text()
    assert text.count("Saving weights to") == 5, "backup at 50, 100 and the end, _100, _final"


def test_random_sizes_change_every_ten_updates_and_end_at_608(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "DETECTION", DETECTION._replace(sizes=range(32, 97, 32), last=9))
    assert DETECTION.sizes[-1] == 608
    training = Training(tmp_path, "max_batches=44\nlearning_rate=1e-5", random=1)
    training.run(workers=1)
    sizes = [row["size"] for row in training.rows()]
    groups = [set(sizes[start : start + 10]) for start in range(0, 44, 10)]
    assert all(len(group) == 1 for group in groups)
    assert len(set(sizes)) > 1
    assert groups[-1] == {"96x96"}, "the last batches see the largest"
    text = training.snapshots.path(".log").read_text()
    assert text.startswith(f"Resizing\n{sizes[0].split('x')[0]}\nLoaded")
    assert text.count("Resizing") == 5

    # Taken up inside a group of ten, the sizes go on as they were.
    whole = training.rows()
    other = Training(tmp_path, "max_batches=44\nlearning_rate=1e-5", random=1)
    interrupt(other, 35, signal.SIGINT)
    other.run()
    resumed = Training(tmp_path, "max_batches=44\nlearning_rate=1e-5", random=1, resume=True)
    resumed.run()
    names = ("batch", "images", "loss", "avg_loss", "rate", "size", "count")
    assert [[row[name] for name in names] for row in resumed.rows()] == [[row[name] for name in names] for row in whole]


def test_the_device_augments_only_where_it_is_asked_to(tmp_path, monkeypatch):
    given, load_batches = [], loop.load_batches

    def recorded(*arguments, **options):
        given.append(options["device"])
        return load_batches(*arguments, **options)

    monkeypatch.setattr(loop, "load_batches", recorded)
    for folder, options in (("a", {}), ("b", {"on_device": False}), ("c", {"on_device": True})):
        (tmp_path / folder).mkdir()
        training = Training(tmp_path / folder, "max_batches=1")
        training.run(**options)
        assert given.pop() == (training.trainer.device if options.get("on_device") else None)


@pytest.mark.parametrize("together", [False, True])
def test_only_waiting_is_counted_as_waiting(together):
    waited = loop.Waited()
    with loop.Stopping() as stopping:
        taken = list(waited.take(iter("abc"), 2, stopping, together))
    assert taken == ["a", "b"]
    assert 0 <= waited.seconds < 0.5


@pytest.mark.parametrize("together", [False, True])
def test_of_several_processes_a_signal_does_not_break_off_the_last_mini_batch(together):
    """Sums with the others are under way in it. It is answered before the next update."""
    done = []

    def updates(stopping):
        for _ in range(2):
            for number in loop.Waited().take(iter(range(3)), 3, stopping, together):
                done.append(number)
                if number == 2:
                    signal.raise_signal(signal.SIGTERM)
                done.append("whole")

    with loop.Stopping() as stopping, pytest.raises(loop.Stopped):
        updates(stopping)
    assert done == [0, "whole", 1, "whole", 2, *["whole"] * together]


def test_seconds_are_those_of_work_and_those_of_waiting(tmp_path, monkeypatch):
    """By a clock that is read before and behind each of two waits, and before and behind the update."""
    clock = iter([5.0, 6.0, 8.0, 15.0, 19.0, 105.0])
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(clock), monotonic=time.monotonic))
    training = Training(tmp_path, "max_batches=1")
    training.run()
    [row] = training.rows()
    assert (float(row["seconds"]), float(row["loading_seconds"])) == (94, 6)


def test_any_number_of_processes_goes_on_with_one_count_of_updates(tmp_path, monkeypatch):
    """11 updates alone, 10 of three processes, 9 of two, 9 alone: what is fed has the network's size, and no gap."""
    monkeypatch.setattr(loop, "DETECTION", DETECTION._replace(sizes=range(32, 161, 32)))
    net = "max_batches=100000\nlearning_rate=1e-6\nbatch=2\nsubdivisions=2"
    sizes, samples, expected = [], [], []
    for number, (updates, world) in enumerate(((11, 1), (21, 3), (30, 2), (39, 1))):
        training = Training(tmp_path, net, random=1, resume=number > 0, world=world)
        take, update = training.data.take, training.trainer.update

        def taken(sample, size, take=take):
            samples.append(sample)
            return take(sample, size)

        def measured(batches, update=update, network=training.network, **options):
            batches = list(batches)
            fed = {(batch.images.shape[3], batch.images.shape[2]) for batch in batches}
            assert fed == {(network.width, network.height)}
            sizes.append(network.width)
            return update(batches, **options)

        training.data.take, training.trainer.update = taken, measured
        # This process, the first, gets every world-th of two images per update, from those drawn before on.
        first, count = training.trainer.images, 2 * world * (updates - training.trainer.updates)
        expected += range(first, first + count, world)
        interrupt(training, updates, signal.SIGINT)
        training.run()
        assert (training.trainer.updates, training.trainer.images) == (updates, first + count)
    assert samples == expected
    assert [len(set(sizes[start : start + 10])) for start in range(0, 39, 10)] == [1, 1, 1, 1]
    assert len(set(sizes)) > 2


def test_ctrl_c_in_the_last_update_is_made_good_by_resume(tmp_path):
    training = Training(tmp_path, "max_batches=5")
    in_the_midst(training, 4, lambda: signal.raise_signal(signal.SIGINT))
    assert training.run() == signal.SIGINT
    assert training.trainer.updates == 4
    resumed = Training(tmp_path, "max_batches=5", resume=True)
    assert resumed.run() == 0
    assert resumed.snapshots.path("_final.weights").read_bytes() == resumed.snapshots.backup.read_bytes()


def test_the_last_batches_see_the_largest_size_after_other_processes_began():
    """300 updates of 2 images alone are 300 batches; from there each of four processes' updates counts 4."""
    net = SimpleNamespace(width=32, height=32, mini_batch=1, subdivisions=2, max_batches=1000)
    head = SimpleNamespace(o=SimpleNamespace(random=1), resizable=True)
    trainer = SimpleNamespace(
        net=net, network=SimpleNamespace(seen=600, heads=[head], detectors=[head], program="pjreddie"),
        updates=300, images=600, images_per_update=8, seed=0,
    )  # fmt: skip
    sizes = loop.Sizes(trainer)
    assert len({sizes.of(update) for update in range(300, 430)}) > 5, "up to batch 780 of 1000"
    assert all(len({sizes.of(first + i) for i in range(10)}) == 1 for first in range(300, 430, 10))
    assert {sizes.of(update) for update in range(430, 475)} == {(608, 608)}, "from batch 820 on"
    assert [sizes.of_batch(index) for index in (0, 19, 20)] == [sizes.of(update) for update in (300, 309, 310)]


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_heads_random_counts(last):
    """train_detector: layer l = net->layers[net->n - 1]; l.random."""
    heads = [SimpleNamespace(o=SimpleNamespace(random=number), resizable=True) for number in (1 - last, last)]
    trainer = SimpleNamespace(
        network=SimpleNamespace(heads=heads, detectors=heads, seen=0, program="pjreddie"),
        net=SimpleNamespace(width=32, height=32, mini_batch=2),
        updates=0,
    )
    assert loop.Sizes(trainer).drawn == last
    heads[-1].resizable = False  # [detection], whose random is about something else
    assert not loop.Sizes(trainer).drawn


def test_the_network_takes_the_size_that_is_drawn(tmp_path, monkeypatch):
    """A [yolo] measures its anchors by it. The last batches see the largest, and here there is but one."""
    monkeypatch.setattr(loop, "DETECTION", DETECTION._replace(sizes=range(64, 97, 32)))
    training = Training(tmp_path, "max_batches=1", random=1)
    assert (training.network.width, training.network.height) == (32, 32)
    training.run()
    assert (training.network.width, training.network.height) == (96, 96)


@pytest.mark.parametrize(("random", "factor"), [(1.0, 1.4), (2.0, 2.0), (1.2, 1.2)])
def test_random_of_alexeyabs_heads_is_the_factor_and_1_the_usual_one(random, factor):
    heads = [SimpleNamespace(o=SimpleNamespace(random=random), resizable=True)]
    trainer = SimpleNamespace(
        network=SimpleNamespace(heads=heads, detectors=heads, seen=0, program="alexeyab"),
        net=SimpleNamespace(width=416, height=320, resize_step=32.0, mini_batch=2, dynamic_minibatch=0),
        updates=0,
    )
    sizes = loop.Sizes(trainer)
    assert sizes.drawn
    assert sizes.resizing == loop.Scaling(factor)
    assert sizes.largest == loop.Scaling(factor).largest(trainer.net)


def test_only_random_draws_sizes():
    """Of the last of any number of heads, and of one that has such an option; then images of 608 x 608 must fit."""
    net = SimpleNamespace(width=32, height=64, mini_batch=2)
    for last, resizable, drawn, largest in (
        ({"random": 1}, True, True, (608, 608)),
        ({"random": 1}, False, False, (32, 64)),
        ({"random": 0}, True, False, (32, 64)),
        ({}, True, False, (32, 64)),
    ):
        options = ({"random": 1}, {"random": 0}, last)
        heads = [SimpleNamespace(o=SimpleNamespace(**o), resizable=resizable) for o in options]
        network = SimpleNamespace(heads=heads, detectors=heads, seen=0, program="pjreddie")
        trainer = SimpleNamespace(network=network, net=net, updates=0)
        sizes = loop.Sizes(trainer)
        assert (sizes.drawn, sizes.largest) == (drawn, largest)


def test_all_processes_start_from_the_first_ones_numbers(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(Alike, "broadcast", lambda _, tensor: sent.append(tensor.data_ptr()))
    training = Training(tmp_path, "max_batches=1")
    training.run()
    assert sorted(sent) == sorted(tensor.data_ptr() for tensor in training.network.state_dict().values())


def test_resume_writes_the_final_weights_that_a_kill_kept_from_being_written(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def save(snapshots, trainer, path, *extra):
        if path.name == "net_final.weights":
            raise Killed
        whole(snapshots, trainer, path, *extra)

    whole = Snapshots.save
    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "save", save)
        with pytest.raises(Killed):
            Training(tmp_path, "max_batches=5").run()
    resumed = Training(tmp_path, "max_batches=5", resume=True)
    final = resumed.snapshots.path("_final.weights")
    assert not final.exists()
    assert resumed.run() == 0
    assert final.read_bytes() == resumed.snapshots.backup.read_bytes()
    assert len(resumed.rows()) == 5


def test_tensorboard_is_written_only_when_asked_for(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, batch):
            written.append((name, batch))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    Training(tmp_path, "max_batches=2").run()
    assert written == []
    training = Training(tmp_path, "max_batches=2", tensorboard=True)
    training.run()
    assert written[0] == (f"{training.snapshots.path('')}.tensorboard", 1)
    assert {batch for name, batch in written[1:-1] if name == "loss"} == {1, 2}
    assert written[-1] == "closed"


def test_tensorboard_without_its_package_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    Training(tmp_path, "max_batches=2").run()
    log = tmp_path / "backup" / "net.log"
    before = log.read_bytes()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        Training(tmp_path, "max_batches=2", tensorboard=True)
    assert log.read_bytes() == before


def test_resume_takes_rows_of_the_lost_batches_out_of_the_table(tmp_path):
    whole = Training(tmp_path, "max_batches=9")
    whole.run()
    expected = [(row["batch"], row["loss"]) for row in whole.rows()]
    part = Training(tmp_path, "max_batches=4", every=2)
    part.run()
    table = part.snapshots.path(".csv")
    # Two batches more were trained before a kill, the second of which broke off in the midst of its row.
    lost = table.read_text().splitlines()[-1].split(",")
    table.write_text(table.read_text() + ",".join(["5", *lost[1:]]) + "\r\n6,48,1")
    resumed = Training(tmp_path, "max_batches=9", resume=True)
    resumed.run()
    assert [(row["batch"], row["loss"]) for row in resumed.rows()] == expected


def in_the_midst(training, updates, act):
    """``act()`` between the second mini-batch of an update and the end of it, when so many updates are done."""
    datum, taken = training.trainer._datum, []

    def acting(*arguments):
        figures = datum(*arguments)
        taken.append(training.trainer.updates)
        if taken.count(updates) == 2:
            act()
        return figures

    training.trainer._datum = acting


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_breaks_the_update_off_and_saves_what_stood_before_it(tmp_path, number):
    batches = {"whole": 6, "short": 3, "broken": 6}
    whole, short, broken = (Training(tmp_path / name, f"max_batches={number}") for name, number in batches.items())
    for training in (whole, short):
        training.run(workers=1)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    in_the_midst(broken, 3, lambda: signal.raise_signal(number))
    assert broken.run(workers=1) == number
    assert broken.trainer.updates == 3
    assert broken.files() == ["net.backup", "net.backup.state", "net.csv", "net.log"]
    # Rolling averages too are those before the update, of which two mini-batches were taken.
    assert broken.snapshots.backup.read_bytes() == short.snapshots.backup.read_bytes()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before

    resumed = Training(tmp_path / "broken", "max_batches=6", resume=True)
    assert resumed.run() == 0
    final = "_final.weights"
    assert resumed.snapshots.path(final).read_bytes() == whole.snapshots.path(final).read_bytes()


def test_a_signal_after_the_last_update_is_too_late(tmp_path):
    training = Training(tmp_path, "max_batches=3")
    interrupt(training, 3, signal.SIGTERM)
    assert training.run() == 0
    assert "net_final.weights" in training.files()


def test_a_signal_does_not_wait_for_images(tmp_path):
    """A worker that hangs, as on a disk that does not answer, is neither waited for nor left behind."""
    training = Training(tmp_path, "max_batches=50")
    # A Queue writes from a thread of its own, which may be too late for a process about to be killed.
    take, hangs, pids = training.data.take, multiprocessing.Event(), multiprocessing.SimpleQueue()

    def hanging(sample, size):
        if sample >= 3 * 8:
            pids.put(os.getpid())
            hangs.set()
            time.sleep(1000)
        return take(sample, size)

    training.data.take = hanging
    asking = threading.Thread(target=lambda: hangs.wait() and os.kill(os.getpid(), signal.SIGTERM))
    asking.start()
    assert training.run(workers=2) == signal.SIGTERM
    asking.join()
    assert "net.backup.state" in training.files()
    with pytest.raises(ProcessLookupError):
        os.kill(pids.get(), 0)


def test_a_signal_breaks_off_the_scoring(tmp_path):
    training = Training(tmp_path, "max_batches=50")

    def score():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the signal did not break it off")

    assert training.run(scoring=loop.Scoring(score, every=3)) == signal.SIGTERM
    assert [row["batch"] for row in training.rows()] == ["1", "2", "3"]
    assert training.network.training
    again = Training(tmp_path, "max_batches=50")
    again.snapshots.resume(again.trainer)
    assert again.trainer.batch == 3


def test_a_signal_in_the_first_update_leaves_an_earlier_training_as_it_is(tmp_path):
    earlier = Training(tmp_path, "max_batches=3")
    earlier.run()
    files = [earlier.snapshots.backup, earlier.snapshots.state]
    before = [file.read_bytes() for file in files]
    training = Training(tmp_path, "max_batches=50", seed=6)
    in_the_midst(training, 0, lambda: signal.raise_signal(signal.SIGINT))
    assert training.run() == signal.SIGINT
    assert [file.read_bytes() for file in files] == before


def test_what_could_be_lost_is_saved_before_the_other_processes_hear_of_it(tmp_path, monkeypatch):
    """They may be ended at once by whatever started them."""
    training = Training(tmp_path, "max_batches=50")
    saved = []
    monkeypatch.setattr(training.trainer, "give_up", lambda: saved.append(training.snapshots.state.exists()))
    in_the_midst(training, 2, lambda: signal.raise_signal(signal.SIGTERM))
    assert training.run() == signal.SIGTERM
    assert saved == [True]


def test_where_another_process_stops_this_one_saves_too(tmp_path, monkeypatch):
    training = Training(tmp_path, "max_batches=50")
    update = training.trainer.update
    training.trainer.update = lambda batches: update(batches) if training.trainer.updates < 3 else None
    monkeypatch.setattr(training.trainer, "give_up", lambda: pytest.fail("the sum is done already"))
    assert training.run() == signal.SIGTERM
    assert Training(tmp_path, "max_batches=50", resume=True).trainer.updates == 3


def no_image():
    raise ImageError("a.jpg: no image")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: signal.raise_signal(signal.SIGTERM), "No space left"),
        (no_image, "a.jpg: no image; No space left"),
    ],
    ids=["signal", "error"],
)
def test_a_last_snapshot_that_cannot_be_written_is_the_error(tmp_path, monkeypatch, act, says):
    training = Training(tmp_path, "max_batches=50")

    def full(*_):
        raise TrainingError("No space left")

    monkeypatch.setattr(Snapshots, "save", full)
    in_the_midst(training, 2, act)
    with pytest.raises(TrainingError, match=f"^{says}$"):
        training.run()


def test_a_kill_between_the_weights_and_their_state_costs_updates_only(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(snapshots, trainer, extra):
        if trainer.updates == 4:
            raise Killed
        save_state(snapshots, trainer, extra)

    save_state = Snapshots._save_state
    whole, broken = (Training(tmp_path / name, "max_batches=6", every=2) for name in ("whole", "broken"))
    whole.run()
    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "_save_state", killed)
        with pytest.raises(Killed):
            broken.run()
    fresh = load_network(read_cfg(tmp_path / "broken" / "net.cfg"))
    assert load_weights(fresh, broken.snapshots.backup).header.seen == 32, "never older than the .state"
    resumed = Training(tmp_path / "broken", "max_batches=6", resume=True)
    assert resumed.trainer.updates == 2
    resumed.run()
    final = "_final.weights"
    assert resumed.snapshots.path(final).read_bytes() == whole.snapshots.path(final).read_bytes()


def test_a_stream_begins_at_its_first_sample_whatever_the_weights_have_seen(tmp_path):
    training = Training(tmp_path, "max_batches=102")
    training.network.seen = 800
    take, samples = training.data.take, []
    training.data.take = lambda sample, size: samples.append(sample) or take(sample, size)
    training.run()
    assert samples == list(range(16))
    assert [row["batch"] for row in training.rows()] == ["101", "102"]


def test_a_second_ctrl_c_stops_at_once_unless_it_comes_with_the_first(monkeypatch, handlers):
    clock = [100.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with loop.Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # as torch's launcher passes on what the terminal has sent already
        clock[0] = 101.0
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked == signal.SIGINT
        signal.raise_signal(signal.SIGTERM)
        assert stopping.asked == signal.SIGINT, "the first one is answered"
        clock[0] = 101.1
        signal.raise_signal(signal.SIGTERM)  # as a launcher asks again
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stopping.leave()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
    assert {signal.getsignal(number) for number in data.STOPPING} == {signal.SIG_IGN}, "up to the end of the process"


def test_a_second_signal_does_not_break_off_what_the_first_one_undoes(handlers):
    undone = []

    def broken_off(stopping):
        with stopping.breaks_off():
            try:
                signal.raise_signal(signal.SIGTERM)
            except loop.Stopped:
                signal.raise_signal(signal.SIGTERM)
                undone.append(True)
                raise

    with loop.Stopping() as stopping, pytest.raises(loop.Stopped):
        broken_off(stopping)
    assert undone


def test_nohup_is_respected(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with loop.Stopping() as stopping:
        signal.raise_signal(signal.SIGHUP)
        assert not stopping.asked


def test_a_worker_that_dies_ends_the_training_after_a_snapshot(tmp_path, monkeypatch):
    training = Training(tmp_path, "max_batches=50")
    start, pids = data._start_worker, []

    def spy(ring):
        worker = start(ring)
        pids.append(worker.pid)
        return worker

    monkeypatch.setattr(data, "_start_worker", spy)
    in_the_midst(training, 3, lambda: os.kill(pids[0], signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"which loads images, died.*the last good snapshot is ") as caught:
        training.run(workers=2)
    updates = training.trainer.updates
    assert str(caught.value).endswith(f"{training.snapshots.backup} (batch {updates})")
    assert "\n" not in str(caught.value)
    again = Training(tmp_path, "max_batches=50")
    again.snapshots.resume(again.trainer)
    assert again.trainer.updates == updates >= 3


def test_a_loss_that_is_not_finite_names_the_last_good_snapshot(tmp_path):
    training = Training(tmp_path, "max_batches=50", every=2)
    update = training.trainer.update

    def spoilt(*arguments, **options):
        if training.trainer.updates == 5:
            with torch.no_grad():
                training.network.layers[2].weights[0, 0, 0, 0] = torch.nan
        return update(*arguments, **options)

    training.trainer.update = spoilt
    with pytest.raises(TrainingError) as caught:
        training.run()
    message = str(caught.value)
    assert message.startswith(
        "update 6: the loss of layer 11 [region] is not finite; layer 2 [convolutional] is the first"
    )
    assert message.endswith(f"the last good snapshot is {training.snapshots.backup} (batch 4)")
    assert re.search(r"the images were (\S+\.png, ){3}\S+\.png;", message)
    fresh = load_network(read_cfg(tmp_path / "net.cfg"))
    assert load_weights(fresh, training.snapshots.backup).header.seen == 32


def test_the_snapshot_that_a_training_goes_on_from_is_the_last_good_one(tmp_path):
    Training(tmp_path, "max_batches=2").run()
    resumed = Training(tmp_path, "max_batches=9", resume=True)
    in_the_midst(resumed, 2, no_image)
    with pytest.raises(TrainingError, match=rf"the last good snapshot is {resumed.snapshots.backup} \(batch 2\)$"):
        resumed.run()


def test_a_image_that_cannot_be_read_is_named(tmp_path):
    training = Training(tmp_path, "max_batches=50")
    for path in (tmp_path / "JPEGImages").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"JPEGImages/\d+\.png.*; no snapshot was written yet"):
        training.run()


def test_too_little_gpu_memory_is_the_cfgs_error(tmp_path):
    training = Training(tmp_path)

    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    training.trainer.update = full
    training.trainer.net.width = 64
    with pytest.raises(CfgError, match=r"subdivisions=2: the GPU's memory is too small for 4 images of 64 x 32"):
        training.run()


def test_map_is_scored_and_the_best_is_kept(tmp_path):
    training = Training(tmp_path, "max_batches=10")
    scores = iter([0.25, 0.5, 0.5, 0.125])
    modes = []

    def score():
        modes.append((training.network.training, training.network.width))
        return [next(scores)]

    scoring = loop.Scoring(score, every=3)
    training.run(scoring=scoring)
    rows = training.rows()
    assert {row["batch"]: row["map"] for row in rows if row["map"]} == {
        "3": "0.25",
        "6": "0.5",
        "9": "0.5",
        "10": "0.125",
    }
    told = [line for line in training.snapshots.path(".log").read_text().splitlines() if line.startswith("mAP")]
    assert told == [f"mAP {score} %, best {best} %" for score, best in (
        ("25.00", "25.00"), ("50.00", "50.00"), ("50.00", "50.00"), ("12.50", "50.00"))]  # fmt: skip
    assert modes == [(False, 32)] * 4
    assert training.network.training
    best = load_weights(load_network(read_cfg(tmp_path / "net.cfg")), training.snapshots.path("_best.weights"))
    assert best.header.seen == 48
    again = Training(tmp_path, "max_batches=12")
    assert again.snapshots.resume(again.trainer)[0] == {"best": 0.5}


def test_the_first_score_may_come_late_and_the_others_count_from_it(tmp_path):
    training = Training(tmp_path, "max_batches=14")
    training.run(scoring=loop.Scoring(lambda: [0.5], every=4, first=5))
    assert [row["batch"] for row in training.rows() if row["map"]] == ["5", "9", "13", "14"]


def test_of_several_scores_the_first_says_which_is_the_best(tmp_path):
    training = Training(tmp_path, "max_batches=3", scores={"top_1": "top 1", "top_5": "top 5"})
    scores = iter([[0.25, 0.75], [0.5, 0.625], [0.375, 0.875]])
    scoring = loop.Scoring(lambda: next(scores), every=1)
    training.run(scoring=scoring)
    assert scoring.best == 0.5
    assert [(row["top_1"], row["top_5"]) for row in training.rows()] == [
        ("0.25", "0.75"), ("0.5", "0.625"), ("0.375", "0.875")]  # fmt: skip
    best = load_weights(load_network(read_cfg(tmp_path / "net.cfg")), training.snapshots.path("_best.weights"))
    assert best.header.seen == 16
    assert "top 1 37.50 %, top 5 87.50 %, best 50.00 %\n" in training.snapshots.path(".log").read_text()


def test_map_is_that_of_the_cfgs_size_whatever_was_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "DETECTION", DETECTION._replace(sizes=range(64, 97, 32)))
    training = Training(tmp_path, "max_batches=6", random=1)
    scored, trained, update = [], [], training.trainer.update
    training.trainer.update = lambda batches: trained.append(training.network.width) or update(batches)
    training.run(scoring=loop.Scoring(lambda: scored.append(training.network.width) or [0.5], every=2))
    assert scored == [32] * 3
    assert len(trained) == 6
    assert set(trained) <= {64, 96}


def test_the_best_map_is_kept_through_a_signal(tmp_path):
    training = Training(tmp_path, "max_batches=50")
    in_the_midst(training, 3, lambda: signal.raise_signal(signal.SIGTERM))
    training.run(scoring=loop.Scoring(lambda: [0.5], every=2))
    again = Training(tmp_path, "max_batches=50")
    assert again.snapshots.resume(again.trainer)[0] == {"best": 0.5}


def test_the_chart_is_a_image_of_what_the_table_holds(tmp_path):
    from darknet_compat.images import load_image
    from darknet_compat.train.chart import draw_chart

    training = Training(tmp_path)
    training.run(scoring=loop.Scoring(lambda: [0.5], every=2))
    training.log.draw()
    image = training.snapshots.path(".png").read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    draw_chart(tmp_path / "one.png", {name: [value] for name, value in
               dict(batch=1, loss=3.0, avg_loss=3.0, rate=0.1, map=np.nan).items()}, "one", {"map": "mAP"})  # fmt: skip
    drawn = load_image(tmp_path / "one.png")
    assert (drawn == [0xB4, 0x53, 0x09]).all(-1).any()  # the rate, which stands in no legend


def test_the_chart_has_a_curve_for_each_score(tmp_path):
    from darknet_compat.images import load_image
    from darknet_compat.train.chart import draw_chart

    columns = {name: [0.25, 0.5] for name in ("loss", "avg_loss", "rate", "top_1", "top_5")} | {"batch": [1.0, 2.0]}
    draw_chart(tmp_path / "two.png", columns, "two", {"top_1": "top 1", "top_5": "top 5"})
    drawn = load_image(tmp_path / "two.png")
    for colour in ([0x18, 0x79, 0x4E], [0x65, 0xA3, 0x0D]):
        assert (drawn == colour).all(-1).any()
