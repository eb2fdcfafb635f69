#!/usr/bin/env python3
"""Check training on a GPU against the CPU, and time it.

    python tools/gpu_check.py                      # all, a few minutes
    python tools/gpu_check.py --device cpu --quick # does the script itself run? small sizes

Needs torch, numpy and lark (pure Python: where there is no pip, copy another machine's folder site-packages/lark into
tools/). Images are made in memory, so OpenCV is not needed. Prints its table and writes it as JSON with --json.

1. the region loss and its gradient, GPU against CPU, on random maps
2. 20 updates of yolov2-tiny-voc from the same start, GPU against CPU
3. the same 20 updates twice on the GPU: equal to the last bit, as -resume needs it
4. augmentation of whole batches, GPU against CPU, and images/s
5. training steps of yolov2-tiny-voc and yolov2-voc: images/s, peak memory, and the share of the matrix rate that
   torch.matmul reaches on this card in the same number format
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import torch
    from torch import Tensor

    from darknet_compat.cfg import read_cfg
    from darknet_compat.network import Network
    from darknet_compat.train.augment import Augmentation, draw
    from darknet_compat.train.on_device import Decoded, augment, room
    from darknet_compat.train.step import Trainer, strict
except ImportError as error:
    sys.exit(f"gpu_check: {error}; it needs torch, numpy and lark, see the head of {__file__}")

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = {"loss": 1e-5, "gradient": 1e-5, "costs": 1e-3, "tensors": 1e-3, "augmentation": 1e-4}


class Batch(NamedTuple):
    """What one forward pass takes, as darknet_compat.train.data has it (which needs OpenCV)."""

    images: Tensor
    truth: Tensor
    paths: tuple[str, ...] = ()


def make_network(name: str, size: int, batch: int, subdivisions: int = 1, rate: float = 0.001) -> Network:
    """A stock network at another size, batch and rate, with the same start values each time."""
    torch.manual_seed(1)
    network = Network(read_cfg(ROOT / "cfg" / f"{name}.cfg")).start()
    network.resize(size, size)
    vars(network.net).update(
        batch=batch, subdivisions=subdivisions, mini_batch=batch // subdivisions,
        learning_rate=rate, policy="constant", burn_in=0,
    )  # fmt: skip
    return network


def make_batch(count: int, size: int, seed: int, device: str = "cpu", truths: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, size, size, generator=generator)
    wh = torch.rand(count, truths, 2, generator=generator) * 0.5 + 0.05
    xy = wh / 2 + torch.rand(count, truths, 2, generator=generator) * (1 - wh)
    classes = torch.randint(20, (count, truths, 1), generator=generator).float()
    truth = torch.zeros(count, 30, 5)
    truth[:, :truths] = torch.cat([xy, wh, classes], 2)
    return Batch(images.to(device), truth.to(device))


def relative(a: Tensor, b: Tensor) -> float:
    """Greatest difference, in parts of the greatest value; infinite where one is NaN, which max() may pass over."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    difference = (a - b).abs().max() / b.abs().max().clamp_min(1e-30)
    return float(difference.nan_to_num(nan=torch.inf))


def check_loss(device: str, cases: int) -> dict[str, float]:
    """The loss and its gradient in the raw map on ``device`` against the CPU: the worst of random cases."""
    worst = {"loss": 0.0, "gradient": 0.0}
    heads = [(where, make_network("yolov2-tiny-voc", 416, 1).to(where).detector) for where in ("cpu", device)]
    for case in range(cases):
        grid = (1, 7, 13, 19)[case % 4]
        raw = torch.randn(2, heads[0][1].input.c, grid, grid, generator=torch.Generator().manual_seed(case))
        truth = make_batch(2, 8, case, truths=case % 31).truth
        results = []
        for where, head in heads:
            map = raw.to(where).requires_grad_()
            loss, figures = head.loss(map, truth.to(where), 12800 * (case % 2))
            loss.backward()
            results.append((torch.stack([loss, figures.cost]), map.grad))
        (reference, reference_gradient), (loss, gradient) = results
        worst["loss"] = max(worst["loss"], relative(loss, reference))
        worst["gradient"] = max(worst["gradient"], relative(gradient, reference_gradient))
    return worst


def train(device: str, size: int, updates: int) -> tuple[list[float], dict[str, Tensor]]:
    network = make_network("yolov2-tiny-voc", size, 4, subdivisions=2, rate=1e-4).to(device)
    trainer = Trainer(network)
    losses = [
        trainer.update([make_batch(2, size, 100 + 2 * number + part) for part in range(2)]).loss
        for number in range(updates)
    ]
    return losses, {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def check_training(device: str, size: int, updates: int) -> dict[str, float | bool]:
    """Updates on ``device`` against the CPU, and against themselves."""
    reference, tensors = train("cpu", size, updates)
    losses, ours = train(device, size, updates)
    again, same = train(device, size, updates)
    distances = [
        float((ours[name] - tensor).double().norm() / tensor.double().norm().clamp_min(1e-12))
        for name, tensor in tensors.items()
    ]
    return {
        "costs": max(abs(a - b) / b for a, b in zip(losses, reference, strict=True)),
        "tensors": max(distances),
        "repeated to the last bit": losses == again and all(torch.equal(ours[name], same[name]) for name in ours),
    }


def decoded_batch(count: int, size: int) -> Decoded:
    """Images of 500x375 as the loader's processes leave them, with all augmentation on."""
    random, generator = Random(0), torch.Generator().manual_seed(0)
    memory = torch.zeros(room(count, size, size, 500 * 375), dtype=torch.uint8).numpy()
    decoded = Decoded.within(memory, count, size, size)
    for i in range(count):
        image = torch.randint(0, 256, (375, 500, 3), dtype=torch.uint8, generator=generator).numpy()
        draws = draw(random, (500, 375), (size, size), 0, Augmentation(0.2, 0.1, 1.5, 1.5))
        decoded.put(i, image, draws)
    return decoded


def clock(run: Callable[[], object], device: str, seconds: float) -> float:
    """Seconds of one call: the median of calls for ``seconds``, each waited for."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    for _ in range(3):
        run()
    wait()
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        wait()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


def matrix_rate(device: str, tf32: bool, dtype: torch.dtype, size: int, seconds: float) -> float:
    """Floating point operations per second of a square torch.matmul."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rate = 2 * size**3 / clock(lambda: a @ b, device, seconds)
    strict()
    return rate


# name -> TF32, amp, fast
MODES = {
    "float32": (False, None, False),
    "TF32": (True, None, False),
    "bf16": (False, "bf16", False),
    "-fast": (True, None, True),
    "-fast -amp bf16": (True, "bf16", True),
}


def time_training(device: str, name: str, size: int, batch: int, mode: str, seconds: float) -> dict[str, float]:
    """One update of ``batch`` images that are on the device already; subdivisions rise until it fits the memory."""
    subdivisions = 1
    while True:
        try:
            return time_update(device, name, size, batch, subdivisions, mode, seconds)
        except torch.cuda.OutOfMemoryError:
            if subdivisions >= batch:
                raise
            subdivisions *= 2
        finally:
            strict()
            gc.collect()
            torch.cuda.empty_cache()


def time_update(
    device: str, name: str, size: int, batch: int, subdivisions: int, mode: str, seconds: float
) -> dict[str, float]:
    tf32, amp, fast = MODES[mode]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    network = make_network(name, size, batch, subdivisions).to(device)
    trainer = Trainer(network, amp=amp, fast=fast)
    batches = [make_batch(batch // subdivisions, size, part, device) for part in range(subdivisions)]
    taken = clock(lambda: trainer.update(batches), device, seconds)
    # A backward pass takes twice the operations of a forward pass: one for the weights, one for the maps.
    flops = 3 * batch * sum(layer.flops() for layer in network.layers)
    return {
        "net": name, "size": size, "batch": batch, "subdivisions": subdivisions, "mode": mode, "seconds": taken,
        "images_per_second": batch / taken, "flops_per_second": flops / taken,
        "peak_gib": 0.0 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1 ..., or cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that the script runs")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="time given to each measurement (5)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    device, quick = options.device, options.quick
    if device != "cpu":
        if not torch.cuda.is_available():
            sys.exit("gpu_check: torch finds no CUDA GPU; --device cpu --quick shows that the script runs")
        torch.cuda.set_device(device)
    strict()
    sizes, batch, updates, seconds = ((96,), 4, 3, 0.2) if quick else ((416, 608), options.batch, 20, options.seconds)
    report: dict[str, object] = {
        "command": sys.argv,
        "device": platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    print(", ".join(f"{name} {value}" for name, value in report.items() if name != "command"))

    loss = check_loss(device, 8 if quick else 200)
    training = check_training(device, sizes[0], updates)
    decoded = decoded_batch(batch, sizes[0])
    augmentation = float((augment(decoded, device).cpu() - augment(decoded, "cpu")).abs().max())
    report["checks"] = {**loss, **training, "augmentation": augmentation}
    failed = []
    for name, value in report["checks"].items():
        limit = TOLERANCE.get(name)
        good = value is True if limit is None else value <= limit
        print(
            f"{name:26} {value if limit is None else f'{value:.1e} (at most {limit:.0e})'} {'ok' if good else 'FAILED'}"
        )
        failed += [] if good else [name]

    report["augmented_per_second"] = batch / clock(lambda: augment(decoded, device), device, seconds)
    print(f"augmented, with the copy to the device: {report['augmented_per_second']:.0f} images/s")

    side = 512 if quick else 8192
    formats = {"float32": (False, torch.float32), "TF32": (True, torch.float32), "bf16": (False, torch.bfloat16)}
    rates = {name: matrix_rate(device, *how, side, seconds) for name, how in formats.items()}
    report["matrix_rates"] = rates
    print("matrix rate, TFLOP/s: " + ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in rates.items()))

    rows = report["training"] = []
    print(
        f"{'net':16} {'size':>4} {'mode':16} {'images/s':>9} {'ms':>8} {'GiB':>6} {'of matrix rate':>14} subdivisions"
    )
    for name in ("yolov2-tiny-voc", "yolov2-voc"):
        for size in sizes:
            for mode, (tf32, amp, _) in MODES.items():
                row = time_training(device, name, size, batch, mode, seconds)
                row["share"] = row["flops_per_second"] / rates[amp or ("TF32" if tf32 else "float32")]
                rows.append(row)
                print(
                    f"{name:16} {size:4} {mode:16} {row['images_per_second']:9.1f} {1000 * row['seconds']:8.1f} "
                    f"{row['peak_gib']:6.2f} {100 * row['share']:13.1f}% {row['subdivisions']}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if failed:
        print(f"gpu_check: {', '.join(failed)}: outside of the limits", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
