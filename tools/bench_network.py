#!/usr/bin/env python3
"""Measure how much of an exchange of gradients several machines hide behind the backward pass.

    sudo python tools/bench_network.py                        # 2 and 4 machines of 1 Gbit/s
    sudo python tools/bench_network.py --machines 2 --rate 10gbit --batch 32

Each machine is a network namespace of this one, whose interface sends no more than the rate (Linux's ip and tc; all is
taken away at the end). One process of one thread trains in each, joined by gloo. The updates take turns:

    none                   no gradients are exchanged: what the processes take to compute, on the cores they share
    at the end             all gradients are exchanged after the backward pass
    meanwhile              as training does it: each bucket as soon as its last gradient is there
    ... bf16               the same with -compress bf16

The table gives the median seconds of an update, what the exchange adds to "none", and what it would take at least: of
N machines each sends 2 (N - 1) / N of the gradients' bytes. Weights and images are random.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WAYS = ("none", "at the end", "meanwhile", "at the end, bf16", "meanwhile, bf16")
UNITS = {"mbit": 1e6, "gbit": 1e9}
ADDRESS = "10.77.0.{}"  # of a machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rate", type=rate, default="1gbit", help="of each machine's network, as tc writes it")
    parser.add_argument("--cfg", default=str(ROOT / "cfg/yolov2-tiny-voc.cfg"))
    parser.add_argument("--size", type=int, default=416, help="of the images")
    parser.add_argument("--batch", type=int, default=8, help="images of each machine in an update")
    parser.add_argument("--updates", type=int, default=5, help="of each way; one more is not counted")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    if "RANK" in os.environ:
        work(options)
        return
    missing = [command for command in ("ip", "tc") if not shutil.which(command)]
    if missing or os.geteuid() != 0:
        parser.error(f"needs root, and Linux's ip and tc; found {f'no {missing[0]}' if missing else 'another user'}")
    print(f"command: {' '.join(sys.argv)}\n{os.cpu_count()} cores, {options.rate} for each machine\n")
    print(f"{'machines':10}{'exchange':20}{'update':>10}{'adds':>10}{'at least':>10}")
    results = []
    for machines in options.machines:
        with network(machines, options.rate) as names:
            found = race(names, sys.argv[1:])
        plain = found["seconds"]["none"]
        for way in WAYS:
            sent = 0 if way == "none" else found["bytes"] / (2 if "bf16" in way else 1)
            least = 8 * 2 * (machines - 1) / machines * sent / bits(options.rate)
            seconds = found["seconds"][way]
            print(f"{machines:<10}{way:20}{seconds:8.2f} s{seconds - plain:8.2f} s{least:8.2f} s", flush=True)
        results.append({"machines": machines, "rate": options.rate, **found})
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def rate(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(mbit|gbit)", text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected something like 1gbit or 100mbit")
    return text


def bits(rate: str) -> float:
    """A second."""
    return int(rate[:-4]) * UNITS[rate[-4:]]


@contextlib.contextmanager
def network(machines: int, rate: str) -> Iterator[list[str]]:
    """The namespaces of so many machines, which a switch joins."""

    def run(*words: str) -> None:
        subprocess.run(words, check=True)

    switch = f"bench{os.getpid()}"
    names = [f"{switch}m{number}" for number in range(machines)]
    try:
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "switch", "up")
        for number, name in enumerate(names):
            port = f"port{number}"
            run("ip", "netns", "add", name)
            run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", switch, "link", "set", port, "master", "switch", "up")
            run("ip", "-n", name, "addr", "add", f"{ADDRESS.format(number + 1)}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            # Both ways: what a machine sends, and what the switch sends it.
            for place, device in ((name, "eth0"), (switch, port)):
                limit = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
                run("tc", "-n", place, "qdisc", "add", "dev", device, "root", *limit)
        yield names
    finally:
        for name in [*names, switch]:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def race(names: list[str], words: list[str]) -> dict:
    """What the first of the processes found, one in each namespace."""
    processes = []
    try:
        for rank, name in enumerate(names):
            place = {
                "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(names), "MASTER_ADDR": ADDRESS.format(1),
                "MASTER_PORT": 29500, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": 1,
            }  # fmt: skip
            environment = {**os.environ, **{key: str(value) for key, value in place.items()}}
            command = ["ip", "netns", "exec", name, sys.executable, __file__, *words]
            processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        said, _ = processes[0].communicate()
        if any(process.wait() for process in processes):
            sys.exit("a process failed")
        return dict(json.loads(said))
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)


def work(options: argparse.Namespace) -> None:
    """In one of the machines: updates one way after the other; the first prints what an update took."""
    import torch

    from darknet_compat.cfg import read_cfg
    from darknet_compat.network import Network
    from darknet_compat.processes import ALONE, join, leave
    from darknet_compat.train.batch import Batch
    from darknet_compat.train.step import Trainer
    from tools.bench_contestants import training_batch

    processes = join("cpu")
    trainers: dict[str, Trainer] = {}
    for way in WAYS:
        torch.manual_seed(1)
        network = Network(read_cfg(options.cfg)).start()
        network.resize(options.size, options.size)
        small = {"learning_rate": 1e-6, "policy": "constant", "burn_in": 0}  # random images teach nothing
        vars(network.net).update(batch=options.batch, subdivisions=1, mini_batch=options.batch, **small)
        trainers[way] = trainer = Trainer(network, processes, compress="bf16" if "bf16" in way else None)
        if way == "none":
            trainer.sums.processes = ALONE
        elif "meanwhile" not in way:
            vars(trainer.sums)["begin"] = lambda: None
    batch = Batch(*training_batch(network, options.batch), ())
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.updates + 1):
        for way in WAYS:
            processes.barrier()
            began = time.perf_counter()
            trainers[way].update([batch])
            processes.barrier()
            taken[way].append(time.perf_counter() - began)
    if processes.first:
        sent = trainers["none"].gradients.flat.nbytes
        seconds = {way: statistics.median(times[1:]) for way, times in taken.items()}
        print(json.dumps({"bytes": sent, "seconds": seconds, "batch": options.batch, "cfg": options.cfg}))
    leave()


if __name__ == "__main__":
    main()
