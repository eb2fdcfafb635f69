#!/usr/bin/env python3
"""Check a GPU against the CPU, and time it.

    python tools/gpu_check.py                      # all; some minutes, most of them for torch.compile
    python tools/gpu_check.py --device cpu --quick # does the script itself run? all that a CPU can, at small sizes

Needs torch, numpy and lark (pure Python: where there is no pip, copy another machine's folder site-packages/lark into
tools/). Images are made in memory. Reading JPEG files alone needs OpenCV and tqdm; without them that line says so. At
the end stands one table: each check, what was found, its goal, and whether it was reached. --json writes it to a file
too.

1. each layer, and each head's loss, with their gradients, GPU against CPU; boxes and their suppression
2. training: updates of a YOLOv2, a v3, a v4 and a classifier from the same start, GPU against CPU; twice on the GPU, to
   the last bit, as -resume needs it; at half precision
3. that an update waits for the GPU once
4. -fast, with images of one size and of many: how many programs are made of it, and whether it gives the same
5. batches on their way to the GPU: whether they arrive whole, how fast, and whether the host waits
6. augmentation of whole batches, GPU against CPU, and images/s
7. detection of one image, and training from decoded images, and from JPEG files, to updates: in time
8. training steps of yolov2-tiny-voc and yolov2-voc: images/s, peak memory, and the share of the matrix rate that
   torch.matmul reaches on this card in the same number format
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import itertools
import json
import mmap
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import numpy as np
    import torch
    from torch import Tensor

    from darknet_compat.boxes import nms_sort
    from darknet_compat.cfg import parse_cfg, read_cfg
    from darknet_compat.detect.detections import detect
    from darknet_compat.device import find_device
    from darknet_compat.errors import DarknetError
    from darknet_compat.layers import TYPES
    from darknet_compat.network import Network
    from darknet_compat.train import crop_augment, crop_on_device, on_device
    from darknet_compat.train.augment import Augmentation, draw
    from darknet_compat.train.batch import Batch
    from darknet_compat.train.copies import Copies, copies_to
    from darknet_compat.train.fast import compiled
    from darknet_compat.train.step import Trainer, strict
except ImportError as error:
    sys.exit(f"gpu_check: {error}; it needs torch, numpy and lark, see the head of {__file__}")

ROOT = Path(__file__).resolve().parents[1]
# Of the largest value; after updates of a tensor's norm.
LAYER, LOSS, COST, TENSORS, AUGMENTATION, HALF, FAST = 1e-4, 1e-4, 1e-3, 1e-3, 1e-4, 0.05, 0.02
LATENCY = 1.5  # ms, of detection with yolov2-tiny at 416 in bf16
RATE = 4300  # images/s, of training yolov2-tiny at 416 in bf16, from JPEG files to updates
SIZE = 416  # of the input that both goals are for
SIZES = range(320, 609, 32)  # of random=1


class Row(NamedTuple):
    """A line of the table."""

    check: str
    found: str
    goal: str = ""
    passed: bool | None = None
    """None where there is no goal, or nothing was checked."""


class Place(NamedTuple):
    """Where to check, and how long."""

    device: str
    quick: bool
    seconds: float
    batch: int

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def within(check: str, value: float, most: float) -> Row:
    return Row(check, f"{value:.1e}", f"at most {most:.0e}", value <= most)


def left_out(check: str, needs: str) -> Row:
    return Row(check, f"left out: it needs {needs}")


def relative(a: Tensor, b: Tensor) -> float:
    """Greatest difference, in parts of the greatest value; infinite where one is NaN, which max() may pass over."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    difference = (a - b).abs().max() / b.abs().max().clamp_min(1e-30)
    return float(difference.nan_to_num(nan=torch.inf))


def of_norm(a: Tensor, b: Tensor) -> float:
    """The norm of the difference, in parts of the norm; infinite where one is NaN."""
    distance = (a - b).double().norm() / b.double().norm().clamp_min(1e-12)
    return float(distance.nan_to_num(nan=torch.inf))


def clock(run: Callable[[], object], place: Place) -> float:
    """Seconds of one call: the median of calls for ``place.seconds``, each waited for."""
    for _ in range(3):
        run()
    place.wait()
    taken, end = [], time.perf_counter() + place.seconds
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        place.wait()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


# --- 1. layers, heads, boxes

CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation={}\n"
# Section type -> the program, and a text behind CONV. [crop] and [dropout] draw random numbers in training.
LAYERS = {
    "activation": ("pjreddie", "[activation]\nactivation=tanh\n"),
    "avgpool": ("pjreddie", "[avgpool]\n"),
    "batchnorm": ("pjreddie", "[batchnorm]\n"),
    "connected": ("pjreddie", "[connected]\noutput=10\nbatch_normalize=1\nactivation=leaky\n"),
    "contrastive": ("alexeyab", "[contrastive]\nclasses=1\ntemperature=1.0\nyolo_layer=-1\n"),
    "convolutional": ("alexeyab", CONV.format("mish") + "[convolutional]\nfilters=4\ngroups=2\nactivation=swish\n"),
    "crnn": ("pjreddie", "[crnn]\noutput_filters=4\nhidden_filters=4\nactivation=leaky\nbatch_normalize=1\n"),
    "crop": ("pjreddie", "[crop]\ncrop_width=13\ncrop_height=13\n"),
    "deconvolutional": ("pjreddie", "[deconvolutional]\nfilters=4\nsize=2\nstride=2\nactivation=leaky\n"),
    "dropout": ("pjreddie", "[dropout]\nprobability=.5\n"),
    "empty": ("alexeyab", "[empty]\n"),
    "gru": ("pjreddie", "[gru]\noutput=6\nbatch_normalize=1\n"),
    "implicit": ("alexeyab", "[implicit]\nfilters=8\n[scale_channels]\nfrom=-2\n"),
    "l2norm": ("pjreddie", "[l2norm]\n"),
    "local": ("pjreddie", "[local]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"),
    "local_avgpool": ("alexeyab", "[local_avgpool]\nsize=2\nstride=2\n"),
    "lstm": ("pjreddie", "[lstm]\noutput=6\nbatch_normalize=1\n"),
    "maxpool": ("pjreddie", "[maxpool]\nsize=2\nstride=2\n"),
    "normalization": ("pjreddie", "[normalization]\nalpha=.01\n"),
    "reorg": ("pjreddie", "[reorg]\nstride=2\n"),
    "reorg3d": ("alexeyab", "[reorg3d]\nstride=2\n"),
    "rnn": ("pjreddie", "[rnn]\noutput=6\nactivation=tanh\nbatch_normalize=1\n"),
    "route": ("pjreddie", "[maxpool]\nsize=2\nstride=1\n[route]\nlayers=-1,0\n"),
    "sam": ("alexeyab", CONV.format("logistic") + "[sam]\nfrom=-2\n"),
    "scale_channels": ("alexeyab", "[avgpool]\n[scale_channels]\nfrom=-2\n"),
    "shortcut": ("pjreddie", CONV.format("linear") + "[shortcut]\nfrom=-2\nactivation=leaky\n"),
    "upsample": ("pjreddie", "[upsample]\nstride=2\n"),
}
DRAWN = ("crop", "dropout")
YOLO = "[{}]\nmask=1,2,4\nnum=5\nanchors=1.2,1.7, 2.9,3.4, 4.7,7.2, 10,10, 4.4,15\nclasses=3\n{}"
REGION = "[region]\nnum=2\nanchors=1.2,1.7, 2.9,3.4\nclasses=3\nrescore=1\nbias_match=1\n{}"
# Section type -> planes that enter the head, whether these are a map, the program, and the section.
HEADS = [
    ("region", 16, True, "pjreddie", REGION.format("softmax=1\n")),
    ("region", 16, True, "alexeyab", REGION.format("")),
    ("yolo", 24, True, "pjreddie", YOLO.format("yolo", "truth_thresh=.7\n")),
    *(
        ("yolo", 24, True, "alexeyab", YOLO.format("yolo", options))
        for options in ("", "iou_loss=ciou\niou_thresh=.2\nscale_x_y=1.1\n", "iou_loss=giou\nnew_coords=1\n")
    ),
    ("Gaussian_yolo", 36, True, "alexeyab", YOLO.format("Gaussian_yolo", "iou_loss=ciou\n")),
    ("detection", 117, False, "pjreddie", "[detection]\nclasses=3\ncoords=4\nside=3\nnum=2\nsqrt=1\nrescore=1\n"),
    ("softmax", 10, False, "pjreddie", "[softmax]\n"),
    ("logistic", 10, False, "pjreddie", "[logistic]\n"),
    ("cost", 10, False, "pjreddie", "[cost]\ntype=sse\n"),
]


def both(text: str, program: str, device: str) -> tuple[Network, Network]:
    """The network of a text on the CPU and, with the same numbers, on a device."""
    torch.manual_seed(1)
    reference = Network(parse_cfg(text), "cpu", program=program).start()
    other = Network(parse_cfg(text), "cpu", program=program)
    other.load_state_dict(reference.state_dict())
    return reference, other.to(device)


def layer_text(name: str) -> tuple[str, str]:
    """The program, and the network in which a section type is checked."""
    program, text = LAYERS[name]
    parts = (text, CONV.format("leaky")) if name == "crop" else (CONV.format("leaky"), text)  # [crop] comes first
    return program, "[net]\nwidth=16\nheight=16\nchannels=3\nbatch=2\n" + "".join(parts)


def layer_distance(text: str, program: str, device: str, training: bool) -> float:
    """Of the output of a network, and in training of all gradients."""
    values: list[list[Tensor]] = []
    for network, where in zip(both(text, program, device), ("cpu", device), strict=True):
        generator = torch.Generator().manual_seed(2)
        x = torch.rand(2, *network.input, generator=generator).to(where).requires_grad_(training)
        output = network.train(training)(x)
        weights = torch.rand(output.shape, generator=generator).to(where)
        found = [output]
        if training:
            (output * weights).sum().backward()
            found += [tensor.grad for tensor in (x, *network.parameters()) if tensor.grad is not None]
        values.append(found)
    return max(relative(b, a) for a, b in zip(*values, strict=True))


def check_layers(place: Place) -> Iterator[Row]:
    missing = sorted(TYPES.keys() - LAYERS.keys() - {name for name, *_ in HEADS})
    yield Row("section types without a check", ", ".join(missing) or "none", "none", not missing)
    worst = {"layers, in inference": 0.0, "layers, in training, with gradients": 0.0}
    for name in LAYERS:
        program, text = layer_text(name)
        for training, check in enumerate(worst):
            if not (training and name in DRAWN):
                worst[check] = max(worst[check], layer_distance(text, program, place.device, bool(training)))
    for check, value in worst.items():
        yield within(f"{check} ({len(LAYERS)} types)", value, LAYER)


def make_truth(head: Any, count: int, seed: int, truths: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if not head.finds_boxes:
        return torch.eye(head.input.outputs)[torch.randint(head.input.outputs, (count,), generator=generator)]
    wh = torch.rand(count, truths, 2, generator=generator) * 0.5 + 0.05
    xy = wh / 2 + torch.rand(count, truths, 2, generator=generator) * (1 - wh)
    classes = torch.randint(head.o.classes, (count, truths, 1), generator=generator).float()
    truth = torch.zeros(count, 30, 5)
    truth[:, :truths] = torch.cat([xy, wh, classes], 2)
    return truth


def check_losses(place: Place) -> Iterator[Row]:
    for name, planes, is_map, program, section in HEADS:
        side, worst = 13 if is_map else 1, 0.0
        text = f"[net]\nwidth={side}\nheight={side}\nchannels={planes}\nbatch=2\n{section}"
        heads = [network.train().heads[0] for network in both(text, program, place.device)]
        for case in range(4 if place.quick else 40):
            raw = torch.randn(2, planes, side, side, generator=torch.Generator().manual_seed(case))
            truth = make_truth(heads[0], 2, case, case % 13)
            found = []
            for head, where in zip(heads, ("cpu", place.device), strict=True):
                map = raw.to(where).requires_grad_()
                loss, figures = head.loss(map, truth.to(where), 12800 * (case % 2))
                loss.backward()
                found.append((torch.stack([loss.detach(), figures.cost]), map.grad))
            worst = max(worst, *(relative(ours, reference) for reference, ours in zip(*found, strict=True)))
        options = [line for line in section.split("\n") if line.startswith(("iou_loss", "new_coords", "softmax"))]
        yield within(f"loss and gradient, [{name}] of {program} {' '.join(options)}".strip(), worst, LOSS)


def check_boxes(place: Place) -> Iterator[Row]:
    """What maps say, and which boxes stay. NMS gets the same numbers on both, and must give the same."""
    worst = 0.0
    for _, planes, is_map, program, section in HEADS[:8]:
        side = 13 if is_map else 1
        text = f"[net]\nwidth={side}\nheight={side}\nchannels={planes}\nbatch=2\n{section}"
        raw = torch.randn(2, planes, side, side, generator=torch.Generator().manual_seed(3)) / 4
        reference, ours = (
            network.eval().boxes(network.activated([raw.to(where)]), -1.0)
            for network, where in zip(both(text, program, place.device), ("cpu", place.device), strict=True)
        )
        worst = max(worst, *(relative(b, a) for a, b in zip(reference, ours, strict=True)))
    yield within("boxes that maps say", worst, LAYER)
    generator = torch.Generator().manual_seed(4)
    same = True
    for kind in ("default", "greedynms", "diounms"):
        boxes = torch.rand(2, 300, 4, generator=generator) * 0.4 + 0.1
        prob = (torch.rand(2, 300, 5, generator=generator) - 0.5).clamp_min(0)
        objectness = prob.amax(2)
        kept, ours = (
            nms_sort(boxes.to(where), objectness.to(where), prob.to(where), 0.45, kind)
            for where in ("cpu", place.device)
        )
        same &= all(torch.equal(a, b.cpu()) for a, b in zip(kept, ours, strict=True))
    yield Row("suppression of boxes, in its three kinds", "the same" if same else "not the same", "the same", same)


# --- 2. and 3. updates


def make_network(name: str, size: int, batch: int, subdivisions: int = 1, rate: float = 0.001) -> Network:
    """A stock network at another size, batch and rate, with the same start values each time."""
    torch.manual_seed(1)
    network = Network(read_cfg(ROOT / "cfg" / f"{name}.cfg")).start()
    network.resize(size, size)
    vars(network.net).update(
        batch=batch, subdivisions=subdivisions, mini_batch=batch // subdivisions,
        learning_rate=rate, policy="constant", burn_in=0,
    )  # fmt: skip
    for head in network.detectors:
        head.o.random = 0
    return network


def make_batch(network: Network, count: int, size: int, seed: int, device: str = "cpu") -> Batch:
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return Batch(images.to(device), make_truth(network.heads[0], count, seed, 12).to(device))


def train(name: str, device: str, size: int, updates: int, **options: Any) -> tuple[list[float], dict[str, Tensor]]:
    network = make_network(name, size, 4, subdivisions=2, rate=1e-4).to(device)
    trainer = Trainer(network, **options)
    losses = []
    for number in range(updates):
        update = trainer.update([make_batch(network, 2, size, 100 + 2 * number + part) for part in range(2)])
        assert update is not None
        losses.append(update.loss)
    return losses, {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def apart(losses: list[float], reference: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))


TRAINED = ("yolov2-tiny-voc", "yolov3-tiny", "yolov4-tiny", "tiny")
QUICK = ("yolov2-tiny-voc", "tiny")


def check_training(place: Place) -> Iterator[Row]:
    for name in TRAINED:
        size, updates = (96, 2) if place.quick else (224 if name == "tiny" else 416, 20)
        reference, tensors = train(name, "cpu", size, updates)
        losses, ours = train(name, place.device, size, updates)
        again, same = train(name, place.device, size, updates)
        distance = max(of_norm(ours[key], tensor) for key, tensor in tensors.items())
        yield within(f"{updates} updates of {name}: costs", apart(losses, reference), COST)
        yield within(f"{updates} updates of {name}: tensors", distance, TENSORS)
        equal = losses == again and all(torch.equal(ours[key], same[key]) for key in ours)
        yield Row(f"{updates} updates of {name}, repeated", "the same" if equal else "not the same", "the same", equal)
        half, _ = train(name, place.device, size, 1, amp="bf16")
        yield within(f"an update of {name} in bf16: cost", apart(half, reference[:1]), HALF)


def check_waits(place: Place) -> Iterator[Row]:
    check = "times that an update waits for the GPU"
    if not place.gpu:
        yield left_out(check, "a GPU")
        return
    for name, fast in itertools.product(TRAINED, (False, True)):
        size = 96 if place.quick else 416
        network = make_network(name, size, 4, subdivisions=2).to(place.device)
        trainer = Trainer(network, fast=fast)
        batches = [make_batch(network, 2, size, part, place.device) for part in range(2)]
        for _ in range(4):
            trainer.update(batches)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.update(batches)
        torch.cuda.set_sync_debug_mode("default")
        count = sum("synchroniz" in str(one.message) for one in caught)
        yield Row(f"{check}: {name}{' -fast' * fast}", str(count), "1", count == 1)
        strict()


# --- 4. -fast


@contextlib.contextmanager
def compiling(place: Place) -> Iterator[None]:
    """On a CPU ``torch.compile`` traces and differentiates, and does not generate code, which would take minutes."""
    before = torch.compile
    if not place.gpu:
        torch.compile = lambda function, *, fullgraph, **_: before(function, backend="aot_eager", fullgraph=fullgraph)
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch.compile = before
        strict()


def check_fast(place: Place) -> Iterator[Row]:
    import torch._dynamo

    for name, drawn in itertools.product(QUICK if place.quick else TRAINED, (False, True)):
        usual = 96 if place.quick else 224 if name == "tiny" else 416
        sizes = [usual] * 3 if not drawn else [64, 96, 128] if place.quick else list(SIZES)
        losses: dict[bool, list[float]] = {}
        for fast in (False, True):
            network = make_network(name, usual, 2).to(place.device)
            if network.detectors:
                network.heads[-1].o.random = int(drawn)
            else:
                network.net.random = int(drawn)
            with compiling(place):
                torch._dynamo.utils.counters.clear()
                trainer = Trainer(network, fast=fast and place.gpu)
                if fast and not place.gpu:
                    trainer.losses = compiled(network, trainer._losses)
                found, programs = [], []
                for _ in range(2):
                    for size in sizes:
                        network.resize(size, size)
                        update = trainer.update([make_batch(network, 2, size, size)])
                        assert update is not None
                        found.append(update.loss)
                    programs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
            losses[fast] = found
        what = f"-fast {name}, {len(sizes)} sizes" if drawn else f"-fast {name}, one size"
        yield Row(f"{what}: programs", " and then ".join(map(str, programs)), "1 and then 1", programs == [1, 1])
        yield within(f"{what}: costs", apart(losses[True], losses[False]), FAST)


# --- 5. the way of batches to the GPU


def shared(size: int) -> np.ndarray:
    """So many bytes as the loader has them, which its processes share."""
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def check_copies(place: Place) -> Iterator[Row]:
    if not place.gpu:
        yield left_out("batches through page-locked memory", "a GPU")
        return
    side, work, rounds = (96, 256, 10) if place.quick else (416, 4096, 50)
    shape, places = (place.batch, 3, side, side), 4
    count = int(np.prod(shape))
    memory = shared(places * 4 * count).view(np.float32).reshape(places, count)
    copies = Copies(torch.device(place.device))
    copies.lock(memory)
    # Both parts of a batch lie in page-locked memory, as the loader's do.
    batches = [Batch(torch.from_numpy(row).view(shape), torch.from_numpy(row[:5]).view(1, 5)) for row in memory]
    busy = torch.randn(work, work, device=place.device)
    under_way: list[Any] = []
    sums, waited = [], []
    place.wait()
    for number in range(rounds):
        slot = number % places
        if len(under_way) == places:
            under_way.pop(0).synchronize()
        memory[slot] = number
        start = time.perf_counter()
        sent = copies.send(functools.partial(batches.__getitem__, slot))
        batch = copies.arrive(sent)
        waited.append(time.perf_counter() - start)
        under_way.append(sent.copied)
        busy = torch.tanh(busy @ busy)  # the update's stream is behind
        sums.append(batch.images.double().mean())
        del batch, sent
    whole = [float(one) for one in sums] == [float(number) for number in range(rounds)]
    yield Row(f"{rounds} batches through {places} places", "whole" if whole else "not whole", "whole", whole)

    def copy() -> None:
        copies.send(functools.partial(batches.__getitem__, 0)).copied.synchronize()

    taken = clock(copy, place)
    locked = bool(copies.locked)
    yield Row("the memory is page-locked", "yes" if locked else "no", "yes", locked)
    yield Row("copies to the GPU", f"{4 * count / taken / 2**30:.1f} GiB/s, {1000 * taken:.1f} ms a batch")
    usual = sorted(waited)[rounds // 2]  # the first ones ask CUDA for memory
    yield Row(
        "how long the host is at it to begin a copy", f"{1000 * usual:.2f} ms",
        f"under half a copy's {1000 * taken:.1f} ms", usual < taken / 2,
    )  # fmt: skip
    copies.close()


# --- 6. augmentation


def decoded_batch(count: int, size: int) -> tuple[np.ndarray, on_device.Decoded]:
    """Memory, and in it images of 500x375 as the loader's processes leave them, with all augmentation on."""
    random, generator = Random(0), torch.Generator().manual_seed(0)
    memory = shared(on_device.room(count, size, size, 500 * 375))
    decoded = on_device.Decoded.within(memory, count, size, size)
    for i in range(count):
        image = torch.randint(0, 256, (375, 500, 3), dtype=torch.uint8, generator=generator).numpy()
        draws = draw(random, (500, 375), (size, size), 0, Augmentation(0.2, 0.1, 1.5, 1.5))
        decoded.put(i, image, draws)
    return memory, decoded


def decoded_crops(count: int, size: int) -> crop_on_device.DecodedCrops:
    """The same for a classifier; each second sample is made of two images."""
    random, generator = Random(0), torch.Generator().manual_seed(0)
    memory = shared(crop_on_device.room(2 * count, size, 2 * count * 500 * 375))
    decoded = crop_on_device.DecodedCrops.within(memory, 2 * count, size)
    options = crop_augment.CropAugmentation(0.5, 1.5, 7, 0.75, 0.1, 0.75, 0.75)
    for i in range(count):
        for part in range(1 + i % 2):
            image = torch.randint(0, 256, (375, 500, 3), dtype=torch.uint8, generator=generator).numpy()
            draws = crop_augment.draw_crop(random, (500, 375), size, options)
            patch = crop_augment.Patch(0, 0, size // 2, size, 1.0, 0.5) if part else crop_augment.whole(size)
            decoded.put(i, image, draws, patch)
    return decoded


def check_augmentation(place: Place) -> Iterator[Row]:
    count, size = (4, 96) if place.quick else (place.batch, 416)
    kinds: list[tuple[str, Callable[[str], Tensor]]] = [
        ("a detector's images", functools.partial(on_device.augment, decoded_batch(count, size)[1])),
        ("a classifier's images", functools.partial(crop_on_device.augment, decoded_crops(count, size), count)),
    ]
    for name, augment in kinds:
        distance = float((augment(place.device).cpu() - augment("cpu")).abs().max())
        yield within(f"{name}, augmented", distance, AUGMENTATION)
        rate = count / clock(functools.partial(augment, place.device), place)
        yield Row(f"{name}, copied and augmented", f"{rate:.0f} images/s")


# --- 7. detection, and training from decoded images and from files


def check_detection(place: Place) -> Iterator[Row]:
    size = 96 if place.quick else SIZE
    network = make_network("yolov2-tiny", size, 1).eval().fuse().to(place.device)
    network = network.to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(1, 3, size, size, device=place.device, dtype=torch.bfloat16)
    taken = 1000 * clock(lambda: detect(network, images, [(640, 480)], [""], thresh=0.24, nms=0.3), place)
    check = f"detection of one image, yolov2-tiny at {size} in bf16"
    if place.gpu and not place.quick:
        yield Row(check, f"{taken:.2f} ms", f"under {LATENCY} ms", taken < LATENCY)
    else:
        yield Row(check, f"{taken:.2f} ms")


def check_rate(place: Place, size: int, count: int, source: str, batches: Generator[Batch, None, None]) -> Row:
    """Training in time, of batches from somewhere, which are closed then."""
    with contextlib.closing(batches):
        trainer = Trainer(make_network("yolov2-tiny", size, count).to(place.device), amp="bf16", fast=True)
        for _ in range(5):
            trainer.update(itertools.islice(batches, 1))
        updates, start = 0, time.perf_counter()
        while updates < 3 or time.perf_counter() < start + 2 * place.seconds:
            trainer.update(itertools.islice(batches, 1))
            updates += 1
        rate = updates * count / (time.perf_counter() - start)
    strict()
    check = f"training yolov2-tiny at {size}, batch {count}, bf16, from {source} to updates"
    if place.gpu and not place.quick:
        return Row(check, f"{rate:.0f} images/s", f"{RATE} images/s", rate >= RATE)
    return Row(check, f"{rate:.0f} images/s")


def batches_of_decoded(place: Place, size: int, count: int) -> Generator[Batch, None, None]:
    """The same batch again and again on the loader's way to the GPU, each a batch ahead, and augmented there."""
    memory, decoded = decoded_batch(count, size)
    truth = shared(4 * count * 30 * 5).view(np.float32).reshape(count, 30, 5)

    def make() -> Batch:
        return Batch(on_device.augment(decoded, place.device), torch.from_numpy(truth))

    truth[:, :2] = (0.5, 0.5, 0.3, 0.3, 1), (0.2, 0.2, 0.1, 0.3, 3)
    copies = copies_to(torch.device(place.device))
    if copies is None:
        while True:
            yield make()
    try:
        for part in (memory, truth):
            copies.lock(part)
        sent = copies.send(make)
        while True:
            following = copies.send(make)
            yield copies.arrive(sent)
            sent = following
    finally:
        copies.close()


def check_training_in_time(place: Place) -> Iterator[Row]:
    size, count = (96, 8) if place.quick else (SIZE, place.batch)
    batches = batches_of_decoded(place, size, count)
    yield check_rate(place, size, count, "decoded images", batches)
    workers = min(16, os.cpu_count() or 1)
    source = f"JPEG files, with {workers} workers,"
    try:
        import cv2

        from darknet_compat.train.data import TrainingSet, check_labels, load_batches
    except ImportError as error:
        yield left_out(f"training from {source} to updates", f"OpenCV and tqdm ({error})")
        return
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(16 if place.quick else 128):
            paths.append(f"{folder}/{number}.jpg")
            # Of some 80 KB each, as photographs of this size are.
            image = cv2.resize(random.uniform(0, 255, (24, 32, 3)), (500, 375), interpolation=cv2.INTER_CUBIC)
            image += cv2.GaussianBlur(random.normal(0, 30, image.shape), (3, 3), 0)
            cv2.imwrite(paths[-1], image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
            Path(folder, f"{number}.txt").write_text("1 .5 .5 .3 .3\n3 .2 .2 .1 .3\n")
        data = TrainingSet(paths, check_labels(paths, 80), Augmentation(0.2, 0.1, 1.5, 1.5))
        device = torch.device(place.device)
        batches = load_batches(
            data, count, lambda _: (size, size), (size, size), workers=workers, device=device, copies=copies_to(device)
        )
        yield check_rate(place, size, count, source, batches)


# --- 8. training steps

# name -> TF32, amp, fast
MODES = {
    "float32": (False, None, False),
    "TF32": (True, None, False),
    "bf16": (False, "bf16", False),
    "-fast": (True, None, True),
    "-fast -amp bf16": (True, "bf16", True),
}


def matrix_rate(place: Place, tf32: bool, dtype: torch.dtype) -> float:
    """Floating point operations per second of a square torch.matmul."""
    size = 512 if place.quick else 8192
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(size, size, device=place.device, dtype=dtype) for _ in range(2))
    rate = 2 * size**3 / clock(lambda: a @ b, place)
    strict()
    return rate


def time_update(place: Place, name: str, size: int, subdivisions: int, mode: str) -> tuple[float, float, float]:
    """Seconds of an update of images that are on the device already, its operations/s, and its peak memory in GiB."""
    tf32, amp, fast = MODES[mode]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if place.gpu:
        torch.cuda.reset_peak_memory_stats()
    network = make_network(name, size, place.batch, subdivisions).to(place.device)
    trainer = Trainer(network, amp=amp, fast=fast)
    count = place.batch // subdivisions
    batches = [make_batch(network, count, size, part, place.device) for part in range(subdivisions)]
    taken = clock(lambda: trainer.update(batches), place)
    # A backward pass takes twice the operations of a forward pass: one for the weights, one for the maps.
    flops = 3 * place.batch * sum(layer.flops() for layer in network.layers)
    return taken, flops / taken, torch.cuda.max_memory_allocated() / 2**30 if place.gpu else 0.0


def check_steps(place: Place) -> Iterator[Row]:
    formats = {"float32": (False, torch.float32), "TF32": (True, torch.float32), "bf16": (False, torch.bfloat16)}
    rates = {name: matrix_rate(place, *how) for name, how in formats.items()}
    for name, rate in rates.items():
        yield Row(f"matrix rate, {name}", f"{rate / 1e12:.2f} TFLOP/s")
    for name, size in itertools.product(("yolov2-tiny-voc", "yolov2-voc"), (96,) if place.quick else (416, 608)):
        for mode, (tf32, amp, _) in MODES.items():
            subdivisions = 1
            while True:
                try:
                    taken, flops, peak = time_update(place, name, size, subdivisions, mode)
                    break
                except torch.cuda.OutOfMemoryError:
                    if subdivisions >= place.batch:
                        raise
                    subdivisions *= 2
                finally:
                    strict()
                    gc.collect()
                    torch.cuda.empty_cache()
            share = 100 * flops / rates[amp or ("TF32" if tf32 else "float32")]
            found = f"{place.batch / taken:.1f} images/s, {share:.1f} % of the matrix rate, {peak:.2f} GiB"
            more = f", subdivisions {subdivisions}" if subdivisions > 1 else ""
            yield Row(f"a step of {name} at {size}, {mode}", found + more)


CHECKS: list[Callable[[Place], Iterator[Row]]] = [
    check_layers, check_losses, check_boxes, check_training, check_waits, check_fast, check_copies, check_augmentation,
    check_detection, check_training_in_time, check_steps,
]  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows as text, a line each."""
    ends = {None: "", True: "pass", False: "FAILED"}
    lines = [("check", "found", "goal", ""), *((row.check, row.found, row.goal, ends[row.passed]) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, [*widths, 0], strict=True)).rstrip() for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (default: the first GPU), cuda:1 ..., or cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes and short times, to see that the script runs")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch of what is timed (64)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time given to each measurement (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    try:
        device = find_device(options.device)
    except DarknetError as error:
        sys.exit(f"gpu_check: {error}; --device cpu --quick shows that the script runs")
    if device.type not in ("cuda", "cpu"):
        sys.exit(f"gpu_check: --device {device}: expected a GPU that torch runs by CUDA, or cpu")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    quick = options.quick
    place = Place(str(device), quick, 0.2 if quick else options.seconds, 4 if quick else options.batch)
    strict()
    report: dict[str, Any] = {
        "command": sys.argv,
        "device": torch.cuda.get_device_name() if place.gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    rows: list[Row] = []
    for check in CHECKS:
        print(f"{check.__name__.replace('_', ' ')} ...", file=sys.stderr, flush=True)
        try:
            rows += check(place)
        except Exception as error:  # a check that breaks is a check that fails, and the others go on
            said = str(error).strip().split("\n")[0]
            rows.append(Row(check.__name__.replace("_", " "), f"{type(error).__name__}: {said}", "to end", False))
        strict()
    print(", ".join(f"{name} {value}" for name, value in report.items() if name != "command"))
    print(table(rows))
    if options.json:
        report["rows"] = [row._asdict() for row in rows]
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    failed = sum(row.passed is False for row in rows)
    if failed:
        print(f"gpu_check: {failed} of {sum(row.passed is not None for row in rows)} checks failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
