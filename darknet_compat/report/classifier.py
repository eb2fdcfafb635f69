"""The report of a classifier's training: how often it is right on the valid list, and what it takes for what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ..classify.classifier import load_classifier
from ..classify.labels import LabelRule
from ..classify.validate import validate_classifier
from ..evaluate.classes import ClassScores
from ..files import whole_file
from ..progress import Progress
from . import page
from .page import Section
from .runs import SCORED, Run
from .steps import Steps

MOST = 100  # classes in the table: those that are least well told apart


def sections(
    run: Run, out: Path, weights: Path, steps: Steps, progress: Progress[Any], batch: int, device: str | None
) -> tuple[list[Section], list[tuple[str, str]]]:
    """Does what the command of the page does; the parts of the page, and the figures that count."""
    record, cfg, classes = run.record, out / f"{run.name}.cfg", out / "classes"
    rule = cast(LabelRule, record.labels)
    classifier = load_classifier(
        record.data, cfg, weights, device=device, numerics=record.numerics, program=record.program, batch=batch
    )
    words: list[object] = [record.data, cfg, weights, "-program", record.program, "-batch", batch, "-out", classes]
    words += ["-numerics", record.numerics] if record.numerics != "cudnn" else []
    words += ["-labels", rule] if rule != "path" else []
    with steps.typed("scores", "classifier", "valid", *words):
        scores = validate_classifier(classifier, labels=rule, out=classes, progress=progress)
    with whole_file(out / SCORED, "w") as file:
        json.dump(_as_json(scores), file, indent=2)
        file.write("\n")
    rows = sorted(scores.rows(), key=lambda row: row[2] / row[1])
    part = Section(
        "Scores",
        f"Of the {len(scores.truth):,} images in the valid list.",
        [
            *page.commands(steps, "scores"),
            page.table(
                ["class", "top 1", "", f"top {scores.top}", "images", "most often taken for", "images"],
                _rows(scores, rows[:MOST]), "Scores by class", last=False,
            ),
            page.note(f"The {MOST} classes that are least well told apart; all stand in {classes}/classes.csv.")
            if len(rows) > MOST else "",
            page.image(classes / "classes.png", "How often each class is told apart."),
            page.image(classes / "confusion.png", "Which class is taken for which."),
        ],
    )  # fmt: skip
    tiles = [(page.number(scores.top1), "top 1"), (page.number(scores.topk), f"top {scores.top}")]
    return [part], tiles


def _rows(scores: ClassScores, rows: Sequence[tuple[int, int, int, int, int, int]]) -> list[list[str]]:
    return [
        [scores.names[number], page.number(right / images), page.bar(right / images), page.number(within / images),
         page.count(images), scores.names[other] if other >= 0 else "–", page.count(times)]
        for number, images, right, within, other, times in rows
    ]  # fmt: skip


def _as_json(scores: ClassScores) -> dict[str, object]:
    return {
        "top_1": scores.top1,
        "top_k": scores.topk,
        "k": scores.top,
        "classes": {
            scores.names[number]: {"top_1": right / images, "images": images}
            for number, images, right, *_ in scores.rows()
        },
    }
