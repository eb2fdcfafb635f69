"""Which classes a path stands for: all labels that occur in it, or its folder."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

from darknet_compat.cfg import read_data
from darknet_compat.classify import labels as module
from darknet_compat.classify.labels import (
    folder_labels,
    match_labels,
    read_class_names,
    read_labels,
    read_top,
)
from darknet_compat.errors import DataError


def strstr(paths, labels):
    """``fill_truth`` and the loop of the evaluation verbs, in plain words."""
    return [[index for index, label in enumerate(labels) if label in path] for path in paths]


def check(paths, labels):
    found = match_labels(paths, labels)
    expected = strstr(paths, labels)
    assert [list(found[index]) for index in range(len(paths))] == expected
    assert found.first().tolist() == [(classes or [-1])[0] for classes in expected]
    return found


def test_all_labels_that_occur_are_found_also_nested_and_overlapping():
    labels = ["cat", "caterpillar", "terp", "pillar", "a", "at", "e/c", "ab", "aba", "baa", "x"]
    check(["/d/cat/1.jpg", "/e/caterpillar.png", "ababaa", "none", "", "at", "/e/ca", "xcatx"], labels)


def test_a_label_does_not_reach_from_one_path_into_the_next():
    assert check(["ab", "cd", "b", "c"], ["bc", "abcd", "db", "cd"]).first().tolist() == [-1, 3, -1, -1]


def test_two_classes_with_one_label_are_both_found():
    assert list(check(["x/dog.jpg"], ["dog", "cat", "dog"])[0]) == [0, 2]


def test_letters_are_compared_as_bytes():
    check(["/é/name.jpg", "/\udce9/x", "/名前/猫.png"], ["é", "猫", "\udce9", "e"])


@pytest.mark.parametrize("seed", range(6))
def test_random_paths_and_labels_of_few_letters(seed, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    rng = np.random.default_rng(seed)

    def words(number, longest):
        return ["".join(rng.choice(list("ab/é"), rng.integers(1, longest + 1))) for _ in range(number)]

    assert len(check(words(40, 30), words(25, 7)).classes) > 100


def test_the_list_of_imagenet_takes_seconds():
    labels = [f"n{index * 7919 + 1440764:08d}" for index in range(1000)]
    paths = [f"/data/imagenet/train/{labels[i % 1000]}/{labels[i % 1000]}_{i}.JPEG" for i in range(100_000)]
    start = time.process_time()
    found = match_labels(paths, labels)
    assert time.process_time() - start < 2  # of 1.28 million paths in 25
    assert np.array_equal(found.first(), np.arange(100_000) % 1000)
    assert len(found.classes) == 100_000


def test_one_line_for_many_paths_with_too_many_labels_or_too_few():
    labels = ["dog", "hotdog", "cat"]
    paths = ["cat/1.jpg", "hotdog/1.jpg", "hotdog/2.jpg", "horse/1.jpg"]
    with pytest.warns(UserWarning, match="label") as told:
        match_labels(paths, labels).warn(labels)
    many, none = (str(warning.message) for warning in told)
    assert many.startswith("hotdog/1.jpg: the path holds the labels 'dog' and 'hotdog'; 2 of 4 paths have more than")
    assert none == "horse/1.jpg: no label is in the path; 1 of 4 paths holds none"


def test_nothing_is_said_of_one_label_each_nor_of_a_lone_label_that_is_not_there():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match_labels(["dog/1", "cat/1"], ["dog", "cat"]).warn(["dog", "cat"])
        match_labels(["dog/1", "cat/1"], ["dog"]).warn(["dog"])


def test_the_folder_is_the_class_and_nothing_else():
    labels = ["dog", "hotdog", "cat"]
    found = folder_labels(["a/cat/hotdog.jpg", "dog/1.jpg", "/x/hotdog/cat.png"], labels)
    assert found.first().tolist() == [2, 0, 1]
    assert found.starts.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("path", "labels", "message"),
    [
        ("a/dogs/1.jpg", ["dog", "cat"], "a/dogs/1.jpg: its folder is called 'dogs', which is none of the 2 labels"),
        ("dog.jpg", ["dog"], "dog.jpg: its folder is called '', which is none of the 1 labels"),
        ("dog/1.jpg", ["dog", "cat", "dog"], "-labels folder: 'dog' is the label of class 0 and of class 2"),
    ],
)
def test_a_folder_is_never_guessed(path, labels, message):
    with pytest.raises(DataError) as error:
        folder_labels([path], labels)
    assert str(error.value).startswith(message)


def test_a_blank_label_is_an_error():
    with pytest.raises(DataError, match=r"^label 2 is a blank line"):
        match_labels(["a"], ["dog", "", "cat"])


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, **files):
        for name, lines in files.items():
            (tmp_path / name).write_text(lines)
        (tmp_path / "my.data").write_text(text)
        return read_data("my.data")

    return write


def test_keys_of_the_data_file(data):
    read = data("classes=2\nlabels=l\nnames=n\ntop=5", l="n01\nn02\nn03\n", n="kit fox\nEnglish setter\n")
    assert read_labels(read) == ["n01", "n02"]
    assert read_class_names(read) == ["kit fox", "English setter"]
    assert read_top(read) == 2


def test_labels_stand_in_for_names(data):
    assert read_class_names(data("labels=l", l="n01\nn02\n")) == ["n01", "n02"]


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("classes=3\nlabels=l", read_labels, "my.data:2: labels=l: 2 lines in l; expected 3, as classes= says"),
        ("classes=0\nlabels=l", read_labels, "my.data:1: classes=0: expected 1 or more"),
        ("top=0", read_top, "my.data:1: top=0: expected 1 or more"),
        ("label=l", read_labels, "my.data: no `labels` line; expected `labels=...`; line 1 says `label`"),
        ("label=l", read_class_names, "my.data: no `labels` line"),
    ],
)
def test_wrong_keys(data, text, read, message):
    with pytest.raises(DataError) as error:
        read(data(text, l="n01\nn02\n"))
    assert str(error.value).startswith(message), error.value
