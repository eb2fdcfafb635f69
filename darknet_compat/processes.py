"""Several processes, one for each GPU: plain ``torch.distributed``, started by ``torchrun`` or ``-gpus``."""

from __future__ import annotations

import contextlib
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

from .device import find_device
from .errors import DarknetError, DeviceError, LostProcessError, ProcessError, ToldError, first_line

PATIENCE = timedelta(hours=2)  # the others wait while the first process writes snapshots and scores
# The signals that torch's launcher passes on to the processes, and ends by.
LAUNCHER = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


@dataclass(frozen=True)
class Processes:
    """This process's place among those that do a job together: ``rank`` from 0, ``world`` of them.

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


@contextlib.contextmanager
def _all() -> Iterator[None]:
    """What all processes do together. Raises LostProcessError where one of them has ended."""
    try:
        yield
    except RuntimeError:
        raise LostProcessError("another process of this job has ended") from None


@contextlib.contextmanager
def together(processes: Processes) -> Iterator[None]:
    """What each process does by itself; then the first raises what any of them found wrong, the others ToldError."""
    problem = None
    with contextlib.ExitStack() as quiet:
        if not processes.first:
            quiet.enter_context(contextlib.redirect_stderr(quiet.enter_context(open(os.devnull, "w"))))
        try:
            yield
        except DarknetError as error:
            problem = error
    problems = [found for found in processes.all_gather(str(problem) if problem else None) if found]
    if not problems:
        return
    if processes.first:
        raise problem or ProcessError(problems[0])
    processes.barrier()
    raise ToldError(problems[0])


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
        raise ProcessError(f"cannot join the {world} processes of this job: {first_line(error)}") from None
    return Processes(device, rank, world)


def _launched(name: str) -> int:
    """The number that torch's launcher left in the environment variable ``name``."""
    value = os.environ.get(name)
    if value is None or not value.isdecimal():
        found = "is not set" if value is None else f"is {value!r}"
        raise ProcessError(
            f"the environment variable RANK says that this is one of several processes, but {name} {found}; "
            "start them with torchrun or -gpus, or unset RANK to run in one process"
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
        raise DeviceError(f"-gpus names GPU {missing[0]}; torch finds {len(known)} on this machine")
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
