"""Which classes an image shows: its path says so.

Darknet looks for every label anywhere in the path (``src/data.c, fill_truth``: strstr), so a label that is part of
another one, or of a folder's name, is found too. The .data keys of classifiers are read here as well.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..cfg import DataFile, read_names
from ..cfg.sections import printable
from ..errors import DataError
from ..stock import find_stock

CHUNK = 2**16  # paths that are looked through at a time
LABELS = "data/labels.list"  # where the .data file names none
# Where the class of an image stands: anywhere in its path, or in its folder's name.
LabelRule = Literal["path", "folder"]


@dataclass(frozen=True)
class PathClasses:
    """The classes of N paths."""

    paths: Sequence[str]
    starts: np.ndarray
    """(N + 1,) int64: the classes of path i are ``classes[starts[i]:starts[i + 1]]``."""
    classes: np.ndarray
    """int64, ascending within a path."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """All classes of a path, ascending: the truth in training."""
        return self.classes[self.starts[index] : self.starts[index + 1]]

    def first(self) -> np.ndarray:
        """(N,) int64: of each path the first class of the list, -1 where it has none: the truth in evaluation."""
        found = np.full(len(self), -1)
        there = np.flatnonzero(np.diff(self.starts))
        found[there] = self.classes[self.starts[there]]
        return found

    def warn(self, labels: Sequence[str]) -> None:
        """One warning for all paths with more than one label, and one for those with none.

        Darknet has a line for each. As in Darknet, a path without a label is nothing to tell where there is but one.
        """
        number = np.diff(self.starts)
        many, none = np.flatnonzero(number > 1), np.flatnonzero(number == 0)
        if many.size:
            index = int(many[0])
            one, other = (labels[label] for label in self[index][:2])
            of = f"{many.size} of {len(self)} paths have" if many.size > 1 else f"1 of {len(self)} paths has"
            warnings.warn(
                f"{printable(self.paths[index])}: the path holds the labels {one!r} and {other!r}; {of} more than one; "
                "-labels folder takes the parent folder's name alone",
                stacklevel=2,
            )
        if none.size and len(labels) > 1:
            of = f"{none.size} of {len(self)} paths hold" if none.size > 1 else f"1 of {len(self)} paths holds"
            warnings.warn(f"{printable(self.paths[int(none[0])])}: no label is in the path; {of} none", stacklevel=2)


def match_labels(paths: Sequence[str], labels: Sequence[str]) -> PathClasses:
    """All labels that occur in each path, byte by byte (``fill_truth``).

    A million paths and a thousand labels take seconds. Raises :class:`DataError` for a label without a letter, which
    would be in every path.
    """
    index = _Index([os.fsencode(label) for label in labels])
    parts = [index.find([os.fsencode(path) for path in paths[at : at + CHUNK]]) for at in range(0, len(paths), CHUNK)]
    counts = np.concatenate([np.zeros(1, np.int64), *(count for count, _ in parts)])
    classes = np.concatenate([np.zeros(0, np.int64), *(found for _, found in parts)])
    return PathClasses(paths, counts.cumsum(), classes)


def folder_labels(paths: Sequence[str], labels: Sequence[str]) -> PathClasses:
    """The class of each path is the one whose label its parent folder is called.

    Raises :class:`DataError` where a folder has no label's name, or two classes have the same label.
    """
    number: dict[str, int] = {}
    for index, label in enumerate(labels):
        if number.setdefault(label, index) != index:
            raise DataError(
                f"-labels folder: {label!r} is the label of class {number[label]} and of class {index}; "
                "expected a folder for each class"
            )
    classes = np.empty(len(paths), np.int64)
    for place, path in enumerate(paths):
        folder = os.path.basename(os.path.dirname(path))
        found = number.get(folder)
        if found is None:
            raise DataError(
                f"{printable(path)}: its folder is called {printable(folder)!r}, which is none of the "
                f"{len(labels)} labels; expected one of them, with -labels folder"
            )
        classes[place] = found
    return PathClasses(paths, np.arange(len(paths) + 1), classes)


def path_classes(paths: Sequence[str], labels: Sequence[str], rule: LabelRule, file: str) -> PathClasses:
    """The classes of the paths in the list ``file`` by a rule, with its warnings.

    Raises :class:`DataError` where no path has a label.
    """
    found = folder_labels(paths, labels) if rule == "folder" else match_labels(paths, labels)
    if not len(found.classes):
        raise DataError(
            f"{file}: none of its {len(paths)} paths has a label in it; expected the labels= of the .data file in the "
            "paths"
        )
    found.warn(labels)
    return found


class _Index:
    """Labels by their first bytes, and whole by their length."""

    HEAD = 3

    def __init__(self, labels: Sequence[bytes]) -> None:
        for number, label in enumerate(labels, 1):
            if not label:
                raise DataError(f"label {number} is a blank line; expected a name: every path would hold an empty one")
        self.labels = labels
        # For heads of 1, 2 and 3 bytes: does a label of that length, or longer for 3, start so?
        self.starts = [np.zeros(256**size, bool) for size in range(1, self.HEAD + 1)]
        lengths: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            size = min(len(label), self.HEAD)
            self.starts[size - 1][int.from_bytes(label[:size], "little")] = True
            lengths.setdefault(len(label), []).append(index)
        # Per length the labels in order, and the classes that each stands for.
        self.by_length = {}
        for length, classes in sorted(lengths.items()):
            words = np.array([labels[index] for index in classes], f"V{length}")
            words, which = np.unique(words.view(np.uint8).reshape(-1, length), axis=0, return_inverse=True)
            order = np.argsort(which.ravel(), kind="stable")
            self.by_length[length] = words, np.bincount(which.ravel()), np.array(classes)[order]

    def find(self, paths: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """How many labels are in each path, and which, path by path."""
        sizes = np.array([len(path) + 1 for path in paths])
        begins = np.cumsum(sizes) - sizes
        longest = max(self.by_length)
        # No path has a byte 0, so nothing is found across the end of one.
        text = np.frombuffer(b"\0".join([*paths, bytes(longest)]), np.uint8)
        room = len(text) - longest
        keys = []
        for size in range(1, self.HEAD + 1):
            lengths = [length for length in self.by_length if min(length, self.HEAD) == size]
            if not lengths:
                continue
            head = text[:room].astype(np.uint32)
            for step in range(1, size):
                head |= text[step : room + step].astype(np.uint32) << np.uint32(8 * step)
            places = np.flatnonzero(self.starts[size - 1][head])
            owner = np.searchsorted(begins, places, "right") - 1
            keys += [self._whole(text, places, owner, length) for length in lengths]
        pairs = np.unique(np.concatenate(keys))
        return np.bincount(pairs // len(self.labels), minlength=len(paths)), pairs % len(self.labels)

    def _whole(self, text: np.ndarray, places: np.ndarray, owner: np.ndarray, length: int) -> np.ndarray:
        """path x labels + label for each label of a length that stands at one of the places."""
        words, number, classes = self.by_length[length]
        windows = np.lib.stride_tricks.sliding_window_view(text, length)[places]
        at = _search(words, windows)
        places = np.flatnonzero((words[at] == windows).all(1))
        at = at[places]
        # Two classes may have one label.
        copies = number[at]
        first = np.cumsum(number) - number
        within = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
        found: np.ndarray = np.repeat(owner[places], copies) * len(self.labels)
        found += classes[np.repeat(first[at], copies) + within]
        return found


def _search(words: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """For each window of bytes the row of the sorted ``words`` that it may be: numpy compares bytes as one text."""
    length = words.shape[1]
    whole, parts = (np.ascontiguousarray(rows).view(f"S{length}").ravel() for rows in (words, windows))
    rows: np.ndarray = np.minimum(np.searchsorted(whole, parts), len(whole) - 1)
    return rows


def read_labels(data: DataFile) -> list[str]:
    """The labels of the classes, which stand in the paths of their images: those of ``labels=``.

    As many as ``classes=`` says: a longer list is that of a larger network, as Darknet's for ImageNet is.
    """
    return _first(data, "labels", data.source("labels", LABELS))


def read_class_names(data: DataFile) -> list[str]:
    """What the classes are called: the names of ``names=``, or the labels where there are none."""
    key = "labels" if data.get("names") is None else "names"
    return _first(data, key, data.source(key, LABELS))


def read_classes(data: DataFile) -> int:
    """How many classes there are: ``classes=``, 2 by default."""
    classes = data.integer("classes", 2)
    if classes < 1:
        raise data.error("classes", "expected 1 or more")
    return classes


def read_top(data: DataFile) -> int:
    """Of how many likeliest classes an evaluation asks whether the truth is among them: ``top=``, 1 by default."""
    top = data.integer("top", 1)
    if top < 1:
        raise data.error("top", "expected 1 or more")
    return min(top, read_classes(data))


def _first(data: DataFile, key: str, file: str) -> list[str]:
    names, classes = read_names(find_stock(file)), read_classes(data)
    if len(names) < classes:
        raise data.error(key, f"{len(names)} lines in {printable(file)}; expected {classes}, as classes= says")
    return names[:classes]
