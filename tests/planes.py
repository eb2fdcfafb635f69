"""Darknet's image arithmetic on planes, step by step as ``src/image.c`` has it: what the fast forms are held against.

Planes are float32 RGB, (3, h, w), 0..1. Each function is itself held against libdarknet (``tests/test_images.py``).
"""

from __future__ import annotations

import numpy as np

from darknet_compat.images import GREY, Taps, _overlap, _place_taps, _resize_columns, _resize_rows, letterbox_size


def to_planes(image: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) -> float32 (3, h, w), 0..1."""
    return (image.transpose(2, 0, 1) / 255.0).astype(np.float32)


def to_image(planes: np.ndarray) -> np.ndarray:
    """float32 planes (3, h, w) -> uint8 (h, w, 3), clipped to 0..1 and cut down, not rounded, as Darknet saves them."""
    return (np.clip(planes, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def _interpolate(array: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
    shape = [1] * array.ndim
    shape[axis] = -1
    low, high = (array.take(taps.index[:, k], axis) * taps.weight[:, k].reshape(shape) for k in range(2))
    return low + high


def resize(planes: np.ndarray, w: int, h: int) -> np.ndarray:
    """Planes (c, H, W) -> (c, h, w): bilinear with the corners aligned, width first (`src/image.c, resize_image`)."""
    return _interpolate(
        _interpolate(planes, _resize_columns(planes.shape[2], w), 2), _resize_rows(planes.shape[1], h), 1
    )


def letterbox(planes: np.ndarray, w: int, h: int) -> np.ndarray:
    """Planes (c, H, W) -> (c, h, w): resized with its aspect kept, amid .5 grey (`src/image.c, letterbox_image`)."""
    new_w, new_h = letterbox_size(planes.shape[2], planes.shape[1], w, h)
    boxed = np.full((planes.shape[0], h, w), GREY, np.float32)
    if new_w and new_h:
        x, y = (w - new_w) // 2, (h - new_h) // 2
        boxed[:, y : y + new_h, x : x + new_w] = resize(planes, new_w, new_h)
    return boxed


def place(planes: np.ndarray, w: float, h: float, dx: float, dy: float, canvas: np.ndarray) -> None:
    """Scale planes (c, H, W) to w x h and write them into ``canvas`` (c, h', w') at column dx, row dy.

    Sizes and offsets are cut to integers, as C cuts them; what falls outside the canvas is left out. Bilinear from the
    upper left corner, with zero beyond the image (`src/image.c, place_image`).
    """
    w, h = int(w), int(h)
    columns, x = _overlap(w, int(dx), canvas.shape[2])
    rows, y = _overlap(h, int(dy), canvas.shape[1])
    part = canvas[:, y, x]
    if part.size:
        wide = _interpolate(planes, _place_taps(planes.shape[2], w).part(columns), 2)
        part[:] = _interpolate(wide, _place_taps(planes.shape[1], h).part(rows), 1)


def rgb_to_hsv(planes: np.ndarray) -> np.ndarray:
    """RGB planes -> hue 0..1, saturation, value (`src/image.c, rgb_to_hsv`); the hue of a grey pixel is 0."""
    r, g, b = planes
    value = planes.max(0)
    delta = value - planes.min(0)
    divisor = np.where(delta > 0, delta, np.float32(1))
    hue = np.where(r == value, (g - b) / divisor, np.where(g == value, 2 + (b - r) / divisor, 4 + (r - g) / divisor))
    hue = np.where(hue < 0, hue + 6, hue) / np.float32(6)
    saturation = delta / np.where(value > 0, value, np.float32(1))
    return np.stack([np.where(delta > 0, hue, np.float32(0)), saturation, value])


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """The way back (`src/image.c, hsv_to_rgb`). A hue of exactly 1 counts to the last sector, as it does there."""
    hue, saturation, value = hsv
    hue = hue * np.float32(6)
    sector = np.floor(hue)
    share = hue - sector
    p = value * (1 - saturation)
    q = value * (1 - saturation * share)
    t = value * (1 - saturation * (1 - share))
    sectors = [sector == i for i in range(5)]
    red = np.select(sectors, [value, q, p, p, t], value)
    green = np.select(sectors, [t, value, value, q, p], p)
    blue = np.select(sectors, [p, p, t, value, value], q)
    return np.stack([red, green, blue])


def distort(planes: np.ndarray, hue: float, saturation: float, exposure: float) -> np.ndarray:
    """Shift the hue (in turns, -1..1), scale saturation and value, clip to 0..1 (`src/image.c, distort_image`)."""
    h, s, v = rgb_to_hsv(planes)
    h = h + np.float32(hue)
    h = np.where(h > 1, h - 1, h)
    h = np.where(h < 0, h + 1, h)
    return np.clip(hsv_to_rgb(np.stack([h, s * np.float32(saturation), v * np.float32(exposure)])), 0, 1)


def flip(planes: np.ndarray) -> np.ndarray:
    """Mirror left and right (`src/image.c, flip_image`)."""
    return np.ascontiguousarray(planes[:, :, ::-1])
