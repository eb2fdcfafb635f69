"""Processes that work together: how they are started, how they meet, how they hear that one has ended."""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from darknet_compat import load_network, processes
from darknet_compat.classify import predictions
from darknet_compat.engines import Engine, Engines
from darknet_compat.errors import DataError, DeviceError, LostProcessError, ProcessError
from darknet_compat.output import STARTED_BY
from darknet_compat.processes import (
    LAUNCHER,
    Processes,
    await_launcher,
    join,
    launch,
    launch_processes,
    leave,
    together,
)
from tests.conftest import SHAPES
from tests.train.test_distributed import in_processes


@pytest.fixture(autouse=True)
def environment_as_before():
    """A launcher says in it who started what it starts: tests that come later are not started by it."""
    with mock.patch.dict(os.environ):
        yield


def test_gpus_that_are_not_there(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="-gpus names GPU 1; torch finds 1 on this machine"):
        launch([0, 1], [])
    with pytest.raises(DeviceError, match="-gpus names GPU 3; torch finds 1 on this machine"):
        launch([0, 3, 2], [])


@pytest.mark.parametrize(("processors", "count", "each"), [(8, 3, "2"), (2, 3, "1"), (None, 1, "1")])
def test_each_process_has_its_share_of_the_processors(monkeypatch, processors, count, each):
    quiet = []
    monkeypatch.setattr("torch.distributed.run.run", lambda _: quiet.append(logging.root.manager.disable))
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    try:
        assert launch_processes(count, ["words"]) == 0
    finally:
        logging.disable(logging.NOTSET)
    assert os.environ["OMP_NUM_THREADS"] == each
    assert quiet == [logging.CRITICAL], "the processes say themselves what went wrong"


@pytest.fixture
def launched(monkeypatch):
    """The environment of the second of three processes; what is asked of torch there."""
    asked = []
    for name, value in (("RANK", 1), ("WORLD_SIZE", 3), ("LOCAL_RANK", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(processes, "find_device", lambda name: torch.device(name or "cuda"))
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    place = dist.HashStore(), 1, 3
    monkeypatch.setattr(processes, "rendezvous", lambda url, rank, world, **_: iter([place]))
    monkeypatch.setattr(processes, "_find_each_other", lambda *_: "these")
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: asked.append(backend))
    return asked


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        (None, "cuda:2", [torch.device("cuda:2"), "cpu:gloo,cuda:nccl"]),
        ("cuda", "cuda:2", [torch.device("cuda:2"), "cpu:gloo,cuda:nccl"]),
        ("cuda:0", "cuda:0", [torch.device("cuda:0"), "cpu:gloo,cuda:nccl"]),
        ("cpu", "cpu", ["gloo"]),
    ],
)
def test_each_process_takes_the_gpu_of_its_place_or_the_one_that_is_named(launched, name, device, expected):
    assert join(name) == Processes(torch.device(device), 1, 3)
    assert launched == expected


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_processes_that_do_not_meet_are_one_line(launched, monkeypatch, error):
    def failed(*_, **__):
        raise error("no rendezvous\nwith a long trace")

    monkeypatch.setattr(dist, "init_process_group", failed)
    with pytest.raises(ProcessError, match=r"^cannot join the 3 processes of this job: no rendezvous$"):
        join("cpu")


def test_the_others_wait_for_an_hour_and_more(launched, monkeypatch):
    """While the first process writes snapshots and scores."""
    given = []
    monkeypatch.setattr(dist, "init_process_group", lambda *_, timeout, **__: given.append(timeout))
    join("cpu")
    assert given == [processes.PATIENCE]
    assert timedelta(hours=1) < processes.PATIENCE


def test_a_process_parts_only_from_those_it_joined(monkeypatch):
    parted = []
    monkeypatch.setattr(dist, "destroy_process_group", lambda: parted.append(True))
    for joined in (False, True):
        monkeypatch.setattr(dist, "is_initialized", lambda joined=joined: joined)
        leave()
        assert parted == [True] * joined


def test_the_first_process_is_the_one_that_all_follow(monkeypatch):
    def broadcast(tensor, source):
        assert source == 0
        tensor.fill_(7)

    waited = []
    monkeypatch.setattr(dist, "broadcast", broadcast)
    monkeypatch.setattr(dist, "barrier", lambda: waited.append(True))
    two = Processes(torch.device("cpu"), 1, 2)
    tensor = torch.ones(3)
    two.broadcast(tensor)
    assert tensor.tolist() == [7, 7, 7]
    assert two.broadcast_number(5) == 7
    two.barrier()
    assert waited == [True]


def test_the_gpus_that_are_named_are_those_that_are_seen(monkeypatch):
    """Numbers count among the GPUs that torch finds here."""
    asked, died = [], print
    monkeypatch.setattr(processes, "launch_processes", lambda *launched: asked.append(launched) or 7)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for visible, gpus, expected in (("5,7", [1, 0], "7,5"), ("5,7", [1], "7"), ("", [2, 0], "2,0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert launch(gpus, ["detector", "train"], died) == 7
        assert (os.environ["CUDA_VISIBLE_DEVICES"], asked.pop()) == (expected, (len(gpus), ["detector", "train"], died))


@pytest.mark.parametrize(("ends", "code"), [(None, 0), (1, 1), (3, 3), (-9, 137), (signal.SIGTERM, 143)])
def test_the_exit_code_of_several_processes(monkeypatch, ends, code):
    """That of the first that failed, or 128 and the signal; each has its share of the processors."""
    launched = []

    class Failed(ChildFailedError):
        def __init__(self):
            pass

        def get_first_failure(self):
            return 0, SimpleNamespace(exitcode=ends)

    def run(arguments):
        launched.append(arguments)
        if ends is not None:
            raise SignalException("stopped", ends) if isinstance(ends, signal.Signals) else Failed()

    monkeypatch.setattr("torch.distributed.run.run", run)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    try:
        assert launch_processes(3, ["detector", "train"]) == code
    finally:
        logging.disable(logging.NOTSET)
    assert os.environ["OMP_NUM_THREADS"] == "2"
    (asked,) = launched
    assert (asked.nproc_per_node, asked.standalone, asked.module) == ("3", True, True)
    assert [asked.training_script, *asked.training_script_args] == ["darknet_compat", "detector", "train"]


@pytest.mark.parametrize(
    ("ignored", "expected"), [(False, "SIGTERM,SIGINT,SIGHUP,SIGQUIT"), (True, "SIGTERM,SIGINT,SIGQUIT")]
)
def test_the_launcher_lets_nohup_be(monkeypatch, ignored, expected):
    """It would take SIGHUP anew whatever stood there, and end all processes when the terminal closes."""
    given = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("torch.distributed.run.run", given.append)
    # All of them: what runs in the background of a script has SIGINT ignored from its start.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in LAUNCHER}
    try:
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert launch_processes(2, ["words"]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        logging.disable(logging.NOTSET)
    assert (given[0].signals_to_handle, given[0].training_script_args) == (expected, ["words"])


def test_a_process_that_has_ended_is_named_wherever_the_others_wait(monkeypatch):
    def ended(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    for name in ("all_reduce", "broadcast", "all_gather_object", "barrier"):
        monkeypatch.setattr(dist, name, ended)
    two = Processes(torch.device("cpu"), 0, 2)
    tensor = torch.ones(1)
    for call in (lambda: two.all_reduce(tensor), lambda: two.broadcast(tensor), lambda: two.all_gather("x")):
        with pytest.raises(LostProcessError, match=r"^another process of this job has ended$"):
            call()
    two.barrier()  # for those that are left


def test_one_process_alone():
    alone = Processes(torch.device("cpu"))
    tensor = torch.ones(2)
    alone.all_reduce(tensor)()
    alone.broadcast(tensor)
    assert (alone.first, tensor.tolist(), alone.all_gather("x")) == (True, [1, 1], ["x"])
    assert alone.broadcast_number(2**62) == 2**62
    alone.barrier()
    assert (alone.rank, alone.world, Processes(alone.device, 1).first) == (0, 1, False)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_process_that_forgets_to_leave_leaves_at_its_end():
    """Else one in a hundred ends with signal 6, when a thread of gloo's meets the end of Python.

    Optimisers import torch._dynamo, which must not make the threads stay.
    """
    code = """
import atexit, pathlib, torch.distributed as dist
from darknet_compat.processes import join

def gloo():
    return sum(task.read_text().startswith("pt_gloo") for task in pathlib.Path("/proc/self/task").glob("*/comm"))

atexit.register(lambda: print(dist.is_initialized(), gloo()))
join("cpu").barrier()
import torch._dynamo
print(dist.is_initialized(), gloo() > 0)
"""
    assert in_processes(2, [sys.executable, "-c", code]) == ([0, 0], "True True\nFalse 0\n", "")


@pytest.mark.parametrize("comes", [0, 1, 2])
def test_processes_find_each_other_where_others_have_died(comes, monkeypatch):
    """In a store that torchrun keeps, whoever comes first: by a name that those before them did not have."""
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=10))
    store = dist.HashStore()
    store.set_timeout(processes.PATIENCE)
    earlier = []
    for left in ("nothing", "all of a start", "a question", "a question and an answer"):
        if left.startswith("a question"):
            store.set("question", left.replace(" ", ""))
        if left.endswith("answer"):
            store.set(f"{left.replace(' ', '')} 1", "one that died")
        with ThreadPoolExecutor(3) as pool:
            found = {comes: pool.submit(processes._find_each_other, store, comes, 3)}
            wait(found.values(), 0.2)
            found |= {rank: pool.submit(processes._find_each_other, store, rank, 3) for rank in {0, 1, 2} - {comes}}
            names = {one.result() for one in found.values()}
        assert len(names) == 1
        earlier += names
    assert len(set(earlier)) == 4


def test_processes_whose_first_one_does_not_answer_are_one_line(launched, monkeypatch):
    store = dist.HashStore()
    store.set("question", "that of one that died")
    monkeypatch.undo()
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=0.2))
    with pytest.raises(RuntimeError, match=r"^the first one did not answer$"):
        processes._find_each_other(store, 1, 3)


def test_each_machine_may_have_counted_other_restarts():
    """torchrun counts those that a process of its own machine was the reason of."""
    code = """
import os
os.environ["TORCHELASTIC_RESTART_COUNT"] = os.environ["RANK"]
from darknet_compat import processes
from datetime import timedelta
processes.PATIENCE = timedelta(seconds=30)
print(processes.join("cpu").broadcast_number(7))
"""
    assert in_processes(2, [sys.executable, "-c", code]) == ([0, 0], "7\n", "")


# What three processes bring, case by case: the first one prints what it gets, the others how they end.
BRING = """
import sys
from darknet_compat.errors import ImageError
from darknet_compat.processes import ShareDone, join

processes = join("cpu")
begun = []

def results(things, broken=None):
    for thing in processes.share(things):
        begun.append(thing)
        if thing == broken:
            raise ImageError(f"{thing} is broken")
        yield thing

def gets(things, broken=None, enough=None):
    found = []
    try:
        for one in processes.in_turn(results(things, broken)):
            found.append(one)
            if len(found) == enough:
                break
        found.append("end")
    except ImageError as error:
        found.append(str(error))
    except ShareDone:
        return [*found, "done"]
    return found

cases = [dict(things=range(count)) for count in range(8)]
cases += [dict(things=range(8), broken=number) for number in range(8)]
cases += [dict(things=range(9), enough=number) for number in range(1, 9)]
for case in cases:
    print(gets(**case), flush=True)
print("share", list(processes.share(range(7))), processes.threads, processes.broadcast_number(processes.rank + 5))
begun.clear()
gets(range(300), enough=3)
assert len(begun) < 6, "no process runs ahead of what is asked"
"""


def test_what_processes_bring_comes_in_the_order_of_the_list():
    arguments = [sys.executable, "-c", BRING]
    codes, out, error = in_processes(3, arguments)
    assert (codes, error) == ([0, 0, 0], "")
    lines = out.splitlines()
    expected = [[*range(count), "end"] for count in range(8)]
    expected += [[*range(number), f"{number} is broken"] for number in range(8)]
    expected += [[*range(number), "end"] for number in range(1, 9)]
    assert lines[:-1] == [str(one) for one in expected]
    assert lines[-1] == "share [0, 3, 6] 3 5"


# What three processes find together, case by case: each prints what it has, or how the block ended.
TOGETHER = """
from darknet_compat.errors import DarknetError, DataError, ToldError
from darknet_compat.processes import join, together

processes = join("cpu")
looked = []

def look(part):
    looked.append(list(part))
    if any(thing in broken for thing in part):
        raise DataError(f"{min(broken)} is broken, says {processes.rank}")
    return [10 * thing for thing in part]

def make():
    assert processes.first
    if "first" in broken:
        raise DataError("no list")
    return f"of {processes.rank}"

def block(count, alone=None):
    with together(processes):
        if processes.rank == alone:
            raise DataError(f"{alone} alone")
        made = processes.from_first(make)
        if processes.rank == broken:
            raise DataError("in between")
        found = processes.look_through(range(count), look)
        return made, found

cases = [(dict(count=count), ()) for count in (0, 1, 2, 7)]
cases += [(dict(count=7), (number,)) for number in range(7)]
cases += [(dict(count=3, alone=rank), ()) for rank in range(3)]
cases += [(dict(count=3), ("first",)), (dict(count=7), (1, 6))]
for case, broken in cases:
    looked.clear()
    try:
        said = block(**case)
    except DarknetError as error:
        said = type(error).__name__, str(error)
        if processes.first:
            processes.barrier()  # the others wait until it has spoken, or ended
    # All in step still, whatever became of the block.
    for line in processes.all_gather(f"{said} {looked}"):
        print(line, flush=True)
"""


def test_what_one_process_finds_wrong_between_two_meetings_all_hear_of():
    codes, out, error = in_processes(3, [sys.executable, "-c", TOGETHER])
    assert (codes, error) == ([0, 0, 0], "")
    lines = iter(out.splitlines())
    for count in (0, 1, 2, 7):
        ends = [0, count // 3, 2 * count // 3, count]
        parts = [list(range(*pair)) for pair in pairwise(ends)]
        found = [[10 * thing for thing in part] for part in parts]
        for part in parts:
            assert next(lines) == f"('of 0', {found}) [{part}]"
    kinds, parts = ("DataError", "ToldError", "ToldError"), [[0, 1], [2, 3], [4, 5, 6]]
    for number in range(7):
        owner = next(rank for rank, part in enumerate(parts) if number in part)
        kind = (kinds[0] if owner == 0 else "ProcessError", *kinds[1:])
        for rank in range(3):
            assert next(lines) == f"{(kind[rank], f'{number} is broken, says {owner}')} [{parts[rank]}]"
    for alone in range(3):
        for kind in ("ProcessError" if alone else "DataError", "ToldError", "ToldError"):
            assert next(lines) == f"{(kind, f'{alone} alone')} []"
    for kind in kinds:
        assert next(lines) == f"{(kind, 'no list')} []"
    for rank, kind in enumerate(kinds):
        assert next(lines) == f"{(kind, '1 is broken, says 0')} [{parts[rank]}]"
    assert not list(lines)


def test_one_process_looks_through_all():
    alone = Processes(torch.device("cpu"))
    assert alone.look_through([3, 4], sum) == [7]
    assert alone.from_first(lambda: 5) == 5
    with pytest.raises(DataError, match=r"^mine$"), together(alone):
        raise DataError("mine")


def test_a_launcher_has_a_name_of_its_own(monkeypatch):
    def launchers(parent):
        return Processes(torch.device("cpu"), parent=parent).launchers()

    monkeypatch.delenv(STARTED_BY, raising=False)
    assert launchers(None) == []
    [own], [other] = launchers(os.getpid()), launchers(os.getppid())
    assert own != other
    assert own.startswith(f"{platform.node()} {os.getpid()}")
    assert launchers(os.getpid()) == [own], "the same each time"
    monkeypatch.setenv(STARTED_BY, str(os.getpid()))
    assert launchers(os.getpid()) == [], "-gpus never starts its processes again"


def test_the_launchers_of_all_machines_are_known_to_each(monkeypatch):
    class Second(Processes):
        """Of four processes, of which the others were started by another launcher, by this one and by none."""

        def all_gather(self, thing):
            return [thing and "another", thing, thing, None]

    monkeypatch.delenv(STARTED_BY, raising=False)
    found = Second(torch.device("cpu"), 1, 4, parent=os.getpid()).launchers()
    assert found == sorted(["another", processes._name_of_process(os.getpid())])


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
def test_a_later_process_of_the_same_number_has_another_name():
    """A process's name holds when it began."""
    began = []
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            name = processes._name_of_process(process.pid)
            began.append(int(name.removeprefix(f"{platform.node()} {process.pid} ")))
            process.communicate(b"\n")
    assert began[0] < began[1]
    assert processes._name_of_process(process.pid) == f"{platform.node()} {process.pid}", "it has ended"


def test_one_process_gets_what_it_brings():
    closed = []

    def results():
        try:
            yield from "abc"
        finally:
            closed.append(True)

    alone = Processes(torch.device("cpu"))
    assert list(alone.in_turn(results())) == ["a", "b", "c"]
    found = alone.in_turn(results())
    assert next(found) == "a"
    found.close()
    assert closed == [True, True]
    assert list(alone.share("abc")) == ["a", "b", "c"]
    assert alone.threads == torch.get_num_threads()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_has_ended_is_found_where_results_are_brought(monkeypatch, rank):
    def ended(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    for name in ("send", "recv", "send_object_list", "recv_object_list"):
        monkeypatch.setattr(dist, name, ended)
    two = Processes(torch.device("cpu"), rank, 2)
    with pytest.raises(LostProcessError, match=r"^another process of this job has ended$"):
        list(two.in_turn(number for number in range(3)))


@pytest.mark.posix
def test_the_end_of_the_process_that_started_all_is_found():
    two = Processes(torch.device("cpu"), 1, 2, parent=os.getppid() + 1)
    with pytest.raises(LostProcessError, match=r"^the process that started this one has ended$"):
        two.work_for_first(two.in_turn(number for number in range(3)))


@pytest.mark.parametrize(
    ("rank", "code", "says"),
    [(0, 1, None), (0, -9, "process 0 of 3 was ended by SIGKILL"), (2, -11, "process 2 of 3 was ended by SIGSEGV"),
     (1, 1, "process 1 of 3 ended with exit code 1")],
)  # fmt: skip
def test_the_launcher_tells_of_a_process_that_ended_without_a_word(monkeypatch, rank, code, says):
    class Failed(ChildFailedError):
        def __init__(self):
            pass

        def get_first_failure(self):
            return rank, SimpleNamespace(exitcode=code)

    def run(arguments):
        assert os.environ[STARTED_BY] == str(os.getpid())
        raise Failed

    told = []
    monkeypatch.setattr("torch.distributed.run.run", run)
    for name in (STARTED_BY, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    try:
        assert launch_processes(3, ["words"], told.append) == (code if code > 0 else 128 - code)
    finally:
        logging.disable(logging.NOTSET)
    assert told == ([says] if says else [])


def test_a_process_waits_for_the_launcher_alone_that_started_it(monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        monkeypatch.setattr(os, "getppid", lambda: 1)

    monkeypatch.setattr(processes.time, "sleep", sleep)
    monkeypatch.setattr(os, "getppid", lambda: 77)
    for started_by in (None, "78"):
        if started_by:
            monkeypatch.setenv(STARTED_BY, started_by)
        await_launcher()
    assert slept == []
    monkeypatch.setenv(STARTED_BY, "77")
    await_launcher()
    assert len(slept) == 1, "until it has ended"


def test_a_short_list_has_the_threads_of_one_process(monkeypatch):
    """They decide the last bits: those of all processes together, in each."""
    network, asked = load_network(*SHAPES), []
    three = Processes(torch.device("cpu"), 0, 3)
    threads = torch.get_num_threads()
    engines = Engines(network, "torch", "float32", 4, processes=three)
    assert [engines.take(images)[0].threads for images in (4, 4 * 3 * threads)] == [3 * threads, 1]
    monkeypatch.setattr(predictions, "Engine", lambda run, threads: asked.append(threads) or Engine(run, threads))
    monkeypatch.setattr(predictions, "results_in_order", lambda *_, processes: iter([processes]))
    assert list(predictions.classify_resized(network, ["a.png"], lambda image: [], processes=three)) == [three]
    assert asked == [3 * threads]
