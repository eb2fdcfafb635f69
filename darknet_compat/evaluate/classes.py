"""How well a classifier tells its classes apart: a table of the classes, and which it takes for which."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import whole_file
from ..image_files import written_or_said


@dataclass(frozen=True)
class ClassScores:
    """``truth`` (N,): the class of each image, -1 for none; ``best`` (N, top): the likeliest, the first one first.

    ``parent`` (classes,): along a tree the class above each, -1 at the top.
    """

    truth: np.ndarray
    best: np.ndarray
    names: Sequence[str]
    parent: np.ndarray | None = None

    @property
    def top(self) -> int:
        return int(self.best.shape[1])

    @property
    def top1(self) -> float:
        """The part of all images that are rightly classified; one without a class is not."""
        return float((self.best[:, 0] == self.truth).mean())

    @property
    def topk(self) -> float:
        """The part of all images whose class is among the likeliest."""
        return float((self.best == self.truth[:, None]).any(1).mean())

    @property
    def present(self) -> np.ndarray:
        """The classes that an image has, or that one was taken for, ascending."""
        there = self.truth >= 0
        classes: np.ndarray = np.union1d(self.truth[there], self.best[there, 0])
        return classes

    def rows(self) -> list[tuple[int, int, int, int, int, int]]:
        """Of each class that an image has: its number, images, right ones, those right within the top, and the class
        that most of the others were taken for, with their number; -1 and 0 where there are none."""
        confusion, present = self.confusion(), self.present
        rows = []
        for place, number in enumerate(present.tolist()):
            mine = self.truth == number
            if not mine.any():
                continue
            wrong = confusion[place].copy()
            right = int(wrong[place])
            wrong[place] = 0
            most = int(wrong.argmax())
            other = int(present[most]) if wrong[most] else -1
            within = int((self.best[mine] == number).any(1).sum())
            rows.append((number, int(mine.sum()), right, within, other, int(wrong[most])))
        return rows

    def confusion(self) -> np.ndarray:
        """(P, P) for the P classes of :attr:`present`: images of the row's class taken for the column's."""
        present, there = self.present, self.truth >= 0
        count = len(present)
        row, column = (np.searchsorted(present, values[there]) for values in (self.truth, self.best[:, 0]))
        cells: np.ndarray = np.bincount(row * count + column, minlength=count * count).reshape(count, count)
        return cells

    def levels(self) -> list[tuple[int, int]]:
        """Along a tree, from the top down: how many images have a class on that level or below it, and of how many the
        likeliest class stands under the same class of that level."""
        if self.parent is None:
            return []
        above = [np.arange(len(self.parent))]  # each class, the one above it, the one above that ...
        while (above[-1] >= 0).any():
            above.append(np.where(above[-1] >= 0, self.parent[above[-1]], -1))
        depth = (np.stack(above) >= 0).sum(0)
        there = self.truth >= 0
        truth, best = self.truth[there], self.best[there, 0]
        found = []
        for level in range(1, len(above)):
            deep = depth[truth] >= level
            mine, other = (_on_level(classes, level, depth, above) for classes in (truth[deep], best[deep]))
            found.append((int(deep.sum()), int((mine == other).sum())))
        return [(images, right) for images, right in found if images]

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write classes.csv, classes.png, confusion.csv and confusion.png, along a tree levels.csv too; their paths
        come back."""
        from .class_plots import draw_classes, draw_confusion

        folder = Path(folder)
        head = ["class_id", "name", "images", "top 1", f"top {self.top}", "taken for", "images taken for it"]
        body = [
            [number, self.names[number], images, f"{right / images:.6f}", f"{within / images:.6f}",
             self.names[other] if other >= 0 else "", times]
            for number, images, right, within, other, times in self.rows()
        ]  # fmt: skip
        names = [self.names[number] for number in self.present.tolist()]
        cells = [[name, *row] for name, row in zip(names, self.confusion().tolist(), strict=True)]
        paths = [folder / name for name in ("classes.csv", "classes.png", "confusion.csv", "confusion.png")]
        _write_csv(paths[0], [head, *body])
        draw_classes(self, paths[1])
        _write_csv(paths[2], [["truth \\ prediction", *names], *cells])
        draw_confusion(self, paths[3])
        if levels := self.levels():
            paths.append(folder / "levels.csv")
            rows = [[level, images, f"{right / images:.6f}"] for level, (images, right) in enumerate(levels, 1)]
            _write_csv(paths[-1], [["level", "images", "right"], *rows])
        return paths


def _on_level(classes: np.ndarray, level: int, depth: np.ndarray, above: Sequence[np.ndarray]) -> np.ndarray:
    """The class of a level, from 1 at the top, that each class is or stands under; -1 for one that ends above it."""
    steps = depth[classes] - level
    found: np.ndarray = np.stack(above)[np.maximum(steps, 0), classes]
    return np.where(steps >= 0, found, -1)


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with written_or_said(path), whole_file(path, "w") as file:
        file.write(text.getvalue())
