"""Training images and truth of AlexeyAB's detectors: the random numbers of his loader, and what they do.

A rectangle near the image's own edges is stretched over the input, in bytes; and of half of the samples four images
make a mosaic, or two are mixed. Source: his ``src/data.c``, load_data_detection, fill_truth_detection, blend_truth and
blend_truth_mosaic, and ``src/image_opencv.cpp``, image_data_augmentation. As in ``augment.py``, drawing and applying
are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np

from ..cfg import Section
from ..layers.head import Head
from .augment import Random, draw_order, draw_scale
from .crop_augment import Mixing, read_mixing

MIXED: dict[Mixing, int] = {"": 1, "mixup": 2, "mosaic": 4}  # images that go into one
MOSAIC_LEAST = np.float32(0.2)  # of the input's sides, at which the four images of a mosaic meet at the least
BACKGROUND = 1  # of blur: everything but the objects
BACKGROUND_KERNEL = 17
MOST_NOISE = 127
HUES = 179  # in a turn
LEVELS = np.arange(256, dtype=np.float32)
WHITE = np.float32(255)


class AlexeyabAugmentation(NamedTuple):
    """What the cfg says on training images. The defaults are AlexeyAB's."""

    jitter: float = 0.2
    """Each edge of the rectangle lies within this share of the image's side from the image's own edge."""
    resize: float = 1.0
    """Over 1 the rectangle may be larger or smaller by this factor, under 1 larger alone."""
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    flip: bool = True
    letter_box: bool = False
    """Is the rectangle made as wide or high as the input's shape asks, rather than stretched?"""
    mixing: Mixing = ""
    mosaic_bound: bool = False
    """Does a box of a mosaic end where its image ends?"""
    blur: int = 0
    """Over 0, a third of the images is blurred around the objects, and a third as a whole by a kernel of so many pixels
    (by 1 around the objects, too)."""
    gaussian_noise: int = 0
    """The deviation of the noise that half of the images get, of 255."""


def alexeyab_augmentation(section: Section, net: SimpleNamespace, head: Head) -> AlexeyabAugmentation:
    """What ``detector train`` of AlexeyAB's program reads of [net] and of the head.

    Raises :class:`CfgError` where the two are not built together, as there, and for what makes no image.
    """
    mixing = read_mixing(net)
    if "cutmix" in mixing:
        section.warn("for classifiers only, ignored", "cutmix")
        mixing = "mosaic" if "mosaic" in mixing else ""
    if mixing == "mosaic" and net.letter_box:
        raise section.error(
            "mosaics are not made of letterboxed images, in AlexeyAB's Darknet either; expected letter_box=0 or "
            "mosaic=0",
            "letter_box",
        )
    for name in ("saturation", "exposure"):
        if not getattr(net, name) > 0:
            raise section.error(f"{name} is {getattr(net, name):g}; expected more than 0", name)
    for name in ("blur", "gaussian_noise"):
        if getattr(net, name) < 0:
            raise section.error(f"{name} is {getattr(net, name)}; expected 0 or more", name)
    if not head.o.resize > 0:
        raise head.section.error(f"resize is {head.o.resize:g}; expected more than 0", "resize")
    return AlexeyabAugmentation(
        head.o.jitter, head.o.resize, net.hue, net.saturation, net.exposure, bool(net.flip), bool(net.letter_box),
        mixing, bool(net.mosaic_bound), net.blur, net.gaussian_noise,
    )  # fmt: skip


class Mix(NamedTuple):
    """What becomes of a sample: ``images`` go into it, which in a mosaic meet at column and row ``cut``."""

    images: int = 1
    cut: tuple[int, int] | None = None


@dataclass(frozen=True)
class AlexeyabDraws:
    """The random numbers of one image; lengths are pixels of the image."""

    left: int
    """From the image's edge to the rectangle's, inward; below 0 the rectangle reaches beyond the image."""
    right: int
    top: int
    bottom: int
    width: int
    """The rectangle's."""
    height: int
    hue: float
    """Turns to add to the hue."""
    saturation: float
    exposure: float
    flip: bool
    blur: int
    noise: int
    seed: int
    """Of the noise."""
    order: np.ndarray
    """Indices of the label file's objects, shuffled."""


def draw_mix(random: Random, size: tuple[int, int], options: AlexeyabAugmentation) -> Mix:
    """Draw for an input of (width, height)."""
    if random.randrange(2) == 0:
        return Mix()
    if options.mixing != "mosaic":
        return Mix(MIXED[options.mixing])
    cut = []
    for side in size:
        least, most = (int(np.float32(side) * share) for share in (MOSAIC_LEAST, 1 - MOSAIC_LEAST))
        cut.append(least + random.randrange(most - least + 1))
    return Mix(MIXED["mosaic"], (cut[0], cut[1]))


def draw(
    random: Random,
    image: tuple[int, int],
    size: tuple[int, int],
    objects: int,
    options: AlexeyabAugmentation,
    corner: int | None = None,
) -> AlexeyabDraws:
    """Draw for an image of (width, height), an input of ``size`` and so many objects in its label file.

    ``corner``: of a mosaic, 0 to 3 from the upper left one to the lower right one.
    """
    shares = [random.uniform(0.0, 1.0) for _ in range(6)]
    flip = options.flip and random.randrange(2) == 1
    random.uniform(0.0, 1.0)  # r_scale, of which nothing is made
    hue = random.uniform(-options.hue, options.hue)
    saturation = draw_scale(random, options.saturation)
    exposure = draw_scale(random, options.exposure)
    blur = (0, BACKGROUND, options.blur)[random.randrange(3)] if options.blur else 0
    noise = options.gaussian_noise if options.gaussian_noise and random.randrange(2) == 1 else 0
    left, right, top, bottom = _edges(image, size, shares, options)
    if corner is not None and random.randrange(2) == 0:
        # Most of the image is seen in its corner of the mosaic.
        if (corner % 2 == 0) == flip:
            left, right = left + right, 0
        else:
            left, right = 0, left + right
        top, bottom = (0, top + bottom) if corner < 2 else (top + bottom, 0)
    width, height = image[0] - left - right, image[1] - top - bottom
    if width <= 0 or height <= 0 or left >= image[0] or top >= image[1]:
        left, top, (width, height) = 0, 0, image
    order = draw_order(random, objects)
    seed = random.randrange(2**31) if noise else 0
    return AlexeyabDraws(left, right, top, bottom, width, height, hue, saturation, exposure, flip, blur, noise, seed,
                         order)  # fmt: skip


def _edges(
    image: tuple[int, int], size: tuple[int, int], shares: Sequence[float], options: AlexeyabAugmentation
) -> tuple[int, int, int, int]:
    """left, right, top, bottom of the rectangle, in the roundings of C."""
    float32 = np.float32
    first, last, *own = shares
    resize = float32(options.resize)
    less, more = (1 / resize, resize) if resize > 1 else (resize, 1 / resize)
    edges = []
    for side, (share1, share2) in zip(image, (own[:2], own[2:]), strict=True):
        jitter = int(float32(side) * float32(options.jitter))
        outward, inward = (int(float32(side) * (1 - 1 / factor) / 2) for factor in (less, more))
        inward = inward if resize >= 1 else 0
        for share, scaled in ((share1, first), (share2, last)):
            edge = int(_between(-jitter, jitter, share))
            edges.append(int(float32(edge) + _between(outward, inward, scaled)))
    left, right, top, bottom = edges
    if options.letter_box:
        across, down = float32(image[0]) / float32(image[1]), float32(size[0]) / float32(size[1])
        if across / down > 1:
            more = (float32(image[0]) / down - float32(image[1])) / 2
            top, bottom = int(float32(top) - more), int(float32(bottom) - more)
        else:
            more = (float32(image[1]) * down - float32(image[0])) / 2
            left, right = int(float32(left) - more), int(float32(right) - more)
    return left, right, top, bottom


def _between(least: int, most: int, share: float) -> np.float32:
    edge: np.float32 = np.float32(share) * np.float32(most - least) + np.float32(least)
    return edge


def augment_truth(
    labels: np.ndarray, draws: AlexeyabDraws, image: tuple[int, int], size: tuple[int, int], most: int
) -> np.ndarray:
    """Labels (objects, 5) of class, x, y, w, h -> float32 (up to ``most``, 5) of x, y, w, h, class.

    The boxes move with the image, are shuffled, clipped to the input, and dropped where they lay outside of the image
    or come out smaller than a pixel of the input.
    """
    objects = labels[draws.order].astype(np.float32, copy=False)
    centres, halves = objects[:, 1:3], objects[:, 3:] / 2
    first, last = centres - halves, centres + halves
    kept = ~((centres == 0).all(1) | (last < 0).any(1) | (first > 1).any(1))
    scale = np.array([draws.width, draws.height], np.float32) / np.array(image, np.float32)
    offset = np.array([draws.left, draws.top], np.float32) / np.array([draws.width, draws.height], np.float32)
    # In the order of his binary: a mosaic asks on which side of an edge a box lies.
    scaled = first * (1 / scale), last * (1 / scale)
    first, last = scaled[0] - offset, scaled[1] - offset
    if draws.flip:
        first[:, 0], last[:, 0] = 1 + offset[0] - scaled[1][:, 0], 1 + offset[0] - scaled[0][:, 0]
    first, last = np.clip(first, 0, 1), np.clip(last, 0, 1)
    boxes = np.concatenate([(first + last) / 2, last - first, objects[:, :1]], 1)
    centres, sides = boxes[:, :2], boxes[:, 2:4]
    kept &= (sides >= 1 / np.array(size, np.float32)).all(1) & (centres > 0).all(1) & (centres <= 1).all(1)
    found: np.ndarray = boxes[:most][kept[:most]]
    return found


def augment_image(
    image: np.ndarray, draws: AlexeyabDraws, size: tuple[int, int], truth: np.ndarray, part: Part | None = None
) -> np.ndarray:
    """The uint8 image (h, w, 3) over an input of ``size``, uint8; of it ``part`` alone, where one is given.

    ``truth``: what :func:`augment_truth` gives, which a blur leaves sharp.
    """
    sized = _stretched(image, draws, size)
    if draws.flip:
        sized = cv2.flip(sized, 1)
    blur = blur_of(draws, truth, size)
    if part is not None and not blur.kernel:
        # Whole rows: OpenCV rounds the last few pixels of a row otherwise than those before.
        sized, part = sized[part.top : part.top + part.height], part._replace(top=0)
    if draws.saturation != 1 or draws.exposure != 1 or draws.hue != 0:
        sized = _recoloured(sized, draws)
    if blur.kernel:
        sized = _blurred(sized, blur)
    if part is not None:
        sized = part.of(sized)
    if draws.noise:
        sized = cv2.add(sized, noise_of(draws, sized.shape))
    return sized


def noise_of(draws: AlexeyabDraws, shape: tuple[int, ...]) -> np.ndarray:
    """The noise of an image, uint8 of ``shape`` (h, w, 3)."""
    cv2.setRNGSeed(draws.seed)
    deviation = min(draws.noise, MOST_NOISE)
    made: np.ndarray = cv2.randn(np.empty(shape, np.uint8), np.zeros(3), np.full(3, float(deviation)))
    return made


def mean_colour(image: np.ndarray) -> list[int]:
    """What is seen beyond the edges of an image, uint8 (h, w, 3)."""
    return [round(value) for value in cv2.mean(image)[:3]]


class Part(NamedTuple):
    """A rectangle of an input."""

    left: int
    top: int
    width: int
    height: int

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """Its part of (h, w, 3)."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def _stretched(image: np.ndarray, draws: AlexeyabDraws, size: tuple[int, int]) -> np.ndarray:
    left, top, w, h = draws.left, draws.top, draws.width, draws.height
    inside = image[max(0, top) : max(0, top + h), max(0, left) : max(0, left + w)]
    if inside.shape[:2] != (h, w):
        mean = mean_colour(image)
        if inside.size:
            y, x = max(0, -top), max(0, -left)
            below, behind = h - y - inside.shape[0], w - x - inside.shape[1]
            inside = cv2.copyMakeBorder(inside, y, below, x, behind, cv2.BORDER_CONSTANT, value=mean)
        else:
            inside = np.full((h, w, 3), mean, np.uint8)
    return cv2.resize(inside, size, interpolation=cv2.INTER_LINEAR)


def _recoloured(pixels: np.ndarray, draws: AlexeyabDraws) -> np.ndarray:
    """In bytes: hue of 180, saturation and value of 255, each cut off at the ends, not gone round."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    table = _colours(np.float32(draws.hue), np.float32(draws.saturation), np.float32(draws.exposure))
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)


def _colours(hue: np.float32, saturation: np.float32, exposure: np.float32) -> np.ndarray:
    """What each byte of the three becomes, (256, 1, 3)."""
    table = LEVELS[:, None] * np.array([1, saturation, exposure], np.float32)
    table[:, 0] += HUES * hue
    np.rint(table, out=table)
    return np.clip(table, 0, 255, out=table).astype(np.uint8)[:, None]


class Blur(NamedTuple):
    """A blur of an image over the input, but for rectangles of it."""

    kernel: int
    """Of so many pixels; 0 for none."""
    boxes: np.ndarray
    """int (boxes, 4): left, top, right and bottom of what stays sharp."""


def blur_of(draws: AlexeyabDraws, truth: np.ndarray, size: tuple[int, int]) -> Blur:
    """The blur that is drawn, over an input of ``size`` with this truth.

    One of the whole image is no larger than an eighth of the smallest object, and there is none without objects.
    """
    blur, none = draws.blur, np.zeros((0, 4), int)
    if blur > BACKGROUND:
        smallest = int((truth[:, 2:4] * np.array(size, np.float32)).min(initial=np.inf)) if len(truth) else 0
        blur = min(blur, smallest // 8)
    if blur != BACKGROUND:
        return Blur(blur // 2 * 2 + 1 if blur else 0, none)
    corners = ((truth[:, :2] - truth[:, 2:4] / 2.0) * np.array(size)).astype(int)
    lengths = (truth[:, 2:4] * np.array(size, np.float32)).astype(int)
    return Blur(BACKGROUND_KERNEL, np.concatenate([corners, corners + lengths], 1))


def _blurred(pixels: np.ndarray, blur: Blur) -> np.ndarray:
    blurred = cv2.GaussianBlur(pixels, (blur.kernel, blur.kernel), 0)
    for left, top, right, bottom in blur.boxes.tolist():
        blurred[top:bottom, left:right] = pixels[top:bottom, left:right]
    return blurred


class Tile(NamedTuple):
    """One image of a mosaic: the part of it that is seen, where that lands, and how far its boxes move."""

    part: Part
    left: int
    top: int
    right: int
    """The first column behind it."""
    bottom: int
    shift: tuple[int, int]


class Stretched(NamedTuple):
    """An image of a sample, uint8 (h, w, 3), and what is stretched over the input of it."""

    image: np.ndarray
    draws: AlexeyabDraws
    truth: np.ndarray
    """What :func:`augment_truth` gives."""
    tile: Tile | None
    """Where it lands in a mosaic."""


def tile(
    corner: int, cut: tuple[int, int], draws: AlexeyabDraws, image: tuple[int, int], size: tuple[int, int]
) -> Tile:
    """Where an image of (width, height) lands in corner 0 to 3 of a mosaic over an input of ``size``.

    What reaches beyond the image is moved out of sight, as far as the tile allows.
    """
    left, right = (draws.right, draws.left) if draws.flip else (draws.left, draws.right)
    before, after = _shown(corner % 2 == 0, cut[0], size[0], left, right, image[0])
    above, below = _shown(corner < 2, cut[1], size[1], draws.top, draws.bottom, image[1])
    part = Part(before[0], above[0], before[1], above[1])
    return Tile(part, after, below, after + part.width, below + part.height, (after - part.left, below - part.top))


def _shown(first: bool, cut: int, side: int, near: int, far: int, image: int) -> tuple[tuple[int, int], int]:
    """Along one axis: start and length of what is seen of the stretched image, and where it lands."""
    near, far = (max(0, int(-edge * side / image)) for edge in (near, far))
    if first:
        return (side - cut - min(side - cut, far), cut), 0
    return (min(cut, near), side - cut), cut


def tile_truth(truth: np.ndarray, tile: Tile, size: tuple[int, int], room: int, bound: bool) -> np.ndarray:
    """The boxes of one image of a mosaic, float32 (up to ``room``, 5) of x, y, w, h, class.

    They move with their tile and are clipped to the input, with ``bound`` to the tile; what lies outside is dropped.
    """
    # A box that ends where its image does lies on an edge, and roundings say on which side of it. So they are those of
    # his binary, which multiplies by one over a side.
    sides = np.array(size, np.float32)
    part = 1 / sides
    boxes = truth[:room]
    centres, lengths = boxes[:, :2] + np.array(tile.shift, np.float32) * part, boxes[:, 2:4]

    def corners() -> tuple[np.ndarray, np.ndarray]:
        first, last = (centres - lengths / 2) * sides, (centres + lengths / 2) * sides
        return first.astype(np.int64), last.astype(np.int64)

    first, last = corners()
    if bound:
        first = np.maximum(first, (tile.left, tile.top))
        last = np.minimum(last, (tile.right, tile.bottom))
        centres = (first + last).astype(np.float32) / 2 * part
        lengths = (last - first).astype(np.float32) * part
    else:
        for beyond, sign in ((np.minimum(first, 0), 1), (np.maximum(last - np.array(size), 0), -1)):
            over = beyond.astype(np.float32) * part
            centres, lengths = centres - over / 2, lengths + sign * over
        first, last = corners()
    inside = (first >= 0) & (last <= np.array(size))
    inside &= (lengths > part) & (lengths < 1) & (centres > 0) & (centres < 1)
    kept = inside.all(1)
    return np.concatenate([centres, lengths, boxes[:, 4:]], 1)[kept]


def write(pixels: np.ndarray, slot: np.ndarray, left: int = 0, top: int = 0, *, mean: bool = False) -> None:
    """Write uint8 (h, w, 3) into float32 planes ``slot`` (3, H, W), 0..1, from that column and row on.

    With ``mean`` the mean of it and what is there.
    """
    h, w = pixels.shape[:2]
    for plane, target in zip(cv2.split(pixels), slot[:, top : top + h, left : left + w], strict=True):
        if mean:
            target += plane / WHITE
            target *= 0.5
        else:
            np.divide(plane, WHITE, out=target)
