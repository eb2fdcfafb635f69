"""[crop]: a part of the image, with its values from 0..1 to -1..1.

Source: ``src/crop_layer.c``, ``src/crop_layer_kernels.cu``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cfg import Section
from .base import Layer, Place, Shape, register


@register("crop")
class Crop(Layer):
    """The middle of the image in inference; in training one random place, and mirroring, for a whole mini-batch.

    Training follows the CPU's code, which passes over ``angle``, ``saturation``, ``exposure`` and ``shift``.
    """

    options = {
        "crop_height": 1,
        "crop_width": 1,
        "flip": 0,
        "angle": 0.0,
        "saturation": 1.0,
        "exposure": 1.0,
        "shift": 0.0,
        "noadjust": 0,
    }

    def __init__(self, section: Section, place: Place) -> None:
        super().__init__(section, place)
        self.numerics = place.numerics
        self.built = self.input

    def find_sources(self, place: Place) -> tuple[int, ...]:
        if place.index:
            raise self.section.error("[crop] passes no gradient back; expected it to be the first layer, or none")
        return (-1,)

    def shape(self) -> Shape:
        o, (c, h, w) = self.o, self.input
        for name in ("crop_height", "crop_width"):
            self.at_least(name, 1)
        height, width = o.crop_height, o.crop_width
        if self.input != getattr(self, "built", self.input):
            # resize_crop_layer: both sides by the share that the height has in the cfg.
            scale = torch.tensor(o.crop_height / self.built.h)  # float32, as there
            height, width = int(scale * h), int(scale * w)
        if height > h or width > w:
            raise self.section.error(f"a crop of {width} x {height} does not fit into an image of {w} x {h}")
        return Shape(c, height, width)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width = self.output
        down, across = x.shape[2] - height, x.shape[3] - width
        if self.training:
            top, left, mirror = (int(torch.randint(most, ())) for most in (down + 1, across + 1, 2))
            if self.o.flip and mirror:
                x = x.flip(3)
            x = x[:, :, top : top + height, left : left + width]
        else:
            x = x[:, :, down // 2 :, across // 2 :]
            # Half a pixel lies between two pixels: the CPU takes the first, the GPU the mean of both.
            odd = (down % 2, across % 2) if self.numerics != "cpu" else (0, 0)
            x = x[:, :, : height + odd[0], : width + odd[1]]
            if any(odd):
                x = F.avg_pool2d(x, (1 + odd[0], 1 + odd[1]), 1)
        return x if self.o.noadjust else 2 * x - 1

    def row(self) -> str:
        (c, h, w), (_, height, width) = self.input, self.output
        return f"Crop Layer: {h} x {w} -> {height} x {width} x {c} image"
