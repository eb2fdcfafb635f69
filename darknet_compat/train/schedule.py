"""The learning rate of each update, and the image size of ``random=1``.

Source: ``src/network.c, get_current_rate, get_current_batch``; ``examples/detector.c, train_detector``;
``examples/classifier.c, train_classifier``.

Batches are numbered by the images seen, those of the current update included: the first update of a fresh training is
batch 1.
"""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..cfg import Section
from ..layers.net import ALEXEYAB_POLICY
from ..network import Network
from ..program import ALEXEYAB
from .augment import draw_scale

POLICIES = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random")
PI = 3.14159265  # as AlexeyAB's sgdr has it


class Resizing(NamedTuple):
    """How ``random=1`` draws the side of the images, which are square."""

    sizes: range
    every: int
    """Updates from one drawing to the next."""
    last: int
    """So many batches before the end the side is the largest."""

    def largest(self, net: SimpleNamespace) -> tuple[int, int]:
        return self.sizes[-1], self.sizes[-1]

    def most_images(self, net: SimpleNamespace) -> int:
        """:meth:`images` gives no more."""
        count: int = net.mini_batch
        return count

    def images(self, net: SimpleNamespace, size: tuple[int, int]) -> int:
        """Those of a mini-batch of that size."""
        count: int = net.mini_batch
        return count

    def size(self, net: SimpleNamespace, seed: int, update: int, batch: int) -> tuple[int, int]:
        """Width and height from update ``update`` on, which follows batch number ``batch``."""
        if batch + self.last > net.max_batches:
            return self.largest(net)
        side = draw(seed, "size", update).choice(self.sizes)
        return side, side

    def line(self, net: SimpleNamespace, size: tuple[int, int]) -> str:
        """What the C program prints."""
        return f"Resizing\n{size[0]}"


class Scaling(NamedTuple):
    """How AlexeyAB's ``random`` does it (``src/detector.c``, train_detector): the cfg's sides times a factor."""

    factor: float
    """The most; its inverse is the least."""
    every: int = 10
    last: int = 100

    def largest(self, net: SimpleNamespace) -> tuple[int, int]:
        return self._scaled(net, self.factor)

    def size(self, net: SimpleNamespace, seed: int, update: int, batch: int) -> tuple[int, int]:
        """As :meth:`Resizing.size`. The first is the largest, to see whether there is memory for it."""
        if update == 0 or batch > net.max_batches - self.last:
            return self.largest(net)
        factor = _float(draw_scale(draw(seed, "size", update), _float(self.factor)))
        w, h = self._scaled(net, factor)
        if factor < 1 and (w > net.width or h > net.height):
            return net.width, net.height
        return w, h

    def _scaled(self, net: SimpleNamespace, factor: float) -> tuple[int, int]:
        step = net.resize_step
        w, h = (math.floor(_float(_float(factor) * side / step + 1) + 0.5) * step for side in (net.width, net.height))
        return int(max(w, step)), int(max(h, step))

    def most_images(self, net: SimpleNamespace) -> int:
        return self._filling(net, self._scaled(net, 1 / self.factor)) if net.dynamic_minibatch else net.mini_batch

    def images(self, net: SimpleNamespace, size: tuple[int, int]) -> int:
        """As :meth:`Resizing.images`; with ``dynamic_minibatch`` as many as fill the memory of the largest size."""
        usual: int = net.mini_batch
        if not net.dynamic_minibatch:
            return usual
        count = self._filling(net, size)
        return fewer if (fewer := int(count * 0.8)) > usual else count

    def _filling(self, net: SimpleNamespace, size: tuple[int, int]) -> int:
        """As many as take the memory of a usual mini-batch of the largest size."""
        w, h = self.largest(net)
        count: int = net.mini_batch * w * h // (size[0] * size[1])
        return count

    def line(self, net: SimpleNamespace, size: tuple[int, int]) -> str:
        batch = f" (batch = {self.images(net, size)}) " if net.dynamic_minibatch else ""
        return f"Resizing, random_coef = {self.factor:.2f} \n\n {size[0]} x {size[1]} {batch}"


DETECTION = Resizing(range(320, 609, 32), 10, 200)  # rand() % 10 + 10, times 32
CLASSIFICATION = Resizing(range(128, 449, 32), 40, 0)  # rand() % 11 + 4, times 32
USUAL_FACTOR = 1.4  # of AlexeyAB's random=1


def drawn_sizes(network: Network) -> float:
    """``random``, by which images get a new size now and then; 0 where they keep the cfg's."""
    if not network.detectors:
        return float(getattr(network.net, "random", 0))  # AlexeyAB's [net] has none
    head = network.heads[-1]
    # One that takes no other size means something else by it ([detection]).
    return float(getattr(head.o, "random", 0)) if head.resizable else 0.0


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

    policies = (*POLICIES, ALEXEYAB_POLICY) if net.program == ALEXEYAB else POLICIES
    if net.policy not in policies:
        raise section.error(f"no policy is called `{net.policy}`; expected one of {', '.join(policies)}", "policy")
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
                f"steps={steps.value} holds a percentage, but Darknet reads only its number; expected batches, "
                f"up to the {net.max_batches} of max_batches",
                "steps",
            )
        if len(net.steps) != len(net.scales):
            raise section.error(
                f"{len(net.scales)} scales for {len(net.steps)} steps; expected one scale for each step", "scales"
            )
    if net.policy == ALEXEYAB_POLICY:
        for name, value in (("sgdr_cycle", _cycle(net)), ("sgdr_mult", net.sgdr_mult)):
            if value < 1:
                raise section.error(f"{name} is {value}; expected 1 or more", name)
    if net.policy == "step" and net.step < 1:
        raise section.error(f"step is {net.step}; expected 1 or more batches", "step")
    if images_per_update(net) == 1:
        section.warn(
            "one image per update, as in a cfg for detection, rarely trains well; expected something like "
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
    if net.policy == ALEXEYAB_POLICY:
        start, cycle = 0, _cycle(net)
        while start + cycle < batch:
            start, cycle = start + cycle, cycle * net.sgdr_mult
        least = _float(net.learning_rate_min)
        return _float(least + 0.5 * (rate - least) * (1 + math.cos(_float(batch - start) * PI / cycle)))
    if net.policy == "random":
        return rate * _power(_float(random), power)
    if net.policy == "sigmoid":
        with np.errstate(over="ignore"):
            return float(rate / (1 + np.exp(np.float64(_float(_float(net.gamma) * (batch - net.step))))))
    return rate


def _cycle(net: SimpleNamespace) -> int:
    """Batches of the first cycle of AlexeyAB's ``policy=sgdr``."""
    cycle: int = net.max_batches if net.sgdr_cycle is None else net.sgdr_cycle
    return cycle


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
