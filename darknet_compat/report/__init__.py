"""One page of a training, and pages of several side by side: ``darknet-compat report`` and ``compare``."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cfg import parse_cfg
from ..errors import DataError
from ..evaluate.voc import Metric
from ..files import whole_file
from ..image_files import check_written, make_folder
from ..network import Network
from ..progress import Progress, unseen
from ..stock import find_stock
from . import page
from .compare import compare
from .page import Section
from .runs import Run, find_run, read_scores
from .steps import Steps

__all__ = ["Report", "compare", "report"]

LINES = 12  # of the log


@dataclass(frozen=True)
class Report:
    """What :func:`report` made."""

    page: Path
    weights: Path
    """Those that were scored."""
    tiles: list[tuple[str, str]]
    """The figures that count, and their names."""


def report(
    run: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    devkit: str | None = None,
    year: str = "2007",
    image_set: str = "test",
    metric: Metric = "voc07",
    thresh: float | None = None,
    images: int = 8,
    batch: int = 8,
    device: str | None = None,
    beside: Sequence[str | os.PathLike[str]] = (),
    progress: Progress[Any] = unseen,
) -> Report:
    """Make one page of the training in the folder ``run``, or of ``run``/NAME: what it learnt from, how its loss went,
    what it scores on the valid list, and what it finds in ``images`` of it.

    All goes to the folder ``out`` (None: NAME.report beside its weights), the page as index.html, which holds its
    images too. ``weights`` None are those of the training's end. The scores are those of :func:`.voc_eval`: against
    label files, or with a ``devkit`` against VOC's annotations; ``metric`` is its metric. Boxes are drawn from
    ``thresh`` on (None: that of ``detector test``). ``beside``: files that ``voc_eval -json`` wrote of something else,
    whose columns are called like them, and by their paths where names are equal. ``progress`` takes what takes long,
    and how many it is.

    Raises :class:`DarknetError` in one line.
    """
    found = find_run(run)
    record = found.record
    stems = Counter(Path(file).stem for file in beside)
    others = {Path(file).stem if stems[Path(file).stem] == 1 else os.fspath(file): read_scores(file) for file in beside}
    if not os.path.exists(find_stock(record.data)):
        raise DataError(f"{record.data}: no such file; the training was started in {record.folder}: type this there")
    scored = found.weights if weights is None else Path(weights)
    folder = found.out if out is None else Path(out)
    cfg, data = (folder / f"{found.name}{end}" for end in (".cfg", ".data"))
    check_written([cfg, data], [record.cfg, record.data])
    make_folder(folder)
    network = Network(parse_cfg(record.text, record.cfg), device="meta", program=record.program)
    with whole_file(cfg, "w") as file:
        file.write(record.text)
    steps = Steps()
    before, after, tiles = _by_family(
        found, folder, scored, steps, progress, batch=batch, device=device, devkit=devkit, year=year,
        image_set=image_set, metric=metric, thresh=thresh, images=images, beside=others,
    )  # fmt: skip
    with steps.typed("network", "net", cfg, "-program", record.program):
        table = f"{network.table()}\n{network.follows}"
    network_part = Section("The network", "", [*page.commands(steps, "network"), page.text(table, "Layers")])
    training, figures = _training(found, folder, steps)
    index = folder / "index.html"
    page.write_page(
        index, found.name, f"{record.cfg}, trained on {record.data}; scored: {scored}.", [*tiles, *figures],
        [*before, network_part, training, *after, *_next(found, scored, cfg)],
    )  # fmt: skip
    return Report(index, scored, [*tiles, *figures])


Parts = tuple[list[Section], list[Section], list[tuple[str, str]]]


def _by_family(
    run: Run, out: Path, weights: Path, steps: Steps, progress: Progress[Any], *, batch: int, device: str | None,
    **asked: Any,
) -> Parts:  # fmt: skip
    """The parts of the page before and behind those of network and training, and the figures that count."""
    family = run.record.family
    if family == "rnn":
        return [], [], []
    if family == "classifier":
        from .classifier import sections

        return [], *sections(run, out, weights, steps, progress, batch, device)
    from .detector import DetectorReport

    made = DetectorReport(run, out, weights, steps=steps, progress=progress, batch=batch, device=device, **asked)
    return made.parts()


def _training(run: Run, out: Path, steps: Steps) -> tuple[Section, list[tuple[str, str]]]:
    """Its part of the page, and its figures."""
    record, figures = run.record, run.figures
    seconds = float(np.nansum(figures["seconds"]) + np.nansum(figures["loading_seconds"]))
    for command in record.commands:
        steps.add("training", command, seconds if len(record.commands) == 1 else None)
    tiles = [
        (page.count(int(figures["batch"][-1])), "updates"),
        (page.clock(seconds), f"in updates, on {record.device}"),
        (f"{figures['avg_loss'][-1]:.3g}", "average loss at the end"),
    ]
    chart = run.path(".png")
    if chart.is_file():
        shutil.copyfile(chart, out / "chart.png")
    about = [
        ["began, or last went on", record.started],
        ["program, numerics", f"{record.program}, {record.numerics}"],
        ["seed", str(record.seed)],
        ["in the folder", record.folder],
        *([name, version] for name, version in record.versions.items()),
    ]
    parts = [
        *page.commands(steps, "training"),
        page.image(out / "chart.png", "Loss, rate, and what was scored meanwhile, over the batches."),
        page.text(run.lines(LINES) or "no log", "The end of the log"),
        page.table(["", ""], about, "About the training", last=False),
    ]
    return Section("Training", "Its chart, and the end of its log.", parts), tiles


def _next(run: Run, weights: Path, cfg: Path) -> list[Section]:
    """What can be done with such a network."""
    record = run.record
    if record.family == "rnn":
        commands = [["rnn", "generate", cfg, weights]]
    elif record.family == "classifier":
        commands = [["classifier", "predict", record.data, cfg, weights, "photo.jpg"]]
    else:
        commands = [
            [record.family, "test", record.data, cfg, weights, "photo.jpg"],
            *([["detector", "map", record.data, cfg, weights]] if record.family == "detector" else []),
            ["export", cfg, weights, f"{run.name}.onnx"],
            ["compare", run.path(""), "another run"],
            ["new", "cells", "--from", "my_images"],
        ]
    words = [page.command(shlex.join(["darknet-compat", *map(str, command)])) for command in commands]
    return [Section("From here", "The C program takes the same cfg and weights.", words)]
