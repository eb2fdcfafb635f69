"""Augmentation of whole batches where torch runs, for ``detector train -augment device``.

AlexeyAB's detectors have ``alexeyab_on_device.py``, classifiers ``crop_on_device.py``. The processes that load images
then only decode them. They leave the bytes of a batch one image after another, and say of each column and row of the
network's input which bytes it is mixed of. The rest of Darknet's loaders is done here for all images at once, and
agrees with ``augment.py`` within 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..device import numbers_like
from ..images import GREY
from .augment import Draws, sources

OUTSIDE = -1  # the index of a column or row that the image does not reach


def lay_out(memory: np.ndarray, *kinds: tuple[Any, Sequence[tuple[int, ...]]]) -> list[np.ndarray]:
    """Arrays of kinds and shapes in ``memory``, uint8 (bytes,), one behind the other; the rest is uint8 (most, 3)."""
    parts: list[np.ndarray] = []
    offset = 0
    for kind, shapes in kinds:
        for shape in shapes:
            parts.append(np.frombuffer(memory, kind, math.prod(shape), offset).reshape(shape))
            offset += parts[-1].nbytes
    most = (len(memory) - offset) // 3
    return [*parts, memory[offset : offset + 3 * most].reshape(most, 3)]


class Decoded(NamedTuple):
    """Memory for a batch of n decoded images, for an input of w x h."""

    used: np.ndarray
    """int64 (1,): how many of the ``pixels`` are filled."""
    columns: np.ndarray
    """int64 (n, w, 2): of which two columns of its image each column is mixed; or OUTSIDE."""
    rows: np.ndarray
    """int64 (n, h, 2): the same for rows, each as the number of its first pixel in ``pixels``; or OUTSIDE."""
    across: np.ndarray
    """float32 (n, w, 2): the columns' shares."""
    down: np.ndarray
    """float32 (n, h, 2): the rows' shares."""
    colours: np.ndarray
    """float32 (n, 3): what is added to the hue, in turns; factors of saturation and exposure."""
    pixels: np.ndarray
    """uint8 (most, 3): the images' RGB, row after row, image after image."""

    @classmethod
    def within(cls, memory: np.ndarray, n: int, w: int, h: int) -> Decoded:
        """Lay it out in ``memory``, uint8 (bytes,), of which at least :func:`room` bytes are there."""
        parts = lay_out(memory, (np.int64, [(1,), (n, w, 2), (n, h, 2)]), (np.float32, [(n, w, 2), (n, h, 2), (n, 3)]))
        return cls(*parts)

    def put(self, i: int, image: np.ndarray, draws: Draws) -> None:
        """Write image i, uint8 (H, W, 3), behind those before it."""
        (_, w, _), h, (height, width, _) = self.columns.shape, self.rows.shape[1], image.shape
        first = int(self.used[0]) if i else 0
        self.used[0] = first + height * width
        self.pixels[first : first + height * width] = image.reshape(-1, 3)
        where = sources((width, height), draws, (w, h))
        self.columns[i], self.rows[i] = OUTSIDE, OUTSIDE
        self.columns[i, where.x], self.across[i, where.x] = where.columns
        self.rows[i, where.y], self.down[i, where.y] = where.rows.index * width + first, where.rows.weight
        self.colours[i] = draws.hue, draws.saturation, draws.exposure


def room(n: int, w: int, h: int, pixels: int) -> int:
    """Bytes that :class:`Decoded` needs for n images of up to so many ``pixels`` each."""
    return 8 + n * (24 * (w + h) + 12 + 3 * pixels)


def augment(decoded: Decoded, device: torch.device | str) -> Tensor:
    """Place, distort and flip a batch: float32 (n, 3, h, w), 0..1, on ``device``."""
    filled = decoded._replace(pixels=decoded.pixels[: int(decoded.used[0])])
    _, columns, rows, across, down, colours, pixels = (
        torch.from_numpy(part).to(device, non_blocking=True) for part in filled
    )
    columns, rows = columns[:, None], rows[:, :, None]
    inside = (rows[..., 0] != OUTSIDE) & (columns[..., 0] != OUTSIDE)
    mixed = pixels.new_zeros((*inside.shape, 3), dtype=torch.float32)
    for i in range(2):
        line = torch.zeros_like(mixed)
        for j in range(2):
            index = (rows[..., i] + columns[..., j]).clamp_min_(0)
            line += across[:, None, :, j, None] * pixels[index]
        mixed += down[:, :, None, i, None] * line
    planes = torch.where(inside[..., None], mixed / 255, GREY).permute(0, 3, 1, 2).contiguous()
    return distort(planes, *colours[:, :, None, None].unbind(1))


def distort(planes: Tensor, hue: Tensor, saturation: Tensor, exposure: Tensor) -> Tensor:
    """``distort_image`` on RGB planes (n, 3, h, w), with a hue, saturation and exposure (n, 1, 1) for each image.

    The way back from HSV is V - V*S*max(0, min(k, 4 - k, 1)), k = (5, 3 or 1 + 6*H) mod 6, for red, green and blue.
    """
    r, g, b = planes.unbind(1)
    value = planes.amax(1)
    delta = value - planes.amin(1)
    divisor = torch.where(delta > 0, delta, 1)
    six = torch.where(
        r == value, (g - b) / divisor, torch.where(g == value, 2 + (b - r) / divisor, 4 + (r - g) / divisor)
    )
    chroma = exposure * saturation * delta  # V * S
    value, six = exposure * value, six + 6 * hue
    shift = numbers_like(planes, 5.0, 3.0, 1.0).view(1, 3, 1, 1)
    k = (six[:, None] + shift).remainder(6)
    part = torch.minimum(k, 4 - k).clamp(0, 1)
    return (value[:, None] - chroma[:, None] * part).clamp_(0, 1)
