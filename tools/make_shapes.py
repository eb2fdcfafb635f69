#!/usr/bin/env python3
"""Draw a detection set: a VOCdevkit of six shapes, with Darknet's labels and lists.

    python tools/make_shapes.py data/made/shapes

The six classes differ in outline only. Colour, texture, rotation, stretch, size
and place are drawn at random, so none of them tells a class. One seed gives one
set, whatever the number of worker processes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from darknet_compat.errors import DataError
from darknet_compat.labels import image_paths, label_voc, read_image_set, write_lists

CLASSES = ("disc", "ring", "triangle", "square", "star", "cross")
YEAR = "2007"  # the folder is called VOC2007, so that every tool for VOC finds it
SMALLEST, LARGEST = 0.08, 0.60  # longer side of an object, as a part of the image's mean side
HIDDEN = 0.75  # an object is difficult where less than this part of it can be seen
LOST = 0.50  # and is not drawn where less than this part of it, or of one it covers, could be seen
THINNEST = 6  # pixels; the visible part of an object is at least this wide and high
CONTRAST = 0.50  # distance in RGB (0..1 each) between an object's colours and what lies under it
CAMOUFLAGE = 0.07  # the same for the difficult objects that nearly vanish in their background
SUPERSAMPLING = 4
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Settings:
    """What a set is made from; the same settings make the same set."""

    train: int
    test: int
    size: int
    seed: int
    version: int = 3


@dataclass(frozen=True)
class Thing:
    """One drawn object. The box is in pixels from 1, both ends included, as VOC has it."""

    name: str
    truncated: bool
    occluded: bool
    difficult: bool
    box: tuple[int, int, int, int]


def circle(radius: float = 1.0, points: int = 72) -> np.ndarray:
    angles = np.arange(points) * (2 * math.pi / points)
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def outline(name: str, random: np.random.Generator) -> list[np.ndarray]:
    """Contours (points, 2) of a class around the origin; a second contour is a hole."""
    if name == "disc":
        return [circle()]
    if name == "ring":
        return [circle(), circle(random.uniform(0.50, 0.66))]
    if name == "triangle":
        return [circle(points=3)]
    if name == "square":
        return [circle(points=4)]
    if name == "star":
        points = circle(points=10)
        points[1::2] *= random.uniform(0.36, 0.46)
        return [points]
    arm = random.uniform(0.26, 0.36)
    corner = np.array([[1, -arm], [1, arm], [arm, arm]])
    turns = [np.array([[0, 1], [-1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, -1], [1, 0]])]
    return [np.concatenate([corner, *(corner @ turn for turn in turns)])]


def posed(contours: list[np.ndarray], side: float, random: np.random.Generator) -> list[np.ndarray]:
    """The contours stretched, turned, and scaled to ``side`` pixels along their longer side; corner at 0, 0."""
    stretch = math.exp(random.uniform(-0.12, 0.12))
    turn, skew = random.uniform(0, 2 * math.pi, 2)
    matrix = rotation(skew) @ np.diag([stretch, 1 / stretch]) @ rotation(turn)
    contours = [points @ matrix for points in contours]
    low, high = contours[0].min(0), contours[0].max(0)
    return [(points - low) * (side / (high - low).max()) for points in contours]


def rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def coverage(contours: list[np.ndarray], shift: np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers, 0..1, float32 (h, w); ``shift`` is a part of a pixel."""
    w, h = np.ceil(contours[0].max(0) + shift).astype(int) + 1
    canvas = np.zeros((h * SUPERSAMPLING, w * SUPERSAMPLING), np.uint8)
    points = [((contour + shift) * SUPERSAMPLING - 0.5) * 16 for contour in contours]
    cv2.fillPoly(canvas, [np.rint(contour).astype(np.int32) for contour in points], 255, shift=4)
    return cv2.resize(canvas, (int(w), int(h)), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def colour(random: np.random.Generator, vivid: float = 0.95) -> np.ndarray:
    """A random colour, float32 RGB 0..1, of a saturation up to ``vivid``."""
    hue = random.uniform(0, 6)
    saturation, value = random.uniform(0.05, vivid), random.uniform(0.15, 1)
    ramp = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation * (1 - ramp))).astype(np.float32)


def clouds(w: int, h: int, cell: float, random: np.random.Generator) -> np.ndarray:
    """Smooth noise 0..1, float32 (h, w), with blots of about ``cell`` pixels."""
    small = random.random((max(2, round(h / cell) + 2), max(2, round(w / cell) + 2)), dtype=np.float32)
    return np.clip(cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC), 0, 1)


def pattern(w: int, h: int, random: np.random.Generator) -> np.ndarray:
    """A texture 0..1, float32 (h, w): a slope, clouds, stripes, checks or dots."""
    kind = random.integers(5)
    if kind == 1:
        return clouds(w, h, random.uniform(5, 40), random)
    angle = random.uniform(0, 2 * math.pi)
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if kind == 0:
        return (along - along.min()) / np.ptp(along)
    step, start = random.uniform(5, 20), random.uniform(0, 6, 2)
    waves = np.sin(along * (2 * math.pi / step) + start[0])
    if kind == 2:
        return np.clip(0.5 + 2 * waves, 0, 1)
    other = np.sin(across * (2 * math.pi / step) + start[1])
    if kind == 3:
        return np.clip(0.5 + 4 * waves * other, 0, 1)
    return np.clip(3 * (waves + other - 0.7), 0, 1)


def between(first: np.ndarray, second: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Colours from ``first`` (part 0) to ``second`` (part 1), float32 (h, w, 3)."""
    return first + (second - first) * part[..., None]


def backdrop(w: int, h: int, random: np.random.Generator) -> np.ndarray:
    """A background without objects: two textures, and lines that belong to no class."""
    first, second = colour(random, 0.7), colour(random, 0.7)
    second = first + (second - first) * random.uniform(0.1, 0.6)
    image = between(first, second, pattern(w, h, random))
    light = random.uniform(0.65, 1.15, (2, 1)).astype(np.float32)
    image *= between(*light, clouds(w, h, random.uniform(20, 90), random))
    for _ in range(random.integers(0, 5)):
        scribble(image, random)
    return image


def scribble(image: np.ndarray, random: np.random.Generator) -> None:
    """Draw one thin curve, in a colour that differs a little from one of the image's."""
    h, w = image.shape[:2]
    bends = random.uniform(0, [w, h], (1, 2)) + np.cumsum(random.normal(0, 0.25 * min(w, h), (4, 2)), 0)
    t = np.linspace(0, 1, 24)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    points = np.rint(weights @ bends * 16).astype(np.int32)
    mask = np.zeros((h, w), np.uint8)
    cv2.polylines(mask, [points], False, 255, int(random.integers(1, 4)), cv2.LINE_AA, 4)
    ink = image[random.integers(h), random.integers(w)] + random.uniform(-0.25, 0.25, 3)
    image += (ink.astype(np.float32) - image) * (mask.astype(np.float32) / 255)[..., None]


def paint(under: np.ndarray, distance: float, random: np.random.Generator) -> np.ndarray:
    """Colours for an object on ``under`` (both (h, w, 3)), ``distance`` from its mean or, with CONTRAST, more."""
    h, w = under.shape[:2]
    ground = under.reshape(-1, 3).mean(0)
    if distance < CONTRAST:
        step = random.normal(0, 1, 3)
        first = second = np.clip(ground + step * (distance / np.linalg.norm(step)), 0.02, 0.98).astype(np.float32)
    else:
        first, second = colour(random), colour(random)
        while min(np.linalg.norm(first - ground), np.linalg.norm(second - ground)) < distance:
            first, second = colour(random), colour(random)
        second = first + (second - first) * random.uniform(0, 0.6)
        if np.linalg.norm(second - ground) < distance:
            second = first
    fill = between(first, second, pattern(w, h, random))
    if random.random() < 0.5:
        light = between(np.float32(1.15), np.float32(0.75), clouds(w, h, max(w, h), random))
        fill = fill * light
    return fill


class Scene:
    """An image while it is drawn, and which object each of its pixels shows."""

    def __init__(self, w: int, h: int, random: np.random.Generator) -> None:
        self.random = random
        self.w, self.h = w, h
        self.image = backdrop(w, h, random)
        self.owner = np.full((h, w), -1, np.int8)
        self.names: list[str] = []
        self.pixels: list[int] = []  # of each whole object, hidden and cut parts too
        self.vague: list[bool] = []

    def place(self, contours: list[np.ndarray], cut: bool) -> tuple[np.ndarray, int, int]:
        """Coverage of the shape and the pixel of its left upper corner, at a random place."""
        random = self.random
        size = contours[0].max(0)
        room = np.array([self.w, self.h]) - size
        beyond = 0.5 * size if cut else np.zeros(2)
        corner = random.uniform(-beyond, np.maximum(room, 0) + beyond)
        whole = np.floor(corner).astype(int)
        return coverage(contours, corner - whole), int(whole[0]), int(whole[1])

    def fits(self, visible: np.ndarray, pixels: int, rows: slice, columns: slice) -> bool:
        """Whether enough can be seen of the new object, and still of all that it covers."""
        seen = np.count_nonzero(visible)
        if seen < LOST * pixels or min(np.ptp(np.nonzero(visible), 1)) + 1 < THINNEST:
            return False
        covered = self.owner.copy()
        covered[rows, columns][visible] = len(self.names)
        for index, before in enumerate(self.pixels):
            left = covered == index
            if np.count_nonzero(left) < LOST * before or min(np.ptp(np.nonzero(left), 1)) + 1 < THINNEST:
                return False
        return True

    def add(self, name: str) -> None:
        """Draw one object, unless twelve places are tried in vain."""
        random = self.random
        part = random.uniform(SMALLEST, LARGEST)
        contours = posed(outline(name, random), part * math.sqrt(self.w * self.h), random)
        cut = random.random() < 0.2
        for _ in range(12):
            alpha, x, y = self.place(contours, cut)
            left, top = max(0, -x), max(0, -y)
            right, bottom = min(alpha.shape[1], self.w - x), min(alpha.shape[0], self.h - y)
            if left >= right or top >= bottom:
                continue
            rows, columns = slice(y + top, y + bottom), slice(x + left, x + right)
            inside = alpha[top:bottom, left:right]
            visible = inside >= 0.5
            pixels = int(np.count_nonzero(alpha >= 0.5))
            if visible.any() and self.fits(visible, pixels, rows, columns):
                break
        else:
            return
        vague = random.random() < 0.04
        if random.random() < 0.35:
            self.shade(inside, rows, columns)
        under = self.image[rows, columns]
        fill = paint(under, CAMOUFLAGE if vague else CONTRAST, random)
        under += (fill - under) * inside[..., None]
        self.owner[rows, columns][visible] = len(self.names)
        self.names.append(name)
        self.pixels.append(pixels)
        self.vague.append(vague)

    def shade(self, inside: np.ndarray, rows: slice, columns: slice) -> None:
        """A soft shadow below and to the right of the object that comes next."""
        reach = 4
        shadow = np.zeros((self.h + 2 * reach, self.w + 2 * reach), np.float32)
        down, aside = self.random.integers(1, reach, 2)
        shadow[
            rows.start + reach + down : rows.stop + reach + down,
            columns.start + reach + aside : columns.stop + reach + aside,
        ] = inside
        shadow = cv2.GaussianBlur(shadow, (0, 0), 1.6)[reach:-reach, reach:-reach]
        self.image *= 1 - self.random.uniform(0.2, 0.5) * shadow[..., None]

    def things(self) -> list[Thing]:
        """The objects with the boxes of what can be seen of them."""
        found = []
        for index, (name, pixels) in enumerate(zip(self.names, self.pixels, strict=True)):
            rows, columns = np.nonzero(self.owner == index)
            left, top, right, bottom = columns.min(), rows.min(), columns.max(), rows.max()
            at_border = left == 0 or top == 0 or right == self.w - 1 or bottom == self.h - 1
            missing = len(rows) < 0.95 * pixels
            found.append(
                Thing(
                    name,
                    truncated=bool(at_border and missing),
                    occluded=bool(missing and not at_border),
                    difficult=bool(self.vague[index] or len(rows) < HIDDEN * pixels),
                    box=(int(left) + 1, int(top) + 1, int(right) + 1, int(bottom) + 1),
                )
            )
        return found

    def photograph(self) -> np.ndarray:
        """The image as a camera gives it: light, blur and noise; uint8 BGR (h, w, 3)."""
        random = self.random
        image = (self.image - 0.5) * random.uniform(0.8, 1.15) + 0.5 + random.uniform(-0.08, 0.08)
        if random.random() < 0.4:
            image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 0.8))
        image += random.uniform(0, 0.04) * random.standard_normal(image.shape, dtype=np.float32)
        return np.rint(np.clip(image[..., ::-1], 0, 1) * 255).astype(np.uint8)


def draw(settings: Settings, number: int) -> tuple[np.ndarray, list[Thing]]:
    """Image ``number`` (from 1) of a set: uint8 BGR (h, w, 3), and its objects."""
    random = np.random.default_rng([settings.seed, number])
    sides = [settings.size, round(settings.size * random.uniform(0.75, 1))]
    w, h = sides if random.random() < 0.6 else sides[::-1]
    scene = Scene(w, h, random)
    for _ in range(random.choice(6, p=[0.06, 0.24, 0.30, 0.22, 0.12, 0.06])):
        scene.add(CLASSES[random.integers(len(CLASSES))])
    return scene.photograph(), scene.things()


def annotation(identity: str, w: int, h: int, things: list[Thing]) -> str:
    """The XML that VOC would have for an image."""
    lines = [
        "<annotation>",
        f"\t<folder>VOC{YEAR}</folder>",
        f"\t<filename>{identity}.jpg</filename>",
        "\t<source><database>darknet_compat, tools/make_shapes.py</database></source>",
        f"\t<size><width>{w}</width><height>{h}</height><depth>3</depth></size>",
        "\t<segmented>0</segmented>",
    ]
    for thing in things:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True)
        lines += [
            "\t<object>",
            f"\t\t<name>{thing.name}</name>",
            "\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{int(thing.truncated)}</truncated>",
            f"\t\t<occluded>{int(thing.occluded)}</occluded>",
            f"\t\t<difficult>{int(thing.difficult)}</difficult>",
            "\t\t<bndbox>" + "".join(f"<{end}>{value}</{end}>" for end, value in corners) + "</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def make_image(job: tuple[Settings, Path, int]) -> list[Thing]:
    """Draw one image and write it with its XML into the folder of a VOC year."""
    settings, folder, number = job
    image, things = draw(settings, number)
    identity = f"{number:06}"
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (folder / "JPEGImages" / f"{identity}.jpg").write_bytes(jpeg.tobytes())
    h, w = image.shape[:2]
    (folder / "Annotations" / f"{identity}.xml").write_text(annotation(identity, w, h, things), encoding="utf-8")
    return things


def make_devkit(devkit: Path, settings: Settings, workers: int) -> list[list[Thing]]:
    """Write the VOCdevkit; the objects of every image come back, in order."""
    folder = devkit / f"VOC{YEAR}"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    count = settings.train + settings.test
    numbers = [f"{number:06}\n" for number in range(1, count + 1)]
    sets = {"train": numbers[: settings.train], "test": numbers[settings.train :]}
    for name, identities in {**sets, "trainval": sets["train"]}.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(identities))
    jobs = [(settings, folder, number) for number in range(1, count + 1)]
    with multiprocessing.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(tqdm(pool.imap(make_image, jobs, chunksize=32), total=count, desc="drawing", unit=" images"))


def make_set(dest: Path, settings: Settings, workers: int) -> list[list[Thing]]:
    """Make the whole set under ``dest``, or leave nothing behind."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    try:
        temporary.chmod(0o755)
        things = make_devkit(temporary / "VOCdevkit", settings, workers)
        label(temporary, dest)
        (temporary / "settings.json").write_text(json.dumps(asdict(settings)) + "\n")
        os.replace(temporary, dest)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return things


def label(folder: Path, dest: Path) -> None:
    """Darknet's labels, and lists with the paths that the images will have below ``dest``."""
    year = folder / "VOCdevkit" / f"VOC{YEAR}"
    sets = []
    for image_set in ("train", "test"):
        identities = read_image_set(year, image_set)
        # Difficult objects are labelled: scoring passes them over, but a net must not learn that they are background.
        label_voc(year, identities, CLASSES, keep_difficult=True)
        named = str(dest / "VOCdevkit" / f"VOC{YEAR}")
        sets.append((YEAR, image_set, image_paths(year, identities, named)))
    write_lists(folder, sets)


def summary(things: list[list[Thing]]) -> str:
    """How many images and objects there are, in a few lines."""
    every = [thing for image in things for thing in image]
    names = Counter(thing.name for thing in every)
    empty = sum(not image for image in things)
    marks = {mark: sum(getattr(thing, mark) for thing in every) for mark in ("difficult", "truncated", "occluded")}
    return (
        f"{len(things)} images ({empty} empty), {len(every)} objects: "
        + ", ".join(f"{names[name]} {name}" for name in CLASSES)
        + "; "
        + ", ".join(f"{count} {mark}" for mark, count in marks.items())
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dest", type=Path, help="folder to make")
    parser.add_argument("--train", type=int, default=4000, help="training images (default %(default)s)")
    parser.add_argument("--test", type=int, default=500, help="test images (default %(default)s)")
    parser.add_argument("--size", type=int, default=192, help="pixels of the longer side (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (default %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per processor)")
    args = parser.parse_args()
    if min(args.train, args.test, args.workers) < 1 or args.seed < 0 or not 96 <= args.size <= 4096:
        parser.error("--train, --test and --workers are at least 1, --seed at least 0, --size from 96 to 4096")
    settings = Settings(args.train, args.test, args.size, args.seed)
    try:
        if is_there(args.dest, settings):
            print(f"{args.dest}: this set is already there")
            return 0
        things = make_set(args.dest, settings, args.workers)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.dest / 'train.txt'}: {summary(things[: args.train])}")
    print(f"{args.dest / f'{YEAR}_test.txt'}: {summary(things[args.train :])}")
    return 0


def is_there(dest: Path, settings: Settings) -> bool:
    """Whether ``dest`` holds the set of these settings; something else in its place is an error."""
    if not dest.exists():
        return False
    try:
        found = json.loads((dest / "settings.json").read_text())
    except (OSError, ValueError):
        found = None
    if found != asdict(settings):
        raise DataError(f"{dest}: holds something else than the set asked for; delete it, or name another folder")
    return True


if __name__ == "__main__":
    sys.exit(main())
