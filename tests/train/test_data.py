"""The training set: label checks, the stream of samples, the worker processes."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import resource
import signal
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.classify.labels import match_labels
from darknet_compat.errors import DataError, ImageError, LostProcessError, TrainingError
from darknet_compat.images import load_image
from darknet_compat.memory import keep_memory
from darknet_compat.train import data as module
from darknet_compat.train.augment import LEAST, Augmentation
from darknet_compat.train.crop_augment import CropAugmentation
from darknet_compat.train.data import STOPPING, ClassTrainingSet, TrainingSet, check_labels, load_batches
from tests.oracle import load_oracle

SIZE = (48, 32)
# Darknet19's sides of the image, angle, aspect, hue, saturation and exposure.
SIDES, CROPS = (128, 448), (7.0, 0.75, 0.1, 0.75, 0.75)
CLASSES = ["dog", "person", "horses", "eagle"]


def make_set(folder, images=7, size=(40, 30)):
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    paths = []
    for i in range(images):
        path = folder / "images" / f"{i}.jpg"
        cv2.imwrite(str(path), rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
        lines = [f"{rng.integers(3)} {x:.4f} {y:.4f} .2 .3" for x, y in rng.random((i + 1, 2)) * 0.9 + 0.05]
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    return paths


@pytest.fixture
def paths(tmp_path):
    return make_set(tmp_path)


def training_set(paths, **options):
    return TrainingSet(paths, check_labels(paths, 3), Augmentation(0.2, 0.1, 1.5, 1.5), **options)


def collect(data, stop, count=3, **options):
    batches = load_batches(data, count, lambda index: SIZE, SIZE, stop=stop, **options)
    return [(batch.images.clone(), batch.truth.clone(), batch.paths) for batch in batches]


def assert_equal_batches(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])
        assert mine[2] == theirs[2]


# --- labels


def test_labels_are_read(paths):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = check_labels(paths, 3)
    assert len(labels) == 7
    assert [len(labels[i]) for i in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert labels.objects.dtype == np.float32
    assert not labels.missing
    assert not labels.bad


BAD = {
    "3 .5 .5 .2 .2": "class 3, expected one of 0..2",
    "-1 .5 .5 .2 .2": "class -1",
    "1.5 .5 .5 .2 .2": "class 1.5",
    "1 1.2 .5 .2 .2": "outside of 0..1",
    "1 .5 .5 -.2 .2": "outside of 0..1",
    "1 0 0 .2 .2": "network with a tree",
    "1 nan .5 .2 .2": "expected 5 numbers",
    "1 .5 .5 .2": "expected 5 numbers",
    "cell .5 .5 .2 .2": "expected 5 numbers",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_lines_are_named(paths, tmp_path, line):
    file = tmp_path / "labels" / "4.txt"
    file.write_text("0 .5 .5 .2 .2\n\n" + line + "\n")
    with pytest.raises(DataError) as caught:
        check_labels(paths, 3)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert BAD[line] in str(caught.value)
    assert "bad lines in all: 1; correct them, or leave them out with -labels warn" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=r"4\.txt:3: .*left out"):
        labels = check_labels(paths, 3, labels="warn")
    assert len(labels.bad) == 1
    assert len(labels) == 7


def test_good_lines_of_a_bad_file_are_kept(paths, tmp_path):
    (tmp_path / "labels" / "4.txt").write_text("0 .5 .5 .2 .2\n9 .5 .5 .2 .2\n2 .1 .1 .1 .1\n")
    with pytest.warns(UserWarning, match=r"4\.txt:2"):
        labels = check_labels(paths, 3, labels="warn")
    assert labels[4][:, 0].tolist() == [0, 2]


def test_many_bad_lines_are_counted(paths, tmp_path):
    (tmp_path / "labels" / "4.txt").write_text("9 .5 .5 .2 .2\n" * 12)
    with pytest.raises(DataError, match="bad lines in all: 12;"):
        check_labels(paths, 3)
    with warnings.catch_warnings(record=True) as caught:
        check_labels(paths, 3, labels="warn")
    assert len(caught) == 6
    assert str(caught[-1].message).startswith("7 more bad label lines")
    (tmp_path / "labels" / "4.txt").write_text("9 .5 .5 .2 .2\n" * 5)
    with warnings.catch_warnings(record=True) as caught:
        check_labels(paths, 3, labels="warn")
    assert [":5: " in str(one.message) for one in caught] == [False] * 4 + [True]


def test_missing_label_files_mean_no_objects(paths, tmp_path):
    (tmp_path / "labels" / "2.txt").unlink()
    (tmp_path / "labels" / "3.txt").write_text("")
    with pytest.warns(UserWarning, match=r"2\.txt: no such label file; 1 of 7 images"):
        labels = check_labels(paths, 3)
    assert [len(labels[i]) for i in range(5)] == [1, 2, 0, 0, 5]
    assert labels.missing == [str(tmp_path / "labels" / "2.txt")]


def test_objects_without_a_place(paths, tmp_path):
    (tmp_path / "labels" / "0.txt").write_text("1 0 0 0 0\n")
    assert check_labels(paths, 3, class_only=3)[0].tolist() == [[1, 0, 0, 0, 0]]


def test_a_list_without_use_is_an_error(paths, tmp_path):
    with pytest.raises(
        DataError,
        match=r"gone\.jpg: no such image; 1 of the 8 images in the list are missing; its paths are relative to .*/",
    ):
        check_labels([*paths, str(tmp_path / "images" / "gone.jpg")], 3)
    with pytest.raises(DataError, match=r"first\.jpg: no such image; 2 of the 9 images in the list are missing"):
        check_labels([*paths, *(str(tmp_path / "images" / f"{name}.jpg") for name in ("first", "second"))], 3)
    odd = tmp_path / "odd.webp"
    odd.write_bytes(b"")
    with pytest.raises(DataError, match="no label file belongs"):
        check_labels([str(odd)], 3)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("")
    with pytest.raises(DataError, match=r"labels/0\.txt: no object in this label file nor in any of the 7;"):
        check_labels(paths, 3)


# --- the stream


def test_batches_have_the_promised_form(paths):
    (batch,) = load_batches(training_set(paths, most=9), 4, lambda index: SIZE, SIZE, stop=1)
    assert batch.images.shape == (4, 3, 32, 48)
    assert batch.images.dtype == torch.float32
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert batch.truth.shape == (4, 9, 5)
    assert len(batch.paths) == 4
    assert set(batch.paths) <= set(paths)
    (batch,) = load_batches(training_set(paths), 1, lambda index: SIZE, SIZE, stop=1)
    assert batch.truth.shape == (1, 30, 5), "as many as Darknet takes: `max` of [region] where it is not given"


def test_stream_is_the_same_for_any_number_of_workers(paths):
    alone = collect(training_set(paths, seed=5), 12)
    assert_equal_batches(alone, collect(training_set(paths, seed=5), 12, workers=1))
    assert_equal_batches(alone, collect(training_set(paths, seed=5), 12, workers=2, prefetch=1))
    other = collect(training_set(paths, seed=6), 12)
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(alone, other, strict=True))
    assert len({image.numpy().tobytes() for batch in alone for image in batch[0]}) == 36


@pytest.mark.parametrize("replacement", [True, False])
def test_stream_can_be_taken_up_anywhere(paths, replacement):
    data = training_set(paths, replacement=replacement)
    assert_equal_batches(collect(data, 12)[7:], collect(data, 5, first=7 * 3, workers=2))


def test_a_batch_stays_while_the_next_is_asked_for(paths):
    data = training_set(paths)
    expected = collect(data, 20)
    before = None
    for i, batch in enumerate(load_batches(data, 3, lambda index: SIZE, SIZE, stop=20, workers=2)):
        time.sleep(0.02)  # the workers have run ahead as far as they may
        for number, held in ((i, batch), (i - 1, before)):
            if held:
                assert torch.equal(held.images, expected[number][0])
                assert torch.equal(held.truth, expected[number][1])
        before = batch


def test_processes_share_one_stream(paths):
    data = training_set(paths)
    whole = collect(data, 6)
    ranks = [collect(data, 3, rank=rank, world=2) for rank in range(2)]
    assert_equal_batches(whole, list(itertools.chain(*zip(*ranks, strict=True))))


def test_epochs_show_every_image_once(paths):
    shown = [path for batch in collect(training_set(paths, replacement=False), 21, count=2) for path in batch[2]]
    epochs = [shown[i * 7 : i * 7 + 7] for i in range(6)]
    assert all(sorted(epoch) == sorted(paths) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_replacement_shows_every_image_alike(paths):
    shown = [path for batch in collect(training_set(paths), 140, count=5) for path in batch[2]]
    counts = np.array([shown.count(path) for path in paths])
    assert counts.sum() == 700
    assert 0.3 < ((counts - 100) ** 2 / 100).sum() < 22.5  # chi square, 6 degrees of freedom: .1 % on either side


def test_size_may_change(paths):
    sizes = [(32, 32), (32, 32), (64, 48), (96, 96)]
    batches = load_batches(training_set(paths), 2, sizes.__getitem__, (96, 96), stop=4, workers=2)
    assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, h, w) for w, h in sizes]


@pytest.mark.parametrize(("workers", "rank", "world"), [(0, 0, 1), (2, 1, 2)])
def test_batches_that_grow_where_sizes_shrink_take_the_samples_in_turn(paths, workers, rank, world):
    """dynamic_minibatch: in the memory that two of the largest take."""
    sizes, counts = [(96, 96), (32, 32), (64, 96), (32, 32), (96, 96)], [2, 18, 3, 9, 2]
    data = training_set(paths)
    batches = load_batches(
        data, 2, sizes.__getitem__, (96, 96), counts=counts.__getitem__, most=18, first=5, stop=5, workers=workers,
        rank=rank, world=world,
    )  # fmt: skip
    first = 5
    for batch, (w, h), count in zip(batches, sizes, counts, strict=True):
        samples = range(first + rank * count, first + (rank + 1) * count)
        first += world * count
        expected, truth = np.empty((count, 3, h, w), np.float32), np.empty((count, 30, 5), np.float32)
        assert batch.paths == tuple(data.fill(sample, expected[i], truth[i]) for i, sample in enumerate(samples))
        np.testing.assert_array_equal(batch.images, expected)
        np.testing.assert_array_equal(batch.truth, truth)


def test_an_input_higher_than_wide_has_its_memory(paths):
    (batch,) = load_batches(training_set(paths), 2, lambda index: (32, 96), (32, 96), stop=1)
    assert batch.images.shape == (2, 3, 96, 32)


@pytest.mark.parametrize("cache", [False, True])
def test_the_pixels_of_the_largest_image(paths, tmp_path, cache):
    for name, (w, h) in (("2", (90, 20)), ("5", (30, 70))):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), np.zeros((h, w, 3), np.uint8))
    made = training_set(paths, cache=cache)
    assert made.most_pixels == 2100
    assert {(90, 20), (30, 70)} <= {made.size(index) for index in range(len(made))}


def test_the_first_seed_is_0(paths):
    assert_equal_batches(collect(training_set(paths), 1), collect(training_set(paths, seed=0), 1))


def test_what_is_cached_is_the_same(paths):
    assert_equal_batches(collect(training_set(paths), 5), collect(training_set(paths, cache=True), 5, workers=2))


def test_what_is_cached_is_read_once(paths):
    data = training_set(paths, cache=True)
    expected = collect(data, 2)
    for path in paths:
        os.unlink(path)
    assert_equal_batches(expected, collect(data, 2))


def test_truth_belongs_to_the_image(tmp_path):
    """A white box on black: the truth lies on it, whatever the augmentation."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    image = np.zeros((90, 120, 3), np.uint8)
    image[30:60, 60:108] = 255
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    (tmp_path / "labels" / "a.txt").write_text("2 .7 .5 .4 .33333333\n")
    paths = [str(tmp_path / "images" / "a.png")]
    for fit in LEAST:
        data = TrainingSet(paths, check_labels(paths, 3), Augmentation(0.3, fit=fit))
        for batch in load_batches(data, 8, lambda index: (96, 64), (96, 64), stop=4):
            for planes, truth in zip(batch.images, batch.truth, strict=True):
                rows, columns = (np.flatnonzero((planes[0] > 0.55).any(axis).numpy()) for axis in (1, 0))
                x, y, w, h, name = truth[0].tolist()
                assert name == 2
                found = columns[0] / 96, (columns[-1] + 1) / 96, rows[0] / 64, (rows[-1] + 1) / 64
                np.testing.assert_allclose(found, (x - w / 2, x + w / 2, y - h / 2, y + h / 2), atol=0.025)


# --- processes


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named(paths, tmp_path, workers):
    data = training_set(paths)
    (tmp_path / "images" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        collect(data, 200, workers=workers)
    assert str(tmp_path / "images" / "3.jpg") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def workers(monkeypatch):
    """The process ids of the workers that are started."""
    pids, start = [], module._start_worker

    def spy(ring):
        worker = start(ring)
        pids.append(worker.pid)
        return worker

    monkeypatch.setattr(module, "_start_worker", spy)
    return pids


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_dead_worker_is_no_hang(paths, workers):
    batches = load_batches(training_set(paths), 2, lambda index: SIZE, SIZE, workers=2)
    next(batches)
    os.kill(workers[1], signal.SIGKILL)
    with pytest.raises(LostProcessError, match=f"^process {workers[1]}, which loads images, died") as caught:
        list(itertools.islice(batches, 100))
    assert "\n" not in str(caught.value)
    assert not any(map(alive, workers))


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError, BrokenPipeError])
def test_each_way_in_which_a_pipe_says_so_is_a_dead_worker(error):
    def gone(*_):
        raise error

    worker = module._Worker(7, SimpleNamespace(send=gone, recv=gone))
    with pytest.raises(LostProcessError, match=r"^process 7, which loads images, died"):
        worker.answer()
    if error is not EOFError:
        with pytest.raises(LostProcessError, match=r"^process 7, which loads images, died"):
            worker.ask(None)


def test_a_process_that_cannot_be_started_is_one_line(paths, workers, monkeypatch):
    fork, tries = os.fork, iter([True, False])

    def seldom():
        if next(tries):
            return fork()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", seldom)
    with pytest.raises(TrainingError, match=r"^cannot start a process to load images: .*; use fewer workers$"):
        collect(training_set(paths), 1, workers=2)
    assert len(workers) == 1
    assert not alive(workers[0])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_too_little_memory_is_one_line(paths):
    batches = load_batches(training_set(paths), 3, lambda index: SIZE, (2**22, 2**22))
    with pytest.raises(TrainingError, match=r"^no memory for 2 batches of [\d,]+ MiB: .*; use fewer workers"):
        next(batches)


def test_a_worker_has_one_thread(paths):
    """The threads of the process that forked it are not there, and torch would wait for them."""
    data, threads = training_set(paths), torch.get_num_threads()

    def fill(*_):
        raise ImageError(f"{torch.get_num_threads()} threads, OpenCV {cv2.getNumThreads()}")

    data.fill = fill
    torch.set_num_threads(3)
    try:
        with pytest.raises(ImageError, match=r"^1 threads, OpenCV 1$"):
            collect(data, 1, workers=1)
    finally:
        torch.set_num_threads(threads)


def test_children_that_nobody_waits_for_are_no_trouble(paths, workers):
    """A program may have SIGCHLD ignored, and then the kernel buries its children."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert len(collect(training_set(paths), 3, workers=2)) == 3
        batches = load_batches(training_set(paths), 2, lambda index: SIZE, SIZE, workers=2)
        next(batches)
        os.kill(workers[-1], signal.SIGKILL)
        with pytest.raises(LostProcessError):
            list(itertools.islice(batches, 100))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert len(workers) == 4
    assert not any(map(alive, workers))


def test_what_stops_a_training_does_not_reach_its_workers(paths, workers):
    """A Ctrl-C on a terminal, and a signal to the process group, come to all; only the training may act on them."""
    batches = load_batches(training_set(paths), 2, lambda index: SIZE, SIZE, workers=2)
    next(batches)
    for pid in workers:
        for number in STOPPING:
            os.kill(pid, number)
    assert len(list(itertools.islice(batches, 20))) == 20
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), "in the training itself they are not blocked"


def test_workers_end_with_a_training_that_was_killed(paths, tmp_path):
    """Nobody is left to end them; each sees that the one who asks is gone."""
    here, there = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        start = module._start_worker

        def spy(ring):
            worker = start(ring)
            there.send(worker.pid)
            return worker

        module._start_worker = spy
        batches = load_batches(training_set(paths), 2, lambda index: SIZE, SIZE, workers=2)
        next(batches)  # held: the workers of an iterator that nobody holds are ended
        there.send("loaded")
        signal.pause()
        os._exit(0)
    there.close()
    workers = [here.recv(), here.recv()]
    assert here.recv() == "loaded"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # The workers hold copies of the pipe's other end: it ends when the last of them has.
    with pytest.raises(EOFError):
        here.poll(20) and here.recv()
    assert len(workers) == 2


def test_a_worker_that_does_not_answer_is_ended(paths):
    data = training_set(paths)
    data.fill = lambda *_: time.sleep(60)  # as a disk that does not answer
    worker = module._start_worker(module._Ring(data, 1, SIZE, 1, 2))
    try:
        worker.ask(module._Request(0, 0, 1, *SIZE))
        module._end_workers([worker])
        assert not alive(worker.pid)
    finally:
        if alive(worker.pid):
            os.kill(worker.pid, signal.SIGKILL)


def test_workers_do_not_run_ahead_without_bound_and_end(paths, workers):
    asked = []

    def size(index):
        asked.append(index)
        return SIZE

    batches = load_batches(training_set(paths), 2, size, SIZE, workers=2, prefetch=3)
    for used in range(1, 20):
        next(batches)
        assert len(asked) <= used + 2 * 3
    assert len(workers) == 2
    assert all(map(alive, workers))
    batches.close()
    assert not any(map(alive, workers))


def test_workers_start_after_opencv_has_made_threads(paths):
    """A child that takes down its parent's pool of OpenCV threads hangs, now and then."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    big = np.zeros((2000, 2000, 3), np.float32)
    for _ in range(5):
        cv2.cvtColor(big, cv2.COLOR_RGB2HSV)
        assert len(collect(training_set(paths), 2, workers=2)) == 2
        assert cv2.getNumThreads() == 4
    cv2.setNumThreads(threads)


@pytest.mark.slow
def test_memory_stays_flat(paths, workers):
    batches = load_batches(training_set(paths), 8, lambda index: (208, 208), (208, 208), workers=2)
    next(batches)
    sizes = []
    for i in range(1500):
        next(batches)
        if i % 300 == 299:
            children = [f"/proc/{pid}/statm" for pid in workers]
            pages = [int(Path(file).read_text().split()[1]) for file in ["/proc/self/statm", *children]]
            sizes.append(np.array(pages) * resource.getpagesize() / 2**20)
    assert (sizes[-1] - sizes[1] < 8).all(), sizes


@pytest.mark.slow
@pytest.mark.parametrize(("size", "least"), [(416, 2), (256, 1.5), (224, 1.5)])
def test_speed_against_darknet(darknet, darknet_share, tmp_path, capsys, size, least):
    """Images per second of one core, everything on: over ``least`` times Darknet's, turn by turn in one run.

    416: a detector's; else a classifier's, with Darknet19's augmentation. Processor seconds: but where another process
    works on the same core's other thread, our vector instructions wait for it more than Darknet's loops do.
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    paths = []
    for source in sorted((darknet_share / "data").glob("*.jpg")):
        path = tmp_path / "images" / source.name
        small = cv2.resize(cv2.imread(str(source)), (500, 375), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (tmp_path / "labels" / f"{source.stem}.txt").write_text("1 .5 .5 .3 .3\n3 .2 .2 .1 .3\n")
        paths.append(str(path))
    if size == 416:
        data = TrainingSet(paths, check_labels(paths, 20), Augmentation(0.2, 0.1, 1.5, 1.5))
    else:
        options = CropAugmentation(*(side / size for side in SIDES), *CROPS)
        data = ClassTrainingSet(match_labels(paths, CLASSES), len(CLASSES), options)
    # New processes: in one that has run other tests, what they left in the allocator decides.
    start = multiprocessing.get_context("spawn")
    rates = {"darknet": [], "ours": [], "read and decode": []}
    pipes = []
    for work, given in ((_work, (data, paths, size)), (_darknet_work, (paths, size))):
        here, there = start.Pipe()
        start.Process(target=work, args=(there, *given), daemon=True).start()
        pipes.append(here)
    for block in range(25):
        for pipe, names in zip(pipes, (("ours", "read and decode"), ("darknet",)), strict=True):
            pipe.send(block)
            for name, rate in zip(names, pipe.recv(), strict=True):
                rates[name].append(rate)
    for pipe in pipes:
        pipe.send(None)
    median = {name: float(np.median(rates[name])) for name in rates}
    with capsys.disabled():
        found = {name: round(rate) for name, rate in median.items()}
        print(f"\nimages per second and core at {size}: {found}, {median['ours'] / median['darknet']:.2f} times")
    assert median["ours"] > least * median["darknet"]


def _work(pipe, data, paths, size):
    keep_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    slots, truth = np.empty((4, 3, size, size), np.float32), np.empty(data.truth_shape, np.float32)
    while (block := pipe.recv()) is not None:
        start = time.process_time()
        for i in range(16):
            data.fill(16 * block + i, slots[i % 4], truth)
        between = time.process_time()
        for i in range(16):
            load_image(paths[i % len(paths)])
        pipe.send((16 / (between - start), 16 / (time.process_time() - between)))


def _darknet_work(pipe, paths, size):
    darknet = load_oracle()
    while (block := pipe.recv()) is not None:
        start = time.process_time()
        if size == 416:
            darknet.load_data_detection(paths, 16, size, size, 30, 20, 0.2, 0.1, 1.5, 1.5, seed=block)
        else:
            darknet.load_data_augment(paths, 16, CLASSES, SIDES, size, CROPS, seed=block)
        pipe.send((16 / (time.process_time() - start),))
