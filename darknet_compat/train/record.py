"""What a training was: its commands, its files, and its cfg as it stood; for those who report of it later."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..errors import TrainingError
from ..files import regular_file, whole_file
from ..layers.base import PROGRAMS
from ..network import NUMERICS

END = ".run.json"  # of the file's name, behind the training's
LARGEST = 2**26  # bytes; a cfg is 20 thousand
# What some of its words are one of.
ONE_OF = {
    "family": ("detector", "yolo", "classifier", "rnn"), "labels": ("", "path", "folder"), "program": PROGRAMS,
    "numerics": NUMERICS,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One training. Paths are as they were given, and count from ``folder``."""

    family: str
    """detector, yolo, classifier or rnn: what its verbs begin with."""
    cfg: str
    text: str
    """What the cfg held when the training began, or last went on."""
    data: str
    """The .data file; of rnn the text that is learnt."""
    labels: str
    """How images get their classes; "" but for a classifier."""
    folder: str
    final: str
    """The name of the .weights file that is written at the end."""
    last: str
    """And of the one that is written all the while."""
    program: str
    numerics: str
    seed: int
    device: str
    started: str
    """Date and time."""
    commands: list[str]
    """The first began the training, each other went on with it."""
    versions: dict[str, str] = field(
        default_factory=lambda: {
            "darknet_compat": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__,
        }
    )  # fmt: skip


def write_record(path: str | os.PathLike[str], record: Record) -> None:
    """Write it as JSON, whole or not at all. Raises :class:`TrainingError`."""
    try:
        with whole_file(path, "w") as file:
            json.dump(dataclasses.asdict(record), file, indent=1)
            file.write("\n")
    except OSError as error:
        raise TrainingError(f"{os.fspath(path)}: cannot be written: {error.strerror}") from None


def read_record(path: str | os.PathLike[str]) -> Record:
    """What :func:`write_record` wrote. Raises :class:`TrainingError` in one line for anything else."""
    name = os.fspath(path)
    try:
        with regular_file(path) as file:
            read = json.loads(file.read(LARGEST))
    except OSError as error:
        raise TrainingError(f"{name}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{name}: no JSON ({str(error)[:80]}); expected what a training writes there") from None
    kinds = {one.name: {"int": int, "list[str]": list, "dict[str, str]": dict}.get(str(one.type), str)
             for one in dataclasses.fields(Record)}  # fmt: skip
    if not isinstance(read, dict) or read.keys() != kinds.keys():
        raise TrainingError(f"{name}: expected the record of a training: {', '.join(kinds)}")
    for key, kind in kinds.items():
        inner = read[key].values() if isinstance(read[key], dict) else read[key] if isinstance(read[key], list) else ()
        if (
            type(read[key]) is not kind
            or not all(isinstance(one, str) for one in inner)
            or read[key] not in ONE_OF.get(key, [read[key]])
            or "\0" in str(read[key])
        ):
            raise TrainingError(f"{name}: `{key}` is {str(read[key])[:40]!r}; expected what a training writes there")
    if not read["commands"]:
        raise TrainingError(f"{name}: `commands` is empty; expected the one that began the training")
    return Record(**read)


def record_path(folder: str | os.PathLike[str], name: str) -> Path:
    """Of the training ``name`` whose snapshots go to ``folder``."""
    return Path(folder) / f"{name}{END}"
