"""What tools/bench.py races: one function for each contestant, run in a process of its own.

A function prepares and returns what is to be timed. Nothing but the standard library is loaded before, so that a
contestant's memory is its own, and so that an interpreter with nothing but OpenCV 4 can run its one.

    python tools/bench_contestants.py NAME ARGUMENTS      (JSON), then requests on stdin, one JSON object a line
"""

from __future__ import annotations

import json
import os
import re
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZE = 416  # of the networks' input

Run = Callable[[], Any]
Contestant = Callable[..., Run]
CONTESTANTS: dict[str, Contestant] = {}


def contestant(function: Contestant) -> Contestant:
    """Make a function known that prepares in a process of its own, and returns what is to be timed."""
    CONTESTANTS[function.__name__] = function
    return function


# --- contestants: network inference


def _image(batch: int, size: int = SIZE) -> Any:
    import numpy as np

    return np.random.default_rng(0).random((batch, 3, size, size), np.float32)


def _load(folder: str, net: str) -> Any:
    from darknet_compat import load_network

    return load_network(Path(folder) / f"{net}.cfg", Path(folder) / f"{net}.weights")


@contestant
def engine(
    folder: str, net: str, batch: int, size: int = SIZE, name: str | None = None, precision: str = "float32"
) -> Run:
    import torch

    from darknet_compat.engines import Calibration, start_engine
    from darknet_compat.images import FITTED

    x = torch.from_numpy(_image(batch, size))
    network = _load(folder, net)
    network.report = None  # leave no graph behind
    calibration = Calibration((str(ROOT / "data/shapes-sample.jpg"),), FITTED) if precision == "int8" else None
    run = start_engine(network, name, precision, batch, calibration=calibration)
    return lambda: [output.numpy() for output in run(x)]


@contestant
def eager(folder: str, net: str, batch: int, size: int = SIZE) -> Run:
    """Convolution, batch normalisation and activation one after the other."""
    import torch

    network, x = _load(folder, net), torch.from_numpy(_image(batch, size))

    @torch.inference_mode()
    def run() -> Any:
        return [output.numpy() for output in network.predict(x)]

    return run


@contestant
def onnxruntime(folder: str, net: str, batch: int, size: int = SIZE) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(f"{folder}/{net}.onnx", options, providers=["CPUExecutionProvider"])
    x = _image(batch, size)
    return lambda: session.run(None, {"images": x})


@contestant
def openvino(folder: str, net: str, batch: int, precision: str, size: int = SIZE) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(f"{folder}/{net}.onnx")
    model.reshape([batch, 3, size, size])
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    x = _image(batch, size)
    return lambda: list(request.infer({"images": x}, share_inputs=True).values())


@contestant
def opencv(folder: str, net: str, batch: int, size: int = SIZE) -> Run:
    """OpenCV 4 reads Darknet's own files, OpenCV 5 the exported one."""
    import cv2

    cv2.setNumThreads(int(os.environ["OMP_NUM_THREADS"]))
    if int(cv2.__version__.split(".")[0]) < 5:
        network = cv2.dnn.readNetFromDarknet(f"{folder}/{net}.cfg", f"{folder}/{net}.weights")
    else:
        network = cv2.dnn.readNetFromONNX(f"{folder}/{net}.onnx")
    x, names = _image(batch, size), network.getUnconnectedOutLayersNames()

    def run() -> Any:
        network.setInput(x)
        return network.forward(names)

    return run


@contestant
def libdarknet(folder: str, net: str, batch: int, size: int = SIZE) -> Run:
    from tests.oracle import load_oracle

    return _c_library(load_oracle(), folder, net, _image(batch, size))


@contestant
def alexeyab(folder: str, net: str, batch: int, size: int = SIZE) -> Run:
    """His library, built with AVX and OpenMP; his verbs fuse batch normalisation too."""
    from tests.oracle.alexeyab import build_fast, find_alexeyab, load_alexeyab

    return _c_library(load_alexeyab(build_fast(find_alexeyab())), folder, net, _image(batch, size), fuse=True)


def _c_library(library: Any, folder: str, net: str, x: Any, fuse: bool = False) -> Run:
    from darknet_compat.cfg import read_cfg
    from darknet_compat.network import Network

    cfg = Path(folder) / f"{net}.cfg"
    # The maps that enter the heads: each program lays out and scales a head's outputs in its own way.
    outputs = [head.index - 1 for head in Network(read_cfg(cfg), device="meta").detectors] or [-1]
    network = library.load_network(cfg, cfg.with_suffix(".weights"))
    network.set_batch(len(x))
    if fuse:
        network.fuse()

    def run() -> Any:
        network.predict(x)
        return [network.layer_output(index) for index in outputs]

    return run


# --- contestants: from JPEG to boxes


@contestant
def pipeline(folder: str, net: str, batch: int) -> Run:
    from darknet_compat.detect import detect_files
    from darknet_compat.engines import start_engine

    network = _load(folder, net)
    run = start_engine(network, batch=batch, threads=1)
    paths = json.loads((Path(folder) / "photographs.json").read_text())
    return lambda: list(detect_files(network, paths, batch=batch, engine=run))


@contestant
def laid_out(folder: str, net: str, batch: int, threads: int) -> Run:
    """The torch engine on one thread, with weights in the order for ``threads``."""
    import torch

    from darknet_compat.engines import start_engine

    run = start_engine(_load(folder, net), batch=batch, threads=threads).run
    torch.set_num_threads(1)
    x = torch.from_numpy(_image(batch))
    return lambda: run(x)


@contestant
def photograph_stage(folder: str, stage: str) -> Run:
    import numpy as np
    import torch

    from darknet_compat.images import letterbox_image, load_image

    torch.set_num_threads(1)
    paths = json.loads((Path(folder) / "photographs.json").read_text())
    if stage == "read and decode":
        return lambda: [load_image(path) for path in paths]
    images, slot = [load_image(path) for path in paths], np.empty((3, SIZE, SIZE), np.float32)
    return lambda: [letterbox_image(image, slot) for image in images]


@contestant
def network_alone(folder: str, net: str, batch: int) -> Run:
    run = engine(folder, net, batch)
    count = len(json.loads((Path(folder) / "photographs.json").read_text()))
    return lambda: [run() for _ in range(0, count, batch)]


@contestant
def frames_alone(folder: str, net: str, batch: int, frames: int) -> Run:
    """The network on as many inputs as a video has frames, as many calls side by side as there are threads."""
    import torch

    from darknet_compat.flow import results_in_order

    detector = _video_detector(folder, net, batch)
    run, batch = detector.engine(frames)
    images = torch.from_numpy(_image(batch))

    def forward(opened: Any) -> list[int]:
        count = len(list(opened))
        with torch.inference_mode():
            run(images[:count])
        return [0] * count

    return lambda: list(results_in_order(forward, range(frames), batch, read=lambda number: ("", number)))


@contestant
def video(folder: str, net: str, batch: int, written: bool) -> Run:
    """A 720p video file, read and detected in, and where ``written`` drawn and written again."""
    from darknet_compat.video import demo

    detector = _video_detector(folder, net, batch)
    out = f"{folder}/written-{net}.avi" if written else None
    return lambda: demo(detector, f"{folder}/video.avi", out_filename=out)


def _video_detector(folder: str, net: str, batch: int) -> Any:
    """With a threshold that nothing reaches: random weights find hundreds of objects."""
    from darknet_compat import Detector

    network = _load(folder, net)
    return Detector(network, batch=batch, thresh=1.0)


@contestant
def classifying(folder: str, net: str, batch: int, images: int, whole: bool) -> Run:
    """`classifier valid` over so many files; or its network alone, as many batches at a time as there are cores."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from darknet_compat.classify.classifier import load_classifier
    from darknet_compat.classify.validate import validate_classifier
    from darknet_compat.engines import start_engine

    cfg = Path(folder) / f"{net}.cfg"
    outputs = _load(folder, net).layers[-1].output.outputs
    paths = sorted((Path(folder) / "images").glob("*.jpg"))
    (Path(folder) / "valid.list").write_text("".join(f"{paths[i % len(paths)]}\n" for i in range(images)))
    # Of numbers of three digits those under 64 are names of the files.
    (Path(folder) / "valid.labels").write_text("".join(f"/{i:03d}.jpg\n" for i in range(outputs)))
    data = Path(folder) / "valid.data"
    data.write_text(f"classes={outputs}\nlabels={folder}/valid.labels\nvalid={folder}/valid.list\ntop=5\n")
    classifier = load_classifier(data, cfg, cfg.with_suffix(".weights"), device="cpu", batch=batch)
    if whole:
        return lambda: validate_classifier(classifier)
    engine, cores = start_engine(classifier.network, batch=batch, threads=1), torch.get_num_threads()
    x = torch.rand(batch, *classifier.network.input)

    def run() -> None:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(lambda _: engine(x), range(images // batch)))

    return run


# --- contestants: training


def training_batch(network: Any, batch: int) -> Any:
    """So many random images, and what a training wants to know of them."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if network.detectors:
        truth = torch.rand(batch, 30, 5, generator=generator)
        truth[:, :, 2:4] = truth[:, :, 2:4] * 0.5 + 0.05
        truth[:, :, 4] = (truth[:, :, 4] * network.heads[0].truth_classes).floor()
        truth[:, 5:] = 0  # five objects in each image
    else:
        classes = network.heads[0].input.outputs
        truth = torch.eye(classes)[torch.randint(classes, (batch,), generator=generator)]
    return torch.rand(batch, *network.input, generator=generator), truth


@contestant
def training(folder: str, net: str, batch: int, fast: bool) -> Run:
    from darknet_compat.train.batch import Batch
    from darknet_compat.train.step import Trainer

    network = _load(folder, net)
    vars(network.net).update(batch=batch, subdivisions=1, mini_batch=batch, learning_rate=1e-6, burn_in=0)
    trainer = Trainer(network, fast=fast)
    data = Batch(*training_batch(network, batch), ())
    return lambda: trainer.update([data])


@contestant
def training_profile(folder: str, net: str, batch: int, fast: bool) -> Run:
    """Seconds of one step by operation, without those that it calls; the longest ten and the sum of all others."""
    from torch.profiler import ProfilerActivity, profile

    step, steps = training(folder, net, batch, fast), 5

    def run() -> dict[str, float]:
        for _ in range(3):
            step()
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(steps):
                step()
        times = {event.key: event.self_cpu_time_total / 1e6 / steps for event in found.key_averages()}
        longest = sorted(times, key=times.__getitem__, reverse=True)[:10]
        return {**{name: times.pop(name) for name in longest}, "all others": sum(times.values())}

    return run


@contestant
def bare(folder: str, net: str, batch: int, fast: bool) -> Run:
    """The layers before the heads as torch has them, forward and backward, with nothing else."""
    import torch
    from torch import nn

    network = _load(folder, net)
    heads = [layer.index for layer in network.heads]
    before = [layer for layer in network.layers if layer.index not in heads]
    modules = nn.ModuleDict({str(layer.index): _bare_layer(layer) for layer in before}).train()
    x, _ = training_batch(network, batch)
    if fast:
        modules, x = modules.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)

    def maps() -> list[Any]:
        outputs = {-1: x}
        for layer in before:
            outputs[layer.index] = modules[str(layer.index)](*(outputs[source] for source in layer.sources))
        return [outputs[index - 1] for index in heads]

    gradients = [torch.randn_like(map) * 1e-3 for map in maps()]

    def run() -> None:
        modules.zero_grad(set_to_none=False)
        torch.autograd.backward(maps(), gradients)

    return run


def _bare_layer(layer: Any) -> Any:
    import torch
    from torch import nn

    class Joined(nn.Module):
        def forward(self, *sources: Any) -> Any:
            parts = [source.chunk(layer.o.groups, 1)[layer.o.group_id] for source in sources]
            return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    class Added(nn.Module):
        def forward(self, *sources: Any) -> Any:
            return sources[0] + sources[1]

    o = layer.o
    if layer.type == "route":
        return Joined()
    if layer.type == "shortcut":
        return nn.Sequential(Added(), nn.LeakyReLU(0.1)) if layer.activation == "leaky" else Added()
    if layer.type == "avgpool":
        return nn.AdaptiveAvgPool2d(1)
    if layer.type == "upsample":
        return nn.Upsample(scale_factor=o.stride)
    if layer.type == "maxpool":
        edge = [nn.ZeroPad2d((0, 1, 0, 1))] if o.stride == 1 else []
        return nn.Sequential(*edge, nn.MaxPool2d(layer.size, o.stride))
    parts = [nn.Conv2d(layer.input.c, o.filters, o.size, o.stride, layer.padding, bias=not o.batch_normalize)]
    if o.batch_normalize:
        parts.append(nn.BatchNorm2d(o.filters))
    if layer.activation == "leaky":
        parts.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*parts)


@contestant
def loss_alone(folder: str, net: str, batch: int) -> Run:
    """Of all heads, on random maps."""
    import torch

    network = _load(folder, net)
    heads = network.heads
    _, truth = training_batch(network, batch)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(batch, *head.input, generator=generator).requires_grad_() for head in heads]

    def run() -> None:
        for map in maps:
            map.grad = None
        sum(head.loss(map, truth, 20_000).loss for head, map in zip(heads, maps, strict=True)).backward()

    return run


@contestant
def libdarknet_training(folder: str, net: str, batch: int) -> Run:
    from tests.oracle import load_oracle

    # Darknet allocates for the cfg's batch / subdivisions.
    text = (ROOT / "cfg" / f"{net}.cfg").read_text()
    text = re.sub(
        r"^batch *=.*", f"batch={batch}", re.sub(r"^subdivisions *=.*", "subdivisions=1", text, flags=re.M), flags=re.M
    )
    cfg = Path(folder) / f"{net}-batch.cfg"
    cfg.write_text(text)
    network = load_oracle().load_network(cfg, Path(folder) / f"{net}.weights")
    x, truth = (tensor.numpy() for tensor in training_batch(_load(folder, net), batch))
    return lambda: network.train_step(x, truth, update=True)


# --- contestants: images for training


def _images(folder: str) -> list[str]:
    return sorted(str(path) for path in (Path(folder) / "images").glob("*.jpg"))


def _one_core() -> None:
    """As in the processes that load images: OpenCV too would divide small work among its threads, at twice the cost."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@contestant
def loader(folder: str) -> Run:
    import itertools

    import numpy as np

    from darknet_compat.train.augment import Augmentation
    from darknet_compat.train.data import TrainingSet, check_labels

    _one_core()
    paths = _images(folder)
    augmentation = Augmentation(jitter=0.2, hue=0.1, saturation=1.5, exposure=1.5)
    data = TrainingSet(paths, check_labels(paths, 20), augmentation)
    slot, truth = np.empty((3, SIZE, SIZE), np.float32), np.empty((30, 5), np.float32)
    samples = itertools.count()
    return lambda: [data.fill(next(samples), slot, truth) for _ in range(16)]


@contestant
def loader_stage(folder: str, stage: str) -> Run:
    import numpy as np

    from darknet_compat.images import load_image, place_image

    _one_core()
    paths = _images(folder)[:16]
    images, slot = [load_image(path) for path in paths], np.empty((3, SIZE, SIZE), np.float32)
    colours = {"hue": 0.05, "saturation": 1.2, "exposure": 1.2} if stage == "place and distort" else {}
    if stage == "read":
        return lambda: [Path(path).read_bytes() for path in paths]
    if stage == "read and decode":
        return lambda: [load_image(path) for path in paths]
    return lambda: [place_image(image, slot, 430, 330, -10, 40, **colours) for image in images]


@contestant
def libdarknet_loader(folder: str) -> Run:
    from tests.oracle import load_oracle

    darknet, paths = load_oracle(), _images(folder)
    return lambda: darknet.load_data_detection(paths, 16, SIZE, SIZE, 30, 20, 0.2, 0.1, 1.5, 1.5)


# A [yolo] head's usual augmentation; of half of the samples four images make a mosaic.
MOSAIC = {"jitter": 0.3, "hue": 0.1, "saturation": 1.5, "exposure": 1.5, "mixing": "mosaic"}


@contestant
def mosaic_loader(folder: str, cache: bool) -> Run:
    import itertools

    import numpy as np

    data = _mosaic_set(folder, cache)
    slot, truth = np.empty((3, SIZE, SIZE), np.float32), np.empty((90, 5), np.float32)
    samples = itertools.count()
    return lambda: [data.fill(next(samples), slot, truth) for _ in range(16)]


@contestant
def mosaic_decoder(folder: str, cache: bool) -> Run:
    """What is left to the loader by -augment device: in a batch's memory, to which a device turns later."""
    import itertools

    import numpy as np

    data, size = _mosaic_set(folder, cache), (SIZE, SIZE)
    memory, truth = np.empty(data.room(16, size), np.uint8), np.empty((16, 90, 5), np.float32)
    firsts = itertools.count(step=16)

    def run() -> object:
        first = next(firsts)
        return data.decode(range(first, first + 16), size, memory, truth)

    return run


def _mosaic_set(folder: str, cache: bool) -> Any:
    from darknet_compat.train.alexeyab_augment import AlexeyabAugmentation
    from darknet_compat.train.data import AlexeyabTrainingSet, check_labels

    _one_core()
    paths = _images(folder)
    labels = check_labels(paths, 20, program="alexeyab")
    return AlexeyabTrainingSet(paths, labels, AlexeyabAugmentation(**MOSAIC), most=90, cache=cache)


@contestant
def alexeyab_mosaic_loader(folder: str) -> Run:
    import itertools

    from darknet_compat.train.alexeyab_augment import AlexeyabAugmentation
    from tests.oracle.alexeyab import build_with_opencv, find_alexeyab, load_alexeyab

    # His OpenCV has threads of its own, that no function of his library names.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    library, paths, options = (
        load_alexeyab(build_with_opencv(find_alexeyab())), _images(folder), AlexeyabAugmentation(**MOSAIC),
    )  # fmt: skip
    seeds = itertools.count()
    return lambda: [library.load_data_detection(paths, (SIZE, SIZE), 90, 20, options, next(seeds)) for _ in range(16)]


# Darknet19's augmentation: sides from 128 to 448; angle, aspect, hue, saturation, exposure.
SIDES, CROPS = (128, 448), (7.0, 0.75, 0.1, 0.75, 0.75)
CLASS_LABELS = [f"/{digit}" for digit in range(10)]  # the names of the images begin so


@contestant
def class_loader(folder: str, size: int) -> Run:
    import itertools

    import numpy as np

    from darknet_compat.classify.labels import match_labels
    from darknet_compat.train.crop_augment import CropAugmentation
    from darknet_compat.train.data import ClassTrainingSet

    _one_core()
    options = CropAugmentation(*(side / size for side in SIDES), *CROPS)
    data = ClassTrainingSet(match_labels(_images(folder), CLASS_LABELS), len(CLASS_LABELS), options)
    slot, truth = np.empty((3, size, size), np.float32), np.empty(len(CLASS_LABELS), np.float32)
    samples = itertools.count()
    return lambda: [data.fill(next(samples), slot, truth) for _ in range(16)]


@contestant
def class_loader_stage(folder: str, size: int, stage: str) -> Run:
    import random

    import numpy as np

    from darknet_compat.images import load_image
    from darknet_compat.train.crop_augment import CropAugmentation, augment_crop, draw_crop

    _one_core()
    paths = _images(folder)[:16]
    if stage == "read and decode":
        return lambda: [load_image(path) for path in paths]
    colours = CROPS[2:] if stage == "cut out and distort" else (0.0, 1.0, 1.0)
    options = CropAugmentation(*(side / size for side in SIDES), *CROPS[:2], *colours)
    images, slot, numbers = (
        [load_image(path) for path in paths],
        np.empty((3, size, size), np.float32),
        random.Random(0),
    )

    def run() -> None:
        for image in images:
            augment_crop(image, draw_crop(numbers, image.shape[1::-1], size, options), slot)

    return run


@contestant
def libdarknet_class_loader(folder: str, size: int) -> Run:
    from tests.oracle import load_oracle

    darknet, paths = load_oracle(), _images(folder)
    return lambda: darknet.load_data_augment(paths, 16, CLASS_LABELS, SIDES, size, CROPS)


# --- contestants: boxes and scores


def _boxes(batch: int) -> tuple[Any, Any, Any]:
    """845 boxes as a network gives them at thresh .005: most empty, clusters on the objects, 20 classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    objects = rng.random((batch, 12, 4), np.float32) * (1, 1, 0.5, 0.5) + (0, 0, 0.05, 0.05)
    near = rng.integers(0, 12, (batch, 845))
    boxes = np.take_along_axis(objects, near[..., None], 1) + rng.normal(0, 0.03, (batch, 845, 4))
    boxes[..., 2:] = np.abs(boxes[..., 2:]) + 0.01
    objectness = rng.beta(0.2, 2, (batch, 845)).astype(np.float32)
    objectness[objectness <= 0.005] = 0
    logits = rng.normal(0, 2, (batch, 845, 20))
    prob = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) * objectness[..., None]
    prob[prob <= 0.005] = 0
    return boxes.astype(np.float32), objectness, prob.astype(np.float32)


@contestant
def nms(batch: int) -> Run:
    import torch

    from darknet_compat.boxes import nms_sort

    boxes, objectness, prob = (torch.from_numpy(array) for array in _boxes(batch))

    @torch.inference_mode()
    def run() -> Any:
        return nms_sort(boxes, objectness, prob, 0.45)

    return run


@contestant
def libdarknet_nms() -> Run:
    from tests.oracle import load_oracle

    darknet, (boxes, objectness, prob) = load_oracle(), (array[0] for array in _boxes(1))
    return lambda: darknet.nms_sort(boxes, objectness, prob, 0.45)


@contestant
def voc_eval(folder: str, part: str) -> Run:
    from darknet_compat.evaluate.annotations import read_voc
    from darknet_compat.evaluate.results import read_comp4
    from darknet_compat.evaluate.voc import score

    root, names = Path(folder), _names()
    truths = read_voc(root / "VOCdevkit", "2007", "test", names)
    detections = read_comp4(root / "results", names, truths.images)

    def whole() -> Any:
        found = read_voc(root / "VOCdevkit", "2007", "test", names)
        return score(found, read_comp4(root / "results", names, found.images))

    return {"scoring": lambda: score(truths, detections), "reading and scoring": whole}[part]


@contestant
def reference_voc_eval(folder: str, part: str) -> Run:
    """py-faster-rcnn's algorithm, plainly written: tests/evaluate/oracle.py."""
    from tests.evaluate import oracle

    root, names = Path(folder), _names()
    annotations = oracle.read_devkit(root / "VOCdevkit")

    def whole() -> Any:
        return oracle.voc_eval_folder(root / "results", oracle.read_devkit(root / "VOCdevkit"), names)

    return {
        "scoring": lambda: oracle.voc_eval_folder(root / "results", annotations, names),
        "reading and scoring": whole,
    }[part]


def _names() -> list[str]:
    from darknet_compat.cfg import read_names

    return read_names(ROOT / "data" / "voc.names")


# --- contestants: files


@contestant
def load_weights(folder: str, net: str, build: bool) -> Run:
    """Into a network that stands, or with the network built anew."""
    from darknet_compat.weights import load_weights

    if build:
        return lambda: _load(folder, net)
    network = _load(folder, net)
    return lambda: load_weights(network, Path(folder) / f"{net}.weights")


@contestant
def fromfile(folder: str, net: str, build: bool) -> Run:
    import numpy as np

    path = Path(folder) / f"{net}.weights"
    if build:
        return lambda: np.fromfile(path, np.float32)
    numbers = np.fromfile(path, np.float32)

    def run() -> None:
        with open(path, "rb", 0) as file:
            file.readinto(numbers)  # type: ignore[arg-type]  # numpy says so from Python 3.12 on

    return run


@contestant
def libdarknet_weights(folder: str, net: str, build: bool) -> Run:
    from tests.oracle import load_oracle

    oracle, cfg, path = load_oracle(), Path(folder) / f"{net}.cfg", Path(folder) / f"{net}.weights"
    if build:
        return lambda: oracle.load_network(cfg, path)
    network = oracle.load_network(cfg)
    return lambda: network.load_weights(path)


@contestant
def save_weights(folder: str, net: str) -> Run:
    from darknet_compat import save_weights

    network, path = _load(folder, net), Path(folder) / "saved.weights"
    return lambda: save_weights(network, path)


@contestant
def tofile(folder: str, net: str) -> Run:
    """Write and flush the same bytes."""
    content, path = (Path(folder) / f"{net}.weights").read_bytes(), Path(folder) / "written.weights"

    def run() -> None:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return run


@contestant
def parse_cfg(net: str, build: bool) -> Run:
    from darknet_compat.cfg import read_cfg

    path = ROOT / "cfg" / f"{net}.cfg"
    if not build:
        return lambda: read_cfg(path)
    from darknet_compat.network import Network

    return lambda: Network(read_cfg(path), device="meta")


@contestant
def command(arguments: list[str], program: str = sys.executable, folder: str = str(ROOT)) -> Run:
    """A command in a folder, with the package's modules compiled beforehand, as pip does it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run() -> None:
        done = subprocess.run([program, *arguments], capture_output=True, cwd=folder, env=environment)
        if done.returncode not in (0, 1):  # 1: the file that the start-up to a missing one asks for
            raise SystemExit(f"{program} {' '.join(arguments)}: exit code {done.returncode}")

    return run


@contestant
def machine() -> Run:
    """The machine's rates: floating point operations and bytes per second."""
    import numpy as np
    import torch

    def best(run: Run, amount: float) -> float:
        run()
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return amount / min(seconds)

    def rates() -> dict[str, float]:
        found = {}
        n = 2048
        for name, kind in (("float32", torch.float32), ("bf16", torch.bfloat16)):
            a, b = (torch.rand(n, n).to(kind) for _ in range(2))
            # Of matrix multiplication and a 1x1 convolution the faster: on some processors the former has slow code.
            x, weights = (
                a.T.reshape(1, n, 32, n // 32).contiguous(memory_format=torch.channels_last),
                b[:, :, None, None],
            )
            with torch.inference_mode():
                found[name] = max(
                    best(lambda a=a, b=b: a @ b, 2 * n**3),
                    best(lambda x=x, w=weights: torch.conv2d(x, w), 2 * n**3),
                )
        source, target = np.ones(2**26, np.float32), np.empty(2**26, np.float32)
        found["memory"] = best(lambda: np.copyto(target, source), 2 * source.nbytes)
        return found

    return rates


def _peak() -> float:
    """The process's peak memory in MiB. Not getrusage's, which counts the parent's before exec too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _busy() -> float:
    """Seconds that processors have spent on this process and the children that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def work(name: str, arguments: dict[str, Any]) -> None:
    """Answer requests, one JSON object a line: runs, value, save or end."""
    # What the contestants print goes to stderr; the answers have the real stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if os.environ.get("BENCH_KEEP_MEMORY"):
        # By its path: the interpreter of OpenCV 4 cannot import the package, which needs more than it has.
        runpy.run_path(str(ROOT / "darknet_compat/memory.py"))["keep_memory"]()
    run = CONTESTANTS[name](**arguments)
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("end"):
            answer: Any = _peak()
        elif request.get("value"):
            answer = run()
        elif path := request.get("save"):
            import numpy as np

            np.savez(path, *run())
            answer = True
        else:
            answer = []
            for _ in range(request["runs"]):
                start, busy = time.perf_counter(), _busy()
                run()
                answer.append((time.perf_counter() - start, _busy() - busy))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    work(sys.argv[1], json.loads(sys.argv[2]))
