"""Augmentation of whole batches of a classifier's images where torch runs.

As in ``on_device.py``, the processes that load images then only decode them: here they leave their bytes, one image
after another, and say which place of its image each pixel of the input is read at. The rest is done for all images at
once, and agrees with ``crop_augment.py`` within 1e-5.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..images import Rotation, rotated_axes
from .crop_augment import CropDraws, Patch
from .on_device import distort, lay_out


class DecodedCrops(NamedTuple):
    """Memory for up to m decoded images, of which squares of ``size`` pixels are cut."""

    used: np.ndarray
    """int64 (2,): how many images are there, and how many of the ``pixels`` are filled."""
    images: np.ndarray
    """int64 (m, 4): the number of its sample, its first pixel in ``pixels``, its width and height."""
    patches: np.ndarray
    """int64 (m, 4): left, top, right and bottom of what is seen of the square."""
    columns: np.ndarray
    """float64 (m, size, 2): what each column adds to the place that is read, and ``rows`` each row (rotated_axes)."""
    rows: np.ndarray
    opacities: np.ndarray
    """float32 (m,): of the patch."""
    colours: np.ndarray
    """float32 (m, 3): what is added to the hue, in turns; factors of saturation and exposure."""
    pixels: np.ndarray
    """uint8 (most, 3): the images' RGB, row after row, image after image."""

    @classmethod
    def within(cls, memory: np.ndarray, m: int, size: int) -> DecodedCrops:
        """Lay it out in ``memory``, uint8 (bytes,), of which at least :func:`room` bytes are there."""
        integers, axes = [(2,), (m, 4), (m, 4)], [(m, size, 2), (m, size, 2)]
        return cls(*lay_out(memory, (np.int64, integers), (np.float64, axes), (np.float32, [(m,), (m, 3)])))

    def put(self, sample: int, image: np.ndarray, draws: CropDraws, patch: Patch) -> bool:
        """Write an image, uint8 (h, w, 3), of sample number ``sample`` of the batch behind those before it.

        Samples come in their order, each with its ground first. False where there is no room for it.
        """
        i, first = self.used.tolist()
        height, width, _ = image.shape
        last = first + height * width
        if last > len(self.pixels):
            return False
        self.used[:] = i + 1, last
        self.pixels[first:last] = image.reshape(-1, 3)
        self.images[i] = sample, first, width, height
        self.patches[i], self.opacities[i] = patch[:4], patch.opacity
        rotation = cast(Rotation, draws.rotation)  # the data set refuses the middle square
        self.columns[i], self.rows[i] = rotated_axes((width, height), rotation, draws.flip)
        self.colours[i] = draws.hue, draws.saturation, draws.exposure
        return True


def room(m: int, size: int, pixels: int) -> int:
    """Bytes that :class:`DecodedCrops` needs for m images of so many ``pixels`` in all."""
    return 16 + m * (64 + 32 * size + 16) + 3 * pixels


def augment(decoded: DecodedCrops, n: int, device: torch.device | str) -> Tensor:
    """Cut out, distort, flip and mix a batch of n samples: float32 (n, 3, size, size), 0..1, on ``device``."""
    m, used = decoded.used.tolist()
    filled = *(part[:m] for part in decoded[1:-1]), decoded.pixels[:used]
    images, patches, columns, rows, opacities, colours, pixels = (
        torch.from_numpy(part).to(device, non_blocking=True) for part in filled
    )
    planes = distort(_cut(images, columns, rows, pixels), *colours[:, :, None, None].unbind(1))
    if m == n:
        return planes
    at = torch.arange(columns.shape[1], device=planes.device)
    left, top, right, bottom = patches[:, :, None].unbind(1)
    down, across = (at >= top) & (at < bottom), (at >= left) & (at < right)
    seen = opacities[:, None, None] * (down[:, :, None] & across[:, None])
    owner = images[:, 0].contiguous()
    ground = planes[torch.searchsorted(owner, torch.arange(n, device=owner.device))]  # the first of each sample
    # Patches of one sample do not overlap, and its ground differs from itself by nothing.
    return ground.index_add(0, owner, seen[:, None] * (planes - ground[owner]))


def _cut(images: Tensor, columns: Tensor, rows: Tensor, pixels: Tensor) -> Tensor:
    """``rotate_crop_image`` of each image: float32 (m, 3, size, size), 0..1."""
    first, width, height = images[:, 1:, None, None].unbind(1)
    x, y = ((columns[:, None, :, axis] + rows[:, :, None, axis]).float() for axis in range(2))
    left, top = x.floor(), y.floor()
    mixed = pixels.new_zeros((*x.shape, 3), dtype=torch.float32)
    for i in range(2):
        row = (top + i).long()
        down = ((y - top) if i else (1 - (y - top))) * ((row >= 0) & (row < height))
        line = first + row.clamp_min(0).minimum(height - 1) * width
        for j in range(2):
            column = (left + j).long()
            across = ((x - left) if j else (1 - (x - left))) * ((column >= 0) & (column < width))
            index = line + column.clamp_min(0).minimum(width - 1)
            mixed += (down * across)[..., None] * pixels[index]
    return (mixed / 255).permute(0, 3, 1, 2)
