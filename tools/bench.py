#!/usr/bin/env python3
"""Measure darknet_compat beside what else runs Darknet's networks, and beside what the machine allows.

    python tools/bench.py                                     # all sections, about half an hour
    python tools/bench.py --only inference,suppression --json b.json
    python tools/bench.py --opencv4 other/bin/python          # an environment with opencv-python-headless<5 and numpy
    python tools/bench.py --check docs/performance.json       # fails where we fell behind what stands there

Contestants of a race run in processes of their own and take turns, so that a busy minute hits all of them. A turn is
one run that is not counted and a few that are. The table gives the shortest of all counted runs per image (or file, or
call): other work on the machine can only make a run longer. Where runs draw what they do, as augmentation does, it is
the median. Beside it are the same as a multiple of the first contestant's, how much is reached of what the machine's
measured rates allow, how many cores were busy (1.0: it runs on one thread), and the process's peak memory.
All keep their memory as the command line does, but where a row says that it is given back. What is not installed is
left out. Winograd's method saves multiplications, so its convolutions can pass the limit of plain arithmetic.

Weights are random (tests/compare.py); images are Debian's (package darknet) where installed, else made of noise.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Floating point operations per image, at 416, or at 256 for the classifier.
NETS = {
    "yolov2-tiny-voc": 6.97e9, "yolov2-voc": 29.36e9, "yolov3-tiny": 5.56e9, "yolov4-tiny": 6.91e9,
    "yolov7-tiny": 5.79e9, "yolov4": 60.10e9, "darknet19": 7.29e9,
}  # fmt: skip
SIZES = {"darknet19": 256}
PJREDDIES = ("yolov2-tiny-voc", "yolov2-voc", "yolov3-tiny", "darknet19")  # what his program knows
V2 = ("yolov2-tiny-voc", "yolov2-voc")
CONTESTANTS = str(Path(__file__).with_name("bench_contestants.py"))
SIZE = 416  # of the networks' input
TURN = 0.3  # seconds that a contestant's turn should last
ROUNDS = 5  # turns that each has at least
PHOTOGRAPHS = Path("/usr/share/darknet/data")

Output = tuple[Path, str]  # a contestant's saved outputs, and what they are (Entry.gives)
Compare = Callable[[Output, Output], float]

# --- the race


@dataclass
class Entry:
    """A contestant of a race."""

    who: str
    name: str
    arguments: dict[str, Any]
    python: str = sys.executable
    needs: Sequence[str] = ()
    kept: bool = True
    """Whether the process keeps its memory, as the command line does, or lets glibc give it back."""
    gives: str = "activated"
    """What a network's outputs are: the heads' "activated" maps, their "raw" ones, or a "rows" for each box."""
    role: str = "other"
    """"ours" is held against each "other"; a "part" of our work is timed for itself."""


ours = partial(Entry, role="ours")
part = partial(Entry, role="part")


class Work(NamedTuple):
    """What the machine does at one of its rates: "float32" or "bf16" operations, or bytes of "memory"."""

    rate: str
    amount: float


@dataclass
class Row:
    section: str
    case: str
    who: str
    seconds: float
    """Of one image, file or call: the shortest run, or the median where each draws what it does."""
    median: float
    runs: int
    times_first: float
    """How many times as long as the first contestant."""
    work: Work | None
    """That of one image, file or call."""
    cores: float
    """Processor seconds per second: 1 for a contestant that runs on one thread."""
    peak_mib: float
    role: str = "part"
    """That of its :class:`Entry`."""
    off_by: float | None = None
    """Largest difference of boxes and objectness from the first contestant's."""


class Worker:
    """A contestant in its own process: a line with a count goes in, a line with times comes out."""

    def __init__(self, entry: Entry, threads: int) -> None:
        self.entry = entry
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "BENCH_KEEP_MEMORY": "1" if entry.kept else ""}
        self.process = subprocess.Popen(
            [entry.python, CONTESTANTS, entry.name, json.dumps(entry.arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.seconds: list[float] = []
        self.busy = 0.0
        self.failure = ""

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request; None where the process has died, and ``failure`` says why."""
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _, errors = self.process.communicate()
            self.failure = (errors.strip().splitlines() or ["it died"])[-1]
            return None
        return json.loads(line)

    def take_turn(self, runs: int) -> None:
        """One run that is not counted, and ``runs`` that are."""
        for seconds, busy in self.ask({"runs": runs + 1})[1:]:
            self.seconds.append(seconds)
            self.busy += busy

    def close(self) -> float:
        """End the process; its peak memory in MiB."""
        peak = self.ask({"end": True})
        self.process.communicate()
        return peak or 0.0


def available(entry: Entry) -> bool:
    if entry.python != sys.executable:
        return True
    for need in entry.needs:
        if need == "darknet":
            from tests.oracle import OracleMissing, load_oracle

            try:
                load_oracle()
            except (OracleMissing, OSError):
                return False
        elif need == "alexeyab":
            from tests.oracle import OracleMissing
            from tests.oracle.alexeyab import build_with_opencv, find_alexeyab

            try:
                build_with_opencv(find_alexeyab())
            except (OracleMissing, OSError):
                return False
        elif need == "alexeyab, fast":
            from tests.oracle import OracleMissing
            from tests.oracle.alexeyab import build_fast, find_alexeyab

            try:
                build_fast(find_alexeyab())
            except (OracleMissing, OSError):
                return False
        elif importlib.util.find_spec(need) is None:
            return False
    return True


class Bench:
    """The settings of a run and its rows so far."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.rows: list[Row] = []
        self.rates: dict[str, float] = {}
        """What the machine reached so far, per second."""
        self.rates: dict[str, float] = {}

    def measure_rates(self) -> None:
        """Those of now; the best so far stay, since other work can only make the machine slower."""
        found = self.value("machine")
        self.rates = {name: max(rate, self.rates.get(name, 0)) for name, rate in found.items()}
        print(
            f"limits: {self.rates['float32'] / 1e9:.0f} GFLOP/s in float32, {self.rates['bf16'] / 1e9:.0f} in bf16, "
            f"{self.rates['memory'] / 1e9:.1f} GB/s of memory (copying, both ways counted)"
        )

    def race(
        self, section: str, case: str, entries: Sequence[Entry], *, items: int = 1, work: Work | None = None,
        compare: Compare | None = None, budget: float | None = None, drawn: bool = False,
    ) -> None:  # fmt: skip
        """Let the entries take turns for some seconds; ``items`` is how many images (files, calls) one run is.

        ``work`` is that of one item. ``budget``: seconds that are enough for this race, if
        each has five turns in them. ``drawn``: a run may have more to do than another, by chance.
        """
        workers = [Worker(entry, self.options.threads) for entry in entries if available(entry)]
        turns = {}
        for worker in list(workers):
            first = worker.ask({"runs": 2})
            if first is None:
                print(f"{section}, {case}: {worker.entry.who} left out: {worker.failure}", file=sys.stderr)
                workers.remove(worker)
                continue
            turns[worker] = max(1, min(50, round(TURN / first[-1][0])))
        end = time.monotonic() + min(budget or self.options.budget, self.options.budget)
        rounds = 0
        while workers and (rounds < ROUNDS or time.monotonic() < end):
            for worker in workers:
                worker.take_turn(turns[worker])
                time.sleep(0.02)  # for threads that spin a while after their work
            rounds += 1
        differences = self._compare(workers, compare)
        typical = statistics.median if drawn else min
        for worker in workers:
            times, first = worker.seconds, workers[0].seconds
            row = Row(
                section, case, worker.entry.who, typical(times) / items, statistics.median(times) / items, len(times),
                typical(times) / typical(first), work, worker.busy / sum(times), worker.close(), worker.entry.role,
                differences.get(worker),
            )  # fmt: skip
            self.rows.append(row)
            print(format_row(row, self.rates), flush=True)

    def _compare(self, workers: list[Worker], compare: Compare | None) -> dict:
        if compare is None:
            return {}
        paths = [self.folder / f"output{number}.npz" for number in range(len(workers))]
        for path, worker in zip(paths, workers, strict=True):
            worker.ask({"save": str(path)})
        outputs = [(path, worker.entry.gives) for path, worker in zip(paths, workers, strict=True)]
        return {worker: compare(outputs[0], output) for worker, output in zip(workers, outputs, strict=True)}

    def value(self, name: str, **arguments: Any) -> Any:
        """What one run of a contestant returns."""
        worker = Worker(Entry(name, name, arguments), self.options.threads)
        answer = worker.ask({"value": True})
        worker.close()
        return answer


# --- sections

SECTIONS: dict[str, Callable[[Bench], None]] = {}


def section(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
    SECTIONS[function.__name__] = function
    return function


@section
def inference(bench: Bench) -> None:
    """All contestants with memory that is kept, and all with memory that is given back; and in other precisions."""
    weights(bench, *NETS)
    for net, flops in NETS.items():
        graph(bench, net)
        for batch in (1, 8):
            shared = {"folder": str(bench.folder), "net": net, "batch": batch, "size": SIZES.get(net, SIZE)}
            for kept, memory in ((True, "kept"), (False, "given back")):
                entries = [
                    ours("darknet_compat", "engine", shared, kept=kept),
                    Entry("plain PyTorch", "eager", shared, kept=kept),
                    Entry("ONNX Runtime", "onnxruntime", shared, needs=["onnxruntime", "onnx"], kept=kept, gives="raw"),
                    Entry("OpenVINO", "openvino", {**shared, "precision": "f32"}, needs=["openvino", "onnx"],
                          kept=kept, gives="raw"),
                    Entry("OpenCV", "opencv", shared, needs=["cv2", "onnx"], kept=kept, gives="raw"),
                ]  # fmt: skip
                if bench.options.opencv4:
                    entries.append(
                        Entry("OpenCV 4", "opencv", shared, python=bench.options.opencv4, kept=kept, gives="rows")
                    )
                if batch == 1 and kept:
                    entries.append(
                        Entry("AlexeyAB's library", "alexeyab", shared, needs=["alexeyab, fast"], gives="raw")
                    )
                if batch == 1 and kept and net in PJREDDIES:
                    entries.append(Entry("libdarknet", "libdarknet", shared, needs=["darknet"], gives="raw"))
                bench.race(
                    "inference", f"{net} batch {batch}, {memory}", entries, items=batch,
                    work=Work("float32", flops), compare=off_by(bench.folder / f"{net}.cfg"),
                )  # fmt: skip
            if has_bf16():
                bf16 = {**shared, "precision": "bf16"}
                entries = [
                    ours("darknet_compat", "engine", bf16),
                    ours("-engine openvino", "engine", {**bf16, "name": "openvino"}, needs=["openvino", "onnx"]),
                    ours("-precision int8", "engine", {**shared, "precision": "int8"},
                         needs=["openvino", "onnx", "onnxruntime"]),
                    Entry("OpenVINO", "openvino", bf16, needs=["openvino", "onnx"]),
                ]  # fmt: skip
                bench.race("inference", f"{net} batch {batch}, bf16, int8", entries, items=batch,
                           work=Work("bf16", flops))  # fmt: skip


@section
def jpeg_to_boxes(bench: Bench) -> None:
    weights(bench, *V2)
    paths = photographs(bench)
    for net in V2:
        arguments = {"folder": str(bench.folder), "net": net, "batch": 4}
        entries = [
            Entry("network alone", "network_alone", arguments),
            ours("JPEG to boxes", "pipeline", arguments),
        ]
        bench.race("JPEG to boxes", net, entries, items=len(paths))
    stages = [
        part(f"stage: {stage}", "photograph_stage", {"folder": str(bench.folder), "stage": stage})
        for stage in ("read and decode", "letterbox")
    ]  # fmt: skip
    bench.race("JPEG to boxes", "one core", stages, items=len(paths), budget=3)


@section
def video(bench: Bench) -> None:
    """`detector demo` of a 720p video beside its network, which has its inputs in memory already."""
    nets = {"yolov4-tiny": 6.91e9, "yolov2-voc": 29.4e9}
    weights(bench, *nets)
    moving_photographs(bench)
    for net, flops in nets.items():
        arguments = {"folder": str(bench.folder), "net": net, "batch": 4}
        entries = [
            Entry("network alone", "frames_alone", {**arguments, "frames": FRAMES}),
            ours("detector demo", "video", {**arguments, "written": False}),
            ours("detector demo -out_filename", "video", {**arguments, "written": True}),
        ]
        bench.race("video", net, entries, items=FRAMES, work=Work("float32", flops))


@section
def classifying(bench: Bench) -> None:
    """`classifier valid` of JPEG files beside its network, which has the images in memory already."""
    labelled_images(bench)
    nets = {"darknet19": 7.29e9, "tiny": 0.98e9}
    weights(bench, *nets)
    for net, flops in nets.items():
        arguments = {"folder": str(bench.folder), "net": net, "batch": 8, "images": IMAGES}
        entries = [
            Entry("network alone", "classifying", {**arguments, "whole": False}),
            ours("classifier valid", "classifying", {**arguments, "whole": True}),
        ]
        bench.race("classifying", net, entries, items=IMAGES, work=Work("float32", flops))


FRAMES = 60  # of the video
IMAGES = 512  # that are classified


# Whose training step is raced: floating point operations forward, of an image at 416 or a classifier's own size.
TRAINED = {
    "yolov2-tiny-voc": 6.97e9, "yolov3-tiny": 5.57e9, "yolov4-tiny": 6.91e9, "darknet19": 7.29e9, "tiny": 0.98e9,
}  # fmt: skip


@section
def training_step(bench: Bench) -> None:
    weights(bench, *TRAINED)
    for net, flops in TRAINED.items():
        arguments = {"folder": str(bench.folder), "net": net, "batch": 8}
        work = Work("float32", 3 * flops)
        for case, fast in (("as it is", False), ("-fast", True)):
            entries = [
                ours("darknet_compat", "training", {**arguments, "fast": fast}),
                Entry("bare layers", "bare", {**arguments, "fast": fast}),
            ]
            if not fast:
                entries.append(part("loss alone", "loss_alone", arguments))
            if not fast and net == "yolov2-tiny-voc":
                entries.append(Entry("libdarknet, batch 8", "libdarknet_training", arguments, needs=["darknet"]))
            bench.race("training step", f"{net} {case}", entries, items=8, work=work)


@section
def kept_memory(bench: Bench) -> None:
    """Memory as the command line keeps it, and as glibc gives it back."""
    weights(bench, *V2)
    folder = str(bench.folder)
    cases = [
        ("yolov2-tiny-voc", "forward", "engine", {}),
        ("yolov2-voc", "forward", "engine", {}),
        ("yolov2-tiny-voc", "training", "training", {"fast": False}),
        ("yolov2-tiny-voc", "-fast", "training", {"fast": True}),
    ]
    for net, case, contestant, options in cases:
        arguments = {"folder": folder, "net": net, "batch": 8, **options}
        entries = [
            ours("kept", contestant, arguments),
            Entry("given back", contestant, arguments, kept=False),
        ]
        bench.race("memory", f"{net} {case}", entries, items=8)


@section
def threads(bench: Bench) -> None:
    """Weights laid out for as many threads as run, and for another number."""
    net = "yolov2-tiny-voc"
    weights(bench, net)
    arguments = {"folder": str(bench.folder), "net": net, "batch": 5}
    entries = [part(f"laid out for {count}", "laid_out", {**arguments, "threads": count}) for count in (1, 2)]
    bench.race("threads", f"{net} batch 5, on 1", entries, items=5)


@section
def training_profile(bench: Bench) -> None:
    """Where the time of a training step goes, by torch's operations."""
    net, batch = "yolov2-tiny-voc", 8
    weights(bench, net)
    for case, fast in (("as it is", False), ("-fast", True)):
        found = bench.value("training_profile", folder=str(bench.folder), net=net, batch=batch, fast=fast)
        whole = sum(found.values()) / batch
        for name, seconds in found.items():
            seconds /= batch
            row = Row("training profile", f"{net} {case}", name, seconds, seconds, 1, seconds / whole, None, 0.0, 0.0)
            bench.rows.append(row)
            print(format_row(row, bench.rates), flush=True)


@section
def training_images(bench: Bench) -> None:
    labelled_images(bench)
    folder = {"folder": str(bench.folder)}
    stages = ["read", "read and decode", "place", "place and distort"]
    entries = [
        ours("darknet_compat", "loader", folder),
        Entry("libdarknet", "libdarknet_loader", folder, needs=["darknet"]),
        *(part(f"stage: {stage}", "loader_stage", {**folder, "stage": stage}) for stage in stages),
    ]
    threads, bench.options.threads = bench.options.threads, 1
    bench.race("training images", "500x375 to 416, one core", entries, items=16, drawn=True)
    entries = [
        ours("darknet_compat", "mosaic_loader", {**folder, "cache": False}),
        ours("darknet_compat -cache", "mosaic_loader", {**folder, "cache": True}),
        Entry("AlexeyAB's library", "alexeyab_mosaic_loader", folder, needs=["alexeyab"]),
        part("-augment device", "mosaic_decoder", {**folder, "cache": False}),
        part("-augment device, -cache", "mosaic_decoder", {**folder, "cache": True}),
        part("stage: read and decode", "loader_stage", {**folder, "stage": "read and decode"}),
    ]
    bench.race("training images", "mosaic, 500x375 to 416, one core", entries, items=16, drawn=True)
    for size in (256, 224):
        arguments = {**folder, "size": size}
        stages = ["read and decode", "cut out", "cut out and distort"]
        entries = [
            ours("darknet_compat", "class_loader", arguments),
            Entry("libdarknet", "libdarknet_class_loader", arguments, needs=["darknet"]),
            *(part(f"stage: {stage}", "class_loader_stage", {**arguments, "stage": stage}) for stage in stages),
        ]
        bench.race("training images", f"classifier, to {size}, one core", entries, items=16, drawn=True)
    bench.options.threads = threads


@section
def suppression(bench: Bench) -> None:
    for batch in (1, 8):
        entries = [ours("darknet_compat", "nms", {"batch": batch})]
        if batch == 1:
            entries.append(Entry("libdarknet", "libdarknet_nms", {}, needs=["darknet"]))
        bench.race("NMS", f"845 boxes x 20 classes, batch {batch}", entries, items=batch, budget=3)


@section
def scoring(bench: Bench) -> None:
    devkit(bench)
    for part in ("scoring", "reading and scoring"):
        arguments = {"folder": str(bench.options.voc or bench.folder / "voc"), "part": part}
        entries = [ours("darknet_compat", "voc_eval", arguments)]
        entries.append(Entry("py-faster-rcnn's algorithm", "reference_voc_eval", arguments))
        bench.race("voc_eval", f"254,590 detections: {part}", entries, budget=5)


@section
def weights_files(bench: Bench) -> None:
    net = "yolov2-voc"
    weights(bench, net)
    size = (bench.folder / f"{net}.weights").stat().st_size
    for build, where in ((False, "memory is there"), (True, "network too")):
        arguments = {"folder": str(bench.folder), "net": net, "build": build}
        entries = [
            ours("darknet_compat", "load_weights", arguments),
            Entry("numpy, without a network", "fromfile", arguments),
            Entry("libdarknet", "libdarknet_weights", arguments, needs=["darknet"]),
        ]
        work = Work("memory", 2 * size)
        bench.race("weights", f"load {size / 1e6:.0f} MB, {where}", entries, work=work, budget=6)
    arguments = {"folder": str(bench.folder), "net": net}
    entries = [
        ours("darknet_compat", "save_weights", arguments),
        Entry("plain write", "tofile", arguments),
    ]
    bench.race("weights", f"save {size / 1e6:.0f} MB, flushed", entries, budget=6)


@section
def cfg(bench: Bench) -> None:
    entries = [
        part("read", "parse_cfg", {"net": "yolov2-voc", "build": False}),
        part("read and build", "parse_cfg", {"net": "yolov2-voc", "build": True}),
    ]
    bench.race("cfg", "yolov2-voc.cfg", entries, budget=3)


@section
def start_up(bench: Bench) -> None:
    verbs = {
        "--help": ["--help"],
        "voc_eval --help": ["voc_eval", "--help"],
        "detector test --help": ["detector", "test", "--help"],
        "detector test, no such file": ["detector", "test", "none.data", "a", "b", "c"],
        "net yolov2-voc.cfg": ["net", "cfg/yolov2-voc.cfg"],
    }
    entries = [Entry("python alone", "command", {"arguments": ["-c", "pass"]})]
    entries += [
        part(verb, "command", {"arguments": ["-m", "darknet_compat", *arguments]}) for verb, arguments in verbs.items()
    ]
    entries.append(Entry("import torch", "command", {"arguments": ["-c", "import torch"]}))
    bench.race("start-up", "of the command", entries, budget=8)
    for net, (classes, sample) in STARTED.items():
        weights(bench, net)
        one_image(bench, net, classes, sample)


# Networks whose one image is timed from the command to its end: their classes, and do they come with trained weights?
STARTED = {
    "yolov2-tiny-voc": (20, False), "yolov3-tiny": (80, False), "yolov4-tiny": (80, False), "yolov2-shapes": (6, True),
    "tiny": (1000, False), "darknet19": (1000, False),
}  # fmt: skip


def one_image(bench: Bench, net: str, classes: int, sample: bool) -> None:
    """`detector test` or `classifier predict` on one image, beside `import torch` alone and both C programs.

    No box passes the threshold where the weights are random: of thousands, drawing would take the longest.
    """
    cfg, file, image = bench.folder / f"{net}.cfg", bench.folder / f"{net}.weights", Path(photographs(bench)[0])
    if sample:
        cfg, file, image = ROOT / f"cfg/{net}.cfg", ROOT / f"weights/{net}.weights", ROOT / "data/shapes-sample.jpg"
    names, data = bench.folder / "all.names", bench.folder / "one.data"
    names.write_text("".join(f"{number}\n" for number in range(classes)))
    data.write_text(f"classes={classes}\nnames={names}\nlabels={names}\ntop=5\n")
    letters = bench.folder / "data"  # from which the C programs take theirs
    if PHOTOGRAPHS.is_dir() and not letters.exists():
        letters.symlink_to(PHOTOGRAPHS)
    words = ["classifier", "predict", str(data), str(cfg), str(file), str(image)]
    if classes < 1000:
        words = ["detector", "test", *words[2:], "-thresh", ".5" if sample else ".99999"]
    folder = {"folder": str(bench.folder)}
    entries = [
        Entry("import torch", "command", {"arguments": ["-c", "import torch"], **folder}),
        ours("darknet_compat", "command", {"arguments": ["-m", "darknet_compat", *words], **folder}),
    ]
    program = "/usr/bin/darknet"  # by its whole path: our own `darknet` may stand first on the PATH
    if net != "yolov4-tiny" and Path(program).is_file():
        arguments = [*words, "-out", "predictions"] if classes < 1000 else words  # else it opens a window, and waits
        entries.append(Entry("darknet (Debian)", "command", {"arguments": arguments, "program": program, **folder}))
    if bench.options.alexeyab:
        arguments = [*words, "-dont_show"] if classes < 1000 else words
        program = str(bench.options.alexeyab.absolute())
        entries.append(Entry("AlexeyAB's darknet", "command", {"arguments": arguments, "program": program, **folder}))
    bench.race("start-up", f"one image, {net}", entries, budget=bench.options.budget)


# --- what the sections need


def weights(bench: Bench, *nets: str) -> None:
    """A cfg for one image at a time, and random weights, once: of a detector for 416x416."""
    for net in nets:
        cfg = bench.folder / f"{net}.cfg"
        if not cfg.exists():
            import torch

            from darknet_compat.cfg import read_cfg
            from darknet_compat.network import Network
            from tests.compare import calibrate, randomise

            own = ROOT / "cfg" / cfg.name
            # The C programs take memory for as many images as the cfg has in a mini-batch.
            text = re.sub(r"^(batch|subdivisions) *=.*", r"\1=1", own.read_text(), flags=re.M)
            if Network(read_cfg(own), device="meta").detectors:
                text = re.sub(r"^(width|height) *=.*", rf"\1={SIZE}", text, flags=re.M)
            cfg.write_text(text)
            network = randomise(Network(read_cfg(cfg)))
            calibrate(network, torch.rand(2, *network.input), cfg.with_suffix(".weights"))


def graph(bench: Bench, net: str) -> None:
    """The exported network that other runtimes read: up to the maps that enter the heads."""
    if importlib.util.find_spec("onnx"):
        from darknet_compat import load_network
        from darknet_compat.export.graph import build

        fused = load_network(bench.folder / f"{net}.cfg", bench.folder / f"{net}.weights").fuse()
        (bench.folder / f"{net}.onnx").write_bytes(build(fused, batch="batch", raw=True).SerializeToString())


def photographs(bench: Bench) -> list[str]:
    """The paths of a hundred photographs."""
    found = sorted(PHOTOGRAPHS.glob("*.jpg")) or [Path(path) for path in _noise(bench.folder / "noise", 7, (768, 576))]
    paths = [str(found[i % len(found)]) for i in range(100)]
    (bench.folder / "photographs.json").write_text(json.dumps(paths))
    return paths


def moving_photographs(bench: Bench) -> None:
    """A video of 720 lines, video.avi."""
    import cv2

    photos = [cv2.resize(cv2.imread(path), (1380, 780)) for path in photographs(bench)[:3]]
    writer = cv2.VideoWriter(str(bench.folder / "video.avi"), cv2.VideoWriter.fourcc(*"DIVX"), 25, (1280, 720))
    for k in range(FRAMES):
        writer.write(photos[k // 20 % 3][k : k + 720, k : k + 1280])
    writer.release()


def labelled_images(bench: Bench) -> None:
    """64 images of 500x375 with labels, in the places of both programs."""
    import cv2
    import numpy as np

    images, labels = bench.folder / "images", bench.folder / "labels"
    labels.mkdir(exist_ok=True)
    found = sorted(PHOTOGRAPHS.glob("*.jpg"))
    if not found:
        paths = _noise(images, 64, (500, 375))
    else:
        images.mkdir(exist_ok=True)
        paths = []
        for i in range(64):
            image = cv2.resize(cv2.imread(str(found[i % len(found)])), (500, 375), interpolation=cv2.INTER_AREA)
            paths.append(str(images / f"{i:03d}.jpg"))
            cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    rng = np.random.default_rng(0)
    for path in paths:
        rows = [f"{rng.integers(20)} {x:f} {y:f} .3 .3" for x, y in rng.uniform(0.2, 0.8, (4, 2))]
        for place in (labels, images):  # where pjreddie's program looks, and where AlexeyAB's does
            (place / f"{Path(path).stem}.txt").write_text("\n".join(rows) + "\n")


def _noise(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Images with the spectrum of photographs."""
    import cv2
    import numpy as np

    folder.mkdir(exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        image = sum(
            cv2.resize(rng.normal(0, 160 / 2**k, (size[1] >> (7 - k), size[0] >> (7 - k), 3)), size) for k in range(8)
        )
        paths.append(str(folder / f"{i:03d}.jpg"))
        cv2.imwrite(paths[-1], np.clip(image + 128, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def devkit(bench: Bench) -> None:
    """Annotations of 4,952 images and 254,590 detections in Darknet's format, made at random."""
    if bench.options.voc or (bench.folder / "voc").exists():
        return
    import numpy as np

    from darknet_compat.cfg import read_names

    rng, names, count = np.random.default_rng(0), read_names(ROOT / "data" / "voc.names"), 4952
    root = bench.folder / "voc" / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    results = bench.folder / "voc" / "results"
    results.mkdir()
    images = [f"{i:06d}" for i in range(count)]
    (root / "ImageSets/Main/test.txt").write_text("\n".join(images) + "\n")
    truths = []
    for image in images:
        objects = ""
        for _ in range(rng.integers(1, 6)):
            name, (x, y), (w, h) = rng.integers(20), rng.integers(1, 300, 2), rng.integers(20, 200, 2)
            truths.append((image, name, x, y, x + w, y + h))
            objects += (
                f"<object><name>{names[name]}</name><difficult>{int(rng.random() < 0.1)}</difficult><bndbox><xmin>{x}"
                f"</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>\n"
            )
        size = "<size><width>500</width><height>500</height><depth>3</depth></size>"
        (root / f"Annotations/{image}.xml").write_text(f"<annotation>{size}{objects}</annotation>\n")
    lines: list[list[str]] = [[] for _ in names]
    for row in rng.integers(0, len(truths), 254_590):
        image, name, *box = truths[row]
        moved = np.array(box) + rng.normal(0, 15, 4)
        lines[name].append(f"{image} {rng.random():f} {' '.join(f'{value:f}' for value in moved)}")
    for name, rows in zip(names, lines, strict=True):
        (results / f"comp4_det_test_{name}.txt").write_text("\n".join(rows) + "\n")


def has_bf16() -> bool:
    from darknet_compat.engines import has_bf16

    return has_bf16()


def off_by(cfg: Path) -> Compare:
    """A function that compares the boxes and objectness, or the probabilities, of two outputs of a network."""
    import numpy as np
    import torch

    from darknet_compat.cfg import read_cfg
    from darknet_compat.network import Network

    network = Network(read_cfg(cfg))

    def boxes(output: Output) -> list[Any]:
        path, gives = output
        with np.load(path) as file:
            values = [torch.from_numpy(file[name].astype(np.float32)) for name in file.files]
        if not network.detectors:  # probabilities
            return [value.reshape(value.shape[0], -1) for value in values]
        if gives == "rows":
            return [rows.reshape(-1, rows.shape[-2], rows.shape[-1])[..., :5] for rows in values]
        maps = [value.reshape(-1, *head.input) for head, value in zip(network.detectors, values, strict=True)]
        found = [
            head.boxes(map, 0.0)
            for head, map in zip(network.detectors, network.activated(maps) if gives == "raw" else maps, strict=True)
        ]
        return [torch.cat([xywh, objectness[..., None]], -1) for xywh, objectness, _ in found]

    def difference(a: Any, b: Any) -> float:
        return float(((a - b).abs() / a.abs().clamp_min(1)).max())

    def compare(first: Output, other: Output) -> float:
        found = []
        mine, others = boxes(first), boxes(other)
        if not network.detectors:
            return max(difference(a, b) for a, b in zip(mine, others, strict=True))
        for a, b, head in zip(mine, others, network.detectors, strict=True):
            # A row of OpenCV's comes before those of other cells, wherever Darknet lists it.
            swapped = b.unflatten(1, (head.input.h * head.input.w, -1)).transpose(1, 2).flatten(1, 2)
            found.append(min(difference(a, b), difference(a, swapped)) if other[1] == "rows" else difference(a, b))
        return max(found)

    return compare


# --- output


def format_row(row: Row, rates: dict[str, float]) -> str:
    unit, factor = ("s", 1) if row.seconds >= 1 else ("ms", 1e3) if row.seconds >= 1e-3 else ("us", 1e6)
    text = f"{row.section:<18}{row.case:<38}{row.who:<28}{row.seconds * factor:8.2f} {unit:<3}{row.times_first:8.2f} x"
    text += f"{row.work.amount / rates[row.work.rate] / row.seconds:9.0%}" if row.work else " " * 9
    text += f"{row.cores:7.1f}{row.peak_mib:8.0f}" + (f"  {row.off_by:.1e}" if row.off_by is not None else "")
    return text


TITLE = (
    f"{'section':<18}{'case':<38}{'who':<28}{'least':>8} {'':<3}{'of first':>10}{'of limit':>9}{'cores':>7}{'MiB':>8}"
    "  boxes off by"
)


def about(bench: Bench) -> dict[str, Any]:
    """The command, the versions and the processor."""
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for package in ("darknet_compat", "torch", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "onnx"):
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    if bench.options.opencv4:
        code = "import cv2; print(cv2.__version__)"
        packages["OpenCV 4"] = subprocess.run(
            [bench.options.opencv4, "-c", code], capture_output=True, text=True
        ).stdout.strip()
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), processor)
    darknet = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "darknet"], capture_output=True, text=True) \
        if shutil.which("dpkg-query") else None  # fmt: skip
    if darknet and darknet.stdout:
        packages["darknet (Debian)"] = darknet.stdout
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processor": f"{processor}, {platform.machine()}, {os.cpu_count()} cores, {bench.options.threads} threads",
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": packages,
    }


FELL = 0.9  # of what a ratio was


def ratios(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """How many times as much time, and memory, each other contestant of a race took as each of ours."""
    found = {}
    for mine in rows:
        for other in rows:
            same = (mine["section"], mine["case"]) == (other["section"], other["case"])
            if same and (mine["role"], other["role"]) == ("ours", "other"):
                race = mine["section"], mine["case"], mine["who"], other["who"]
                found[(*race, "time")] = other["seconds"] / mine["seconds"]
                found[(*race, "memory")] = other["peak_mib"] / mine["peak_mib"]
    return found


def fallen(stored: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """How many ratios stand in both, and a line for each that fell by over a tenth."""
    then, now = ratios(stored), ratios(measured)
    both = [key for key in then if key in now]
    lines = [
        f"{section}, {case}: {other} took {then[key]:.2f} times the {what} of {mine}, now {now[key]:.2f} times"
        for key in both
        for section, case, mine, other, what in [key]
        if now[key] < FELL * then[key]
    ]
    return len(both), lines


def stored_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a file that --json wrote."""
    try:
        content = json.loads(Path(path).read_text())
        rows: list[dict[str, Any]] = content["rows"]
        ratios(rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no figures"
        raise argparse.ArgumentTypeError(f"{path}: {reason}; expected a file that --json wrote") from None
    return rows


def sections_of(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"no section {name!r}; expected some of {','.join(SECTIONS)}")
    return names


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="darknet-compat-bench-") as folder:
        yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=sections_of, default=list(SECTIONS), metavar=",".join(SECTIONS))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures as JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for every contestant (all cores)")
    parser.add_argument("--budget", type=float, default=12, metavar="SECONDS", help="for each race (12)")
    parser.add_argument("--opencv4", metavar="PYTHON", help="the interpreter of an environment with OpenCV 4")
    parser.add_argument("--alexeyab", metavar="PROGRAM", type=Path, help="AlexeyAB's program, for its start-up")
    parser.add_argument("--voc", metavar="FOLDER", type=Path, help="a VOCdevkit and results of your own to score")
    parser.add_argument(
        "--check", metavar="FILE", type=stored_rows,
        help="exit with 1 where we need over a tenth more, beside the others, than in this file of --json",
    )  # fmt: skip
    options = parser.parse_args()
    with work_folder() as folder:
        bench = Bench(options, folder)
        header = about(bench)
        for name, value in header.items():
            print(f"{name}: {value}")
        bench.measure_rates()
        print(f"\n{TITLE}")
        for name in options.only:
            SECTIONS[name](bench)
            bench.measure_rates()
        if options.json:
            content = {**header, "limits": bench.rates, "rows": [asdict(row) for row in bench.rows]}
            options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.check is None:
        return 0
    both, lines = fallen(options.check, [asdict(row) for row in bench.rows])
    print(*lines, f"{len(lines)} of {both} ratios fell by over a tenth", sep="\n")
    return 1 if lines or not both else 0


if __name__ == "__main__":
    sys.exit(main())
