"""What copies.py asks of torch.cuda, played on a CPU: a stream that gets to its copies in its own time.

A copy that is begun is done once it has been asked about so often (``patience``), or waited for. What it brings is what
lay in the loader's memory when it began; that must lie there still when it is done, or the memory was given back early.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import torch
from torch import Tensor

from darknet_compat.train import copies as module
from darknet_compat.train.copies import Copies, Sent

DEVICE = torch.device("cpu")


class FakeCuda:
    """In the place of torch.cuda. ``order`` is what happened: pairs of a word and what it is about."""

    def __init__(self, patience=3, lock_error=0):
        self.patience, self.lock_error = patience, lock_error
        self.order = []
        self.locked = {}
        self.under_way = []
        self.host_waits = 0

    # --- what the module finds in torch.cuda

    def Stream(self, device):
        return SimpleNamespace(name="copies", synchronize=self._end_all)

    def Event(self):
        return FakeEvent(self)

    @contextlib.contextmanager
    def stream(self, stream):
        self.order.append(("begin", stream.name))
        try:
            yield
        finally:
            self.order.append(("end", stream.name))

    def current_stream(self, device):
        return SimpleNamespace(name="update", wait_event=lambda event: self.order.append(("arrives", event.number)))

    def cudart(self):
        return SimpleNamespace(cudaHostRegister=self._register, cudaHostUnregister=self._unregister)

    # ---

    def _register(self, address, size, flags):
        assert size > 0
        if self.lock_error:
            return self.lock_error
        self.locked[address] = size
        self.order.append(("lock", address))
        return 0

    def _unregister(self, address):
        assert not self.under_way, "memory is unlocked while it is copied"
        del self.locked[address]
        self.order.append(("unlock", address))
        return 0

    def _end_all(self):
        self.order.append(("wait", "all"))
        for event in list(self.under_way):
            event.finish()


class FakeEvent:
    """The end of one copy."""

    count = 0

    def __init__(self, cuda):
        self.cuda, self.asked = cuda, 0
        self.sources, self.brought = (), ()

    def record(self, stream):
        assert stream.name == "copies"
        self.number = sum(what == "copy" for what, _ in self.cuda.order)
        self.cuda.order.append(("copy", self.number))
        self.cuda.under_way.append(self)

    def query(self):
        self.asked += 1
        if self.asked > self.cuda.patience:
            self.finish()
        return self not in self.cuda.under_way

    def synchronize(self):
        self.cuda.host_waits += self in self.cuda.under_way
        self.finish()

    def finish(self):
        """Done; and with it all that the stream was given before."""
        while self in self.cuda.under_way:
            first = self.cuda.under_way.pop(0)
            for source, brought in zip(first.sources, first.brought, strict=True):
                assert torch.equal(source, brought), "the loader filled the memory again while it was copied"
            self.cuda.order.append(("done", first.number))


class FakeCopies(Copies):
    """Copies that bring tensors of their own, as a GPU's are. ``sources``: where those of each lie in the loader."""

    def send(self, make):
        sent = super().send(make)
        event = sent.copied
        event.sources = sent.batch.images, sent.batch.truth
        event.brought = tuple(part.clone() for part in event.sources)
        images, truth = event.brought
        return Sent(sent.batch._replace(images=images, truth=truth), event)


def install(monkeypatch, **options) -> FakeCuda:
    """Put a FakeCuda into copies.py."""
    fake = FakeCuda(**options)
    monkeypatch.setattr(module, "cuda", fake)
    kept = []
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: kept.append((tensor.data_ptr(), stream.name)))
    fake.kept = kept
    return fake
