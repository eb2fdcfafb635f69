"""The training set: labels checked before the start, images drawn, decoded and augmented in worker processes.

Every sample of a run has a number. Which image it is and how it is augmented follow from the seed and that number
alone, so the stream of batches is the same for any number of workers and can be taken up at any batch.

The workers are forked processes at the other end of a pipe, and not those of torch's DataLoader. While that is in use,
its handler of SIGCHLD raises RuntimeError wherever the main process is when a worker dies, in the midst of a snapshot
too. At its end it waits up to five seconds for each worker that does not answer, and its workers do not know that
Ctrl-C and SIGTERM are the main process's to answer. Here a death is an error of the batch that is then missing, and
the end waits for nobody.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import mmap
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple, NoReturn

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..classify.labels import PathClasses
from ..errors import DataError, LostProcessError, TrainingError
from ..labels import Labels, label_path, read_all_labels
from ..memory import keep_memory
from ..processes import ALONE, Processes
from ..program import ALEXEYAB, PJREDDIE
from ..tree import SECRET_NUM, Tree
from . import alexeyab_augment, alexeyab_on_device, crop_on_device, on_device
from .alexeyab_augment import MIXED, AlexeyabAugmentation, Stretched, tile, tile_truth
from .augment import Augmentation, Draws, Random, augment_image, augment_truth, draw
from .batch import Batch
from .copies import Copies, Sent
from .crop_augment import (
    CropAugmentation,
    CropDraws,
    Patch,
    augment_crop,
    draw_crop,
    draw_mix,
    fill_classes,
    fill_hierarchy,
    mix_in,
    whole,
)
from .schedule import draw as numbered
from .sources import ImageFiles

if not hasattr(os, "fork"):
    raise TrainingError("training needs a system that forks processes, as Linux and macOS do; this one does not")

MEASURED = 1000  # images whose size says how much memory decoded batches get where several go into a sample
SHOWN = 5  # as many bad lines are shown one by one; the rest is counted
STOPPING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP  # what asks a training to stop
BURIAL = 1.0  # seconds; a worker that is killed is gone at once, but for one whose disk does not answer


def check_labels(
    images: Sequence[str],
    classes: int,
    labels: Literal["error", "warn"] = "error",
    class_only: int = 0,
    program: str = PJREDDIE,
    processes: Processes = ALONE,
) -> Labels:
    """Read the label files of all images, with a progress bar on a terminal; of ``processes`` each reads a part.

    A label file that is missing means no objects; so many such are one warning. Bad lines are counted; then ``labels``
    says whether they are an error, or a warning and left out. What is bad says :func:`..labels.read_all_labels`, and
    what ``class_only`` and ``program`` are.

    Raises DataError for bad lines, for images that do not exist, and where no image has an object.
    """

    def absent_ones(images: Sequence[str]) -> list[str]:
        return [image for image in images if not os.path.isfile(image)]

    def read(images: Sequence[str]) -> Labels:
        bar = tqdm(images, "checking labels", unit=" images", disable=None, leave=False)
        return read_all_labels(bar, classes, class_only, program)

    absent = [image for part in processes.look_through(images, absent_ones) for image in part]
    if absent:
        raise DataError(
            f"{absent[0]}: no such image; {len(absent)} of the {len(images)} images in the list are missing; its paths "
            f"are relative to the current folder, {os.getcwd()}"
        )
    found = functools.reduce(Labels.join, processes.look_through(images, read))
    if found.bad and labels == "error":
        raise DataError(f"{found.bad_lines()}; correct them, or leave them out with -labels warn")
    for line in found.bad[:SHOWN]:
        warnings.warn(f"{line}; the line is left out", stacklevel=2)
    if len(found.bad) > SHOWN:
        warnings.warn(f"{len(found.bad) - SHOWN} more bad label lines are left out", stacklevel=2)
    found.warn_of_missing()
    found.objects = found.objects.astype(np.float32)
    if not len(found.objects):
        rule = "for labels where 'images', 'JPEGImages' and 'raw' first stand in an image's path"
        if program == ALEXEYAB:
            rule = "beside an image, and in labels/ for those in JPEGImages/ alone: so does AlexeyAB's program"
        raise DataError(
            f"{label_path(images[0], program)}: no object in this label file nor in any of the {len(images)}; Darknet "
            f"looks {rule}"
        )
    return found


class ImageSet:
    """Images by sample number, and how one is drawn; what becomes of them and of their truth is said below.

    ``replacement``: every sample is drawn from all images, as Darknet draws; otherwise, and from shards always, each
    epoch shows every image once. ``cache``: all images are decoded beforehand and kept in memory (width x height x 3
    bytes each).
    """

    truth_shape: tuple[int, ...]
    """Of one sample's truth."""

    def __init__(self, images: Sequence[str], seed: int, replacement: bool, cache: bool) -> None:
        self.source = images if isinstance(images, ImageFiles) else ImageFiles(images)
        self.seed = seed
        self.replacement = replacement and not self.source.by_epochs
        self.cached: list[np.ndarray] | None = None
        if cache:
            progress = tqdm(range(len(self)), "decoding images", unit=" images", disable=None, leave=False)
            self.cached = [self.source.load(index) for index in progress]

    def __len__(self) -> int:
        return len(self.source)

    def pixels(self, index: int) -> int:
        """Those of an image, as the file's head says. Raises ImageError where it has none."""
        return math.prod(self.size(index))

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image, as the file's head says. Raises ImageError where it has none."""
        if not self.cached:
            return self.source.size(index)
        height, width, _ = self.cached[index].shape
        return width, height

    def pixels_of_largest(self, count: int) -> int:
        """Those of the ``count`` largest of MEASURED images; where there are fewer, in proportion."""
        indices = numbered(self.seed, "measured", 0).sample(range(len(self)), min(len(self), MEASURED))
        pixels = sorted(map(self.pixels, indices), reverse=True)[:count]
        return -(-sum(pixels) * count // len(pixels))

    def choose(self, sample: int) -> tuple[Random, int]:
        """The generator of a sample, and the number of its image."""
        random = numbered(self.seed, "sample", sample)
        if self.replacement:
            index = random.randrange(len(self))
        else:
            epoch, place = divmod(sample, len(self))
            index = int(_epoch_order(self.source, self.seed, epoch)[place])
        return random, index

    def path(self, index: int) -> str:
        return self.source[index]

    def image(self, index: int) -> np.ndarray:
        """The pixels of an image, uint8 (h, w, 3). Raises ImageError where it cannot be read."""
        return self.cached[index] if self.cached else self.source.load(index)

    def fill(self, sample: int, slot: np.ndarray, truth: np.ndarray) -> str:
        """Write sample number ``sample`` into ``slot`` (3, h, w) and ``truth``; its path comes back."""
        raise NotImplementedError

    def room(self, count: int, largest: tuple[int, int]) -> int:
        """Bytes for a batch that :meth:`decode` fills, for an input of at most (w, h).

        Raises TrainingError where such images cannot be augmented on a device.
        """
        raise NotImplementedError

    def decode(self, samples: range, size: tuple[int, int], memory: np.ndarray, truth: np.ndarray) -> list[str] | None:
        """Write decoded samples into ``memory``, uint8 (bytes,), for an input of (w, h), and their truth.

        Their paths come back; None where there is no room for them.
        """
        raise NotImplementedError

    def augment(self, memory: np.ndarray, count: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
        """The images of a batch that :meth:`decode` has filled, float32 (count, 3, h, w), on ``device``."""
        raise NotImplementedError


class DetectionSet(ImageSet):
    """Images and the objects in them, float32 (most, 5) of x, y, w, h, class: zeros end the list.

    ``most``: truths per image, the head's ``max``. ``mix``: the first so many images, and how many of the others are
    drawn for each one of these.
    """

    def __init__(
        self,
        images: Sequence[str],
        labels: Labels,
        most: int = 30,
        seed: int = 0,
        replacement: bool = True,
        cache: bool = False,
        mix: tuple[int, float] | None = None,
    ) -> None:
        super().__init__(images, seed, replacement, cache)
        self.labels = labels
        self.most = most
        self.mix = mix
        self.truth_shape = most, 5

    def choose(self, sample: int) -> tuple[Random, int]:
        if self.mix is None:
            return super().choose(sample)
        first, ratio = self.mix
        random = numbered(self.seed, "sample", sample)
        of_first = random.random() * (1 + ratio) < 1
        return random, random.randrange(first) if of_first else random.randrange(first, len(self))


class TrainingSet(DetectionSet):
    """Augmented as Darknet augments them; the other arguments are those of :class:`DetectionSet`."""

    def __init__(
        self, images: Sequence[str], labels: Labels, options: Augmentation, most: int = 30, **more: Any
    ) -> None:
        super().__init__(images, labels, most, **more)
        self.options = options

    def take(self, sample: int, size: tuple[int, int]) -> tuple[str, np.ndarray, Draws, np.ndarray]:
        """Path, image uint8 (h, w, 3), random numbers and objects of a sample, for an input of (width, height).

        Raises ImageError where the image cannot be read.
        """
        random, index = self.choose(sample)
        image, objects = self.image(index), self.labels[index]
        draws = draw(random, (image.shape[1], image.shape[0]), size, len(objects), self.options)
        return self.path(index), image, draws, objects

    def fill(self, sample: int, slot: np.ndarray, truth: np.ndarray) -> str:
        size = slot.shape[2], slot.shape[1]
        path, image, draws, objects = self.take(sample, size)
        augment_image(image, draws, slot)
        truth[:] = augment_truth(objects, draws, size, self.most)
        return path

    @functools.cached_property
    def most_pixels(self) -> int:
        """Those of the largest image. Raises ImageError where a file's head does not say."""
        return self.most_pixels_of(range(len(self)))

    def most_pixels_of(self, indices: Sequence[int]) -> int:
        """Of some images, 0 of none; reads the head of each."""
        return max(map(self.pixels, indices), default=0)

    def room(self, count: int, largest: tuple[int, int]) -> int:
        return on_device.room(count, *largest, self.most_pixels)

    def decode(self, samples: range, size: tuple[int, int], memory: np.ndarray, truth: np.ndarray) -> list[str]:
        decoded, paths = on_device.Decoded.within(memory, len(samples), *size), []
        for i, sample in enumerate(samples):
            path, image, draws, objects = self.take(sample, size)
            decoded.put(i, image, draws)
            truth[i] = augment_truth(objects, draws, size, self.most)
            paths.append(path)
        return paths

    def augment(self, memory: np.ndarray, count: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
        return on_device.augment(on_device.Decoded.within(memory, count, *size), device)


class AlexeyabTrainingSet(DetectionSet):
    """Augmented as AlexeyAB's loader does it, where several images may go into a sample."""

    def __init__(self, images: Sequence[str], labels: Labels, options: AlexeyabAugmentation, **more: Any) -> None:
        super().__init__(images, labels, **more)
        self.options = options

    def fill(self, sample: int, slot: np.ndarray, truth: np.ndarray) -> str:
        random, index = self.choose(sample)
        self.mix_in(random, self._indices(random, index), slot, truth)
        return self.path(index)

    def _indices(self, random: Random, first: int) -> Iterator[int]:
        """Of a sample's images, the first of which is drawn."""
        return itertools.chain([first], iter(lambda: random.randrange(len(self)), None))

    def mix_in(self, random: Random, indices: Iterator[int], slot: np.ndarray, truth: np.ndarray) -> None:
        """Write what becomes of the images that ``indices`` gives, as many as are drawn."""
        size = slot.shape[2], slot.shape[1]
        for place, (image, draws, boxes, seen) in enumerate(self.take(random, indices, size, truth)):
            if seen is None:
                pixels = alexeyab_augment.augment_image(image, draws, size, boxes)
                alexeyab_augment.write(pixels, slot, mean=place > 0)
            else:
                pixels = alexeyab_augment.augment_image(image, draws, size, boxes, seen.part)
                alexeyab_augment.write(pixels, slot, seen.left, seen.top)

    def take(
        self, random: Random, indices: Iterator[int], size: tuple[int, int], truth: np.ndarray
    ) -> Iterator[Stretched]:
        """The images of a sample one by one, for an input of (width, height); their truth is written on the way."""
        mix, found = alexeyab_augment.draw_mix(random, size, self.options), 0
        truth[:] = 0
        for place, index in enumerate(itertools.islice(indices, mix.images)):
            image, objects = self.image(index), self.labels[index]
            shape = image.shape[1], image.shape[0]
            corner = None if mix.cut is None else place
            draws = alexeyab_augment.draw(random, shape, size, len(objects), self.options, corner)
            boxes = alexeyab_augment.augment_truth(objects, draws, shape, size, self.most)
            seen = None if mix.cut is None else tile(place, mix.cut, draws, shape, size)
            yield Stretched(image, draws, boxes, seen)
            if seen is not None:
                boxes = tile_truth(boxes, seen, size, self.most - found, self.options.mosaic_bound)
            boxes = boxes[: self.most - found]
            truth[found : found + len(boxes)] = boxes
            found += len(boxes)

    def pixels(self, index: int) -> int:
        return alexeyab_on_device.padded(*self.size(index))

    def room(self, count: int, largest: tuple[int, int]) -> int:
        """Enough for the largest of MEASURED images; a batch that takes more is augmented by the loader."""
        layout = self._layout(count, largest)
        return alexeyab_on_device.room(layout, self.pixels_of_largest(layout.images))

    def decode(self, samples: range, size: tuple[int, int], memory: np.ndarray, truth: np.ndarray) -> list[str] | None:
        decoded, paths = self._decoded(memory, len(samples), size), []
        decoded.used[:] = 0
        for i, sample in enumerate(samples):
            random, index = self.choose(sample)
            images = self.take(random, self._indices(random, index), size, truth[i])
            if not all(decoded.put(i, place, one) for place, one in enumerate(images)):
                return None
            paths.append(self.path(index))
        return paths

    def augment(self, memory: np.ndarray, count: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
        return alexeyab_on_device.augment(self._decoded(memory, count, size), device)

    def _decoded(self, memory: np.ndarray, count: int, size: tuple[int, int]) -> alexeyab_on_device.Decoded:
        return alexeyab_on_device.Decoded.within(memory, self._layout(count, size))

    def _layout(self, count: int, size: tuple[int, int]) -> alexeyab_on_device.Layout:
        options = self.options
        most, boxes = count * MIXED[options.mixing], self.most if options.blur else 0
        return alexeyab_on_device.Layout(count, most, *size, boxes, bool(options.gaussian_noise))


class Crop(NamedTuple):
    """An image of a sample, uint8 (h, w, 3), the random numbers of the square that is cut out of it, and its place."""

    image: np.ndarray
    draws: CropDraws
    patch: Patch


class ClassTrainingSet(ImageSet):
    """Augmented images and the classes that they show, float32 (classes,), by sample number.

    ``tree``: that of the classes; ``smooth``: AlexeyAB's label_smooth_eps (``crop_augment.py``). The input is square.
    Raises TrainingError where images are to be mixed and there is a tree.
    """

    def __init__(
        self,
        images: PathClasses,
        classes: int,
        options: CropAugmentation,
        tree: Tree | None = None,
        smooth: float = 0.0,
        seed: int = 0,
        replacement: bool = True,
        cache: bool = False,
    ) -> None:
        if tree and options.mixing:
            raise TrainingError(
                f"{options.mixing} with a tree of classes: {SECRET_NUM:g}, the mark of groups about which nothing is "
                "known, would be mixed with truth; remove one of the two"
            )
        super().__init__(images.paths, seed, replacement, cache)
        self.images = images
        self.options = options
        self.tree = tree
        self.smooth = smooth
        self.truth_shape = (classes,)

    def take(self, sample: int, size: tuple[int, int], truth: np.ndarray) -> tuple[str, list[Crop]]:
        """Write the truth of a sample; the path of its first image, and all images that are mixed in it.

        Of an input of (width, height). Raises ImageError where an image cannot be read.
        """
        if size[0] != size[1]:
            raise TrainingError(f"an input of {size[0]} x {size[1]}; a classifier is trained on squares")
        random, first = self.choose(sample)
        crops = [self._crop(random, first, size[0], whole(size[0]))]
        fill_classes(truth, self.images[first], self.smooth)
        if self.tree:
            fill_hierarchy(truth, self.tree)
        if self.options.mixing and random.randrange(2):
            # The mixture before its other images, so that none is read that is not seen.
            ground, *patches = draw_mix(random, size[0], self.options.mixing)
            truth *= ground.share
            for patch in patches:
                index = random.randrange(len(self))
                crops.append(self._crop(random, index, size[0], patch))
                other = np.empty_like(truth)
                fill_classes(other, self.images[index], self.smooth)
                truth += patch.share * other
        return self.path(first), crops

    def _crop(self, random: Random, index: int, size: int, patch: Patch) -> Crop:
        image = self.image(index)
        return Crop(image, draw_crop(random, (image.shape[1], image.shape[0]), size, self.options), patch)

    def fill(self, sample: int, slot: np.ndarray, truth: np.ndarray) -> str:
        path, (first, *others) = self.take(sample, (slot.shape[2], slot.shape[1]), truth)
        augment_crop(first.image, first.draws, slot)
        for image, draws, patch in others:
            other = np.empty_like(slot)
            augment_crop(image, draws, other)
            mix_in(slot, other, patch)
        return path

    def room(self, count: int, largest: tuple[int, int]) -> int:
        """Enough for the largest of MEASURED images; a batch that takes more is augmented by the loader."""
        if self.options.center:
            raise TrainingError("images are augmented on a device only with center=0")
        count *= self.options.most_mixed
        return crop_on_device.room(count, largest[0], self.pixels_of_largest(count))

    def decode(self, samples: range, size: tuple[int, int], memory: np.ndarray, truth: np.ndarray) -> list[str] | None:
        decoded, paths = self._decoded(memory, len(samples), size), []
        decoded.used[:] = 0
        for i, sample in enumerate(samples):
            path, crops = self.take(sample, size, truth[i])
            if not all(decoded.put(i, *crop) for crop in crops):
                return None
            paths.append(path)
        return paths

    def augment(self, memory: np.ndarray, count: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
        return crop_on_device.augment(self._decoded(memory, count, size), count, device)

    def _decoded(self, memory: np.ndarray, count: int, size: tuple[int, int]) -> crop_on_device.DecodedCrops:
        return crop_on_device.DecodedCrops.within(memory, count * self.options.most_mixed, size[0])


@functools.lru_cache(maxsize=2)
def _epoch_order(source: ImageFiles, seed: int, epoch: int) -> np.ndarray:
    return source.order(np.random.PCG64(numbered(seed, "epoch", epoch).getrandbits(128)))


class _Request(NamedTuple):
    index: int  # type: ignore[assignment]  # tuple.index is not used
    first: int
    images: int
    w: int
    h: int


class _Ring:
    """Memory for the batches under way, shared with the workers: fresh memory for each would cost as much as decoding.

    Anonymous memory that forked processes inherit; /dev/shm, small in many containers, is left alone.
    """

    def __init__(self, data: ImageSet, count: int, largest: tuple[int, int], most: int, batches: int) -> None:
        """For ``count`` images of the size ``largest``, or up to ``most`` of smaller ones that take no more memory."""
        self.data = data
        self.places = batches
        self.images = self._shared(batches, self._image_bytes(count, largest, most))
        self.truth = self._shared(batches, 4 * most * math.prod(data.truth_shape))

    def lock(self, copies: Copies) -> None:
        """Page-lock what is copied to a GPU."""
        for memory in (self.images, self.truth):
            copies.lock(memory)

    def _shared(self, batches: int, size: int) -> np.ndarray:
        try:
            return np.frombuffer(mmap.mmap(-1, batches * size), np.uint8).reshape(batches, size)
        except OSError as error:
            raise TrainingError(
                f"no memory for {batches} batches of {size / 2**20:,.0f} MiB: {error.strerror}; use fewer workers, "
                "more subdivisions or smaller images"
            ) from None

    def _image_bytes(self, count: int, largest: tuple[int, int], most: int) -> int:
        return 4 * count * 3 * largest[0] * largest[1]

    def fill(self, request: _Request) -> list[str]:
        """Fill the batch; the paths of its images. Raises ImageError where one cannot be read."""
        return self._fill(request, self._truth(request))

    def _fill(self, request: _Request, truth: np.ndarray) -> list[str]:
        images = self._floats(request)
        return [self.data.fill(request.first + i, images[i], truth[i]) for i in range(request.images)]

    def _truth(self, request: _Request) -> np.ndarray:
        numbers: np.ndarray = self.truth[request.index % len(self.truth)].view(np.float32)
        shape = request.images, *self.data.truth_shape
        return numbers[: math.prod(shape)].reshape(shape)

    def _floats(self, request: _Request) -> np.ndarray:
        numbers: np.ndarray = self.images[request.index % len(self.images)].view(np.float32)
        shape = request.images, 3, request.h, request.w
        return numbers[: math.prod(shape)].reshape(shape)

    def batch(self, request: _Request, paths: list[str]) -> Batch:
        """The batch of a request that is filled."""
        return Batch(self._tensor(request), torch.from_numpy(self._truth(request)), tuple(paths))

    def _tensor(self, request: _Request) -> torch.Tensor:
        return torch.from_numpy(self._floats(request))


class _DecodedRing(_Ring):
    """Memory for batches of decoded images at their full size, which ``device`` augments."""

    def __init__(
        self, data: ImageSet, count: int, largest: tuple[int, int], most: int, batches: int, device: torch.device
    ) -> None:
        super().__init__(data, count, largest, most, batches)
        self.device = device
        self.finished = self._shared(batches, 1)  # by the loader, for there was no room for them at their full size

    def _image_bytes(self, count: int, largest: tuple[int, int], most: int) -> int:
        # A decoded image does not shrink with the input.
        return max(-(-self.data.room(most, largest) // 8) * 8, super()._image_bytes(count, largest, most))

    def _fill(self, request: _Request, truth: np.ndarray) -> list[str]:
        samples = range(request.first, request.first + request.images)
        place = request.index % len(self.images)
        paths = self.data.decode(samples, (request.w, request.h), self.images[place], truth)
        self.finished[place] = paths is None
        return super()._fill(request, truth) if paths is None else paths

    def _tensor(self, request: _Request) -> torch.Tensor:
        place = request.index % len(self.images)
        if self.finished[place]:
            return super()._tensor(request)
        return self.data.augment(self.images[place], request.images, (request.w, request.h), self.device)


class _Worker(NamedTuple):
    """A process that fills the batches it is asked for, in the order of the requests."""

    pid: int
    pipe: Connection

    def ask(self, request: _Request) -> None:
        try:
            self.pipe.send(request)
        except OSError:
            self._lost()

    def has_answered(self) -> bool:
        """Would :meth:`answer` not wait?"""
        return self.pipe.poll()

    def answer(self) -> list[str]:
        """The paths of the batch asked for first. Raises what stood in its way, LostProcessError for a death."""
        try:
            answer: list[str] | Exception = self.pipe.recv()
        except (OSError, EOFError):
            self._lost()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _lost(self) -> NoReturn:
        raise LostProcessError(
            f"process {self.pid}, which loads images, died, perhaps for lack of memory; use fewer workers or smaller "
            "batches"
        ) from None


def _start_worker(ring: _Ring) -> _Worker:
    ours, theirs = multiprocessing.Pipe()
    # Ctrl-C on a terminal and a SIGTERM to the whole group are the main process's to answer: it saves, and kills its
    # workers. In them these signals stay blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        # A bare fork: multiprocessing would wait for the process at the end of this one.
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _work(ring, theirs)
            finally:
                os._exit(1)
    except OSError as error:
        raise TrainingError(f"cannot start a process to load images: {error.strerror}; use fewer workers") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(pid, ours)


def _work(ring: _Ring, pipe: Connection) -> None:
    """Answer requests until the one who asks is gone."""
    keep_memory()
    torch.set_num_threads(1)  # its pool of threads, too, is not there after a fork
    with contextlib.suppress(OSError, EOFError):
        while True:
            request = pipe.recv()
            try:
                answer: list[str] | Exception = ring.fill(request)
            except Exception as error:
                answer = error
            pipe.send(answer)


def _end_workers(workers: Sequence[_Worker]) -> None:
    """Kill them: they hold nothing but memory."""
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        worker.pipe.close()
    left = {worker.pid for worker in workers}
    limit = time.monotonic() + BURIAL
    while left and time.monotonic() < limit:
        with contextlib.suppress(ChildProcessError):
            left = {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0}
        time.sleep(0.001)


def _requests(
    numbers: Iterable[int],
    counts: Iterable[int],
    size: Callable[[int], tuple[int, int]],
    first: int,
    rank: int,
    world: int,
) -> Iterator[_Request]:
    for index, count in zip(numbers, counts, strict=False):
        yield _Request(index, first + rank * count, count, *size(index))
        first += world * count


def load_batches(
    data: ImageSet,
    count: int,
    size: Callable[[int], tuple[int, int]],
    largest: tuple[int, int],
    *,
    counts: Callable[[int], int] | None = None,
    most: int | None = None,
    first: int = 0,
    stop: int | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    prefetch: int = 2,
    device: torch.device | None = None,
    copies: Copies | None = None,
) -> Generator[Batch, None, None]:
    """Batches 0, 1, ... (up to ``stop``, else without end) of ``count`` images each, from sample ``first`` on.

    ``size``: batch number -> (w, h), for ``random=1``; it is asked ahead of time and must depend on the number alone.
    ``largest``: the greatest (w, h) that it gives. ``counts``: batch number -> images, up to ``most``, where smaller
    ones take no more memory than ``count`` of the largest (``dynamic_minibatch=1``). ``workers`` processes work ahead
    by at most ``prefetch`` batches each; 0 works in this process. Of several training processes (``world``), number
    ``rank`` gets every world-th batch of the stream. With a ``device`` the workers only decode, and images are
    augmented there (``on_device.py``, ``alexeyab_on_device.py``, ``crop_on_device.py``). ``copies`` takes batches to a
    GPU, one of them ahead if it is there; they then have memory of their own.

    When the iterator is closed the workers are killed, and ``copies`` closed. Raises ImageError where an image cannot
    be read, LostProcessError where a worker process dies, and TrainingError where memory is short, and with a
    ``device`` where the data set cannot be augmented there.
    """
    places = workers * prefetch + 2
    if device is None:
        ring = _Ring(data, count, largest, most or count, places)
    else:
        ring = _DecodedRing(data, count, largest, most or count, places, device)
    numbers = itertools.count() if stop is None else range(stop)
    counted = map(counts, itertools.count()) if counts else itertools.repeat(count)
    requests = _requests(numbers, counted, size, first, rank, world)
    started: list[_Worker] = []
    try:
        if workers:
            _start_workers(ring, workers, started)
        if copies:
            ring.lock(copies)  # behind the forks, whose memory it is too
        if workers:
            yield from _ahead(ring, requests, started, workers * prefetch, copies)
        else:
            yield from _one_by_one(ring, requests, copies)
    finally:
        try:
            _end_workers(started)
        finally:
            if copies:
                copies.close()


def _start_workers(ring: _Ring, count: int, started: list[_Worker]) -> None:
    # OpenCV's pool of threads does not outlive a fork: a child that takes it down waits for ever. So it is taken down
    # here, and the workers inherit none.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for _ in range(count):
            started.append(_start_worker(ring))
    finally:
        cv2.setNumThreads(threads)


def _one_by_one(ring: _Ring, requests: Iterable[_Request], copies: Copies | None) -> Iterator[Batch]:
    copied: deque[torch.cuda.Event] = deque()
    for request in requests:
        if len(copied) == ring.places:
            copied.popleft().synchronize()
        make = functools.partial(ring.batch, request, ring.fill(request))
        if copies:
            sent = copies.send(make)
            copied.append(sent.copied)
            yield copies.arrive(sent)
        else:
            yield make()


def _ahead(
    ring: _Ring, requests: Iterable[_Request], workers: Sequence[_Worker], ahead: int, copies: Copies | None
) -> Iterator[Batch]:
    """What the workers fill, who are asked for so many batches ``ahead``.

    Without ``copies`` a batch keeps its place in the ring while the next is used. With them a place is given back as
    soon as the copy from it is done: that is looked at, and not waited for, until nothing else is left to do.
    """
    turns = zip(itertools.cycle(workers), requests, strict=False)
    asked: deque[tuple[_Worker, _Request]] = deque()
    sent: deque[Sent] = deque()
    copied: deque[torch.cuda.Event] = deque()

    def ask() -> None:
        while copied and copied[0].query():
            copied.popleft()
        for worker, request in itertools.islice(turns, min(ahead, ring.places - len(copied)) - len(asked)):
            worker.ask(request)
            asked.append((worker, request))

    while True:
        ask()
        # The batch behind the one that is used next is sent too, but it is not waited for.
        if asked and (not sent or (len(sent) == 1 and asked[0][0].has_answered())):
            worker, request = asked.popleft()
            make = functools.partial(ring.batch, request, worker.answer())
            if copies:
                sent.append(copies.send(make))
                copied.append(sent[-1].copied)
            else:
                ask()
                yield make()
        elif copies and sent:
            yield copies.arrive(sent.popleft())
        elif copied:
            copied.popleft().synchronize()
        else:
            return
