"""The way of batches to a GPU, with a stream and events that a CPU plays (fake_cuda.py)."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darknet_compat.errors import ImageError, LostProcessError
from darknet_compat.labels import Labels
from darknet_compat.train import alexeyab_on_device, loop
from darknet_compat.train import data as loader
from darknet_compat.train.alexeyab_augment import AlexeyabAugmentation
from darknet_compat.train.copies import Copies, copies_to
from darknet_compat.train.crop_augment import CropAugmentation
from darknet_compat.train.data import AlexeyabTrainingSet, load_batches
from tests.train.fake_cuda import DEVICE, FakeCopies, install
from tests.train.test_crop_on_device import class_set
from tests.train.test_data import SIZE, assert_equal_batches, collect, make_set, training_set
from tests.train.test_loop import Training

COUNT = 3


@pytest.fixture
def paths(tmp_path):
    return make_set(tmp_path)


def load(data, stop=None, **options):
    return load_batches(data, COUNT, lambda index: SIZE, SIZE, stop=stop, copies=FakeCopies(DEVICE), **options)


def taken(data, stop, **options):
    return [(batch.images, batch.truth, batch.paths) for batch in load(data, stop, **options)]


@pytest.fixture
def asked(monkeypatch):
    """What the workers are asked for, as it happens, among the copies: ("ask", number of the batch)."""
    ask = loader._Worker.ask

    def install_order(order):
        def spy(worker, request):
            order.append(("ask", request.index))
            ask(worker, request)

        monkeypatch.setattr(loader._Worker, "ask", spy)

    return install_order


@pytest.mark.parametrize("patience", [0, 1, 5, 10**9])
@pytest.mark.parametrize(("workers", "prefetch"), [(0, 2), (1, 1), (2, 1), (2, 3)])
def test_the_batches_are_those_of_a_cpu(paths, monkeypatch, workers, prefetch, patience):
    """However late the copies are; FakeEvent sees memory that is filled again too early."""
    expected = collect(training_set(paths), 14)
    install(monkeypatch, patience=patience)
    assert_equal_batches(expected, taken(training_set(paths), 14, workers=workers, prefetch=prefetch))


@pytest.mark.parametrize("patience", [0, 4, 10**9])
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 2)])
def test_a_place_is_asked_for_again_when_its_copy_is_done(paths, monkeypatch, asked, workers, prefetch, patience):
    fake = install(monkeypatch, patience=patience)
    asked(fake.order)
    taken(training_set(paths), 20, workers=workers, prefetch=prefetch)
    places, done, copied = workers * prefetch + 2, set(), set()
    for what, number in fake.order:
        if what == "ask" and number >= places:
            assert number - places in done
        if what == "copy":
            copied.add(number)
        if what == "done":
            assert number in copied
            done.add(number)
    assert done == set(range(20))


def test_the_host_waits_for_no_copy_that_is_done_in_time(paths, monkeypatch):
    fake = install(monkeypatch, patience=1)
    taken(training_set(paths), 20, workers=2)
    in_the_end = 2  # the iterator's last batches are followed by none
    assert fake.host_waits <= in_the_end
    waits = [i for i, (what, _) in enumerate(fake.order) if what == "done"]
    assert len(waits) == 20


def test_the_host_waits_only_where_every_place_is_on_its_way(paths, monkeypatch, asked):
    fake = install(monkeypatch, patience=10**9)
    asked(fake.order)
    batches = load(training_set(paths), workers=1, prefetch=2)
    for _ in range(4):
        next(batches)
    assert fake.host_waits == 0
    next(batches)
    assert fake.host_waits >= 1
    batches.close()


def test_the_update_waits_on_the_device(paths, monkeypatch):
    """Each batch is handed out behind the word to the update's stream to wait for its copy; and its memory is kept
    for that stream."""
    fake = install(monkeypatch, patience=10**9)
    for number, batch in enumerate(load(training_set(paths), 9, workers=2)):
        assert fake.order.index(("copy", number)) < fake.order.index(("arrives", number))
        assert {address for address, stream in fake.kept if stream == "update"} >= {
            batch.images.data_ptr(),
            batch.truth.data_ptr(),
        }
    assert [number for what, number in fake.order if what == "arrives"] == list(range(9))


def test_what_is_computed_for_a_batch_is_computed_beside_the_update(paths, monkeypatch):
    """Images that the device augments: between "begin" and "end" of the copies' stream."""
    fake = install(monkeypatch)
    data, augment = training_set(paths), training_set(paths).augment
    data.augment = lambda *arguments: fake.order.append(("augment", None)) or augment(*arguments)
    expected = collect(training_set(paths), 6)
    found = taken(data, 6, workers=2, device=DEVICE)
    for (images, truth, names), (other, other_truth, other_names) in zip(expected, found, strict=True):
        assert names == other_names
        assert torch.equal(truth, other_truth)
        torch.testing.assert_close(other, images, atol=1e-4, rtol=0)
    words = [what for what, _ in fake.order if what in ("begin", "augment", "copy", "end")]
    assert words == ["begin", "augment", "copy", "end"] * 6


def test_the_next_batch_goes_ahead_where_it_is_there(paths, monkeypatch):
    fake = install(monkeypatch)
    batches = load(training_set(paths), workers=2)
    next(batches)
    for number in range(1, 6):
        time.sleep(0.1)  # the workers have filled what they were asked for
        next(batches)
        assert fake.order.index(("copy", number + 1)) < fake.order.index(("arrives", number))
    batches.close()


def test_a_batch_does_not_wait_for_the_next(paths, monkeypatch):
    fake = install(monkeypatch)
    data = training_set(paths)
    fill = data.fill
    data.fill = lambda sample, *slots: time.sleep(0 if sample < COUNT else 60) or fill(sample, *slots)
    batches = load(data, workers=1)
    start = time.monotonic()
    next(batches)
    assert time.monotonic() - start < 30
    assert ("copy", 1) not in fake.order
    batches.close()


# --- the end, and what goes wrong


class Gone(Exception):
    pass


def the_end(fake):
    """Every copy was waited for, then all memory unlocked, once; nothing happened behind that."""
    locks = [address for what, address in fake.order if what == "lock"]
    assert len(locks) == 2
    assert fake.order[-3:] == [("wait", "all"), *(("unlock", address) for address in reversed(locks))] or (
        fake.order[-3][0] == "done" and [what for what, _ in fake.order[-2:]] == ["unlock"] * 2
    )
    assert not fake.locked
    assert not fake.under_way


@pytest.mark.parametrize("workers", [0, 2])
def test_all_is_unlocked_at_the_end(paths, monkeypatch, workers):
    fake = install(monkeypatch, patience=10**9)
    taken(training_set(paths), 5, workers=workers)
    the_end(fake)
    fake = install(monkeypatch, patience=10**9)
    batches = load(training_set(paths), workers=workers)
    for _ in range(3):
        next(batches)
    assert fake.under_way
    batches.close()
    the_end(fake)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_unlocks_all(paths, tmp_path, monkeypatch, workers):
    fake = install(monkeypatch, patience=10**9)
    data = training_set(paths)
    (tmp_path / "images" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"3\.jpg"):
        taken(data, 200, workers=workers)
    the_end(fake)


def test_a_dead_worker_unlocks_all(paths, monkeypatch):
    fake, pids, start = install(monkeypatch, patience=10**9), [], loader._start_worker
    monkeypatch.setattr(loader, "_start_worker", lambda ring: pids.append((worker := start(ring)).pid) or worker)
    batches = load(training_set(paths), workers=2)
    next(batches)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(LostProcessError):
        list(itertools.islice(batches, 100))
    the_end(fake)


@pytest.mark.parametrize("place", ["begin", "copy", "end", "arrives"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_anywhere_unlocks_all(paths, monkeypatch, workers, place):
    """Ctrl-C in the midst of sending a batch, when its copy may be under way and its event not kept yet."""
    fake = install(monkeypatch, patience=10**9)

    class Order(list):
        def append(self, what):
            super().append(what)
            if what[0] == place and sum(word == place for word, _ in self) == 3:
                raise loop.Stopped

    fake.order = Order()
    batches = load(training_set(paths), workers=workers)
    with pytest.raises(loop.Stopped), contextlib.closing(batches):
        for _ in batches:
            pass
    the_end(fake)


def test_a_device_that_failed_does_not_hide_what_failed(paths, monkeypatch):
    fake = install(monkeypatch)

    def failed():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    copies = FakeCopies(DEVICE)
    batches = load_batches(training_set(paths), COUNT, lambda index: SIZE, SIZE, workers=1, copies=copies)
    next(batches)
    copies.stream.synchronize = failed
    fake.under_way.clear()
    with pytest.raises(Gone):
        batches.throw(Gone)
    assert not fake.locked


def test_memory_that_cannot_be_locked_is_a_warning(paths, monkeypatch):
    fake = install(monkeypatch, lock_error=2)
    cleared = []
    zeros = torch.zeros
    monkeypatch.setattr(
        torch, "zeros", lambda *size, device=None: cleared.append(device) or zeros(*size, device=device)
    )
    expected = collect(training_set(paths), 5)
    with pytest.warns(UserWarning, match=r"^CUDA cannot page-lock \d+ MiB for batches \(error 2\): training goes on"):
        found = taken(training_set(paths), 5, workers=2)
    assert_equal_batches(expected, found)
    assert DEVICE in cleared, "or the error would be the next operation's"
    assert not [what for what, _ in fake.order if what in ("lock", "unlock")]


# --- around it


def test_a_training_is_that_of_a_cpu(tmp_path, monkeypatch):
    plain = Training(tmp_path / "a")
    plain.run(workers=1)
    fake = install(monkeypatch)
    monkeypatch.setattr(loop, "copies_to", FakeCopies)
    for folder, on_device in (("b", False), ("c", True)):
        other = Training(tmp_path / folder)
        other.run(workers=2, on_device=on_device)
        assert not fake.locked
        for name, tensor in plain.network.state_dict().items():
            torch.testing.assert_close(other.network.state_dict()[name], tensor, rtol=0, atol=1e-4 * on_device)


def test_a_cpu_has_no_copies():
    assert copies_to(torch.device("cpu")) is None
    assert copies_to(torch.device("mps")) is None


class _Addresses(TorchDispatchMode):
    """Where in the host's memory lies what is copied to the meta device, which plays the GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to = torch.device(kwargs.get("device") or "cpu").type
        if function is torch.ops.aten._to_copy.default and to == "meta" and args[0].device.type == "cpu":
            assert kwargs["non_blocking"]
            self.found.append((args[0].data_ptr(), args[0].data_ptr() + args[0].nbytes))
        else:
            here = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
            assert len({leaf.device.type for leaf in here}) <= 1
        return function(*args, **kwargs)


@pytest.mark.parametrize("device", [None, torch.device("meta")])
@pytest.mark.parametrize("kind", ["objects", "alexeyab's objects", "classes", "mixed classes"])
def test_all_that_is_copied_lies_in_locked_memory(paths, tmp_path, monkeypatch, device, kind):
    """From any other the host would wait for the copy; but for numbers of up to 64 KiB, which CUDA takes along."""
    fake = install(monkeypatch, patience=0)
    data, taken_along = training_set(paths), 0
    if kind == "alexeyab's objects":
        options = AlexeyabAugmentation(hue=0.1, mixing="mosaic", blur=1, gaussian_noise=9)
        labels = Labels(np.tile(np.float32([0, 0.5, 0.5, 0.4, 0.4]), (700 * len(paths), 1)), 700 * np.arange(8))
        data, taken_along = AlexeyabTrainingSet(paths, labels, options, most=700), 2**16
        alexeyab_on_device._tables(torch.device("meta"))  # of colours, which are copied once
    elif kind != "objects":
        data = class_set(paths, CropAugmentation(1, 1.5, mixing="cutmix" if kind == "mixed classes" else ""))
    size = (32, 32)
    copies = Copies(torch.device("meta"))
    with _Addresses() as addresses:
        batches = load_batches(data, COUNT, lambda index: size, size, stop=4, workers=1, device=device, copies=copies)
        found = []
        for batch in batches:
            found.append(batch.images.device.type)
            locked = [(start, start + size) for start, size in fake.locked.items()]
    assert found == ["meta"] * 4
    assert len(addresses.found) >= 8
    elsewhere = [
        end - start
        for start, end in addresses.found
        if not any(first <= start and end <= last for first, last in locked)
    ]
    assert max(elsewhere, default=0) <= taken_along
