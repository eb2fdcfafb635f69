"""Trainings side by side: what was done otherwise, how their losses and scores went, and what each found in the end."""

from __future__ import annotations

import io
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cfg import parse_cfg
from ..errors import DataError, ResultsError
from ..image_files import check_file
from . import page
from .page import Section
from .runs import Run, find_run

SCORES = {"map": "mAP", "top_1": "top 1"}  # columns of the table that count, and what they are called
POINTS = 3000  # of a curve
STYLES = list(itertools.product(("-", "--", ":"), ("#0b5cad", "#b45309", "#18794e", "#9d174d", "#4c1d95", "#1c2430")))


@dataclass(frozen=True)
class Compared:
    """What :func:`compare` found. Rows of text: a name, and a value for each run."""

    names: list[str]
    """Of the runs."""
    figures: list[list[str]]
    settings: list[list[str]]
    """What is not the same in all of them."""
    classes: list[list[str]]
    """AP of each class, or top 1, where a report of the run has scored it, and the mean."""

    def lines(self) -> list[str]:
        """As text."""
        lines = []
        for title, rows in (("", self.figures), ("what differs", self.settings), ("scores", self.classes)):
            if not rows:
                continue
            widths = [max(map(len, column)) for column in zip([title, *self.names], *rows, strict=True)]
            for row in [[title, *self.names], *rows]:
                first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                lines.append("  ".join([first, *others]).rstrip())
            lines.append("")
        return lines[:-1]


def compare(runs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] = "compare.html") -> Compared:
    """Lay trainings side by side: those in the folders ``runs``, or FOLDER/NAME. The page goes to the file ``out``.

    Their AP by class is that of each one's report, where there is one. Raises :class:`DarknetError` in one line.
    """
    if len(runs) < 2:
        raise DataError("a single run; expected two or more to compare")
    if Path(out).suffix != ".html":
        raise ResultsError(f"{os.fspath(out)}: expected a file that ends in .html")
    check_file(out)
    found = [find_run(run) for run in runs]
    tables = [run.figures for run in found]
    names = _names(found)
    scores = [run.scores() for run in found]
    compared = Compared(names, _figures(found, tables), _settings(found), _classes(scores))
    missing = [name for name, one in zip(names, scores, strict=True) if one is None]
    notes = [page.note(f"No scores of {', '.join(missing)}: darknet-compat report makes them.")] if missing else []
    page.write_page(
        out, "Trainings side by side", ", ".join(names), [],
        [
            Section("Figures", "", [page.table(["", *names], compared.figures, "Figures", last=False)]),
            Section(
                "What differs", "Of the commands, the cfgs and the versions.",
                [page.table(["", *names], compared.settings, "What differs", last=False, wrapping=True)],
            ),
            Section("Curves", "", [page.image(_draw(names, tables), "Average loss, and what was scored meanwhile.")]),
            Section(
                "Scores", "As the report of each run has scored it.",
                [page.table(["", *names], compared.classes, "Scores") if compared.classes else "", *notes],
            ),
        ],
    )  # fmt: skip
    return compared


def _names(runs: Sequence[Run]) -> list[str]:
    """What tells them apart: the folder, and where there are several in one, the training's name too."""
    folders = Counter(run.folder for run in runs)
    return [str(run.folder if folders[run.folder] == 1 else run.path("")) for run in runs]


def _figures(runs: Sequence[Run], tables: Sequence[dict[str, np.ndarray]]) -> list[list[str]]:
    rows = {
        "updates": [page.count(int(table["batch"][-1])) for table in tables],
        "images": [page.count(int(table["images"][-1])) for table in tables],
        "average loss": [f"{table['avg_loss'][-1]:.4g}" for table in tables],
        "time in updates": [page.clock(float(_seconds(table).sum())) for table in tables],
        "an update": [f"{np.median(_seconds(table)):.3f} s" for table in tables],
        "weights": [run.written.name if run.written else "–" for run in runs],
    }
    for column, called in SCORES.items():
        scored = [table[column][~np.isnan(table[column])] if column in table else np.empty(0) for table in tables]
        if any(map(len, scored)):
            rows[f"{called}, best while training"] = [page.number(one.max()) if len(one) else "–" for one in scored]
            rows[f"{called}, last while training"] = [page.number(one[-1]) if len(one) else "–" for one in scored]
    return [[name, *values] for name, values in rows.items()]


def _seconds(table: dict[str, np.ndarray]) -> np.ndarray:
    seconds: np.ndarray = np.nan_to_num(table["seconds"]) + np.nan_to_num(table["loading_seconds"])
    return seconds


def _settings(runs: Sequence[Run]) -> list[list[str]]:
    """Rows of what is not the same in all runs, each with its value in each of them."""
    columns = [_settings_of(run) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _settings_of(run: Run) -> dict[str, str]:
    record = run.record
    settings = {
        "command": record.commands[0], "went on": str(len(record.commands) - 1), "data": record.data,
        "cfg": record.cfg, "program": record.program, "numerics": record.numerics, "seed": str(record.seed),
        "device": record.device, **record.versions,
    }  # fmt: skip
    for index, (kind, options) in enumerate(parse_cfg(record.text, record.cfg).meaning(), -1):
        where = "[net]" if index < 0 else f"layer {index} [{kind}]"
        settings[where] = "there"
        settings |= {f"{where} {name}": value for name, value in options.items()}
    return settings


def _classes(scores: Sequence[tuple[float | None, dict[str, float | None]] | None]) -> list[list[str]]:
    means, by_class = zip(*(one or (None, {}) for one in scores), strict=True)
    names = list(dict.fromkeys(name for one in by_class for name in one))
    rows = [[name, *(page.number(one.get(name)) for one in by_class)] for name in names]
    return [*rows, ["mean", *map(page.number, means)]] if rows else []


def _draw(names: Sequence[str], tables: Sequence[dict[str, np.ndarray]]) -> bytes:
    """A PNG file: average loss over the batches, and below it the scores, where there are any."""
    from matplotlib.figure import Figure

    score = next((column for column in SCORES if any(_has(table, column) for table in tables)), None)
    figure = Figure(figsize=(9, 8 if score else 5), dpi=110, facecolor="white", layout="constrained")
    axes = figure.subplots(2 if score else 1, 1, sharex=True, squeeze=False)[:, 0]
    for name, table, (style, colour) in zip(names, tables, itertools.cycle(STYLES), strict=False):
        shown = np.unique(np.linspace(0, len(table["batch"]) - 1, POINTS).astype(int))
        axes[0].plot(table["batch"][shown], table["avg_loss"][shown], style, color=colour, label=name)
        if score and _has(table, score):
            there = ~np.isnan(table[score])
            axes[1].plot(table["batch"][there], table[score][there], style, color=colour, marker="o", markersize=3)
    axes[0].set(yscale="log", ylabel="average loss")
    if score:
        axes[1].set(ylabel=f"{SCORES[score]}, while training")
    axes[-1].set(xlabel="batch")
    for one in axes:
        one.grid(alpha=0.4)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _has(table: dict[str, np.ndarray], column: str) -> bool:
    return column in table and not np.isnan(table[column]).all()
