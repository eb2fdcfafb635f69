"""[net]: the picture's size, and how training goes. Source: ``src/parser.c, parse_net_options``.

It makes no layer; it only says what all layers and the training share.
"""

from __future__ import annotations

from types import SimpleNamespace

from ..cfg import Section
from .base import Shape

OPTIONS: dict[str, object] = {
    "batch": 1,
    "learning_rate": 0.001,
    "momentum": 0.9,
    "decay": 0.0001,
    "subdivisions": 1,
    "time_steps": 1,
    "notruth": 0,
    "random": 0,
    "adam": 0,
    "B1": 0.9,
    "B2": 0.999,
    "eps": 0.0000001,
    "height": 0,
    "width": 0,
    "channels": 0,
    "inputs": int,
    "max_crop": int,
    "min_crop": int,
    "max_ratio": float,
    "min_ratio": float,
    "center": 0,
    "clip": 0.0,
    "angle": 0.0,
    "aspect": 1.0,
    "saturation": 1.0,
    "exposure": 1.0,
    "hue": 0.0,
    "policy": "constant",
    "burn_in": 0,
    "power": 4.0,
    "step": 1,
    "scale": 1.0,
    "steps": [int],
    "scales": [float],
    "gamma": 1.0,
    "max_batches": 0,
    # The next two are AlexeyAB's; the defaults are what pjreddie's program does.
    "flip": 1,
    "letter_box": 1,
}


def read_net(section: Section) -> tuple[SimpleNamespace, Shape]:
    """The options of [net], and the shape of the network's input.

    ``mini_batch`` is images per forward pass of training: batch / subdivisions, times ``time_steps``.
    """
    o = section.read(OPTIONS)
    for name in ("batch", "subdivisions", "time_steps"):
        if getattr(o, name) < 1:
            raise section.error(f"{name} is {getattr(o, name)}; expected 1 or more", name)
    for name in ("height", "width", "channels"):
        if getattr(o, name) < 0:
            raise section.error(f"{name} is {getattr(o, name)}; expected 1 or more", name)
    o.mini_batch = o.batch // o.subdivisions * o.time_steps
    if o.height and o.width and o.channels:
        return o, Shape(o.channels, o.height, o.width)
    if o.inputs and o.inputs > 0:
        return o, Shape(o.inputs, 1, 1)
    raise section.error("[net] gives no input size; expected width, height and channels, or inputs")
