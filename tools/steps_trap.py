#!/usr/bin/env python3
"""What steps=-1,100,... is for: the same small training with the warm-up that the cfg means, and without it.

    python tools/steps_trap.py

yolov2-tiny-voc.cfg says `steps=-1,100,20000,30000 scales=.1,10,.1,.1`: a tenth of the rate for the first 100 batches.
The C program of 2018 compares -1 with an unsigned count, so that no step ever applies: it trains at the full rate from
the first batch. This trains a narrow yolov2-tiny on made images both ways and prints the objectness in the slots
of the truths. The logistic's gradient is part of the delta, so an objectness that has fallen to 0 hardly comes back.
Not every start falls so far: of the seeds 0, 1 and 2 the first stays there, the second lags behind, the third does not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from darknet_compat.cfg import parse_cfg
from darknet_compat.network import Network
from darknet_compat.train.batch import Batch
from darknet_compat.train.step import Trainer

WIDTHS = (8, 16, 32, 64, 64, 128)  # yolov2-tiny has 16 to 1024
POOLS = 3  # 104 pixels -> 13 x 13 cells, as yolov2-tiny has at 416

SIZE, BATCH, CLASSES = 104, 16, 3
POLICIES = {
    "with the warm-up": "policy=steps\nsteps=-1,100,20000,30000\nscales=.1,10,.1,.1",
    "as the program of 2018": "policy=constant",
}


def cfg_text(policy: str, rate: float) -> str:
    text = (
        f"[net]\nwidth={SIZE}\nheight={SIZE}\nchannels=3\nbatch={BATCH}\nsubdivisions=1\nmomentum=0.9\ndecay=0.0005\n"
    )
    text += f"learning_rate={rate}\n{policy}\nmax_batches=40200\n"
    for index, filters in enumerate(WIDTHS):
        text += f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
        text += "[maxpool]\nsize=2\nstride=2\n" if index < POOLS else ""
    text += f"[convolutional]\nsize=1\nfilters={5 * (5 + CLASSES)}\nactivation=linear\n"
    # The head of yolov2-tiny-voc.cfg.
    return text + (
        f"[region]\nanchors=1.08,1.19, 3.42,4.41, 6.63,11.38, 9.42,5.11, 16.62,10.52\nclasses={CLASSES}\ncoords=4\n"
        "num=5\nsoftmax=1\nrescore=1\nobject_scale=5\nnoobject_scale=1\nclass_scale=1\ncoord_scale=1\nthresh=.6\n"
        "bias_match=1\n"
    )


def make_batch(generator: torch.Generator) -> Batch:
    """Noise with one to three bright boxes an image, and their truth."""
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator) * 0.3
    truth = torch.zeros(BATCH, 30, 5)
    for image, rows in zip(images, truth, strict=True):
        for row in rows[: int(torch.randint(1, 4, (), generator=generator))]:
            w, h = (torch.rand(2, generator=generator) * 0.4 + 0.15).tolist()
            x, y = (torch.rand(2, generator=generator) * torch.tensor([1 - w, 1 - h])).tolist()
            kind = int(torch.randint(CLASSES, (), generator=generator))
            image[kind, int(y * SIZE) : int((y + h) * SIZE), int(x * SIZE) : int((x + w) * SIZE)] += 0.6
            row[:] = torch.tensor([x + w / 2, y + h / 2, w, h, kind])
    return Batch(images, truth, ())


def run(batches: int, every: int, rate: float, seed: int) -> Iterator[tuple[int, list[tuple[float, float, float]]]]:
    """Batch number, and for each of POLICIES the means since the last: objectness of truths, of all boxes, loss."""
    trainers = []
    for policy in POLICIES.values():
        torch.manual_seed(seed)
        trainers.append(Trainer(Network(parse_cfg(cfg_text(policy, rate))).start()))
    generator = torch.Generator().manual_seed(seed + 1)
    recent: list[list[tuple[float, float, float]]] = [[] for _ in trainers]
    for number in range(1, batches + 1):
        batch = make_batch(generator)
        for trainer, rows in zip(trainers, recent, strict=True):
            update = trainer.update([batch])
            [figures] = update.figures[0]
            rows.append((figures.obj, figures.no_obj, update.loss))
        if number % every == 0:
            yield number, [tuple(map(statistics.mean, zip(*rows, strict=True))) for rows in recent]
            recent = [[] for _ in trainers]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.001, help="yolov2-tiny-voc.cfg's .001 by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'batch':>6} " + " ".join(f"{name:>38}" for name in POLICIES))
    print(f"{'':6} " + " ".join(f"{'obj':>12}{'no obj':>12}{'loss':>14}" for _ in POLICIES))
    for number, means in run(options.batches, options.every, options.rate, options.seed):
        print(f"{number:6} " + " ".join(f"{obj:12.5f}{no_obj:12.5f}{loss:14.2f}" for obj, no_obj, loss in means))
    return 0


if __name__ == "__main__":
    sys.exit(main())
