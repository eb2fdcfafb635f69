"""Snapshots of a training: .weights by Darknet's names, and beside them a .state to go on from.

Source: ``examples/detector.c, train_detector``, ``examples/yolo.c, train_yolo`` and ``examples/classifier.c,
train_classifier`` for names and rhythm. Darknet keeps the weights only, so its trainings go on without their momentum;
the .state holds all that the next update hangs on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..cfg import Cfg
from ..errors import TrainingError, first_line
from ..files import regular_file, whole_file
from ..labels import basecfg
from ..program import ALEXEYAB, PJREDDIE, VERSIONS
from ..weights import save_weights
from .step import Trainer

ROLLING = {PJREDDIE: ".backup", ALEXEYAB: "_last.weights"}  # of detectors and classifiers; [rnn] has the first in both

# A .state is this line, the SHA-256 of the rest as a line of hexadecimal digits, and what torch.save writes.
FORMAT = b"darknet_compat training state 5\n"
DIGEST = 64
INSTEAD = "start anew without -resume, perhaps from the snapshot as WEIGHTS"
# The number in the name of a .weights file that is due, of the images seen before and after an update and of those of
# one update.
Numbered = Callable[[int, int, int], "int | None"]
# What of [net] may be changed in a training that goes on.
SCHEDULE = {"learning_rate", "policy", "steps", "scales", "step", "scale", "gamma", "power", "burn_in", "max_batches",
            "momentum", "decay", "angle", "hue", "saturation", "exposure", "flip", "clip"}  # fmt: skip


def passed(before: int, after: int, every: int, first: int = 0) -> bool:
    """Did the batch number come to a multiple of ``every``, or step over one as several GPUs make it do?

    Multiples count from ``first``, which is one, and the first of all.
    """
    return after >= first and (after - first) // every > (before - first) // every


def by_batches(every: int, early: int | None = None) -> Numbered:
    """Every ``every`` batches, and every ``early`` up to 1000."""

    def number(before: int, after: int, images: int) -> int | None:
        first, last = before // images, after // images
        due = passed(first, last, every) or (early is not None and last < 1000 and passed(first, last, early))
        return last if due else None

    return number


def by_epochs(images: int) -> Numbered:
    """Whenever as many images were seen as there are, the epochs so far."""
    return lambda before, after, _: after // images if passed(before, after, images) else None


class OtherStateError(TrainingError):
    """What bears the name of a .state, and no training of this version wrote it whole."""


class Snapshots:
    """Where the files of one training stand: ``folder``/``name``.backup, ``name``_100.weights, ``name``.csv ...

    The .backup is written every ``every`` batches, .weights with a number as ``numbered`` says, and at the end those
    with ``end``. ``rolling``: what the .backup is called instead.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        cfg: Cfg,
        settings: dict[str, Any],
        every: int = 100,
        numbered: Numbered | None = None,
        end: str = "_final.weights",
        rolling: str = ".backup",
    ) -> None:
        self.folder = Path(folder)
        self.name = basecfg(cfg.file)
        self.cfg = cfg
        self.settings = settings
        """The command's own choices that a training must go on with."""
        self.every = every
        self.numbered = numbered or by_batches(10000, early=100)
        self.final = self.path(end)
        self.backup = self.path(rolling)
        self.state = self.path(f"{rolling}.state")
        self.launchers: list[str] = []
        """Those of this job (:meth:`.Processes.launchers`)."""
        self.last: str | None = None
        """The snapshot written last, and its batch."""

    def path(self, end: str) -> Path:
        return self.folder / f"{self.name}{end}"

    def make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.folder}: cannot make the folder for snapshots: {error.strerror}") from None

    def due(self, before: int, after: int, images: int) -> list[Path]:
        """The .weights files that Darknet writes after an update, between so many images seen; it takes ``images``."""
        due = []
        number = self.numbered(before, after, images)
        if number is not None:
            due.append(self.path(f"_{number}.weights"))
        if passed(before // images, after // images, self.every):
            due.append(self.backup)
        return due

    def save(self, trainer: Trainer, path: Path, extra: dict[str, Any] | None = None) -> None:
        """Write the weights; for the .backup, its .state too, with ``extra`` in it, and AlexeyAB's _ema.weights.

        Raises :class:`DarknetError` where a file cannot be written; what stood under its name then still does.
        """
        trainer.network.version = VERSIONS[trainer.network.program]
        save_weights(trainer.network, path)
        if path == self.backup:
            self._save_state(trainer, extra or {})
            if trainer.ema and trainer.ema.means:
                with trainer.ema.shown():
                    save_weights(trainer.network, self.path("_ema.weights"))
        self.last = f"{path} (batch {trainer.batch})"

    def _save_state(self, trainer: Trainer, extra: dict[str, Any]) -> None:
        state = {
            "cfg": json.dumps(self.cfg.meaning()),
            "settings": self.settings,
            "trainer": trainer.state(),
            "extra": extra,
            "launchers": self.launchers,
        }
        payload = io.BytesIO()
        torch.save(state, payload)
        try:
            with whole_file(self.state) as file:
                file.write(FORMAT + _digest(payload.getbuffer()))
                file.write(payload.getbuffer())
        except OSError as error:
            raise TrainingError(f"{self.state}: {error.strerror}; the file was not written") from None

    def read_state(self) -> bytes:
        """What :meth:`resume` takes. Raises :class:`TrainingError` where there is no .state, or a damaged one."""
        return _read_state(self.state)

    def read_own_state(self) -> bytes | None:
        """That of this very job, whose processes a launcher has started again; None where it left none yet."""
        if not self.state.exists():
            return None
        with contextlib.suppress(OtherStateError):  # an earlier training's, by another version
            payload = self.read_state()
            with contextlib.suppress(Exception):  # as in resume, it may hold anything
                if {*_load(payload)["launchers"]} & {*self.launchers}:
                    return payload
        return None

    def resume(self, trainer: Trainer, payload: bytes | None = None) -> tuple[dict[str, Any], list[str]]:
        """Take ``trainer`` to where the .state was written. Returns its ``extra``, and what of [net] has changed since.

        ``payload`` is what :meth:`read_state` gave, in this process or the first. Only the schedule may have changed.
        Raises :class:`TrainingError` in one line where it is that of another cfg or of other settings.
        """
        path = self.state
        payload = self.read_state() if payload is None else payload
        try:
            state = _load(payload)
            changed = self._compare(json.loads(state["cfg"]), path)
            for key, value in state["settings"].items():
                if self.settings.get(key) != value:
                    raise TrainingError(
                        f"{path}: that training has -{key} {value}, this command {self.settings.get(key)}; "
                        "go on with the same, or start anew without -resume"
                    )
            world, extra = state["trainer"]["world"], state["extra"]
            trainer.load_state(state["trainer"])
        except TrainingError:
            raise
        except Exception as error:
            # The bytes are whole, so another program wrote them; what they hold can fail in any way.
            raise TrainingError(f"{path}: no state of this training ({first_line(error)}); {INSTEAD}") from None
        if world != trainer.processes.world:
            changed.append(f"the number of processes was {world} and is {trainer.processes.world}")
        self.last = f"{self.backup} (batch {trainer.batch})"
        return extra, changed

    def _compare(self, before: list[tuple[str, dict[str, str]]], path: Path) -> list[str]:
        now = self.cfg.meaning()
        if [kind for kind, _ in before] != [kind for kind, _ in now]:
            raise TrainingError(
                f"{path}: that training has {len(before) - 1} layers of other types than {self.cfg.file}"
            )
        changed = []
        for index, ((kind, old), (_, new)) in enumerate(zip(before, now, strict=True), -1):
            for name in sorted({*old, *new}):
                if old.get(name) == new.get(name):
                    continue
                what = f"{name} was {old.get(name, 'not given')} and is {new.get(name, 'not given')}"
                if kind != "net":
                    what = f"layer {index} [{kind}]: {what}"
                if kind != "net" or name not in SCHEDULE:
                    raise TrainingError(
                        f"{path}: that training has another cfg than {self.cfg.file}: {what}; {INSTEAD}"
                    )
                changed.append(what)
        return changed


def _load(payload: bytes) -> dict[str, Any]:
    return dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))


def _read_state(path: Path) -> bytes:
    """What a .state holds behind its head. Raises :class:`TrainingError` where one byte is not as it was written."""
    try:
        with regular_file(path) as file:
            format, digest = file.read(len(FORMAT)), file.read(DIGEST + 1)
            payload = file.read() if format == FORMAT else b""
    except OSError as error:
        raise TrainingError(
            f"{path}: {error.strerror}; -resume goes on from the .state that a training leaves beside its snapshot; "
            "to train on from a .weights file, name it after CFG instead"
        ) from None
    if format != FORMAT:
        expected = FORMAT.decode().strip()
        raise OtherStateError(
            f"{path}: no training state of this version; expected `{expected}` at its start; {INSTEAD}"
        )
    if digest != _digest(payload):
        raise OtherStateError(f"{path}: damaged, its bytes do not have the SHA-256 that its head says; {INSTEAD}")
    return payload


def _digest(payload: bytes | memoryview) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode() + b"\n"
