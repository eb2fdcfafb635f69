"""Reads hostile files one after the other in a process of little memory, and says what came of each.

Run by :mod:`tests.test_hostile` as ``python tests/hostile.py < cases.json``: ``[[what, file, more], ...]``; one JSON
line ``[outcome, CPU seconds, MiB]`` comes back for each, where MiB is by how much the process's peak grew.
"""

import json
import resource
import signal
import sys
import time
import warnings
from contextlib import contextmanager

import torch

from darknet_compat.cfg import read_cfg, read_data, read_list, read_names
from darknet_compat.errors import DarknetError
from darknet_compat.evaluate.results import read_class_file
from darknet_compat.images import image_size, load_image
from darknet_compat.labels import parse_xml
from darknet_compat.network import Network
from darknet_compat.tree import Hierarchy, read_map, read_tree
from darknet_compat.weights import load_weights

SECONDS = 30
READERS = {
    "network": lambda path: Network(read_cfg(path)),
    "weights": lambda path, cfg: load_weights(Network(read_cfg(cfg)), path),
    "data": read_data,
    "names": read_names,
    "list": read_list,
    "tree": lambda path: Hierarchy(read_tree(path)),
    "map": read_map,
    "image": load_image,
    "image size": image_size,
    "annotation": parse_xml,
    "result file": lambda path: read_class_file(path, {}),
}


@contextmanager
def no_longer_than(seconds: int):
    """TimeoutError in the block once it has taken so many seconds, even where it only waits."""

    def hangs(*_):
        raise TimeoutError(f"still not done after {seconds} s")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(read, arguments):
    try:
        with no_longer_than(SECONDS):
            read(*arguments)
    except DarknetError as error:
        return str(error)
    except BaseException as error:
        return f"{type(error).__name__}, which is no DarknetError: {error}"
    return "fine"


def memory(line: str) -> float:
    """MiB that this process holds (VmRSS), or held at most since the last ``forget_peak`` (VmHWM)."""
    with open("/proc/self/status") as file:
        return next(int(text.split()[1]) / 2**10 for text in file if text.startswith(line))


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def limit_memory(more: int) -> None:
    """Let this process take no more than ``more`` bytes beyond what it has."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    limit_memory(2**29)
    for what, *arguments in json.load(sys.stdin):
        forget_peak()
        before, start = memory("VmRSS"), time.process_time()
        said = outcome(READERS[what], arguments)
        print(json.dumps([said, time.process_time() - start, memory("VmHWM") - before]), flush=True)
