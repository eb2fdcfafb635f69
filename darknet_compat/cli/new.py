"""The verb ``new``: from labelled images to all that a training needs."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .arguments import above_0, count, end_by_signal, fraction, positive, table

if TYPE_CHECKING:
    from ..new import Project


def add(verbs: Any) -> None:
    """Make the verb known to the command line."""
    parser = verbs.add_parser(
        "new",
        help="make all that a training run needs from labelled images",
        description="Finds VOC XML, COCO JSON or Darknet labels, divides the images, and writes the folder NAME: "
        "lists, labels, names, .data, and a cfg with its classes, filters, anchors and schedule. Says how long "
        "training will take, and what to type next.",
        epilog="example: %(prog)s cells --from BCCD",
        allow_abbrev=False,
    )

    def flag(name: str, **options: Any) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **options)

    parser.add_argument("name", metavar="NAME", help="folder to make")
    flag("from", dest="source", required=True, metavar="SOURCE", help="folder of labelled images, or a COCO JSON file")
    flag("form", choices=("voc", "coco", "darknet"), help="format of the labels (default: the one found)")
    flag("names", metavar="FILE", help="the classes, one per line (default: all found)")
    flag(
        "cfg", metavar="CFG", help="network to start from (default: cfg/yolov4-small.cfg, on a GPU cfg/yolov4-tiny.cfg)"
    )
    flag("size", type=positive, metavar="PIXELS", help="input size, a multiple of 32 (default: what the boxes need)")
    flag("minutes", type=above_0, metavar="N", help="longest training time (default: 40 on a CPU)")
    flag(
        "split", type=fraction, metavar="SHARE", help="of the images for validation (default: as the data comes, or .2)"
    )
    flag("seed", type=count, default=0, help="seed of the division (default 0)")
    flag("copy", action="store_true", help="copy the images (default: links to them)")
    flag("skip", action="store_true", help="leave out and count files that cannot be read (default: an error)")
    flag("device", metavar="DEVICE", help="where it will train: cuda (default where there is one), cpu ...")
    parser.set_defaults(run=new)


def new(options: argparse.Namespace) -> int:
    from ..new import new as run

    before = signal.signal(signal.SIGTERM, end_by_signal)
    try:
        project = run(
            options.name, options.source, form=options.form, names=options.names, cfg=options.cfg, size=options.size,
            minutes=options.minutes, share=options.split, seed=options.seed, copy=options.copy, skip=options.skip,
            device=options.device,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in _lines(project):
        print(line)
    return 0


def _lines(project: Project) -> Iterator[str]:
    from ..layers.net import read_net
    from ..new import FORMS

    found, net = project.collection, read_net(project.cfg.net, project.program)[0]
    objects = sum(len(image.objects) for image in found.images)
    yield f"{FORMS[found.form]}: {len(found.images)} images, {objects} objects"
    for what, number in found.left_out.items():
        if number:
            yield f"left out, {what}: {number}"
    parts = [part for part, images in project.parts.items() if images]
    counts = [project.counts(part) for part in parts]
    rows = [(name, [count[name] for count in counts]) for name in found.names]
    yield from table(parts, [("images", [len(project.parts[part]) for part in parts]), *rows])
    if project.divided:
        yield "divided as the data comes; -split SHARE divides it anew"
    elif project.alike:
        yield f"{project.alike} images are near-duplicates of others, and stand on the side of those"
    if project.duplicates:
        trained, scored = project.duplicates[0]
        yield (
            f"warning: {len(project.duplicates)} images to score on are near-duplicates of some to train on, as "
            f"{scored} of {trained}; -split SHARE divides the data anew, and keeps such together"
        )
    yield f"network: {project.template}, {net.width} x {net.height}; anchors: average IoU {100 * project.average:.1f} %"
    yield (
        f"schedule: {net.max_batches} updates of {net.batch} images, about {_time(project.seconds * net.max_batches)} "
        f"here ({project.seconds:.2f} s an update)"
    )
    if net.max_batches < project.asked:
        yield (
            f"AlexeyAB's rule asks for {project.asked} updates, {_time(project.seconds * project.asked)}: "
            f"-minutes {round(project.seconds * project.asked / 60) + 1} has them"
        )
    yield f"next: {project.command}"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
