"""From labelled images to all that a training needs: lists, labels, names, .data, anchors and a cfg."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..anchors import kmeans, network_sizes
from ..cfg import Cfg, read_cfg, write_cfg
from ..cfg.sections import printable
from ..device import find_device
from ..errors import DataError, ImageError
from ..files import umask, whole_file
from ..images import load_image, save_image
from ..labels import Labels, label_line, label_path
from ..layers.net import read_net
from ..network import Network
from ..processes import Processes
from ..program import read_program
from ..stock import find_stock
from ..train.copies import copies_to
from ..train.data import load_batches
from ..train.detector import detection_set
from ..train.step import Trainer
from ..weights import load_network
from .collect import FORMS, Collection, Form, Labelled, Part, collect
from .recipe import clusters, detection_heads, input_size, own_cfg, schedule, updates, with_anchors
from .split import near_duplicates, pairs_across, split, thumbnails

__all__ = ["FORMS", "Form", "Project", "collect", "new"]

# On a processor a network of a quarter of YOLOv4-tiny's work, at a size that its time allows.
CPU_CFG, GPU_CFG = "cfg/yolov4-small.cfg", "cfg/yolov4-tiny.cfg"
CPU_SIZES, GPU_SIZE = (224, 256, 320, 416), 416
STRIDE = 32  # pixels of the input in a cell of the smallest map; of other sizes the maps of several heads do not fit
GPU_BATCH = 64, 8
CPU_BATCH = 16, 2  # in the place of a stock cfg's batch=1, which is for detection
MINUTES = 40  # on a processor, so that it ends within an hour where another job is busy, too
FEWEST = 200  # updates after which there is something to see
SHARE = 0.2  # of the images, to score on
TIMED = 8.0  # seconds of updates
LEAST_TIMED, MOST_TIMED = 4, 60  # updates
# Suffixes for which both programs find label files, and what images of other kinds become.
LABELLED, OTHERS = (".jpg", ".png"), {".jpeg": ".jpg", ".bmp": ".png"}


@dataclass(frozen=True)
class Project:
    """What :func:`new` made."""

    folder: Path
    collection: Collection
    parts: dict[Part, list[Labelled]]
    """The images to train on, to score on, and, where the data has such a part, to test on at last."""
    divided: bool
    """Did the data come divided?"""
    duplicates: list[tuple[str, str]]
    """Near-duplicates of which one is trained on and the other scored on: data that came divided may have them."""
    alike: int
    """Images that are near-duplicates of another."""
    template: str
    """The cfg that the project's was made from."""
    cfg: Cfg
    program: str
    average: float
    """The mean IOU of the boxes with their nearest anchors."""
    asked: int
    """Updates that AlexeyAB's rule asks for."""
    seconds: float
    """An update takes so long here."""
    command: str
    """What to type next."""

    def counts(self, part: Part) -> Counter[str]:
        """Objects of each class in a part."""
        names = self.collection.names
        return Counter(names[int(number)] for image in self.parts[part] for number in image.objects[:, 0])


def new(
    name: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    form: Form | None = None,
    names: str | os.PathLike[str] | None = None,
    cfg: str | os.PathLike[str] | None = None,
    size: int | None = None,
    minutes: float | None = None,
    share: float | None = None,
    seed: int = 0,
    copy: bool = False,
    skip: bool = False,
    device: str | None = None,
) -> Project:
    """Make the folder ``name`` of the labelled images in ``source``, ready to train.

    ``form``, ``names`` and ``skip`` are those of :func:`collect`. Data that comes divided, by ImageSets, by folders or
    files called train, valid and test, stays so; else, or with a ``share``, that share of the images is scored on (a
    fifth), the same for every class, and near-duplicates stay on one side. ``seed`` is of the division.

    The folder holds images/ (links, or with ``copy`` copies, with names of their own, as result files know an image by
    its name up to the first dot), labels where the program that the cfg is for looks for them, train.txt and valid.txt,
    NAME.names, NAME.data and NAME.cfg.

    ``cfg`` None is a small YOLOv4 for a processor, and YOLOv4-tiny for a GPU. ``size`` is a multiple of 32; None: on a
    processor the smallest of 224 to 416 at which nine boxes of ten have sides of 8 pixels or more. Anchors are those of
    the training boxes as the network sees them. Updates are AlexeyAB's 2,000 a class, at least 6,000 and one for each
    image, but no more than ``minutes`` allow, measured here (None: 40 on a processor, any number on a GPU).

    Raises :class:`DarknetError` in one line, and then leaves nothing behind.
    """
    folder = Path(os.path.abspath(name))
    if "\n" in str(folder):
        raise DataError(f"{str(folder)!r}: a line break; expected a NAME without one, as lists hold a path a line")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{name}: exists already; expected the name of a folder to make")
    if size is not None and size % STRIDE:
        near = sorted({max(STRIDE, size // STRIDE * STRIDE), -(-size // STRIDE) * STRIDE})
        raise DataError(f"-size {size}: expected a multiple of {STRIDE}, such as {' or '.join(map(str, near))}")
    where = find_device(device)
    on_processor = where.type == "cpu"
    given = os.fspath(cfg or (CPU_CFG if on_processor else GPU_CFG))
    template = read_cfg(find_stock(given))
    detection_heads(template)
    found = collect(source, form, names, skip)
    groups = _alike(found, skip)
    divided = share is None and len({image.part for image in found.images} & {"valid", "test"}) > 0
    parts = _parts(found, groups, divided, SHARE if share is None else share, seed)
    uses: dict[Part, str] = {"train": "train", "valid": "score"}
    for part, use in uses.items():
        if not parts[part]:
            expected = _expected(part, groups, divided, share)
            raise DataError(f"{source}: of {len(groups)} images none is left to {use} on; expected {expected}")
    if not any(len(image.objects) for image in parts["train"]):
        raise DataError(f"{source}: no object in the {len(parts['train'])} images to train on; nothing can be learned")
    program = read_program(template)[0]

    with _made(folder) as made:
        listed = _write_images(made, folder, parts, copy, program)
        most = max(len(image.objects) for image in found.images)
        asked = updates(len(found.names), len(parts["train"]))
        boxes = np.concatenate([image.objects[:, 3:] for image in parts["train"]])
        side = size or (input_size(boxes, CPU_SIZES) if on_processor else GPU_SIZE)
        net = read_net(template.net, program)[0]
        own_batch = (net.batch, net.subdivisions) if net.batch > 1 else CPU_BATCH
        batch: tuple[int, int] = own_batch if on_processor else GPU_BATCH
        trial = own_cfg(template, len(found.names), (side, side), schedule(*batch, asked), most)
        seconds = seconds_per_update(trial, where, parts["train"])
        allowed = MINUTES if minutes is None and on_processor else minutes
        fewer = asked if allowed is None else max(FEWEST, int(min(asked, 60 * allowed / seconds)))
        plan = schedule(*batch, fewer)
        why = [
            f"Made by darknet-compat new from {printable(given)} for the {len(found.names)} classes of "
            f"{printable(os.fspath(source))}.",
            f"AlexeyAB's rule asks for {asked} updates: 2000 a class, at least 6000, and one for each training image.",
        ]
        if plan.max_batches < asked:
            why.append(f"{plan.max_batches} are what {allowed:g} minutes allow, at {seconds:.2f} s each.")
        own = own_cfg(template, len(found.names), (side, side), plan, most, why)
        own, average = _with_own_anchors(own, parts["train"])
        write_cfg(own, made / f"{folder.name}.cfg")
        _write_data(made, folder, listed, found.names)
    typed = shlex.join(os.path.relpath(folder / f"{folder.name}{suffix}") for suffix in (".data", ".cfg"))
    return Project(
        folder, found, parts, divided, _across(parts, found, groups), len(groups) - len(set(groups.tolist())),
        given, own, program, average, asked, seconds, f"darknet-compat detector train {typed} -fast -map",
    )  # fmt: skip


def seconds_per_update(cfg: Cfg, device: torch.device, images: list[Labelled]) -> float:
    """How long an update of ``cfg`` takes, with its images loaded by another process meanwhile, as in a training.

    What is already loaded when the first update has set up what the others find would not last; so updates go on for
    a while, and the second half of them counts.
    """
    trainer = Trainer(load_network(cfg), Processes(device), fast=True)
    net = trainer.net
    objects = np.concatenate([image.objects for image in images]).astype(np.float32)
    labels = Labels(objects, np.cumsum([0, *(len(image.objects) for image in images)]))
    data = detection_set(trainer.network, [image.path for image in images], labels)
    size = net.width, net.height
    batches = load_batches(data, net.mini_batch, lambda _: size, size, workers=1, copies=copies_to(device))
    ends: list[float] = []
    with closing(batches):
        while len(ends) < LEAST_TIMED or (ends[-1] - ends[0] < TIMED and len(ends) < MOST_TIMED):
            trainer.update(itertools.islice(batches, net.subdivisions))
            ends.append(time.perf_counter())
    middle = (len(ends) - 1) // 2
    return (ends[-1] - ends[middle]) / (len(ends) - 1 - middle)


def _alike(found: Collection, skip: bool) -> np.ndarray:
    """:func:`near_duplicates` of the images that decode; with ``skip`` the others are taken out."""
    seen = thumbnails([image.path for image in found.images])
    errors = [thumbnail for thumbnail in seen if isinstance(thumbnail, ImageError)]
    if errors and not (skip and len(errors) < len(seen)):
        raise DataError(f"{errors[0]} ({len(errors)} such files; -skip leaves them out)")
    found.left_out["images that do not decode"] += len(errors)
    found.images = [
        image for image, thumbnail in zip(found.images, seen, strict=True) if not isinstance(thumbnail, ImageError)
    ]
    return near_duplicates(np.stack([thumbnail for thumbnail in seen if not isinstance(thumbnail, ImageError)]))


def _parts(found: Collection, groups: np.ndarray, divided: bool, share: float, seed: int) -> dict[Part, list[Labelled]]:
    parts: dict[Part, list[Labelled]] = {"train": [], "valid": [], "test": []}
    if divided:
        for image in found.images:
            parts[image.part or "train"].append(image)
        if not parts["valid"]:
            parts["valid"], parts["test"] = parts["test"], []
        return parts
    classes = np.zeros((len(found.images), len(found.names)), bool)
    for row, image in zip(classes, found.images, strict=True):
        row[image.objects[:, 0].astype(int)] = True
    for image, scored in zip(found.images, split(classes, groups, share, seed), strict=True):
        parts["valid" if scored else "train"].append(image)
    return parts


def _expected(empty: str, groups: np.ndarray, divided: bool, share: float | None) -> str:
    """What would leave images in a part that has none."""
    if len(groups) == 1:
        return "two or more"
    if divided:
        return "-split SHARE, which divides the data anew"
    if len(set(groups.tolist())) == 1:
        return "some that are no near-duplicates of the others, which stay on one side"
    if share is None:
        return "more images"
    return f"a {'smaller' if empty == 'train' else 'larger'} -split than {share:g}"


def _across(parts: dict[Part, list[Labelled]], found: Collection, groups: np.ndarray) -> list[tuple[str, str]]:
    """Pairs of near-duplicates, of which the first is trained on."""
    numbers = dict(zip((image.name for image in found.images), groups.tolist(), strict=True))
    trained, scored = ([image.name for image in images] for images in (parts["train"], parts["valid"] + parts["test"]))
    return pairs_across(trained, scored, numbers)


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name ``folder`` when the block ends well, and else is gone."""
    above = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        _remove_empty(above)
        raise DataError(f"{folder}: {error.strerror}; expected a folder that can be made") from None
    try:
        yield scratch
        scratch.chmod(0o777 & ~umask())
        try:
            if folder.exists():
                folder.rmdir()
            scratch.rename(folder)
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}; expected the name of a folder to make") from None
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(above)
        if isinstance(error, OSError):
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            raise DataError(f"{folder}: cannot be made: {what}; nothing of it is left") from None
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # another process may have put something there
            folder.rmdir()


def _with_own_anchors(cfg: Cfg, images: list[Labelled]) -> tuple[Cfg, float]:
    """The cfg with anchors for the boxes of ``images`` as its network sees them, and their average IOU."""
    network = Network(cfg, device="meta")
    net, heads = network.net, network.detectors
    boxes = network_sizes(
        np.concatenate([image.objects[:, 3:] for image in images]), [len(image.objects) for image in images],
        [image.path for image in images], net.width, net.height, network.letter_box,
    )  # fmt: skip
    anchors, average = kmeans(boxes, clusters(cfg))
    # [region] counts in cells of its map, [yolo] in pixels.
    stride = net.width // heads[0].output.w if heads[0].type == "region" else None
    return with_anchors(cfg, anchors, stride), average


def _write_images(
    made: Path, folder: Path, parts: dict[Part, list[Labelled]], copy: bool, program: str
) -> dict[Part, list[str]]:
    """Links or copies of the images and their label files; the paths that they will have, by part."""
    (made / "images").mkdir()
    taken: set[str] = set()
    listed: dict[Part, list[str]] = {}
    for part, images in parts.items():
        listed[part] = []
        for image in images:
            path = folder / "images" / _own_name(image.name, taken)
            label = Path(label_path(str(path), program))
            if not label.is_relative_to(folder) or label.suffix != ".txt":
                raise DataError(
                    f"{folder}: for {path.name} there {program}'s program looks for labels in {label}; expected a NAME "
                    "with no images, raw or JPEGImages in its path"
                )
            _bring(image.path, made / path.relative_to(folder), copy)
            label = made / label.relative_to(folder)
            label.parent.mkdir(exist_ok=True)
            with whole_file(label, "w") as file:
                file.writelines(f"{label_line(int(number), box)}\n" for number, *box in image.objects.tolist())
            listed[part].append(str(path))
    return listed


def _own_name(name: str, taken: set[str]) -> str:
    """A file's name that no other has up to its first dot, from a path of one or more folders."""
    stem, suffix = os.path.splitext(name)
    stem = re.sub(r"[/.\r\n]", "_", stem).strip()  # a list has a line for each
    own, number = stem, 2
    while own in taken:
        own, number = f"{stem}_{number}", number + 1
    taken.add(own)
    return own + (suffix.lower() if suffix.lower() in LABELLED else OTHERS[suffix.lower()])


def _bring(source: str, path: Path, copy: bool) -> None:
    if path.suffix == ".png" and not source.lower().endswith(".png"):
        save_image(load_image(source), path)
        return
    if not copy:
        try:
            path.symlink_to(source)
            return
        except OSError:  # where links are not for everyone, as on Windows
            pass
    shutil.copyfile(source, path)


def _write_data(made: Path, folder: Path, listed: dict[Part, list[str]], names: list[str]) -> None:
    """The lists, the names and the .data file."""
    files = {f"{part}.txt": images for part, images in listed.items() if images}
    files[f"{folder.name}.names"] = names
    files[f"{folder.name}.data"] = [
        f"classes = {len(names)}", f"train = {folder}/train.txt", f"valid = {folder}/valid.txt",
        f"names = {folder}/{folder.name}.names", f"backup = {folder}/backup", f"results = {folder}/results",
    ]  # fmt: skip
    for name, lines in files.items():
        with whole_file(made / name, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
