"""Many images through a network, side by side: from files or arrays to their detections, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from ..defaults import TEST
from ..engines import Engine
from ..errors import ImageError
from ..flow import forward_turns, read_file, results_in_order
from ..images import letterbox_image, resize_image
from ..network import Network
from ..processes import ALONE, Processes
from .detections import Detections, detect
from .tiles import join, tiles_of

Thing = TypeVar("Thing")


def detect_files(
    network: Network,
    paths: Iterable[str],
    *,
    batch: int = 1,
    letter_box: bool | None = None,
    engine: Engine | None = None,
    unreadable: Callable[[ImageError], None] | None = None,
    **options: Any,
) -> Iterator[Detections]:
    """Detections of many image files, in order: :func:`detect_many` of what they hold."""
    yield from detect_many(network, paths, read_file, batch, letter_box, engine, unreadable, **options)


def detect_many(
    network: Network,
    things: Iterable[Thing],
    read: Callable[[Thing], tuple[str, np.ndarray]],
    batch: int = 1,
    letter_box: bool | None = None,
    engine: Engine | None = None,
    unreadable: Callable[[ImageError], None] | None = None,
    keep: bool = False,
    tiles: int = 1,
    processes: Processes = ALONE,
    **options: Any,
) -> Iterator[Detections]:
    """Detections of many images, in order. ``read`` makes a path and pixels, uint8 RGB (h, w, 3), of a thing.

    Each of as many Python threads as torch would use takes a batch from its files to its detections. As many as the
    threads of ``engine`` leave room for run it at a time; the others decode and letterbox meanwhile. On a processor an
    engine of 1 thread is the fastest, since threads that share a layer wait for each other; without an engine the
    network runs on all threads, a batch at a time. One batch more than there are threads is under way, however long
    the list. ``options`` are those of :func:`detect`.

    An image that cannot be read raises :class:`ImageError` after the detections of all images before it. Or
    ``unreadable`` takes that error, and if it returns, the image is passed over. Raises :class:`CfgError` where the
    network takes no RGB. With ``keep`` the detections hold the pixels. ``tiles`` over 1 looks at each image in so many
    times so many parts that overlap, and at the whole of it (``tiles.py``). Several ``processes`` share the batches
    (:func:`.flow.results_in_order`).
    """
    network.check_images()
    letter_box = network.letter_box if letter_box is None else letter_box
    device = network.device
    fit = letterbox_image if letter_box else resize_image
    run = engine or Engine(network.predict, torch.get_num_threads())
    turn = forward_turns(run.threads, device)

    def found_in(opened: Iterator[tuple[str, np.ndarray]]) -> list[Detections]:
        images = torch.empty(batch, 3, network.height, network.width)
        sizes: list[tuple[int, int]] = []
        names: list[str] = []
        kept: list[np.ndarray] = []
        for path, image in opened:
            fit(image, images[len(sizes)].numpy())
            sizes.append((image.shape[1], image.shape[0]))
            names.append(path)
            kept += [image] * keep
        if not sizes:
            return []
        with turn:
            found = detect(
                network, images[: len(sizes)].to(device), sizes, names, letter_box=letter_box, engine=run, **options
            )
        return [replace(one, pixels=image) for one, image in zip(found, kept, strict=True)] if keep else found

    def found_in_tiles(opened: Iterator[tuple[str, np.ndarray]]) -> list[Detections]:
        results = []
        for path, image in opened:
            parts = tiles_of(image.shape[1], image.shape[0], tiles)
            images = torch.empty(batch, 3, network.height, network.width)
            found: list[Detections] = []
            for start in range(0, len(parts), batch):
                chunk = parts[start : start + batch]
                for slot, part in zip(images, chunk, strict=False):
                    crop = image[part.top : part.bottom, part.left : part.right]
                    fit(np.ascontiguousarray(crop), slot.numpy())
                sizes = [(part.right - part.left, part.bottom - part.top) for part in chunk]
                with turn:
                    found += detect(
                        network, images[: len(chunk)].to(device), sizes, [path] * len(chunk), letter_box=letter_box,
                        engine=run, **{**options, "nms": 0, "relative": False},
                    )  # fmt: skip
            nms = options.get("nms")
            nms = TEST[network.program].nms if nms is None else nms
            one = join(found, parts, network, nms, options.get("relative", True))
            results.append(replace(one, pixels=image) if keep else one)
        return results

    yield from results_in_order(found_in if tiles == 1 else found_in_tiles, things, batch, unreadable, read, processes)
