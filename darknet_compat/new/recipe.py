"""From a cfg that comes along to one for a person's own classes, and for as long as they can wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..anchors import cfg_line
from ..cfg import Cfg, Option, Section
from ..errors import CfgError

# AlexeyAB's rule (his README, "How to train"): updates for each class, and at the least; where the rate falls.
PER_CLASS, LEAST = 2000, 6000
STEPS = 0.8, 0.9
BURN_IN = 1000
# Values of a box in the map: x, y, w, h, objectness; [Gaussian_yolo] has how sure it is of the first four, too.
PER_BOX = {"yolo": 5, "region": 5, "Gaussian_yolo": 9}


class Schedule(NamedTuple):
    """How long to train."""

    batch: int
    subdivisions: int
    max_batches: int
    burn_in: int


def updates(classes: int, images: int) -> int:
    """How many updates AlexeyAB's rule asks for: 2,000 a class, at least 6,000 and one for each training image."""
    return max(PER_CLASS * classes, LEAST, images)


def schedule(batch: int, subdivisions: int, max_batches: int) -> Schedule:
    """A schedule of so many updates; it warms up in its first 20th, and in 1,000 updates at the most."""
    return Schedule(batch, subdivisions, max_batches, min(BURN_IN, max(1, max_batches // 20)))


def detection_heads(cfg: Cfg) -> list[int]:
    """Indices among ``cfg.sections`` of the heads. Raises :class:`CfgError` where no others can be made from it."""
    heads = [index for index, section in enumerate(cfg.sections) if section.type in PER_BOX]
    if not heads:
        raise CfgError(
            f"{cfg.file}: no [yolo] and no [region]; expected the cfg of such a network, as cfg/yolov4-tiny.cfg"
        )
    for index in heads:
        if cfg.sections[index - 1].type != "convolutional":
            raise cfg.sections[index - 1].error(
                f"[{cfg.sections[index].type}] stands behind it; expected a [convolutional], whose filters= change "
                "with the classes"
            )
    return heads


def own_cfg(cfg: Cfg, classes: int, size: tuple[int, int], plan: Schedule, most: int, why: Sequence[str] = ()) -> Cfg:
    """``cfg`` for another number of classes, with input ``size`` (width, height) and schedule.

    ``most``: objects in an image, of which Darknet trains the first ``max``. ``why``: lines of the comment above it.
    Anchors come later (:func:`with_anchors`), as they need the network's strides.
    """
    sections = list(cfg.sections)
    net = _given(
        sections[0], batch=plan.batch, subdivisions=plan.subdivisions, width=size[0], height=size[1],
        max_batches=plan.max_batches, burn_in=plan.burn_in,
    )  # fmt: skip
    policy = net.find("policy")
    if policy is not None and policy.value == "steps":
        net = _given(net, steps=",".join(str(int(share * plan.max_batches)) for share in STEPS), scales=".1,.1")
    # The template's comment speaks of the template.
    sections[0] = replace(net, above=(*(f"# {line}" for line in why), ""))
    for index in detection_heads(cfg):
        head = _given(sections[index], classes=classes)
        if most > _number(head, "max", 30):
            head = _given(head, max=most)
        boxes = _number(head, "num", 1)
        mask = head.find("mask")
        if mask is not None:
            boxes = len(mask.value.split(","))
        sections[index - 1] = _given(sections[index - 1], filters=boxes * (classes + PER_BOX[head.type]))
        # Sizes are drawn around the input's for a GPU's time; a random= of a stock cfg would take them up to 608.
        sections[index] = _given(head, random=0) if head.find("random") else head
    return replace(cfg, sections=tuple(sections))


def with_anchors(cfg: Cfg, anchors: np.ndarray, stride: int | None) -> Cfg:
    """``cfg`` with ``anchors`` (num, 2), pixels of its input; its heads have them so, or in cells of ``stride``."""
    text = cfg_line(anchors, stride).split("=", 1)[1].strip().replace(" ", "")
    sections = list(cfg.sections)
    for index in detection_heads(cfg):
        sections[index] = _given(sections[index], anchors=text)
    return replace(cfg, sections=tuple(sections))


def clusters(cfg: Cfg) -> int:
    """How many anchors its heads share."""
    return max(_number(cfg.sections[index], "num", 1) for index in detection_heads(cfg))


def input_size(boxes: np.ndarray, sizes: Sequence[int], least: float = 8.0, share: float = 0.1) -> int:
    """The smallest of ``sizes`` at which at most ``share`` of ``boxes`` have a side under ``least`` pixels.

    Where none is, the largest. ``boxes``: (n, 2) widths and heights, relative to the input.
    """
    return next((size for size in sizes if (boxes.min(1) * size < least).mean() <= share), sizes[-1])


def _number(section: Section, name: str, default: int) -> int:
    option = section.find(name)
    return default if option is None else int(float(option.value))


def _given(section: Section, **values: object) -> Section:
    """The section with these options, which it may not have given before."""
    for name, value in values.items():
        if section.find(name):
            section = section.with_option(name, str(value))
        else:
            option = Option(name, str(value), section.file, section.line, f"{name}={value}")
            section = replace(section, options=(*section.options, option))
    return section
