"""AlexeyAB's augmentation of whole batches of a detector's images where torch runs.

As in ``on_device.py``, the processes that load images then only decode them: here they leave their bytes, one image
after another, and say of each column and row of the input which bytes it is mixed of. The rest is done for all images
at once, in integers and by OpenCV's own rules. So it gives the bytes of ``alexeyab_augment.py``. Where OpenCV rounds
colours otherwise, they differ by one of 255: in the last columns of a width that is no multiple of 32, and on a
processor without instructions that multiply and add at once (FMA).

Each image takes its whole size in the loader's memory, and on the way up to 66 bytes of the device's for each pixel of
the input. All of these are free again before the network runs.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from .alexeyab_augment import HUES, Stretched, blur_of, mean_colour, noise_of
from .on_device import lay_out

ONE = 2048  # OpenCV's shares of the two pixels that one is mixed of: INTER_RESIZE_COEF_SCALE
TURN = 180  # hue in bytes
PLAIN = np.array([0, 1, 1], np.float32)  # colours that say: as they are
NONE = -1


class Layout(NamedTuple):
    """What memory is laid out for."""

    samples: int
    images: int
    """The most of all samples."""
    w: int
    """Of the input."""
    h: int
    boxes: int
    """The most of an image that a blur leaves sharp."""
    noise: bool

    def kinds(self) -> list[tuple[Any, list[tuple[int, ...]]]]:
        """Kinds and shapes of all of :class:`Decoded` but the pixels."""
        n, m, w, h, boxes, noise = self
        integers: list[tuple[int, ...]] = [(2,), (n, 2), (n, 4), (n,), (m, w, 2), (m, h, 2), (m, 2), (m, boxes, 4)]
        return [
            (np.int64, integers), (np.int32, [(m, w, 2), (m, h, 2)]), (np.float32, [(m, 3)]),
            (np.uint8, [(m if noise else 0, h, w, 3)]),
        ]  # fmt: skip


class Decoded(NamedTuple):
    """Memory for n samples of up to m decoded images, for an input of w x h."""

    used: np.ndarray
    """int64 (2,): how many images are there, and how many of the ``pixels`` are filled."""
    cuts: np.ndarray
    """int64 (n, 2): the column and row at which a mosaic's images meet; the input's sides where it is none."""
    origins: np.ndarray
    """int64 (n, 4): of each corner's image, what is added to a pixel's number in the sample to give its number in all
    stretched images."""
    others: np.ndarray
    """int64 (n,): the image that is mixed with the first one, or NONE."""
    columns: np.ndarray
    """int64 (m, w, 2): of which two columns of its image each column is mixed."""
    rows: np.ndarray
    """int64 (m, h, 2): the same for rows, each as the number of its first pixel in ``pixels``."""
    blurs: np.ndarray
    """int64 (m, 2): the kernel, 0 for none, and how many boxes stay sharp."""
    boxes: np.ndarray
    """int64 (m, most, 4): their left, top, right and bottom."""
    across: np.ndarray
    """int32 (m, w, 2): the columns' shares, of ONE."""
    down: np.ndarray
    """int32 (m, h, 2): the rows' shares."""
    colours: np.ndarray
    """float32 (m, 3): what is added to the hue, in bytes; factors of saturation and exposure."""
    noise: np.ndarray
    """uint8 (m, h, w, 3): what is added to a stretched image; of no images where there is no noise."""
    pixels: np.ndarray
    """uint8 (most, 3): the images' RGB, row after row, image after image. Behind each row and below the last one is
    the image's mean, which is seen beyond its edges."""

    @classmethod
    def within(cls, memory: np.ndarray, layout: Layout) -> Decoded:
        """Lay it out in ``memory``, uint8 (bytes,), of which at least :func:`room` bytes are there."""
        return cls(*lay_out(memory, *layout.kinds()))

    def put(self, sample: int, place: int, stretched: Stretched) -> bool:
        """Write an image behind those before it: number ``place`` of those of a sample. False where it has no room."""
        image, draws, truth, tile = stretched
        i, first = self.used.tolist()
        (height, width, _), w, h = image.shape, self.columns.shape[1], self.rows.shape[1]
        last = first + padded(width, height)
        if last > len(self.pixels):
            return False
        self.used[:] = i + 1, last
        block = self.pixels[first:last].reshape(height + 1, width + 1, 3)
        block[:height, :width] = image
        block[height] = block[:height, width] = mean_colour(image)
        columns, across = _axis(draws.left, draws.width, width, w)
        if draws.flip:
            columns, across = columns[::-1], across[::-1]
        rows, down = _axis(draws.top, draws.height, height, h)
        self.columns[i], self.across[i] = columns, across
        self.rows[i], self.down[i] = rows * (width + 1) + first, down
        self.colours[i] = HUES * np.float32(draws.hue), draws.saturation, draws.exposure
        if place == 0:
            self.cuts[sample] = (w, h) if tile is None else (tile.right, tile.bottom)
            self.others[sample] = NONE
        if tile is None and place > 0:
            self.others[sample] = i
        else:
            left, top = tile.shift if tile else (0, 0)
            self.origins[sample, place] = (i * h - top) * w - left
        kernel, boxes = blur_of(draws, truth, (w, h))
        self.blurs[i] = kernel, len(boxes)
        if kernel:
            self.boxes[i, : len(boxes)] = boxes
        if len(self.noise):
            self.noise[i] = 0
            if draws.noise:
                seen = self.noise[i] if tile is None else tile.part.of(self.noise[i])
                seen[:] = noise_of(draws, seen.shape)
        return True


def room(layout: Layout, pixels: int) -> int:
    """Bytes that :class:`Decoded` needs for so many ``pixels`` in all, as :func:`padded` counts them."""
    tables: int = sum(np.dtype(kind).itemsize * sum(map(math.prod, shapes)) for kind, shapes in layout.kinds())
    return tables + 3 * pixels


def padded(width: int, height: int) -> int:
    """Pixels of an image, with a column and a row of its mean."""
    return (width + 1) * (height + 1)


def _axis(first: int, length: int, image: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Of which two of the ``image`` pixels of its side each of ``side`` is mixed, and their shares; both (side, 2).

    They show ``length`` pixels from ``first`` on. ``image`` stands for what lies beyond. It is cv2.resize with
    INTER_LINEAR.
    """
    centres = ((np.arange(side) + 0.5) * (1.0 / (side / length)) - 0.5).astype(np.float32)
    before = np.floor(centres)
    share = centres - before
    shares = np.rint(np.stack([1 - share, share], 1) * np.float32(ONE)).astype(np.int32)
    index = first + np.clip(before.astype(np.int64)[:, None] + (0, 1), 0, length - 1)
    return np.where((index >= 0) & (index < image), index, image), shares


def augment(decoded: Decoded, device: torch.device | str) -> Tensor:
    """Stretch, flip, distort, blur and join a batch: float32 (n, 3, h, w), 0..1, on ``device``."""
    device = torch.device(device)
    m, used = decoded.used.tolist()

    def there(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part).to(device, non_blocking=True)

    columns, rows, across, down = (
        there(part[:m]) for part in (decoded.columns, decoded.rows, decoded.across, decoded.down)
    )
    planes = _stretched(columns, rows, across, down, there(decoded.pixels[:used]))
    if (decoded.colours[:m] != PLAIN).any():  # then of all images: none is drawn to stay as it is
        planes = _recoloured(planes, there(decoded.colours[:m]))
    blurred = np.flatnonzero(decoded.blurs[:m, 0])
    if len(blurred):
        kernels, counts = decoded.blurs[blurred].T
        which = there(blurred)
        boxes = there(decoded.boxes[:m])[which, : counts.max()]  # some of them would be a copy, in memory not locked
        sharp = planes[:, which]
        parts = torch.where(_inside(boxes, there(counts), *planes.shape[2:]), sharp, _blurred(sharp, kernels))
        planes = planes.index_copy(1, which, parts)
    if len(decoded.noise):
        planes = (planes + there(decoded.noise[:m]).permute(3, 0, 1, 2)).clamp_max(255)
    planes = planes.byte()
    images = _joined(planes, there(decoded.cuts), there(decoded.origins)) / 255
    mixed = np.flatnonzero(decoded.others != NONE)
    if len(mixed):
        samples, others = there(mixed), there(decoded.others[mixed])
        images = images.index_copy(0, samples, (images[samples] + planes[:, others].transpose(0, 1) / 255) * 0.5)
    return images


def _stretched(columns: Tensor, rows: Tensor, across: Tensor, down: Tensor, pixels: Tensor) -> Tensor:
    """cv2.resize with INTER_LINEAR of each image: int32 (3, m, h, w), of 255."""
    columns, rows = columns[:, None], rows[:, :, None]
    lines = []
    for i in range(2):
        left, right = (across[:, None, :, j, None] * pixels[rows[..., i] + columns[..., j]] for j in range(2))
        line = left.add_(right)
        line >>= 4
        line *= down[:, :, None, i, None]
        line >>= 16
        lines.append(line)
    mixed = lines[0].add_(lines[1]).add_(2)
    mixed >>= 2
    return mixed.permute(3, 0, 1, 2).contiguous()


class _Tables(NamedTuple):
    """What OpenCV's colours in bytes are made of."""

    saturation: Tensor
    """int32 (256,): 4096 * 255 / value."""
    hue: Tensor
    """int32 (256,): 4096 * 30 / (the difference of the largest and the smallest of red, green and blue)."""
    shares: Tensor
    """float32 (65536, 3): of 256 * hue + saturation, red, green and blue as shares of the value."""


@functools.lru_cache
def _tables(device: torch.device) -> _Tables:
    levels = np.arange(256)
    tables = (np.rint((whole << 12) / np.maximum(levels, 1)) for whole in (255, TURN // 6))  # no colour has part in 0
    six = levels.astype(np.float32) * np.float32(6 / TURN)
    sector = np.trunc(six)
    part = six - sector
    # What is taken off for each unit of saturation: nothing, all, and as much as the hue is on its way to.
    parts = np.stack([np.zeros_like(part), np.ones_like(part), part, 1 - part])
    order = np.array([[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]])[sector.astype(int) % 6]
    off = parts[order, levels[:, None]].astype(np.float64)
    saturation = (levels.astype(np.float32) * np.float32(1 / 255)).astype(np.float64)
    # One rounding for the product and the difference, as by the processor's instruction that OpenCV uses.
    shares = (1 - saturation[None, :, None] * off[:, None]).astype(np.float32).reshape(-1, 3)
    made = *(table.astype(np.int32) for table in tables), shares
    return _Tables(*(torch.from_numpy(table).to(device, non_blocking=True) for table in made))


def _recoloured(planes: Tensor, colours: Tensor) -> Tensor:
    """Hue, saturation and exposure of int32 (3, m, h, w) by the ``colours`` (m, 3), as cv2.cvtColor rounds them."""
    tables, half = _tables(planes.device), 1 << 11
    red, green, blue = planes
    value = planes.amax(0)
    delta = value - planes.amin(0)
    saturation = delta * tables.saturation[value] + half >> 12
    hue = torch.where(
        value == red, green - blue,
        torch.where(value == green, blue - red + 2 * delta, red - green + 4 * delta),
    )  # fmt: skip
    hue = hue * tables.hue[delta] + half >> 12
    hue = torch.where(hue < 0, hue + TURN, hue)
    added, *factors = colours[:, :, None, None].unbind(1)
    hue = (hue + added).round_().clamp_(0, 255)
    saturation, value = (
        (one * factor).round_().clamp_(0, 255) for one, factor in zip((saturation, value), factors, strict=True)
    )
    shares = tables.shares[(256 * hue + saturation).int()]
    return ((value * (1 / 255))[..., None] * shares * 255).int().permute(3, 0, 1, 2)


@functools.lru_cache
def _half_kernel(size: int) -> np.ndarray:
    """What cv2.GaussianBlur multiplies the middle and those on one side of it by, of 256: (size // 2 + 1,)."""
    line = np.zeros((1, 2 * size + 1), np.uint8)
    line[0, size] = 255  # of which a share of up to 128 of 256 comes out as it is
    seen: np.ndarray = cv2.GaussianBlur(line, (size, size), 0)[0, size : size + size // 2 + 1]
    return seen


def _blurred(planes: Tensor, kernels: np.ndarray) -> Tensor:
    """cv2.GaussianBlur of int32 (3, b, h, w), each image by its own kernel (b,) of so many pixels.

    The sums are integers below 2**24, and so they are exact.
    """
    radius = int(kernels.max()) // 2
    weights = np.zeros((len(kernels), radius + 1), np.float32)
    for row, kernel in zip(weights, kernels.tolist(), strict=True):
        row[: kernel // 2 + 1] = _half_kernel(kernel)
    shares = torch.from_numpy(weights).to(planes.device, non_blocking=True)[:, :, None, None].unbind(1)
    sums = planes.float()
    for axis in (3, 2):
        side = sums.shape[axis]
        period = max(1, 2 * (side - 1))
        at = torch.arange(-radius, side + radius, device=sums.device).remainder(period)
        wide = sums.index_select(axis, torch.minimum(at, period - at))
        sums = shares[0] * wide.narrow(axis, radius, side)
        for i in range(1, radius + 1):
            sums = sums + shares[i] * (wide.narrow(axis, radius - i, side) + wide.narrow(axis, radius + i, side))
    return sums.int() + (1 << 15) >> 16


def _inside(boxes: Tensor, counts: Tensor, h: int, w: int) -> Tensor:
    """Which pixels of (b, h, w) lie in one of the first ``counts`` (b,) of the boxes (b, most, 4)."""
    left, top, right, bottom = boxes[..., None].unbind(2)
    number = torch.arange(boxes.shape[1], device=boxes.device)[:, None]
    x, y = (torch.arange(side, device=boxes.device) for side in (w, h))
    across = (x >= left) & (x < right) & (number < counts[:, None, None])
    down = (y >= top) & (y < bottom)
    return down.float().transpose(1, 2) @ across.float() > 0


def _joined(planes: Tensor, cuts: Tensor, origins: Tensor) -> Tensor:
    """The samples' first layers, uint8 (n, 3, h, w), of stretched images (3, m, h, w)."""
    h, w = planes.shape[2:]
    pixels = torch.arange(h * w, device=planes.device).view(h, w)
    right, below = pixels[0] >= cuts[:, :1], torch.arange(h, device=planes.device) >= cuts[:, 1:]
    corner = (2 * below[:, :, None] + right[:, None]).flatten(1)
    index = origins.gather(1, corner).view(-1, h, w) + pixels
    return planes.flatten(1)[:, index].transpose(0, 1).contiguous()
