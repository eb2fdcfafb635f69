"""Processes that work together: how they are started, how they meet, how they hear that one has ended."""

from __future__ import annotations

import logging
import os
import signal
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from darknet_compat import processes
from darknet_compat.errors import DeviceError, LostProcessError, ProcessError
from darknet_compat.processes import LAUNCHER, Processes, join, launch, launch_processes, leave


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
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: asked.append(backend))
    return asked


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        (None, "cuda:2", [torch.device("cuda:2"), "nccl"]),
        ("cuda", "cuda:2", [torch.device("cuda:2"), "nccl"]),
        ("cuda:0", "cuda:0", [torch.device("cuda:0"), "nccl"]),
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
    asked = []
    monkeypatch.setattr(processes, "launch_processes", lambda *launched: asked.append(launched) or 7)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for visible, gpus, expected in (("5,7", [1, 0], "7,5"), ("5,7", [1], "7"), ("", [2, 0], "2,0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert launch(gpus, ["detector", "train"]) == 7
        assert (os.environ["CUDA_VISIBLE_DEVICES"], asked.pop()) == (expected, (len(gpus), ["detector", "train"]))


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
