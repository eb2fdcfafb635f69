"""Looking through a data set before hours of training: counts, sizes, and what is wrong, with what to do about it."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .anchors import iou, kmeans, seen_sizes
from .cfg import check_names, read_cfg, read_data, read_list, read_names
from .errors import CfgError, DataError, ImageError
from .files import whole_file
from .images import decode_image, read_encoded
from .labels import SMALLEST, Labels, image_ids, read_all_labels
from .new.split import near_duplicates, pairs_across, thumbnail
from .progress import Progress, unseen
from .stock import find_stock
from .tree import read_map

if TYPE_CHECKING:
    from .network import Network

SMALL = 8  # pixels of the network's input; of a smaller object a network sees a blot at best
EDGES = (0, SMALL, 16, 32, 64, 128, np.inf)  # of the sizes that are counted
FEW = 50  # objects of a class, under which it is hardly learnt
UNEVEN = 20  # times as many objects of one class as of another
OUTSIDE = 0.002  # of the image, by which a box may reach over its edge: what roundings make
CORNERS = 0.95  # of the lines that would be corners
CLUSTERED = 20_000  # boxes at the most that others are looked for with
LESS = 0.1  # of the average IOU with anchors, which others would not lack


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with the data."""

    kind: str
    """A word for it, for programs."""
    text: str
    """What is wrong, how often, and where first."""
    advice: str
    error: bool = False
    """Does training refuse it, or does it spoil the outcome for certain?"""

    def __str__(self) -> str:
        return f"{'error' if self.error else 'warning'}: {self.text}; {self.advice}"


@dataclass(frozen=True)
class _Image:
    """An image that can be read."""

    width: int
    height: int
    thumbnail: np.ndarray


@dataclass
class Part:
    """One list of the data set."""

    name: str
    """train or valid."""
    images: list[str]
    labels: Labels
    sizes: np.ndarray
    """(objects, 2): widths and heights in pixels of the network's input."""

    def counts(self, classes: int) -> np.ndarray:
        """Objects of each class."""
        return np.bincount(self.labels.objects[:, 0].astype(int), minlength=classes)

    @property
    def empty(self) -> int:
        """Images that show no object."""
        return int((np.diff(self.labels.starts) == 0).sum())


@dataclass
class Findings:
    """What :func:`check` found."""

    data: str
    names: list[str]
    width: int
    """Of the network's input, which sizes are measured in."""
    height: int
    parts: list[Part]
    problems: list[Problem] = field(default_factory=list)

    def say(self, kind: str, text: str, advice: str, error: bool = False) -> None:
        """Add a problem."""
        self.problems.append(Problem(kind, text, advice, error))

    @property
    def sound(self) -> bool:
        """Is nothing of it an error?"""
        return not any(problem.error for problem in self.problems)

    def size_counts(self) -> list[tuple[str, int]]:
        """How many objects have a shorter side in each range of pixels of the network's input."""
        sides = np.concatenate([part.sizes.min(1) for part in self.parts])
        ranges = [
            f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
            for low, high in itertools.pairwise(EDGES)
        ]
        return list(zip(ranges, np.histogram(sides, EDGES)[0].tolist(), strict=True))

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON's values."""
        return {
            "data": self.data,
            "input": [self.width, self.height],
            "lists": {
                part.name: {
                    "images": len(part.images),
                    "without objects": part.empty,
                    "objects": dict(zip(self.names, part.counts(len(self.names)).tolist(), strict=True)),
                }
                for part in self.parts
            },
            "shorter side in pixels": dict(self.size_counts()),
            "problems": [
                {"kind": one.kind, "error": one.error, "text": one.text, "advice": one.advice} for one in self.problems
            ],
        }


def check(
    data: str | os.PathLike[str],
    cfg: str | os.PathLike[str] | None = None,
    *,
    size: int = 416,
    program: str = "pjreddie",
    progress: Progress[_Image | ImageError] = unseen,
) -> Findings:
    """Look through the train and the valid list of a .data file: every image is decoded, every label read.

    ``cfg`` says the network's input, how images come into it, and whose label files count; without it they are
    letterboxed into ``size`` x ``size``, and ``program``'s. ``progress`` is given what the longest part goes through,
    and how many that are.

    Raises :class:`DarknetError` where there is nothing to look through: no list, no names, a damaged cfg.
    """
    read = read_data(find_stock(os.fspath(data)))
    names = read_names(find_stock(read.source("names", "data/names.list")))
    width = height = size
    letter_box, most, network, classes = True, None, None, np.arange(len(names))
    if cfg is not None:
        from .network import Network

        network = Network(read_cfg(find_stock(os.fspath(cfg))), device="meta")
        width, height, letter_box, program = network.net.width, network.net.height, network.letter_box, network.program
        most = min(head.o.max for head in network.detectors)
        check_names(read, names, network.detector.o.classes, os.fspath(cfg))
        if getattr(network.detector, "map", None) is not None:
            classes = np.array(read_map(network.detector.o.map))  # of the network, by the numbers that labels have
    elif read.get("classes") is not None and read.integer("classes") != len(names):
        raise read.error("classes", f"there are {len(names)} names")
    found = Findings(os.fspath(data), names, width, height, [])
    lists = [(name, read_list(find_stock(read.require(name)))) for name in ("train", "valid")]
    there = _decoded(found, lists, progress)
    for name, images in lists:
        kept = [image for image in images if image in there]
        labels = read_all_labels(kept, len(classes), program=program)
        labels.objects[:, 0] = classes[labels.objects[:, 0].astype(int)]
        shapes = [(there[image].width, there[image].height) for image in kept]
        sizes = seen_sizes(labels.objects[:, 3:], np.diff(labels.starts), shapes, width, height, letter_box)
        part = Part(name, kept, labels, sizes)
        found.parts.append(part)
        _look_at_labels(found, part, most)
    _look_at_both(found, [images for _, images in lists], there)
    _look_at_classes(found)
    _look_at_sizes(found)
    if network is not None:
        _look_at_schedule(found, network)
        _look_at_anchors(found, network)
    found.problems.sort(key=lambda problem: not problem.error)
    return found


def _decoded(
    found: Findings, lists: Sequence[tuple[str, list[str]]], progress: Progress[_Image | ImageError]
) -> dict[str, _Image]:
    """Each image that can be read; the others are problems."""
    images = list(dict.fromkeys(image for _, listed in lists for image in listed))
    missing = [image for image in images if not os.path.isfile(image)]
    if missing:
        found.say(
            "missing images",
            f"{len(missing)} of {len(images)} images are not there, {missing[0]} for one",
            f"paths are relative to the current folder, {os.getcwd()}; correct the lists",
            error=True,
        )
    absent = set(missing)
    images = [image for image in images if image not in absent]

    def read(image: str) -> _Image | ImageError:
        try:
            encoded = read_encoded(image)
            height, width = decode_image(encoded, image).shape[:2]
            return _Image(width, height, thumbnail(encoded, image))
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(progress(threads.map(read, images), len(images)))
    broken = [result for result in results if isinstance(result, ImageError)]
    if broken:
        found.say(
            "unreadable images",
            f"{len(broken)} images cannot be read: {str(broken[0]).rstrip('.')}",
            "take them out of the lists, or copy them again",
            error=True,
        )
    return {image: result for image, result in zip(images, results, strict=True) if not isinstance(result, ImageError)}


def _look_at_labels(found: Findings, part: Part, most: int | None) -> None:
    labels, name = part.labels, part.name
    if labels.bad:
        found.say("bad label lines", f"{name}: {labels.bad_lines()}", "correct or remove them", error=True)
    if labels.missing:
        found.say(
            "missing label files",
            f"{name}: {len(labels.missing)} of {len(labels)} images have no label file: {labels.missing[0]}",
            "an empty file says that an image shows no object; a missing one may be a wrong path",
            error=len(labels.missing) == len(labels),
        )
    objects = labels.objects
    image = np.repeat(np.arange(len(labels)), np.diff(labels.starts))
    centres, halves = objects[:, 1:3], objects[:, 3:] / 2

    def first(wrong: np.ndarray) -> str:
        return part.images[int(image[np.flatnonzero(wrong)[0]])]

    outside = np.asarray(((centres - halves < -OUTSIDE) | (centres + halves > 1 + OUTSIDE)).any(1))
    corners = (objects[:, 3:] > objects[:, 1:3]).all(1)
    if len(objects) and outside.any() and corners.mean() > CORNERS:
        found.say(
            "corners",
            f"{name}: {corners.mean():.0%} of the boxes would be corners, x y x y",
            "a label line is class, x and y of the centre, width, height: convert them",
            error=True,
        )
    elif outside.any():
        found.say(
            "boxes outside",
            f"{name}: {outside.sum()} boxes reach out of their images, first in {first(outside)}",
            "Darknet cuts them off; where they reach far, the labels are those of another image",
        )
    _, place, count = np.unique(np.column_stack([image, objects]), axis=0, return_index=True, return_counts=True)
    if len(place) < len(objects):
        found.say(
            "boxes twice",
            f"{name}: {len(objects) - len(place)} objects are in their label files twice, first in "
            f"{part.images[int(image[place[count > 1][0]])]}",
            "remove one of each",
        )
    flat = np.asarray((objects[:, 3:] == 0).any(1))
    if flat.any():
        found.say(
            "flat boxes",
            f"{name}: {flat.sum()} boxes have no width or height, first in {first(flat)}",
            "remove them: training drops them",
        )
    if most is not None and len(labels) and labels.most > most:
        fullest = part.images[int(np.diff(labels.starts).argmax())]
        found.say(
            "too many objects",
            f"{name}: {fullest} has {labels.most} objects, and the cfg says max={most}",
            f"training ignores the rest; write max={labels.most} in each head",
        )


def _look_at_both(found: Findings, listed: Sequence[list[str]], there: dict[str, _Image]) -> None:
    for part, images in zip(found.parts, listed, strict=True):
        if len(set(images)) < len(images):
            found.say(
                "images twice",
                f"{part.name}: {len(images) - len(set(images))} lines of the list are repeated",
                "sort -u removes them",
            )
    try:
        image_ids(list(dict.fromkeys(listed[-1])), "the valid list")
    except DataError as error:
        found.say("equal names", str(error), "`valid` refuses such a list", error=True)
    train, valid = (list(dict.fromkeys(part.images)) for part in found.parts)
    same = set(map(os.path.realpath, train)) & set(map(os.path.realpath, valid))
    if same:
        found.say(
            "train in valid",
            f"{len(same)} images are trained on and scored on, {min(same)} for one",
            "take them out of one of the lists: such scores are too good",
            error=True,
        )
    if not there:
        return
    groups = near_duplicates(np.stack([image.thumbnail for image in there.values()])).tolist()
    others = [image for image in valid if os.path.realpath(image) not in same]
    pairs = pairs_across(train, others, dict(zip(there, groups, strict=True)))
    if pairs:
        found.say(
            "near-duplicates",
            f"{len(pairs)} images to score on are near-duplicates of some to train on, as {pairs[0][1]} of "
            f"{pairs[0][0]}",
            "divide by scenes, not by frames: darknet-compat new does",
        )


def _look_at_classes(found: Findings) -> None:
    classes = len(found.names)
    for part in found.parts:
        counts = part.counts(classes)
        none = [name for name, count in zip(found.names, counts, strict=True) if not count]
        if none:
            what = "it cannot be learnt" if part.name == "train" else "its AP is 0 or nothing"
            more = f" and {len(none) - 5} more classes" if len(none) > 5 else ""
            found.say(
                "classes without objects",
                f"{part.name}: no object of {', '.join(none[:5])}{more}",
                f"{what}; label some, or take the name out",
                error=part.name == "train" and len(none) == classes,
            )
        if part.name != "train":
            continue
        few = [f"{name} {count}" for name, count in zip(found.names, counts, strict=True) if 0 < count < FEW]
        if few:
            found.say(
                "few objects",
                f"train: classes with under {FEW} objects: {', '.join(few[:10])}",
                "label more; Darknet's rule of thumb is 2,000 images a class",
            )
        labelled = np.flatnonzero(counts)
        if not len(labelled):
            continue
        rare, common = labelled[counts[labelled].argmin()], labelled[counts[labelled].argmax()]
        if counts[common] > UNEVEN * counts[rare]:
            both = " and ".join(f"{counts[number]} objects of {found.names[number]}" for number in (common, rare))
            found.say(
                "uneven classes",
                f"train: {both}",
                "the rare class is learnt last: list its images several times, or label more",
            )


def _look_at_sizes(found: Findings) -> None:
    sizes = np.concatenate([part.sizes for part in found.parts])
    small = (sizes.min(1) < SMALL).mean() if len(sizes) else 0.0
    if small > 0.01:
        found.say(
            "small objects",
            f"{small:.0%} of the objects have a side under {SMALL} pixels at {found.width} x {found.height}",
            "train and detect at a larger width and height, or cut large images into parts",
        )


def _look_at_schedule(found: Findings, network: Network) -> None:
    from .train.schedule import check_schedule

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            check_schedule(network.net, network.cfg.net)
        except CfgError as error:
            found.say("schedule", str(error), "training refuses such a cfg", error=True)
    for warning in said:
        found.say("schedule", str(warning.message), "training says so too")


def _look_at_anchors(found: Findings, network: Network) -> None:
    """Anchors of other boxes, or in other units, are learnt away from slowly if at all."""
    sizes = found.parts[0].sizes
    sizes = sizes[(sizes >= np.multiply((found.width, found.height), SMALLEST)).all(1)]
    sizes = sizes[:: 1 + len(sizes) // CLUSTERED]
    given = [head.relative_anchors for head in network.detectors]
    own = [anchors.numpy() for anchors in given if anchors is not None]
    if not own or not len(sizes):
        return
    anchors = np.unique(np.concatenate(own), axis=0) * (found.width, found.height)
    others = min(len(anchors), len(np.unique(sizes, axis=0)))
    average, best = iou(sizes, anchors).max(1).mean(), kmeans(sizes, others)[1]
    if average < best - LESS:
        found.say(
            "anchors",
            f"the anchors' average IOU with the boxes is {average:.0%}; {others} others have {best:.0%}",
            "darknet-compat detector calc_anchors has them; [region] counts in cells, [yolo] in pixels",
        )


def write_json(found: Findings, path: str | os.PathLike[str]) -> None:
    """Write :meth:`Findings.as_json` to a file, whole or not at all."""
    import json

    with whole_file(path, "w") as file:
        json.dump(found.as_json(), file, indent=1, ensure_ascii=False)


def draw(found: Findings, path: str | os.PathLike[str]) -> None:
    """Draw counts, sizes and places of the objects to a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    classes, sides, shapes, places = figure.subplots(2, 2).flat
    rows = np.arange(len(found.names))
    for index, part in enumerate(found.parts):
        classes.barh(
            rows + 0.4 * (index - 0.5), part.counts(len(rows)), 0.4, label=f"{part.name}: {len(part.images)} images"
        )
    classes.set_yticks(rows, found.names)
    classes.invert_yaxis()
    classes.set(title="objects of each class", xlabel="objects")
    classes.legend()
    sizes = np.concatenate([part.sizes for part in found.parts])
    where = np.concatenate([part.labels.objects[:, 1:3] for part in found.parts])
    shown = sizes.min(1).clip(1) if len(sizes) else sizes
    sides.hist(shown, np.geomspace(1, max(found.width, found.height), 40))
    sides.axvline(SMALL, color="black", linestyle="--", label=f"{SMALL} pixels")
    sides.set(xscale="log", title="shorter side", xlabel=f"pixels at {found.width} x {found.height}", ylabel="objects")
    sides.legend()
    shapes.scatter(*sizes.T, s=5, alpha=0.3, linewidths=0)
    shapes.set(title="sizes", xlabel="width, pixels of the network's input", ylabel="height", xlim=0, ylim=0)
    places.hist2d(*where.T, bins=32, range=[[0, 1], [0, 1]], cmap="viridis")
    places.invert_yaxis()
    places.set(title="centres, on the image", xticks=[], yticks=[])
    for axes in (classes, sides, shapes):
        axes.grid(alpha=0.3)
    with whole_file(Path(path)) as file:
        figure.savefig(file, format="png")
