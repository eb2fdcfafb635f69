"""Darknet's image arithmetic: load, resize, letterbox, place, distort, flip, save.

An image is what a file decodes to: uint8 RGB, (h, w, 3). Darknet turns it into *planes*, float32 RGB (3, h, w), 0..1,
and goes on from there step by step (``src/image.c``); the functions here go from the image straight into a slot of a
network's input, several times faster, and agree with Darknet within 1e-6 (1e-5 after a change of colours, but for
pixels whose shifted hue is exactly 1: Darknet paints these magenta, OpenCV's colour conversion red, which is right).
OpenCV is loaded only by the functions that read, write or recolour an image, torch only by those that fill a slot.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from darknet_compat.cfg.sections import printable
from darknet_compat.errors import ImageError
from darknet_compat.files import regular_file, whole_file

GREY = 0.5  # what surrounds a letterboxed or placed image
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")  # of the files that can be read
JPEG_QUALITY = 80  # src/image.c, save_image


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode a JPEG, PNG or BMP file to uint8 RGB (h, w, 3).

    A grey image gives three equal planes, transparency is dropped, 16 bits per colour keep their upper 8. A note in
    the file on how to turn it (EXIF) is left alone, as stb_image in Darknet leaves it: label files of Darknet data
    sets describe the pixels as they are stored.

    Raises ImageError where the file is missing, empty, cut short or no image.
    """
    return decode_image(read_encoded(path), path)


def read_encoded(path: str | os.PathLike[str]) -> np.ndarray:
    """The bytes of an image's file, uint8 (n,). Raises ImageError where it cannot be read."""
    try:
        with regular_file(path) as file:
            return np.fromfile(file, np.uint8)
    except OSError as error:
        raise ImageError(f"{_name(path)}: cannot read the image: {error.strerror or error}; check the path") from None


def decode_image(encoded: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """What :func:`load_image` makes of the bytes of a file, uint8 (n,); ``path`` is what an error calls it."""
    import cv2

    if not encoded.size:
        raise ImageError(f"{_name(path)}: the file is empty, expected a JPEG, PNG or BMP image; copy it again")
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(
            f"{_name(path)}: {encoded.size} bytes that do not decode, expected a whole JPEG, PNG or BMP image; "
            "the file is damaged, cut short or of another kind"
        )
    return image


def _name(path: str | os.PathLike[str]) -> str:
    """What an error calls it: on one line."""
    return printable(os.fspath(path))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a JPEG, PNG or BMP file, from its header alone. Raises ImageError."""
    try:
        with regular_file(path) as file:
            return size_in_header(file, path)
    except OSError as error:
        raise ImageError(f"{_name(path)}: cannot read the image: {error.strerror}") from None


def size_in_header(file: BinaryIO, path: str | os.PathLike[str]) -> tuple[int, int]:
    """What :func:`image_size` reads, in an open file; ``path`` is what an error calls it."""
    try:
        width, height = _size_in_header(file)
    except struct.error:
        raise ImageError(f"{_name(path)}: the image ends inside its header") from None
    except ValueError:
        raise ImageError(f"{_name(path)}: no JPEG, PNG or BMP file, of which the size is needed") from None
    if width < 1 or height < 1:
        raise ImageError(f"{_name(path)}: {width} x {height} pixels by its header; expected an image of 1 x 1 or more")
    return width, height


def _size_in_header(file: BinaryIO) -> tuple[int, int]:
    head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return struct.unpack(">II", head[16:24])
    if head[:2] == b"BM":
        if head[14:18] == b"\x0c\0\0\0":  # the head of OS/2
            return struct.unpack("<HH", head[18:22])
        width, height = struct.unpack("<ii", head[18:26])
        return width, abs(height)  # a negative height means rows from the top
    if head[:2] == b"\xff\xd8":
        return _jpeg_size(file)
    raise ValueError


def _jpeg_size(file: BinaryIO) -> tuple[int, int]:
    file.seek(2)
    while True:
        marker, length = struct.unpack(">HH", file.read(4))
        if marker == 0xFFFF:  # a byte FF of filling before the marker
            file.seek(-3, os.SEEK_CUR)
            continue
        # Start of frame: C0..CF but for DHT (C4), JPG (C8) and DAC (CC).
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            _, height, width = struct.unpack(">BHH", file.read(5))
            return width, height
        if marker < 0xFF01 or length < 2:
            raise struct.error
        file.seek(length - 2, os.SEEK_CUR)


def save_image(image: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a uint8 RGB image (h, w, 3); the suffix (.jpg, .png, .bmp) says in which form. JPEG has quality 80.

    Raises ImageError where the suffix is unknown or the folder cannot be written.
    """
    import cv2

    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{_name(path)}: cannot write an image of suffix {suffix!r}, expected .jpg, .png or .bmp")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # OpenCV 5 warns on the screen of an option that the form does not know.
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    encoded = cv2.imencode(suffix, bgr, options)[1]
    try:
        with whole_file(path) as file:
            file.write(encoded.tobytes())
    except OSError as error:
        raise ImageError(f"{_name(path)}: cannot write the image: {error.strerror}") from None


class Taps(NamedTuple):
    """Linear interpolation along one axis: output i is the sum of weight[i, k] * input[index[i, k]] over k = 0, 1."""

    index: np.ndarray  # type: ignore[assignment]  # tuple.index is not used
    weight: np.ndarray

    def part(self, which: slice) -> Taps:
        return Taps(self.index[which].copy(), self.weight[which].copy())  # torch takes no negative strides


def _taps(positions: np.ndarray, size: int) -> Taps:
    """Taps at float32 positions >= 0; what lies past the last input counts as zero."""
    low = positions.astype(np.int64)
    share = positions - low.astype(np.float32)
    inside = low + 1 < size
    index = np.stack([low, np.where(inside, low + 1, low)], 1)
    return Taps(index, np.stack([1 - share, np.where(inside, share, np.float32(0))], 1))


def _aligned_positions(size: int, new: int) -> np.ndarray:
    # One output pixel would divide by zero (Darknet reads outside the image then); it takes the first input.
    scale = np.float32(size - 1) / np.float32(max(new - 1, 1))
    positions: np.ndarray = np.arange(new, dtype=np.float32) * scale
    return positions


@functools.lru_cache(maxsize=1024)  # a data set has few sizes
def _resize_columns(size: int, new: int) -> Taps:
    taps = _taps(_aligned_positions(size, new), size)
    taps.index[-1] = size - 1  # resize_image takes the last column as it is
    taps.weight[-1] = 1, 0
    return taps


@functools.lru_cache(maxsize=1024)
def _resize_rows(size: int, new: int) -> Taps:
    taps = _taps(_aligned_positions(size, new), size)
    # resize_image leaves out the lower neighbour of the last row. Where rounding puts that row a hair above the
    # last one of the input, all its weight was there, and the row comes out black. So it does here.
    taps.weight[-1, 1] = 0
    return taps


@functools.lru_cache(maxsize=1024)
def _place_taps(size: int, new: int) -> Taps:
    # The product in this order: it is what gcc -Ofast makes of ((float)x / w) * im.w, to the last bit.
    scale = np.float32(size) * (np.float32(1) / np.float32(new))
    return _taps(np.arange(new, dtype=np.float32) * scale, size)


def letterbox_size(image_w: int, image_h: int, w: int, h: int) -> tuple[int, int]:
    """The size an image takes inside a letterbox of w x h; by integer division, so it can be 0 for a sliver."""
    if np.float32(w) / np.float32(image_w) < np.float32(h) / np.float32(image_h):
        return w, image_h * w // image_w
    return image_w * h // image_h, h


def _overlap(size: int, offset: int, room: int) -> tuple[slice, slice]:
    """Which of ``size`` pixels, put down at ``offset``, lie within 0..room, and where."""
    start, stop = max(offset, 0), max(min(offset + size, room), 0)
    return slice(start - offset, stop - offset), slice(start, stop)


def letterbox_image(image: np.ndarray, slot: np.ndarray) -> None:
    """What ``letterbox`` does, from a uint8 image (h, w, 3) into ``slot``, float32 (3, H, W)."""
    new_w, new_h = letterbox_size(image.shape[1], image.shape[0], slot.shape[2], slot.shape[1])
    slot.fill(GREY)
    if new_w and new_h:
        x, y = (slot.shape[2] - new_w) // 2, (slot.shape[1] - new_h) // 2
        resize_image(image, slot[:, y : y + new_h, x : x + new_w])


def resize_image(image: np.ndarray, slot: np.ndarray) -> None:
    """What ``resize`` does, from a uint8 image (h, w, 3) into ``slot``, float32 (3, H, W), whose size it takes."""
    if image.shape[:2] == slot.shape[1:]:
        _planes(image, slot)
        return
    columns = _resize_columns(image.shape[1], slot.shape[2])
    rows = _resize_rows(image.shape[0], slot.shape[1])
    _upright(_sideways(image, columns, rows), slot)


class Views(NamedTuple):
    """``fill`` makes ``number`` inputs of an image (h, w, 3): it fills slots, float32 (number, 3, H, W)."""

    number: int
    fill: Callable[[np.ndarray, np.ndarray], None]


def _fitted(image: np.ndarray, slots: np.ndarray) -> None:
    letterbox_image(image, slots[0])


def _stretched(image: np.ndarray, slots: np.ndarray) -> None:
    resize_image(image, slots[0])


FITTED, STRETCHED = Views(1, _fitted), Views(1, _stretched)


def _planes(image: np.ndarray, slot: np.ndarray) -> None:
    import cv2
    import torch

    torch.mul(torch.from_numpy(np.stack(cv2.split(image))), 1 / 255, out=torch.from_numpy(slot))


def crop_resized(
    image: np.ndarray, slot: np.ndarray, w: int, h: int, left: int, top: int, mirror: bool = False
) -> None:
    """``resize_image`` to w x h and ``crop_image`` at (left, top), from a uint8 image into ``slot``, float32 (3, H, W).

    The resized image's edge pixels are repeated beyond it. ``mirror`` flips it before the crop.
    """
    across, down = _resize_columns(image.shape[1], w), _resize_rows(image.shape[0], h)
    x = (np.arange(slot.shape[2]) + left).clip(0, w - 1)
    y = (np.arange(slot.shape[1]) + top).clip(0, h - 1)
    if mirror:
        x = w - 1 - x
    _upright(_sideways(image, Taps(*(part[x] for part in across)), Taps(*(part[y] for part in down))), slot)


def place_image(
    image: np.ndarray,
    slot: np.ndarray,
    w: float | np.float32,
    h: float | np.float32,
    dx: float | np.float32,
    dy: float | np.float32,
    hue: float = 0.0,
    saturation: float = 1.0,
    exposure: float = 1.0,
    mirror: bool = False,
) -> None:
    """``place`` on grey, ``distort`` and, where ``mirror``, ``flip``, from a uint8 image into ``slot`` (3, H, W).

    The image part of `src/data.c, load_data_detection`.
    """
    where = placement((image.shape[1], image.shape[0]), (slot.shape[2], slot.shape[1]), w, h, dx, dy, mirror)
    _fill(image, slot, where, hue, saturation, exposure)


def stretch_image(
    image: np.ndarray,
    slot: np.ndarray,
    left: int,
    top: int,
    w: int,
    h: int,
    hue: float = 0.0,
    saturation: float = 1.0,
    exposure: float = 1.0,
    mirror: bool = False,
) -> None:
    """``crop``, ``resize``, ``distort`` and, where ``mirror``, ``flip``, from a uint8 image into ``slot`` (3, H, W).

    The rectangle (left, top, w, h) may reach beyond the image, whose edge pixels are repeated there. The image part of
    `src/data.c, load_data_region`.
    """
    size = slot.shape[2], slot.shape[1]
    where = stretching((image.shape[1], image.shape[0]), size, left, top, w, h, mirror)
    _fill(image, slot, where, hue, saturation, exposure)


def _fill(
    image: np.ndarray, slot: np.ndarray, where: Placement, hue: float, saturation: float, exposure: float
) -> None:
    x, y = where.x, where.y
    grey = min(max(GREY * exposure, 0), 1)  # the grey around the image is distorted with it
    for margin in (slot[:, : y.start], slot[:, y.stop :], slot[:, y, : x.start], slot[:, y, x.stop :]):
        margin.fill(grey)
    part = slot[:, y, x]
    if part.size:
        _upright(_sideways(image, where.columns, where.rows), part, hue, saturation, exposure)


class Placement(NamedTuple):
    """Which columns ``x`` and rows ``y`` of an input an image covers, and what goes into each of them."""

    x: slice
    y: slice
    columns: Taps
    rows: Taps


def placement(
    image: tuple[int, int],
    size: tuple[int, int],
    w: float | np.float32,
    h: float | np.float32,
    dx: float | np.float32,
    dy: float | np.float32,
    mirror: bool = False,
) -> Placement:
    """Where :func:`place` puts an image of (width, height), ``mirror``: flipped, in an input of ``size``."""
    w, h, dx, dy = int(w), int(h), int(dx), int(dy)
    columns, x = _overlap(w, size[0] - dx - w if mirror else dx, size[0])
    rows, y = _overlap(h, dy, size[1])
    if x.start >= x.stop or y.start >= y.stop:
        nothing = Taps(np.zeros((0, 2), np.int64), np.zeros((0, 2), np.float32))
        return Placement(slice(0, 0), slice(0, 0), nothing, nothing)
    across = _place_taps(image[0], w)
    if mirror:
        across = across.part(slice(None, None, -1))
    return Placement(x, y, across.part(columns), _place_taps(image[1], h).part(rows))


def stretching(
    image: tuple[int, int], size: tuple[int, int], left: int, top: int, w: int, h: int, mirror: bool = False
) -> Placement:
    """Where :func:`stretch_image` takes what fills an input of ``size`` from, in an image of (width, height)."""
    columns, rows = _resize_columns(w, size[0]), _resize_rows(h, size[1])
    across = Taps((columns.index + left).clip(0, image[0] - 1), columns.weight)
    down = Taps((rows.index + top).clip(0, image[1] - 1), rows.weight)
    if mirror:
        across = across.part(slice(None, None, -1))
    return Placement(slice(0, size[0]), slice(0, size[1]), across, down)


class Rotation(NamedTuple):
    """How a square of ``size`` pixels is cut out of an image (``src/image.c``, augment_args)."""

    size: int
    angle: np.float32
    """Radians."""
    scale: np.float32
    """Pixels of the square per pixel of the image, from top to bottom; from left to right it is scale / aspect."""
    dx: np.float32
    """How far right of the image's middle the square's middle is, in pixels of the square."""
    dy: np.float32
    aspect: np.float32


def rotate_crop_image(
    image: np.ndarray,
    slot: np.ndarray,
    rotation: Rotation,
    hue: float = 0.0,
    saturation: float = 1.0,
    exposure: float = 1.0,
    mirror: bool = False,
) -> None:
    """Cut a turned square out of a uint8 image (h, w, 3), black outside it, distort and mirror it into ``slot``.

    ``slot``: float32 (3, size, size). ``src/image.c``, rotate_crop_image, distort_image and flip_image.
    """
    import cv2
    import torch

    x, y = _rotated((image.shape[1], image.shape[0]), rotation, mirror)
    # OpenCV's remap takes images of less than 2 ** 15 pixels to a side.
    read = _remap if max(image.shape) < 2**15 - 1 and _remap_is_exact() else _look_up
    pixels = read(image, x, y)
    if hue or saturation != 1:
        pixels = _recolour(pixels, hue, saturation, exposure)
    else:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
        pixels *= np.float32(exposure / 255)
    torch.from_numpy(pixels).clamp_(0, 1)
    cv2.split(pixels, list(slot))


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read a uint8 image (h, w, 3) at places (rows, columns): float32 RGBA (rows, columns, 4), 0..255, black outside.

    A fourth number makes OpenCV faster.
    """
    import cv2
    import torch

    columns, rows = _span(x, image.shape[1]), _span(y, image.shape[0])
    pixels = torch.from_numpy(cv2.cvtColor(image[rows, columns], cv2.COLOR_RGB2RGBA)).float().numpy()
    # No place left of the span where that starts within the image, so these differences are exact.
    x, y = x - np.float32(columns.start), y - np.float32(rows.start)
    return cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _span(places: np.ndarray, size: int) -> slice:
    """The part of an axis of ``size`` pixels that is read at places (rows, columns) of a parallelogram."""
    corners = places[[0, 0, -1, -1], [0, -1, 0, -1]]
    start = min(max(int(corners.min()), 0), size - 1)
    return slice(start, max(min(int(corners.max()) + 2, size), start + 1))


@functools.cache
def _remap_is_exact() -> bool:
    """Whether this OpenCV mixes neighbours by floats, as 5.0 does: before, by shares rounded to 1/32."""
    places = np.full((8, 8), 0.51, np.float32)
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 1] = 255
    # Two arrays: where both are one, OpenCV 5.0.0 reads the last pixels from elsewhere.
    return bool(np.allclose(_remap(image, places, places.copy())[..., :3], 255 * 0.51, atol=1e-3))


def _look_up(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What :func:`_remap` does, four times slower, with any OpenCV and any size."""
    import cv2
    import torch

    height, width = image.shape[:2]
    # Black to two pixels around the image, and to four bytes a pixel: of any place the four neighbours are then four
    # look-ups of one number.
    framed = cv2.copyMakeBorder(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), 2, 2, 2, 2, cv2.BORDER_CONSTANT)
    row = width + 4
    pixels = torch.from_numpy(framed.view(np.int32).reshape(-1))
    columns, rows = torch.from_numpy(x), torch.from_numpy(y)
    left, top = columns.floor(), rows.floor()
    first = (top.clamp(-2, height).long() + 2) * row + left.clamp(-2, width).long() + 2
    shape, first = (*x.shape, 4), first.view(-1)
    corners = [
        pixels.index_select(0, first + step).view(torch.uint8).view(shape).float() for step in (0, 1, row, row + 1)
    ]
    across, down = (columns - left)[..., None], (rows - top)[..., None]
    upper, lower = torch.lerp(corners[0], corners[1], across), torch.lerp(corners[2], corners[3], across)
    mixed: np.ndarray = torch.lerp(upper, lower, down).numpy()
    return mixed


def _rotated(image: tuple[int, int], rotation: Rotation, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """The image's column and row, float32 (rows, columns), that each pixel of the square is read at."""
    import torch

    columns, rows = (torch.from_numpy(axis.T.copy()) for axis in rotated_axes(image, rotation, mirror))
    # Doubles first: twice as fast as numpy, which casts piece by piece where it is to write floats.
    x, y = (columns[:, None] + rows[:, :, None]).float().numpy()
    return x, y


def rotated_axes(image: tuple[int, int], rotation: Rotation, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """What each column and each row of the square adds to the place in an image of (width, height) that is read.

    Float64 (size, 2): the image's column and row. A sum becomes float32 before it is used: doubles and floats are those
    of Darknet's binary, and a place that is a float off is another mixture of its neighbours.
    """
    size, angle, scale, dx, dy, aspect = rotation
    steps = np.arange(size) - size * 0.5
    one = 1 / np.float64(scale)
    u = steps * (np.float64(aspect) * one) + np.float64(dx / scale * aspect)
    v = steps * one + np.float64(dy / scale)
    if mirror:
        u = u[::-1]
    cos, sin = np.cos(np.float64(angle)), np.sin(np.float64(angle))
    return np.stack([u * cos, u * sin], 1), np.stack([image[0] * 0.5 - v * sin, image[1] * 0.5 + v * cos], 1)


# Rows are gathered and mixed first, while they are bytes and contiguous; then the image is turned on its side, so that
# columns are contiguous too; a last turn brings it upright and apart into planes. Values stay in 0..255 until then.


def _sideways(image: np.ndarray, columns: Taps, rows: Taps) -> np.ndarray:
    """Interpolate a uint8 image (h, w, 3) -> float32 0..255, turned on its side: (columns, rows, 3)."""
    import cv2

    return _mix(cv2.transpose(_mix(image, rows)), columns)


def _mix(array: np.ndarray, taps: Taps) -> np.ndarray:
    """_interpolate along axis 0. A bag of two weighted embeddings is just that, in one pass over memory."""
    import torch

    values = torch.from_numpy(array).view(len(array), -1).float()
    index, weight = torch.from_numpy(taps.index), torch.from_numpy(taps.weight)
    mixed = torch.nn.functional.embedding_bag(index, values, mode="sum", per_sample_weights=weight)
    return mixed.numpy().reshape(-1, *array.shape[1:])


def _upright(
    pixels: np.ndarray, slot: np.ndarray, hue: float = 0.0, saturation: float = 1.0, exposure: float = 1.0
) -> None:
    """Float32 0..255 (w, h, 3), turned on its side -> distorted planes 0..1 in ``slot`` (3, h, w)."""
    import cv2
    import torch

    w, h = pixels.shape[:2]
    scale = exposure / 255
    # One name for every stage, so that each takes the memory of the last but one while it is in the processor's cache.
    if hue or saturation != 1:
        pixels, scale = _recolour(pixels, hue, saturation, exposure), 1.0
    pixels = cv2.transpose(pixels.reshape(w, h * 3))
    planes = torch.from_numpy(pixels).view(h, 3, w).permute(1, 0, 2)
    if scale != 1:
        planes = planes * scale
    torch.clamp(planes, 0, 1, out=torch.from_numpy(slot))


def _recolour(pixels: np.ndarray, hue: float, saturation: float, exposure: float) -> np.ndarray:
    """``distort`` of RGB or RGBA, float32 0..255 -> RGB, whose 1 is the brightest; it may go beyond 0..1."""
    import cv2

    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    degrees = 360 * (hue % 1)  # the way back takes up to two turns, and none below zero
    change = np.array([[1, 0, 0, degrees], [0, saturation, 0, 0], [0, 0, exposure / 255, 0]], np.float32)
    pixels = cv2.transform(pixels, change)
    return cv2.cvtColor(pixels, cv2.COLOR_HSV2RGB)
