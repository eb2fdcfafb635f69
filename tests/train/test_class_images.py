"""What train= names: a list, a folder of classes, tar shards; a million paths in seconds."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.cfg import read_data, read_list
from darknet_compat.classify.labels import folder_labels, match_labels
from darknet_compat.errors import DataError
from darknet_compat.image_files import listed_images
from darknet_compat.train import class_images as module
from darknet_compat.train import data as data_module
from darknet_compat.train.class_images import image_classes, training_images
from darknet_compat.train.crop_augment import CropAugmentation
from darknet_compat.train.data import ClassTrainingSet, ImageSet, _epoch_order, load_batches
from darknet_compat.train.shards import ShardImages
from darknet_compat.train.sources import ImageFiles
from tests.train.shard_cases import LABELS, make_folders, make_shards


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_folders(tmp_path / "loose")
    (tmp_path / "all.list").write_text("".join(f"{path}\n" for path in made))
    return made


def images_of(given):
    with open("my.data", "w") as file:
        file.write(f"train={given}\n")
    return training_images(read_data("my.data"))


def test_a_list(paths):
    assert list(images_of("all.list")) == paths


def test_a_folder_of_classes(paths, tmp_path):
    (tmp_path / "loose/n01/note.txt").write_text("no image")
    (tmp_path / "loose/LICENSE").write_text("no folder")
    (tmp_path / "loose/n05").symlink_to("n01")
    shutil.copy("loose/n01/n01_0.png", "loose/n02/Z.JPEG")
    found = list(images_of("loose"))
    more = ["loose/n02/Z.JPEG", *(f"loose/n05/n01_{i}.png" for i in range(4))]
    assert found == sorted([*map(os.path.relpath, paths), *more])
    (tmp_path / "loose/n05").unlink()
    found = images_of("loose")
    expected = [LABELS.index(path.split("/")[-2]) for path in found]
    more = [*LABELS, "loose", "n01_0"]  # which "path" would find in the paths too
    assert image_classes(found, more, "path", "loose").first().tolist() == expected
    assert len(image_classes(found, more, "path", "loose").classes) == 13


def test_shards_by_name_by_numbers_and_by_list(paths, tmp_path):
    shards = make_shards(tmp_path / "shards", paths, 3)
    assert images_of(shards[1]).shards == [shards[1]]
    assert images_of("shards/train-{000..002}.tar").shards == [os.path.relpath(shard) for shard in shards]
    (tmp_path / "shards.list").write_text(f"{shards[2]}\nshards/train-{{001..001}}.tar\n")
    assert images_of("shards.list").shards == [shards[2], "shards/train-001.tar"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a-{0..3}.tar", ["a-0.tar", "a-1.tar", "a-2.tar", "a-3.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("a-{9..11}/b.tar", ["a-9/b.tar", "a-10/b.tar", "a-11/b.tar"]),
        ("a-{00..100}.tar", [f"a-{number:03}.tar" for number in range(101)]),
        ("a-{x}.tar", ["a-{x}.tar"]),
    ],
)
def test_numbers_stand_for_names_as_in_a_shell(given, expected):
    assert module._numbered([given]) == expected


@pytest.mark.parametrize("given", ["a-{3..1}.tar", "a-{0..9999999}.tar"])
def test_numbers_that_stand_for_no_shards_or_too_many(given):
    with pytest.raises(
        DataError, match=r"^a-\{.*\.tar: the numbers go from .* expected them to rise, and to stand for"
    ):
        module._numbered([given])


def test_what_train_may_not_name(paths, tmp_path):
    (tmp_path / "mixed.list").write_text("a.tar\nb.jpg\n")
    with pytest.raises(
        DataError, match=r"^mixed\.list: b\.jpg is no \.tar file, and the first line names one; expected"
    ):
        images_of("mixed.list")
    (tmp_path / "empty/n01").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"^empty: no image in the 1 folders in it; expected images as empty/CLASS/IMAGE"
    ):
        images_of("empty")
    with pytest.raises(DataError, match=r"^gone\.list: no such file"):
        images_of("gone.list")
    with pytest.raises(
        DataError, match=r"^a\.tar: a tar file; expected a list or a folder of images: only train= takes"
    ):
        listed_images("a.tar")
    with pytest.raises(DataError, match=r"^gone-1\.tar: cannot read the shard: No such file or directory$"):
        images_of("gone-{1..2}.tar")


def test_a_list_that_lacks_images(paths, tmp_path, monkeypatch):
    (tmp_path / "all.list").write_text("".join(f"{path}\n" for path in [*paths[:5], "gone.png", *paths[6:]]))
    with pytest.raises(DataError) as error:
        images_of("all.list")
    assert str(error.value) == (
        "gone.png: no such image; 1 of 12 images that were looked for are missing, of the 12 in all.list; its paths "
        f"are relative to the current folder, {tmp_path}"
    )


def test_of_a_long_list_some_files_are_looked_for(paths, tmp_path, monkeypatch):
    """All of ImageNet's would take minutes on a slow disk; the first and the last are among them."""
    looked, isfile = [], os.path.isfile

    def spy(path):
        looked.append(path)
        return isfile(path)

    monkeypatch.setattr("darknet_compat.image_files.CHECKED", 4)
    monkeypatch.setattr(os.path, "isfile", spy)
    images_of("all.list")
    assert looked == [paths[0], paths[3], paths[7], paths[11]]


# --- a million paths

MANY = 100_000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A list as ImageNet's is, a twelfth of it, and its thousand labels."""
    labels = [f"n{index * 7919 + 1440764:08d}" for index in range(1000)]
    lines = [f"/data/imagenet/train/{labels[i % 1000]}/{labels[i % 1000]}_{i}.JPEG\n" for i in range(MANY)]
    path = tmp_path_factory.mktemp("many") / "train.list"
    path.write_text("".join(lines))
    return path, labels


def test_a_list_of_imagenet_starts_in_seconds(many):
    """Of 1.28 million paths the limit would be 25 s; what is quadratic takes hours."""
    path, labels = many
    start = time.process_time()
    images = ImageFiles(read_list(path))
    assert np.array_equal(match_labels(images, labels).first(), folder_labels(images, labels).first())
    made = ImageSet(images, 0, replacement=False, cache=False)
    assert sorted(_epoch_order(made.source, 0, 0).tolist()) == list(range(MANY))
    assert time.process_time() - start < 4


def test_paths_take_the_memory_of_their_letters(many):
    """One long path among many does not make all of them long, and no object stands for each."""
    paths = [*read_list(many[0]), "/" + 4000 * "x"]
    letters = sum(map(len, paths))
    tracemalloc.start()
    images = ImageFiles(paths)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < letters + 9 * MANY
    assert images[MANY] == paths[-1]
    assert images[77_777] == paths[77_777]


def test_an_epochs_order_is_a_function_of_seed_and_epoch(many):
    images = ImageFiles(read_list(many[0]))
    order = _epoch_order(images, 7, 3)
    assert isinstance(order, np.ndarray)
    _epoch_order.cache_clear()
    assert np.array_equal(order, _epoch_order(images, 7, 3))
    for seed, epoch in ((7, 4), (8, 3)):
        other = _epoch_order(images, seed, epoch)
        assert sorted(other) == list(range(MANY))
        assert (other == order).mean() < 0.001
    # The same on every machine and with every version of numpy: a resumed training goes on with it.
    assert _epoch_order(ImageFiles(["x"] * 10), 7, 3).tolist() == [3, 7, 4, 8, 6, 0, 1, 2, 5, 9]


def test_shards_and_files_are_drawn_from_alike(paths, tmp_path):
    """What a sample is does not change where files become one shard."""
    (shard,) = make_shards(tmp_path / "one", paths, 1)
    for epoch in range(3):
        assert np.array_equal(_epoch_order(ShardImages([shard]), 1, epoch), _epoch_order(ImageFiles(paths), 1, epoch))


IMAGENET = 1_281_167


def stages(path, labels, pipe):
    """Seconds of this processor and MiB more in memory after each stage of a start, then what a worker adds."""

    def held(pid="self", what="Rss"):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    def stage(name, work):
        before, start = held(), time.process_time()
        made = work()
        pipe.send((name, time.process_time() - start, held() - before))
        return made

    paths = stage("read_list", lambda: read_list(path))
    images = stage("ImageFiles", lambda: ImageFiles(paths))
    found = stage("labels by path", lambda: match_labels(images, labels))
    stage("labels by folder", lambda: folder_labels(images, labels))
    data = ClassTrainingSet(found, len(labels), CropAugmentation(), replacement=False)
    stage("order of an epoch", lambda: data_module._epoch_order(data.source, 0, 0))
    image = np.zeros((375, 500, 3), np.uint8)
    ImageFiles.load = lambda *_: image
    started, start = [], data_module._start_worker

    def spy(ring):
        started.append(start(ring))
        return started[-1]

    data_module._start_worker = spy
    batches = load_batches(data, 4, lambda _: (32, 32), (32, 32), first=IMAGENET - 100, workers=2)
    for _ in range(100):  # over the end of an epoch
        next(batches)
    pipe.send(("of each worker its own", 0.0, held(started[0].pid, "Private")))
    batches.close()
    pipe.send(None)


@pytest.mark.slow
def test_the_list_of_all_of_imagenet(tmp_path, capsys):
    """The figures of docs/PERFORMANCE.md, in a new process."""
    labels = [f"n{index * 7919 + 1440764:08d}" for index in range(1000)]
    with open(tmp_path / "train.list", "w") as file:
        for i in range(IMAGENET):
            file.write(f"/data/imagenet/train/{labels[i % 1000]}/{labels[i % 1000]}_{i}.JPEG\n")
    start = multiprocessing.get_context("spawn")
    here, there = start.Pipe()
    process = start.Process(target=stages, args=(tmp_path / "train.list", labels, there), daemon=True)
    process.start()
    there.close()
    seen = list(iter(here.recv, None))
    process.join()
    with capsys.disabled():
        print()
        for name, seconds, more in seen:
            print(f"{name:24} {seconds:6.2f} s {more:6.0f} MiB")
    assert sum(seconds for _, seconds, _ in seen) < 60
    assert seen[-1][2] < 150, "the paths are not copied for each worker"
