"""The training set: labels checked before the start, pictures drawn, decoded and augmented in worker processes.

Every sample of a run has a number. Which picture it is and how it is augmented follow from the seed and that number
alone, so the stream of batches is the same for any number of workers and can be taken up at any batch.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..errors import DataError, PictureError, TrainingError
from ..images import load_picture
from ..labels import label_path, read_labels
from ..memory import keep_memory
from .augment import Augmentation, augment_picture, augment_truth, draw
from .schedule import draw as numbered

SHOWN = 5  # as many bad lines are shown one by one; the rest is counted
GRACE = 60  # seconds that a worker still works after SIGTERM


@dataclass
class Labels:
    """The objects of all pictures of a list, and what was wrong with their label files."""

    objects: np.ndarray
    """float32 (total, 5): class, x, y, w, h."""
    starts: np.ndarray
    """int64 (pictures + 1): picture i has the rows starts[i] to starts[i + 1]."""
    missing: list[str] = field(default_factory=list)
    """Label files that do not exist."""
    bad: list[str] = field(default_factory=list)
    """One line for each bad one of a label file: "file:line: what"."""

    def __getitem__(self, index: int) -> np.ndarray:
        return self.objects[self.starts[index] : self.starts[index + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1


def check_labels(
    pictures: Sequence[str],
    classes: int,
    labels: Literal["error", "warn"] = "error",
    class_only: bool = False,
) -> Labels:
    """Read the label files of all pictures, with a progress bar on a terminal.

    A label file that is missing means no objects; so many such are one warning. Lines that are no ``class x y w h``
    with a class below ``classes`` and numbers in 0..1 are counted; then ``labels`` says whether they are an error, or
    a warning and left out. ``class_only``: an object at x = y = 0 has a class and no place, as YOLO9000 has them;
    without a tree Darknet would write outside its memory for one, so it is a bad line else.

    Raises DataError for bad lines, for pictures that do not exist, and where no picture has an object.
    """
    found = Labels(np.zeros((0, 5), np.float32), np.zeros(1, np.int64))
    rows, absent = [], []
    for picture in tqdm(pictures, "checking labels", unit=" pictures", disable=None, leave=False):
        if not os.path.isfile(picture):
            absent.append(picture)
        rows.append(_read_objects(picture, classes, class_only, found))
    if absent:
        raise DataError(
            f"{absent[0]}: no such picture, nor are {len(absent) - 1} others of the {len(pictures)} in the list; "
            "paths in a list are relative to the working directory"
        )
    if found.bad and labels == "error":
        raise DataError(
            f"{found.bad[0]}; {len(found.bad)} bad lines in all; correct them, or train without them by labels=warn"
        )
    for line in found.bad[:SHOWN]:
        warnings.warn(f"{line}; the line is left out", stacklevel=2)
    if len(found.bad) > SHOWN:
        warnings.warn(f"{len(found.bad) - SHOWN} more bad label lines are left out", stacklevel=2)
    if found.missing:
        warnings.warn(
            f"{found.missing[0]}: no such label file; {len(found.missing)} of {len(pictures)} pictures have none and "
            "are taken to show no object",
            stacklevel=2,
        )
    found.starts = np.cumsum([0, *map(len, rows)])
    found.objects = np.concatenate(rows).astype(np.float32)
    if not len(found.objects):
        raise DataError(
            f"{label_path(pictures[0])}: no object in this label file nor in any of the {len(pictures)}; Darknet looks "
            "for labels where 'images', 'JPEGImages' and 'raw' first stand in a picture's path"
        )
    return found


def _read_objects(picture: str, classes: int, class_only: bool, found: Labels) -> np.ndarray:
    path = label_path(picture)
    nothing = np.zeros((0, 5))
    if path == picture:
        found.bad.append(f"{picture}: no label file belongs to a picture of this name; Darknet knows .jpg and .png")
        return nothing
    try:
        objects = read_labels(path)
    except FileNotFoundError:
        found.missing.append(path)
        return nothing
    except OSError as error:
        found.bad.append(f"{path}: cannot read the label file: {error.strerror}")
        return nothing
    except DataError as error:
        found.bad.append(str(error))
        return nothing
    names, boxes = objects[:, 0], objects[:, 1:]
    known = (names >= 0) & (names < classes) & (names == names.round())
    inside = ((boxes >= 0) & (boxes <= 1)).all(1)
    placed = class_only | (boxes[:, :2] != 0).any(1)
    good = known & inside & placed
    for row in np.flatnonzero(~good):
        if not known[row]:
            what = f"class {names[row]:g}, expected one of 0..{classes - 1}"
        elif not inside[row]:
            what = "a box outside of 0..1; x, y, w, h are parts of the picture's width and height"
        else:
            what = "x = y = 0 marks an object without a place, which only a network with a tree can learn"
        found.bad.append(f"{path}:{_line_number(path, int(row))}: {what}")
    return objects[good]


def _line_number(path: str, row: int) -> int:
    with open(path, encoding="utf-8", errors="replace") as file:
        filled = [number for number, line in enumerate(file, 1) if line.strip()]
    return filled[row]


class Batch(NamedTuple):
    """What one forward pass of training takes. The memory is used again once the next batch but one is asked for."""

    pictures: torch.Tensor
    """float32 (n, 3, h, w), RGB, 0..1."""
    truth: torch.Tensor
    """float32 (n, most, 5): x, y, w, h, class; a list ends at the first x = 0."""
    paths: tuple[str, ...]


class TrainingSet:
    """Augmented pictures and their truth, by sample number.

    ``most``: truths per picture, the region section's ``max``. ``replacement``: every sample is drawn from all
    pictures, as Darknet draws; otherwise each epoch shows every picture once. ``cache``: all pictures are decoded
    beforehand and kept in memory (width x height x 3 bytes each).
    """

    def __init__(
        self,
        pictures: Sequence[str],
        labels: Labels,
        options: Augmentation,
        most: int = 30,
        seed: int = 0,
        replacement: bool = True,
        cache: bool = False,
    ) -> None:
        # One block of bytes instead of many objects: worker processes share it as long as nobody counts references.
        self.names = np.array([os.fsencode(picture) for picture in pictures])
        self.labels = labels
        self.options = options
        self.most = most
        self.seed = seed
        self.replacement = replacement
        self.cached: list[np.ndarray] | None = None
        if cache:
            progress = tqdm(pictures, "decoding pictures", unit=" pictures", disable=None, leave=False)
            self.cached = [load_picture(picture) for picture in progress]

    def __len__(self) -> int:
        return len(self.names)

    def fill(self, sample: int, slot: np.ndarray, truth: np.ndarray) -> str:
        """Write sample number ``sample`` into ``slot`` (3, h, w) and ``truth`` (most, 5); its path comes back.

        Raises PictureError where the picture cannot be read.
        """
        random = numbered(self.seed, "sample", sample)
        if self.replacement:
            index = random.randrange(len(self))
        else:
            epoch, place = divmod(sample, len(self))
            index = _epoch_order(len(self), self.seed, epoch)[place]
        path = os.fsdecode(self.names[index].item())
        picture = self.cached[index] if self.cached else load_picture(path)
        size = slot.shape[2], slot.shape[1]
        objects = self.labels[index]
        draws = draw(random, (picture.shape[1], picture.shape[0]), size, len(objects), self.options)
        augment_picture(picture, draws, slot)
        truth[:] = augment_truth(objects, draws, size, self.most)
        return path


@functools.lru_cache(maxsize=2)
def _epoch_order(pictures: int, seed: int, epoch: int) -> list[int]:
    return numbered(seed, "epoch", epoch).sample(range(pictures), pictures)


class _Request(NamedTuple):
    index: int
    first: int
    w: int
    h: int


class _Ring(Dataset):
    """Memory for the batches under way, shared with the workers: fresh memory for each would cost as much as decoding.

    Anonymous memory that forked processes inherit; /dev/shm, small in many containers, is left alone.
    """

    def __init__(self, data: TrainingSet, count: int, largest: tuple[int, int], batches: int) -> None:
        self.data = data
        self.count = count
        self.largest = largest
        self.pictures = self._shared(batches, count * 3 * largest[0] * largest[1])
        self.truth = self._shared(batches, count * data.most * 5)

    def _shared(self, batches: int, numbers: int) -> np.ndarray:
        return np.frombuffer(mmap.mmap(-1, 4 * batches * numbers), np.float32).reshape(batches, numbers)

    def views(self, request: _Request) -> tuple[np.ndarray, np.ndarray]:
        """Where the batch of a request stands: pictures (n, 3, h, w) and truth (n, most, 5)."""
        place = request.index % len(self.pictures)
        pictures = self.pictures[place, : self.count * 3 * request.h * request.w]
        truth = self.truth[place].reshape(self.count, self.data.most, 5)
        return pictures.reshape(self.count, 3, request.h, request.w), truth

    def __getitem__(self, request: _Request) -> tuple[_Request, list[str] | str]:
        """Fill the batch; the paths come back, or the message of the PictureError that stood in the way.

        A message, since torch would wrap an exception that leaves a worker in the lines of a traceback.
        """
        pictures, truth = self.views(request)
        try:
            paths = [self.data.fill(request.first + i, pictures[i], truth[i]) for i in range(self.count)]
        except PictureError as error:
            return request, str(error)
        return request, paths


def _start_worker(_: int) -> None:
    # Ctrl-C and a SIGTERM to the whole group are the main process's to answer: it finishes its update and saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    keep_memory()


def _as_it_is(done: tuple[_Request, list[str] | str]) -> tuple[_Request, list[str] | str]:
    return done


def load_batches(
    data: TrainingSet,
    count: int,
    size: Callable[[int], tuple[int, int]],
    largest: tuple[int, int],
    *,
    start: int = 0,
    stop: int | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Batches ``start``, ``start + 1``, ... (up to ``stop``, else without end) of ``count`` pictures each.

    ``size``: batch number -> (w, h), for ``random=1``; it is asked ahead of time and must depend on the number alone.
    ``largest``: the greatest (w, h) that it gives. ``workers`` processes work ahead by at most ``prefetch`` batches
    each; 0 works in this process. Of several training processes (``world``), number ``rank`` gets every world-th
    batch of the stream.

    Raises PictureError where a picture cannot be read, TrainingError where a worker process dies.
    """
    ring = _Ring(data, count, largest, workers * prefetch + 2)
    numbers = itertools.count(start) if stop is None else range(start, stop)
    loader = DataLoader(
        ring,
        sampler=(_Request(index, (index * world + rank) * count, *size(index)) for index in numbers),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if workers else None,
    )
    # OpenCV's pool of threads does not outlive a fork: a child that takes it down waits for ever. So it is taken down
    # here, and the workers inherit none.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1 if workers else threads)
    batches = iter(loader)
    cv2.setNumThreads(threads)
    while True:
        try:
            request, paths = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "a process that loads pictures died, perhaps for lack of memory; use fewer workers or smaller batches"
            ) from None
        if isinstance(paths, str):
            raise PictureError(paths)
        pictures, truth = ring.views(request)
        yield Batch(torch.from_numpy(pictures), torch.from_numpy(truth), tuple(paths))
