"""``antialiasing`` of [convolutional] and [maxpool]: the layer runs with stride 1, then a fixed blur takes its strides.

Source: AlexeyAB's ``src/convolutional_layer.c, make_convolutional_layer`` and ``src/maxpool_layer.c``. The blur has no
numbers in a .weights file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import numbers_like
from .base import Shape

MEAN = 2  # antialiasing=2; every other number but 0 is the binomial blur


def blur_size(antialiasing: int) -> tuple[int, int]:
    """Side and padding of the kernel."""
    return (2, 0) if antialiasing == MEAN else (3, 1)


def blurred_shape(shape: Shape, antialiasing: int, strides: tuple[int, int]) -> Shape:
    """What is left of a map; ``strides`` go down and across."""
    size, padding = blur_size(antialiasing)
    c, *sides = shape
    return Shape(c, *((side + 2 * padding - size) // stride + 1 for side, stride in zip(sides, strides, strict=True)))


def blur_kernel(antialiasing: int, channels: int, like: Tensor) -> Tensor:
    """(channels, 1, side, side): the weights of a convolution with as many groups, for maps ``like`` this one."""
    row = numbers_like(like, *([0.5, 0.5] if antialiasing == MEAN else [0.25, 0.5, 0.25]))
    return torch.outer(row, row).expand(channels, 1, -1, -1)


def blur(x: Tensor, antialiasing: int, strides: tuple[int, int]) -> Tensor:
    """``x`` (N, c, h, w) blurred, of which every ``strides``-th place is left."""
    c = x.shape[1]
    kernel = blur_kernel(antialiasing, c, x)
    return F.conv2d(x, kernel, None, strides, blur_size(antialiasing)[1], 1, c)
