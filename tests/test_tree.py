from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_compat.errors import DataError
from darknet_compat.tree import Hierarchy, read_map, read_tree


def random_tree(rng, n):
    """Lines of a tree: roots first, then families of 1 to 5 below classes that stand before."""
    parents = [-1] * int(rng.integers(1, min(n, 4) + 1))
    # Mostly one family for each parent; now and then a second one, or further roots, which Darknet takes too.
    while len(parents) < n:
        parents += [int(rng.integers(-1, len(parents)))] * int(rng.integers(1, 6))
    return [f"n{i} {p}" for i, p in enumerate(parents[:n])]


def write_tree(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def hierarchy_loop(tree, p):
    """Absolute probabilities of one box."""
    p = p.copy()
    for i, parent in enumerate(tree.parent):
        if parent >= 0:
            p[i] *= p[parent]
    return p


def top_loop(tree, p, thresh):
    product, group = np.float32(1), 0
    while True:
        start = tree.group_offset[group]
        values = p[start : start + tree.group_size[group]]
        best = start + int(values.argmax()) if values.max() > 0 else 0
        value = max(values.max(), 0)
        if product * value > np.float32(thresh):
            product *= value
            group = tree.child[best]
            if group < 0:
                return best
        elif group == 0:
            return best
        else:
            return tree.parent[start]


@pytest.mark.parametrize("seed", range(20))
def test_read_tree_is_darknets(darknet, tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = write_tree(tmp_path / "a.tree", random_tree(rng, int(rng.integers(1, 60))))
    tree, reference = read_tree(path), darknet.read_tree(path)
    for name in ("parent", "child", "group_size", "group_offset"):
        np.testing.assert_array_equal(getattr(tree, name), reference[name], name)
    # Where Darknet counts groups up after it has met the class, its `group` is the same.
    np.testing.assert_array_equal(tree.group, reference["group"])


def test_stock_tree_and_maps(darknet, darknet_share):
    path = darknet_share / "data" / "9k.tree"
    tree, reference = read_tree(path), darknet.read_tree(path)
    assert (tree.n, tree.groups) == (9418, 1846)
    for name in ("parent", "child", "group", "group_size", "group_offset"):
        np.testing.assert_array_equal(getattr(tree, name), reference[name], name)
    assert len(read_map(darknet_share / "data" / "coco9k.map")) == 80
    assert len(read_map(darknet_share / "data" / "inet9k.map")) == 200
    hierarchy = Hierarchy(tree)
    p = hierarchy.softmax(torch.randn(2, 9418), 1)
    torch.testing.assert_close(torch.zeros(2, 1846).index_add(1, hierarchy.group, p), torch.ones(2, 1846))


@pytest.mark.parametrize("seed", range(20))
def test_functions_along_the_tree(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tree = read_tree(write_tree(tmp_path / "a.tree", random_tree(rng, int(rng.integers(1, 40)))))
    hierarchy = Hierarchy(tree)
    raw = torch.from_numpy(rng.normal(size=(2, 3, tree.n, 7)).astype(np.float32) * 3)
    p = hierarchy.softmax(raw, 2)
    torch.testing.assert_close(hierarchy.softmax(raw, 2, log=True), p.log(), rtol=1e-4, atol=1e-5)
    for g in range(tree.groups):
        members = np.flatnonzero(tree.group == g)
        torch.testing.assert_close(p[:, :, members], raw[:, :, members].softmax(2))
    if seed % 4 == 0:
        p[:, 0] = 0
    absolute = hierarchy.predictions(p, 2)
    for thresh in (0.01, 0.3, 0.5, 0.9):
        top = hierarchy.top(absolute, thresh, 2)
        for i, j, k in np.ndindex(2, 3, 7):
            one = p[i, j, :, k].numpy()
            np.testing.assert_array_equal(absolute[i, j, :, k].numpy(), hierarchy_loop(tree, one))
            assert int(top[i, j, k]) == top_loop(tree, absolute[i, j, :, k].numpy(), thresh)


def test_a_tree_without_a_number_in_a_line_and_with_blank_lines_behind(tmp_path):
    tree = read_tree(write_tree(tmp_path / "a.tree", ["top", "below 0", "", " "]))
    assert tree.names == ["top", "below"]
    assert tree.parent.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a -1", "b 1"], r":2: the second word is not the number of a parent; expected -1, or 0 to 0: a class before"),
        (["a -1", "b -2"], r":2: the second word is not the number of a parent"),
        (["a x"], r":1: the second word is not the number of a parent; expected -1, as this is the first class"),
        (["a " + "9" * 5000], r":1: the second word is not the number of a parent"),
        (["a -1", "", "b 0"], r":2: 0 words; expected a name and the number of its parent"),
        (["a -1 3"], r":1: 3 words; expected a name"),
        ([f"a {i - 1}" for i in range(4097)], r":4097: a class on level 4,097; expected at most 4,095 levels"),
        ([], r"a.tree: the file is empty"),
    ],
)
def test_damaged_trees(tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as error:
        read_tree(write_tree(tmp_path / "a.tree", lines))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "1\nx\n", "-1\n", "1\n\n2\n", "1 2\n"])
def test_damaged_maps(tmp_path, text):
    (tmp_path / "a.map").write_text(text)
    with pytest.raises(DataError, match=r"a\.map.*expected"):
        read_map(tmp_path / "a.map")


@pytest.mark.parametrize("read", [read_tree, read_map])
@pytest.mark.parametrize("line", ["hunter2", "0 hunter2", "a b hunter2", "-1 0"])
def test_no_text_of_the_file_is_shown(tmp_path, read, line):
    """A cfg from elsewhere can name a file that is nobody's business."""
    (tmp_path / "a.private").write_text(f"{line}\n" * 3)
    try:
        read(tmp_path / "a.private")
    except DataError as error:
        message = str(error)
        assert message.startswith(f"{tmp_path}/a.private:1: ")
        assert "hunter2" not in message
        assert "-1 0" not in message
    else:
        assert read is read_tree
        assert line == "hunter2"  # a class of this name, as it is to Darknet


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_tree(tmp_path / "none.tree")


def test_the_deepest_tree_of_as_many_classes_is_read(tmp_path):
    """2**24 steps: 4,096 classes in a chain."""
    assert read_tree(write_tree(tmp_path / "a.tree", [f"a {i - 1}" for i in range(4096)])).groups == 4096


def test_a_map_may_name_the_first_class(tmp_path):
    (tmp_path / "a.map").write_text("3\n0\n")
    assert read_map(tmp_path / "a.map") == [3, 0]


def test_tables_of_a_tree_are_its_own_and_stand_in_no_state(tmp_path):
    tree = read_tree(write_tree(tmp_path / "a.tree", ["a -1", "b -1", "c 1", "d 2", "e 0"]))
    hierarchy = Hierarchy(tree)
    # The classes from the top down to each, and of none.
    assert hierarchy.path.tolist() == [[0, -1, -1], [1, -1, -1], [1, 2, -1], [1, 2, 3], [0, 4, -1], [-1, -1, -1]]
    assert hierarchy.group.tolist() == tree.group.tolist() == [0, 0, 1, 2, 3]
    assert hierarchy.state_dict() == {}
    assert len({tree, read_tree(tmp_path / "a.tree")}) == 2


def test_the_walk_goes_on_only_over_the_threshold(tmp_path):
    """src/tree.c, hierarchy_top_prediction: ``p*max > thresh``; at it the walk ends one level above."""
    tree = read_tree(write_tree(tmp_path / "a.tree", ["a -1", "b 0", "c 0"]))
    p = torch.tensor([[1, 0.5, 0.5]])
    for thresh, expected in ((0.25, 1), (0.5, 0), (0.75, 0)):
        assert Hierarchy(tree).top(p, thresh, 1).tolist() == [expected]
        assert top_loop(tree, p[0].numpy(), thresh) == expected
