"""Trees of classes (WordTree): their files, and what Darknet computes along them.

Source: ``src/tree.c`` and ``src/blas_kernels.cu, softmax_tree``.

Classes that have the same parent and stand side by side are a group. The network gives each group one softmax, so a
value is the probability of a class where its parent is given; multiplied along the path to the root it is the
probability of the class itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .cfg.reader import read_text
from .cfg.sections import Section, printable
from .errors import DataError

NUMBER = re.compile(r"-?[0-9]{1,9}")
SECRET_NUM = -1234.0  # include/darknet.h: the truth of a group of the tree of which an image says nothing
# Of the table of paths, classes x levels: 128 MiB. YOLO9000's tree takes 9,418 x 17; a chain may have 4,096 classes.
MOST_STEPS = 2**24


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree of ``n`` classes in ``groups`` groups. Arrays are int64; classes and groups are counted from 0."""

    names: list[str]
    parent: np.ndarray
    """(n,) the class above, -1 at the top. A parent stands before its children."""
    child: np.ndarray
    """(n,) the group below, -1 for a leaf. Of several, the last."""
    group: np.ndarray
    """(n,) the group that holds the class."""
    group_size: np.ndarray
    """(groups,)"""
    group_offset: np.ndarray
    """(groups,) the first class of each group."""

    @property
    def n(self) -> int:
        return len(self.parent)

    @property
    def groups(self) -> int:
        return len(self.group_size)


def read_tree(path: str | os.PathLike[str]) -> Tree:
    """Read a tree file: a line ``name parent`` for each class, -1 for no parent (src/tree.c, read_tree).

    A line without a number has no parent. :class:`DataError` where the file cannot be read, holds no class, a parent
    is no earlier line, or the tree is so deep that the table of its paths would not fit.
    """
    names: list[str] = []
    parents: list[int] = []
    levels: list[int] = []
    for number, line in _lines(path):
        fields = line.split()
        if not 1 <= len(fields) <= 2:
            raise _error(path, number, f"{len(fields)} words; expected a name and the number of its parent")
        word = fields[1] if len(fields) == 2 else "-1"
        if not NUMBER.fullmatch(word) or not -1 <= int(word) < len(names):
            before = f"-1, or 0 to {len(names) - 1}: a class before" if names else "-1, as this is the first class"
            raise _error(path, number, f"the second word is not the number of a parent; expected {before}")
        names.append(fields[0])
        parents.append(int(word))
        levels.append(levels[parents[-1]] + 1 if parents[-1] >= 0 else 1)
    depth = max(levels)
    if len(names) * depth > MOST_STEPS:
        most = MOST_STEPS // len(names)
        message = f"a class on level {depth:,}; expected at most {most:,} levels of so many classes, {len(names):,}"
        raise _error(path, levels.index(depth) + 1, message)
    parent = np.array(parents)
    starts = np.flatnonzero(np.r_[True, parent[1:] != parent[:-1]])
    sizes = np.diff(np.r_[starts, len(parent)])
    child = np.full(len(parent), -1)
    for group, above in enumerate(parent[starts]):
        if above >= 0:
            child[above] = group
    return Tree(names, parent, child, np.repeat(np.arange(len(starts)), sizes), sizes, starts)


def read_map(path: str | os.PathLike[str]) -> list[int]:
    """Read a map file: a class number of the tree in each line (src/utils.c, read_map).

    :class:`DataError` where the file cannot be read, holds nothing, or a line is no number of 0 or more.
    """
    numbers = []
    for number, line in _lines(path):
        text = line.strip()
        if not NUMBER.fullmatch(text) or int(text) < 0:
            raise _error(path, number, "not a number alone; expected the number of a class, 0 or more")
        numbers.append(int(text))
    return numbers


def section_tree(section: Section, path: str, classes: int) -> Tree:
    """The tree at ``path``, a section's ``tree=``, for so many classes.

    Raises :class:`CfgError` at that line, where the file is no tree, or has another number of classes.
    """
    try:
        tree = read_tree(path)
    except DataError as error:
        raise section.error(str(error), "tree") from None
    if tree.n != classes:
        raise section.error(f"{printable(path)} has {tree.n} classes; expected {classes}", "tree")
    return tree


def _error(path: str | os.PathLike[str], line: int, message: str) -> DataError:
    """Without the line itself: a cfg from elsewhere may name a file that is nobody's business."""
    return DataError(f"{printable(os.fspath(path))}:{line}: {message}")


def _lines(path: str | os.PathLike[str]) -> Iterable[tuple[int, str]]:
    """Numbered lines of a file that may end in blank ones."""
    text = read_text(path, DataError).rstrip()
    if not text:
        raise DataError(f"{printable(os.fspath(path))}: the file is empty; expected one class per line")
    return enumerate(text.split("\n"), 1)


class Hierarchy(nn.Module):
    """A tree's index tables on a device, and the functions of ``src/tree.c`` over many boxes at once.

    Every function takes the dimension of its argument that runs over the tree's classes, counted from the front.
    """

    path: Tensor
    """(n + 1, depth) the classes from the top down to each class, -1 behind; the last row is the path of no class."""
    group: Tensor
    """(n,) as in :class:`Tree`."""
    child: Tensor
    by_size: Tensor
    from_size: Tensor
    first: Tensor
    place_of_group: Tensor
    above_group: Tensor
    level_0: Tensor
    from_depth: Tensor

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self.groups = tree.groups
        # One softmax serves all groups of one size. So the groups are sorted by size: runs of (count, size).
        order = np.argsort(tree.group_size, kind="stable")
        sizes, counts = np.unique(tree.group_size, return_counts=True)
        self.runs = [(int(count), int(size)) for count, size in zip(counts, sizes, strict=True)]
        by_size = np.concatenate([np.arange(tree.group_size[g]) + tree.group_offset[g] for g in order])
        depth = np.zeros(tree.n, int)
        for i, parent in enumerate(tree.parent):
            if parent >= 0:
                depth[i] = depth[parent] + 1
        path = np.full((tree.n + 1, depth.max() + 1), -1)
        for i, parent in enumerate(tree.parent):
            if parent >= 0:
                path[i] = path[parent]
            path[i, depth[i]] = i
        by_depth = np.argsort(depth, kind="stable")
        place = np.argsort(by_depth)
        levels = np.split(by_depth, np.cumsum(np.bincount(depth))[:-1])
        tables = {
            "by_size": by_size,
            "from_size": np.argsort(by_size),
            "first": tree.group_offset[order],
            "place_of_group": np.argsort(order),
            "above_group": tree.parent[tree.group_offset],
            "child": tree.child,
            "group": tree.group,
            "path": path,
            "from_depth": place,
        }
        for d, level in enumerate(levels):
            tables[f"level_{d}"] = level
            if d:
                # Where the parents stand within the level above.
                tables[f"above_{d}"] = place[tree.parent[level]] - place[levels[d - 1][0]]
        self.depth = len(levels)
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(table, dtype=np.int64)), persistent=False)

    def softmax(self, x: Tensor, dim: int, log: bool = False) -> Tensor:
        """A softmax, or its logarithm, over each group (src/blas_kernels.cu, softmax_tree)."""
        function = torch.log_softmax if log else torch.softmax
        done = [function(part, dim + 1).flatten(dim, dim + 1) for part in self._runs(x, dim)]
        return torch.cat(done, dim).index_select(dim, self.from_size)

    def predictions(self, x: Tensor, dim: int) -> Tensor:
        """The probability of every class itself, from the softmax per group (src/tree.c, hierarchy_predictions)."""
        level = x.index_select(dim, self.level_0)
        levels = [level]
        for d in range(1, self.depth):
            above = level.index_select(dim, getattr(self, f"above_{d}"))
            level = x.index_select(dim, getattr(self, f"level_{d}")) * above
            levels.append(level)
        return torch.cat(levels, dim).index_select(dim, self.from_depth)

    def top(self, x: Tensor, thresh: float, dim: int) -> Tensor:
        """The class that a walk from the top ends at; ``dim`` falls away (src/tree.c, hierarchy_top_prediction).

        The walk takes the best class of a group and multiplies its value in, and ends where the product would not
        be over ``thresh``, or at a leaf.
        """
        best = [part.max(dim + 1) for part in self._runs(x, dim)]
        value = torch.cat([b.values for b in best], dim)
        index = torch.cat([b.indices for b in best], dim)
        index = index + self.first.reshape([-1] + [1] * (x.dim() - dim - 1))

        p = torch.ones_like(value.select(dim, 0))
        group = torch.zeros_like(index.select(dim, 0))
        answer = torch.zeros_like(group)
        walking = torch.ones_like(group, dtype=torch.bool)
        for _ in range(self.depth):
            at = self.place_of_group[group].unsqueeze(dim)
            down = p * value.gather(dim, at).squeeze(dim)
            chosen = index.gather(dim, at).squeeze(dim)
            goes = down > thresh
            child = self.child[chosen]
            ends = ~goes | (child < 0)
            here = torch.where(goes | (group == 0), chosen, self.above_group[group])
            answer = torch.where(walking & ends, here, answer)
            walking = walking & ~ends
            p = torch.where(goes, down, p)
            group = torch.where(walking, child, group)
        return answer

    def _runs(self, x: Tensor, dim: int) -> list[Tensor]:
        """The groups of each size, with ``dim`` split into (groups of that size, size)."""
        parts = x.index_select(dim, self.by_size).split([count * size for count, size in self.runs], dim)
        return [part.unflatten(dim, run) for part, run in zip(parts, self.runs, strict=True)]
