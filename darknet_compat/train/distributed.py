"""Several processes, one for each GPU: plain ``torch.distributed``, with a sum of all gradients per update.

Darknet gives each GPU its own network and batch, multiplies the rate by their number, and averages the networks'
weights now and then (``src/network.c, train_networks, sync_nets``). Here the gradients are averaged in every update,
so that the weights are the same everywhere at all times. Rolling means and variances stay each process's own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..device import find_device
from ..errors import LostProcessError, TrainingError, first_line

PATIENCE = timedelta(hours=2)  # the others wait while the first process writes snapshots and scores
BUCKET = 25 * 2**20  # bytes, as torch's DistributedDataParallel has it
# The signals that torch's launcher passes on to the processes, and ends by.
LAUNCHER = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together: ``rank`` from 0, ``world`` of them.

    What they do together raises :class:`LostProcessError` where one of them has ended.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace ``tensor`` by the sum of all processes' in place; what comes back waits for it."""
        if self.world == 1:
            return lambda: None
        with _all():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with _all():
                work.wait()

        return wait

    def broadcast(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by the first process's in place."""
        if self.world > 1:
            with _all():
                dist.broadcast(tensor, 0)

    def broadcast_number(self, number: int) -> int:
        """The first process's ``number``, below 2^63."""
        tensor = torch.tensor(number, device=self.device)
        self.broadcast(tensor)
        return int(tensor)

    def all_gather(self, thing: Any) -> list[Any]:
        """What each process brings, in the order of their ranks."""
        if self.world == 1:
            return [thing]
        things = [None] * self.world
        with _all():
            dist.all_gather_object(things, thing)
        return things

    def barrier(self) -> None:
        """Wait until all processes do this, or one has ended.

        torch's launcher stops all others when one ends with an error, so the first has to write and speak before.
        """
        if self.world > 1:
            with contextlib.suppress(LostProcessError), _all():
                dist.barrier()


class Sums:
    """The sums of all processes' gradients, which begin while the backward pass still goes on.

    ``parameters`` have gradients that lie in ``flat`` (n,), one behind the other; behind these come other numbers. A
    bucket of them, of so many bytes or more, is summed as soon as its last gradient is there. Backward passes begin
    with the last parameters, and so do the buckets. Which they are, and in what order they are summed, is the same in
    all processes, whatever becomes of an update in one of them.
    """

    def __init__(self, processes: Processes, parameters: Sequence[Tensor], flat: Tensor) -> None:
        self.processes = processes
        self.buckets: list[Tensor] = []
        self.waits: list[Callable[[], None]] = []
        """Of the buckets that are being summed."""
        start = end = sum(parameter.numel() for parameter in parameters)
        extra = flat[end:]
        self.expected: list[int] = []
        self.missing: list[int] | None = None
        """How many gradients each bucket waits for; None but in the last mini-batch of an update."""
        trained = 0
        for parameter in reversed(parameters):
            start -= parameter.numel()
            if parameter.requires_grad and processes.world > 1:
                trained += 1
                parameter.register_post_accumulate_grad_hook(functools.partial(self._came, len(self.buckets)))
            if start == 0 or (end - start) * flat.element_size() >= BUCKET:
                self.buckets.append(flat[start:end])
                self.expected.append(trained)
                end, trained = start, 0
        self.buckets.append(extra)

    def begin(self) -> None:
        """The gradients of the mini-batch that comes now are the last of this update."""
        self.missing = list(self.expected)

    def _came(self, bucket: int, parameter: Tensor) -> None:
        if self.missing is None:
            return
        self.missing[bucket] -= 1
        while len(self.waits) < len(self.missing) and self.missing[len(self.waits)] == 0:
            self._sum()

    def _sum(self) -> None:
        self.waits.append(self.processes.all_reduce(self.buckets[len(self.waits)]))

    def finish(self) -> None:
        """Sum what is left of ``flat``, and wait for all."""
        self.missing = None
        try:
            while len(self.waits) < len(self.buckets):
                self._sum()
            for wait in self.waits:
                wait()
        finally:
            self.waits = []


@contextlib.contextmanager
def _all() -> Iterator[None]:
    """What all processes do together. Raises LostProcessError where one of them has ended."""
    try:
        yield
    except RuntimeError:
        raise LostProcessError("another process of this training has ended") from None


def join(name: str | None) -> Processes:
    """Join the processes that torch's launcher started; without it, stand alone.

    The launcher's environment variables RANK, WORLD_SIZE and LOCAL_RANK say which place is this one's; each takes the
    GPU of its LOCAL_RANK, unless ``-device`` names another device.
    """
    if "RANK" not in os.environ:
        return Processes(find_device(name))
    rank, world, local = (_launched(key) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    device = find_device(name)
    if device.type == "cuda":
        device = find_device(f"cuda:{local}") if device.index is None else device
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"cannot join the {world} processes of this training: {first_line(error)}") from None
    return Processes(device, rank, world)


def _launched(name: str) -> int:
    """The number that torch's launcher left in the environment variable ``name``."""
    value = os.environ.get(name)
    if value is None or not value.isdecimal():
        found = "is not set" if value is None else f"is {value!r}"
        raise TrainingError(
            f"the environment variable RANK says that this is one of several processes, but {name} {found}; "
            "start them with torchrun or -gpus, or unset RANK to train in one process"
        )
    return int(value)


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launch(gpus: Sequence[int], arguments: Sequence[str]) -> int:
    """Run ``darknet-compat ARGUMENTS`` in one process for each of ``gpus``; see :func:`launch_processes`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    missing = [gpu for gpu in gpus if gpu >= len(known)]
    if missing:
        raise TrainingError(f"-gpus names GPU {missing[0]}; torch finds {len(known)} on this machine")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[gpu] for gpu in gpus)
    return launch_processes(len(gpus), arguments)


def launch_processes(count: int, arguments: Sequence[str]) -> int:
    """Run ``darknet-compat ARGUMENTS`` in ``count`` processes, by torch's own launcher (torchrun).

    Returns the exit code: that of the process that failed first, or 128 + the signal that stopped all. Signals that
    are ignored here stay so.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # The processes say themselves what went wrong; the launcher's own lines would bury it.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    # The launcher would answer SIGHUP under nohup, too.
    handled = [number.name for number in LAUNCHER if signal.getsignal(number) != signal.SIG_IGN]
    own = ["--standalone", "--nproc-per-node", str(count), "--signals-to-handle", ",".join(handled)]
    try:
        run(parse_args([*own, "-m", "darknet_compat", *arguments]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0
