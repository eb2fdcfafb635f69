"""Trainings that were: their records, their figures, and what was scored of them."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..cfg import parse_cfg
from ..errors import DataError
from ..files import regular_file
from ..layers.net import read_net
from ..train.record import END, Record, read_record, record_path

SCORED = "scores.json"  # in the folder of a report
FEWEST = ("batch", "images", "loss", "avg_loss", "seconds", "loading_seconds")  # columns that every table has


@dataclass(frozen=True)
class Run:
    """A training: ``folder``/``name``.log, .csv, .png, .weights ..."""

    folder: Path
    name: str
    record: Record

    def path(self, end: str) -> Path:
        """One of its files."""
        return self.folder / f"{self.name}{end}"

    @property
    def out(self) -> Path:
        """Where a report of it goes."""
        return self.path(".report")

    @property
    def written(self) -> Path | None:
        """The weights of its end; of a training that is not at its end, those that were written last. None where
        there are none yet. Others may lie there, of the end of a training before it.
        """
        net = read_net(parse_cfg(self.record.text, self.record.cfg).net, self.record.program)[0]
        ended = self.figures["batch"][-1] >= net.max_batches
        names = [self.record.final, self.record.last] if ended else [self.record.last]
        return next((self.folder / name for name in names if (self.folder / name).is_file()), None)

    @property
    def weights(self) -> Path:
        """:attr:`written`. Raises :class:`DataError` where there are none."""
        if self.written is None:
            raise DataError(
                f"{self.folder / self.record.final}: no such file of this training, nor {self.record.last}; expected "
                "one that has written weights"
            )
        return self.written

    @cached_property
    def figures(self) -> dict[str, np.ndarray]:
        """The table of its updates, float64 (updates,) by the names of the columns, NaN where there is no figure.

        Raises :class:`DataError` where there is none.
        """
        path = self.path(".csv")
        try:
            with regular_file(path, "utf-8", "replace") as file:
                rows = [row for row in csv.DictReader(file) if _whole(row)]
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; expected the table of a training") from None
        except csv.Error as error:
            raise DataError(f"{path}: {error}; expected the table of a training") from None
        if not rows:
            raise DataError(f"{path}: no row of a training's table; expected columns {', '.join(FEWEST)}")
        return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0]}

    def lines(self, number: int) -> str:
        """The last lines of its log; "" where there is none."""
        path = self.path(".log")
        if not path.is_file():
            return ""
        with regular_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2**16))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-number:])

    def scores(self) -> tuple[float | None, dict[str, float | None]] | None:
        """What a report of it has scored: mAP and the AP of each class, or of a classifier top 1; None where there is
        no report. Raises :class:`DataError` where the file is damaged.
        """
        path = self.out / SCORED
        if self.record.family == "rnn" or not path.exists():
            return None
        mean, key = ("top_1", "top_1") if self.record.family == "classifier" else ("mAP", "ap")
        scores = read_scores(path, mean, key)
        return scores[mean], {name: one[key] for name, one in scores["classes"].items()}


def find_run(given: str | os.PathLike[str]) -> Run:
    """The training in a folder; where there are several, ``given`` is the folder, a slash and the training's name.

    Raises :class:`DarknetError` in one line where there is none, or where its record is damaged.
    """
    path = Path(given)
    if not path.is_dir():
        if record_path(path.parent, path.name).is_file():
            return Run(path.parent, path.name, read_record(record_path(path.parent, path.name)))
        raise DataError(f"{path}: no such folder; expected that of a training, which -backup or backup= names")
    names = sorted(file.name.removesuffix(END) for file in path.glob(f"*{END}"))
    if not names:
        raise DataError(
            f"{path}: no *{END} in it; expected the folder of a training, which -backup or backup= of its .data file "
            "names"
        )
    if len(names) > 1:
        raise DataError(f"{path}: several trainings; expected one of {', '.join(str(path / name) for name in names)}")
    return Run(path, names[0], read_record(record_path(path, names[0])))


def read_scores(path: str | os.PathLike[str], mean: str = "mAP", key: str = "ap") -> dict[str, Any]:
    """What ``voc_eval -json`` wrote, or with other keys a report of a classifier. Raises :class:`DataError` for
    anything else.
    """
    name = os.fspath(path)
    try:
        with regular_file(path) as file:
            scores = json.loads(file.read())
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}; expected what voc_eval -json writes") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: no JSON ({str(error)[:80]}); expected what voc_eval -json writes") from None
    if not _is_scores(scores, mean, key):
        raise DataError(f"{name}: expected {mean} and the {key} of each class, as voc_eval -json writes them")
    found: dict[str, Any] = scores
    return found


def _is_scores(scores: Any, mean: str, key: str) -> bool:
    def figure(value: Any, kinds: tuple[type, ...]) -> bool:
        return value is None or (type(value) in kinds and math.isfinite(value))

    return (
        isinstance(scores, dict)
        and {mean, "classes"} <= scores.keys()
        and figure(scores[mean], (int, float))
        and isinstance(scores["classes"], dict)
        and all(
            isinstance(one, dict)
            and key in one
            and figure(one[key], (int, float))
            and all(figure(one.get(count), (int,)) for count in ("truths", "difficult", "detections"))
            for one in scores["classes"].values()
        )
    )


def _whole(row: dict[str, str]) -> bool:
    """False for a line that a kill cut off, or that is none of a training's table."""
    return (
        None not in row
        and None not in row.values()
        and set(FEWEST) <= row.keys()
        and _number(row["batch"]) >= 0
        and _number(row["images"]) >= 0
    )


def _number(text: str) -> float:
    """NaN where it is none, or has no end."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
