"""Several processes, one for each GPU: plain ``torch.distributed``, started by ``torchrun`` or ``-gpus``."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import platform
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from itertools import cycle, islice
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from .device import find_device
from .errors import DarknetError, DeviceError, LostProcessError, ProcessError, ToldError, first_line
from .output import STARTED_BY

PATIENCE = timedelta(hours=2)  # the others wait while the first process writes snapshots and scores
# The signals that torch's launcher passes on to the processes, and ends by.
LAUNCHER = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


Item = TypeVar("Item")
Result = TypeVar("Result")


class ShareDone(BaseException):
    """Raised in all processes but the first when they have brought their share of a list: what is made of the results
    the first one makes alone. No handler of errors is meant to catch it."""


@dataclass(frozen=True)
class Processes:
    """This process's place among those that do a job together: ``rank`` from 0, ``world`` of them.

    ``parent`` is the process that started this one. What they do together raises :class:`LostProcessError` where one of
    them has ended.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    parent: int | None = field(default=None, compare=False)

    @property
    def first(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Those of torch, of all processes together. They decide the last bits, and are those of one process alone."""
        return torch.get_num_threads() * self.world

    def share(self, things: Iterable[Item]) -> Iterator[Item]:
        """This process's part of a list that all have: each takes one in turn, the first process the first."""
        return islice(things, self.rank, None, self.world)

    def in_turn(self, own: Generator[Result, None, None]) -> Iterator[Result]:
        """In the first process, what all make of their shares, in the order of the whole list.

        Each makes its ``own`` by itself, a few ahead at most: another process hands one on when the first asks for it.
        The others get nothing, and :class:`ShareDone` at the end. What is raised in one of them the first raises in its
        place.
        """
        with contextlib.closing(own):
            if self.world == 1:
                yield from own
            elif self.first:
                yield from self._gathered(own)
            else:
                self._bring(own)
                raise ShareDone

    def work_for_first(self, found: Iterable[Any]) -> NoReturn:
        """In all processes but the first: do this one's share of ``found``, which ends by :class:`ShareDone`."""
        deque(found, maxlen=0)
        raise ShareDone

    def _gathered(self, own: Iterator[Result]) -> Iterator[Result]:
        waiting = set(range(1, self.world))  # for a word from here
        try:
            for rank in cycle(range(self.world)):
                brought = _next(own) if rank == 0 else self._ask(rank)
                if rank and not isinstance(brought, tuple):
                    waiting.remove(rank)
                    raise brought
                if not brought:
                    waiting.discard(rank)
                    break
                yield brought[0]
        except LostProcessError:
            raise  # the others hear of it in the same way
        except (Exception, GeneratorExit):
            self._ask_no_more(waiting)
            raise
        self._ask_no_more(waiting)

    def _ask(self, rank: int) -> Any:
        """What that process has next: a tuple of one, or of none at its end; or an exception."""
        brought: list[Any] = [None]
        with self._all():
            dist.send(torch.tensor(True), rank)
            dist.recv_object_list(brought, rank, device=torch.device("cpu"))
        return brought[0]

    def _ask_no_more(self, waiting: Iterable[int]) -> None:
        for rank in waiting:
            with contextlib.suppress(LostProcessError), self._all():
                dist.send(torch.tensor(False), rank)

    def _bring(self, own: Iterator[Any]) -> None:
        brought: tuple[Any, ...] | Exception = (None,)
        while isinstance(brought, tuple) and brought:
            try:
                brought = _next(own)
            except Exception as error:
                brought = error
            asked = torch.tensor(False)
            with self._all():
                dist.recv(asked, 0)
                if not asked:
                    return
                dist.send_object_list([brought], 0, device=torch.device("cpu"))

    @contextlib.contextmanager
    def _all(self) -> Iterator[None]:
        """What all processes do together. Raises LostProcessError where one of them has ended."""
        self._check_parent()
        try:
            yield
        except (RuntimeError, ValueError):  # ValueError after this process has left
            self._check_parent()  # whose end others may have found first
            raise LostProcessError("another process of this job has ended") from None

    def _check_parent(self) -> None:
        if self.parent is not None and os.getppid() != self.parent:
            raise LostProcessError("the process that started this one has ended") from None

    def all_reduce(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace ``tensor`` by the sum of all processes' in place; what comes back waits for it."""
        if self.world == 1:
            return lambda: None
        with self._all():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with self._all():
                work.wait()

        return wait

    def broadcast(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by the first process's in place."""
        if self.world > 1:
            with self._all():
                dist.broadcast(tensor, 0)

    def from_first(self, make: Callable[[], Result]) -> Result:
        """What ``make`` gives in the first process, in all. For blocks of :func:`together`."""
        if self.world == 1:
            return make()
        brought: list[Any] = [None]
        problem = None
        if self.first:
            try:
                brought = [make()]
            except DarknetError as error:
                problem = error
        self.meet(problem)
        with self._all():
            dist.broadcast_object_list(brought, 0, device=torch.device("cpu"))
        made: Result = brought[0]
        return made

    def look_through(self, things: Sequence[Item], look: Callable[[Sequence[Item]], Result]) -> list[Result]:
        """What ``look`` makes of the parts of ``things``, in their order: each process looks at one. For blocks of
        :func:`together`.
        """
        if self.world == 1:
            return [look(things)]
        ends = [len(things) * rank // self.world for rank in range(self.world + 1)]
        found, problem = None, None
        try:
            found = look(things[ends[self.rank] : ends[self.rank + 1]])
        except DarknetError as error:
            problem = error
        self.meet(problem)
        return self.all_gather(found)

    def meet(self, problem: DarknetError | None = None) -> None:
        """All processes come here one by one, or to another such place. Raises KnownError where one has a problem."""
        for said in self.all_gather(None if problem is None else str(problem)):
            if said is not None:
                raise KnownError(said, problem)

    def launchers(self) -> list[str]:
        """The processes of ``torchrun`` that started these, one for each machine; none where ``-gpus`` did, or nobody.

        Each stays while it starts its processes again and again (``--max-restarts``), and no other has its name. For
        blocks of :func:`together`.
        """
        self.meet()
        own = None if self.parent is None or STARTED_BY in os.environ else _name_of_process(self.parent)
        return sorted({name for name in self.all_gather(own) if name})

    def broadcast_number(self, number: int) -> int:
        """The first process's ``number``, below 2^63."""
        tensor = torch.tensor(number)
        self.broadcast(tensor)
        return int(tensor)

    def all_gather(self, thing: Any) -> list[Any]:
        """What each process brings, in the order of their ranks."""
        if self.world == 1:
            return [thing]
        things = [None] * self.world
        with self._all():
            dist.all_gather_object(things, thing)
        return things

    def barrier(self) -> None:
        """Wait until all processes do this, or one has ended.

        torch's launcher stops all others when one ends with an error, so the first has to write and speak before.
        """
        if self.world > 1:
            with contextlib.suppress(LostProcessError), self._all():
                dist.barrier()


class KnownError(DarknetError):
    """A problem that one process found, and all know of; ``own`` is that of this process."""

    def __init__(self, said: str, own: DarknetError | None) -> None:
        super().__init__(said)
        self.own = own


@contextlib.contextmanager
def together(processes: Processes) -> Iterator[None]:
    """What each process does by itself; then the first raises what any of them found wrong, the others ToldError.

    In between they may meet, by :meth:`Processes.from_first` and :meth:`Processes.look_through`: who has found
    something wrong does not come there, and the others hear of it.
    """
    with contextlib.ExitStack() as quiet:
        if not processes.first:
            quiet.enter_context(contextlib.redirect_stderr(quiet.enter_context(open(os.devnull, "w"))))
        problem = None
        try:
            try:
                yield
            except KnownError:
                raise
            except DarknetError as error:
                problem = error
            processes.meet(problem)
            return
        except KnownError as error:
            known = error
    if processes.first:
        raise known.own or ProcessError(str(known)) from None
    processes.barrier()
    raise ToldError(str(known)) from None


def _next(things: Iterator[Any]) -> tuple[Any, ...]:
    """The next one in a tuple of one; an empty tuple where there is none."""
    return tuple(islice(things, 1))


def _name_of_process(pid: int) -> str:
    """A name that no other process has, on this machine or another: with the time it began at, where Linux tells it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            began = file.read().rpartition(")")[2].split()[19]
    except OSError:
        began = ""
    return f"{platform.node()} {pid} {began}".rstrip()


ALONE = Processes(torch.device("cpu"))


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
    # The default values of its functions are the group that stands when it is imported: here none. Imported later, by
    # an optimiser, it would keep the group for ever, and with it gloo's threads.
    import_module("torch.distributed.nn.functional")
    try:
        store, _, _ = next(rendezvous("env://", rank, world, timeout=PATIENCE))
        store = PrefixStore(_find_each_other(store, rank, world), store)
        # What is no tensor of the GPU goes from process to process by gloo.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(f"cannot join the {world} processes of this job: {first_line(error)}") from None
    # A thread of gloo's that gives a Python object back while Python ends is ended itself, and the process by signal 6.
    atexit.register(leave)
    return Processes(device, rank, world, os.getppid())


def _find_each_other(store: Store, rank: int, world: int) -> str:
    """A name for these processes together, which no others have had in this store.

    torchrun keeps its store where it starts processes again, and in it the addresses of those that died. Nothing that
    it tells them says which start this is: each machine counts its own restarts. So the first process asks who is
    there, and the others answer until it has heard them: a question may still be that of a first process that died.
    """
    own = secrets.token_hex(8)
    if rank == 0:
        store.set("question", own)
        store.set(f"{own} heard", " ".join(store.get(f"{own} {other}").decode() for other in range(1, world)))
        return own
    limit = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < limit:
        question: str = store.get("question").decode()
        store.set(f"{question} {rank}", own)
        heard = f"{question} heard"
        if store.check([heard]) and own in store.get(heard).decode():
            return question
        time.sleep(0.05)
    raise RuntimeError("the first one did not answer")


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


def launch(gpus: Sequence[int], arguments: Sequence[str], died: Callable[[str], None] = lambda what: None) -> int:
    """Run ``darknet-compat ARGUMENTS`` in one process for each of ``gpus``; see :func:`launch_processes`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    missing = [gpu for gpu in gpus if gpu >= len(known)]
    if missing:
        raise DeviceError(f"-gpus names GPU {missing[0]}; torch finds {len(known)} on this machine")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[gpu] for gpu in gpus)
    return launch_processes(len(gpus), arguments, died)


def launch_processes(count: int, arguments: Sequence[str], died: Callable[[str], None] = lambda what: None) -> int:
    """Run ``darknet-compat ARGUMENTS`` in ``count`` processes, by torch's own launcher (torchrun).

    Returns the exit code: that of the process that failed first, or 128 + the signal that stopped all. ``died`` is
    told of a process that ended without a word: killed, or not the first one. Signals that are ignored here stay so.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # The processes say themselves what went wrong; the launcher's own lines would bury it.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ[STARTED_BY] = str(os.getpid())
    # The launcher would answer SIGHUP under nohup, too.
    handled = [number.name for number in LAUNCHER if signal.getsignal(number) != signal.SIG_IGN]
    own = ["--standalone", "--nproc-per-node", str(count), "--signals-to-handle", ",".join(handled)]
    try:
        run(parse_args([*own, "-m", "darknet_compat", *arguments]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code < 0:
            died(f"process {rank} of {count} was ended by {signal.Signals(-code).name}")
        elif rank:
            died(f"process {rank} of {count} ended with exit code {code}")
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    return 0


def await_launcher() -> None:
    """In a process that found another one ended: wait for the launcher, which says so and stops this one.

    Returns where there is none, or no longer.
    """
    while os.environ.get(STARTED_BY) == str(os.getppid()):
        time.sleep(0.1)
