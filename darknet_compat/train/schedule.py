"""The learning rate of each update, and the image size of ``random=1``.

Source: ``src/network.c, get_current_rate, get_current_batch``; ``examples/detector.c, train_detector``;
``examples/classifier.c, train_classifier``.

Batches are numbered by the images seen, those of the current update included: the first update of a fresh training is
batch 1.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..cfg import Section

POLICIES = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random")


class Resizing(NamedTuple):
    """How ``random=1`` draws the side of the images."""

    sizes: range
    every: int
    """Updates from one drawing to the next."""
    last: int
    """So many batches before the end the side is the largest."""


DETECTION = Resizing(range(320, 609, 32), 10, 200)  # rand() % 10 + 10, times 32
CLASSIFICATION = Resizing(range(128, 449, 32), 40, 0)  # rand() % 11 + 4, times 32


def images_per_update(net: SimpleNamespace) -> int:
    """What one update takes: ``batch`` times ``time_steps``, but for what ``subdivisions`` does not divide."""
    images: int = net.mini_batch * net.subdivisions
    return images


def batch_number(net: SimpleNamespace, seen: int) -> int:
    """``get_current_batch``: ``seen`` counts images, those of the current update included."""
    return seen // images_per_update(net)


def check_schedule(net: SimpleNamespace, section: Section) -> None:
    """Raise :class:`CfgError` at the line of [net] that no learning rate can be computed from.

    Darknet takes an unknown policy for constant, reads past a list of scales that is too short, divides by zero, and
    takes 80% for batch 80. A cfg with one image per update is warned of.
    """

    if net.policy not in POLICIES:
        raise section.error(f"no policy is called `{net.policy}`; expected one of {', '.join(POLICIES)}", "policy")
    if net.mini_batch < 1:
        message = f"batch={net.batch} leaves under one image for each of {net.subdivisions} subdivisions"
        raise section.error(f"{message}; expected {net.batch} or fewer", "subdivisions")
    if net.max_batches < 1:
        raise section.error(f"max_batches is {net.max_batches}: nothing to train; expected 1 or more", "max_batches")
    if net.policy == "steps":
        for name in ("steps", "scales"):
            if not getattr(net, name):
                raise section.error(f"policy=steps without `{name}`; expected steps=... and scales=...", "policy")
        steps = section.find("steps")
        if steps and "%" in steps.value:
            raise section.error(
                f"steps={steps.value} holds a percentage, of which Darknet reads the number alone; expected batches, "
                f"up to the {net.max_batches} of max_batches",
                "steps",
            )
        if len(net.steps) != len(net.scales):
            raise section.error(
                f"{len(net.scales)} scales for {len(net.steps)} steps; expected one scale for each step", "scales"
            )
    if net.policy == "step" and net.step < 1:
        raise section.error(f"step is {net.step}; expected 1 or more batches", "step")
    if images_per_update(net) == 1:
        section.warn(
            "one image per update, as a cfg for detection says it, rarely trains well; expected something like "
            "batch=64 and subdivisions=8",
            "batch",
        )


def current_rate(net: SimpleNamespace, batch: int, random: float = 0.0) -> float:
    """The learning rate of batch number ``batch``, as ``get_current_rate`` means it.

    ``random`` is the number from 0 to 1 that ``policy=random`` draws. Numbers are rounded to 32 bits where the C
    program has a float, so that both agree to 1e-6 even where a power magnifies the rounding.

    One difference, on purpose: ``steps`` and ``sigmoid`` compare with negative numbers as they are meant. The C program
    compares without sign, so that ``steps=-1,...`` keeps its first rate for ever, and a sigmoid's rate is 0 up to
    ``step`` (docs/DIFFERENCES.md).
    """
    rate, power = _float(net.learning_rate), _float(net.power)
    if batch < net.burn_in:
        return rate * _power(_float(batch / net.burn_in), power)
    if net.policy == "step":
        return rate * _power(_float(net.scale), batch // net.step)
    if net.policy == "steps":
        for step, scale in zip(net.steps, net.scales, strict=True):
            if step > batch:
                break
            rate *= _float(scale)
        return rate
    if net.policy == "exp":
        return rate * _power(_float(net.gamma), batch)
    if net.policy == "poly":
        # Several processes may step over max_batches: the rate is 0 there, not the power of a negative number.
        return rate * _power(max(0.0, _float(1 - _float(batch / net.max_batches))), power)
    if net.policy == "random":
        return rate * _power(_float(random), power)
    if net.policy == "sigmoid":
        with np.errstate(over="ignore"):
            return float(rate / (1 + np.exp(np.float64(_float(_float(net.gamma) * (batch - net.step))))))
    return rate


def _power(base: float, exponent: float) -> float:
    """C's pow: infinity and NaN where Python's ``**`` raises."""
    with np.errstate(all="ignore"):
        return float(np.power(np.float64(base), exponent))


def _float(value: float) -> float:
    """``value`` as a C float holds it."""
    return float(np.float32(value))


def draw(seed: int, what: str, number: int) -> random.Random:
    """Random numbers for the update ``number``: a function of the seed, so that a resumed training draws the same."""
    return random.Random(f"{what} {seed} {number}")


def image_size(resizing: Resizing, net: SimpleNamespace, seed: int, update: int, batch: int) -> int:
    """Width and height for ``random=1`` from update ``update`` on, which follows batch number ``batch``."""
    if batch + resizing.last > net.max_batches:
        return resizing.sizes[-1]
    return draw(seed, "size", update).choice(resizing.sizes)
