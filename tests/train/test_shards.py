"""Images in tar shards: read where they lie, in an order that is a function of the seed, and never unpacked."""

from __future__ import annotations

import os
import random
import tarfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.classify.labels import folder_labels, match_labels
from darknet_compat.errors import DarknetError, DataError, ImageError
from darknet_compat.images import load_image
from darknet_compat.train import shards as module
from darknet_compat.train.class_images import image_classes
from darknet_compat.train.classifier import train_classifier
from darknet_compat.train.crop_augment import CropAugmentation
from darknet_compat.train.data import ClassTrainingSet, load_batches
from darknet_compat.train.log import Log
from darknet_compat.train.shards import ShardImages
from darknet_compat.train.sources import ImageFiles
from tests.train.classes import LABELS as LABELS_OF
from tests.train.classes import classifier, data_set
from tests.train.shard_cases import LABELS, add, make_folders, make_shards
from tests.train.test_classifier import press_ctrl_c

CLASSES = [LABELS.index(label) for label in sorted(LABELS) for _ in range(4)]


@pytest.fixture
def paths(tmp_path):
    return make_folders(tmp_path / "loose")


@pytest.fixture
def shards(tmp_path, paths):
    return make_shards(tmp_path / "shards", paths, 3)


def member(path):
    return "/".join(path.split("/")[-2:])


def test_the_images_are_those_of_the_files(paths, shards):
    images = ShardImages(shards)
    assert len(images) == 12
    assert images[:2] == [f"{shards[0]}/n01/n01_0.png", f"{shards[0]}/n01/n01_3.png"]
    assert sorted(map(member, images)) == sorted(map(member, paths))
    by_name = {member(path): path for path in paths}
    for index, name in enumerate(images):
        assert np.array_equal(images.load(index), load_image(by_name[member(name)]))
        assert images.size(index) == (12, 10)
    assert (images[-1], images[-12]) == (images[11], images[0])
    with pytest.raises(IndexError):
        images[12]


def stream(images, batches=9, first=0, workers=0, replacement=False, seed=3):
    data = ClassTrainingSet(
        image_classes(images, LABELS, "path", "train"), 3, CropAugmentation(angle=7), seed=seed, replacement=replacement
    )
    made = load_batches(data, 4, lambda _: (16, 16), (16, 16), first=first, stop=batches, workers=workers)
    return [(batch.images.clone(), batch.truth.clone(), batch.paths) for batch in made]


def same(one, other):
    assert len(one) == len(other) > 0
    for mine, theirs in zip(one, other, strict=True):
        assert (mine[0] == theirs[0]).all()
        assert (mine[1] == theirs[1]).all()
        assert list(map(member, mine[2])) == list(map(member, theirs[2]))


def test_batches_are_those_of_the_loose_files(paths, tmp_path):
    """Of one shard: which image is drawn depends on their number alone."""
    shard = make_shards(tmp_path / "one", paths, 1)
    same(stream(ShardImages(shard)), stream(ImageFiles(paths)))


def test_batches_are_the_same_for_any_number_of_workers_and_anywhere(shards):
    images = ShardImages(shards)
    alone = stream(images)
    same(alone, stream(images, workers=2))
    same(alone[5:], stream(ShardImages(shards), 4, first=20, workers=2))
    assert any((one[0] != other[0]).any() for one, other in zip(alone, stream(images, seed=4), strict=True))


def test_an_epoch_shows_every_image_once_whatever_is_asked_for(shards, paths):
    """Drawn with replacement, images would come from everywhere at a time."""
    shown = [path for batch in stream(ShardImages(shards), 6, replacement=True) for path in batch[2]]
    assert sorted(map(member, shown[:12])) == sorted(map(member, shown[12:])) == sorted(map(member, paths))
    assert shown[:12] != shown[12:]


def test_few_shards_are_drawn_from_at_a_time(shards, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 2)
    images = ShardImages(shards)
    orders = [images.order(np.random.PCG64(seed)) for seed in range(8)]
    for order in orders:
        assert sorted(order) == list(range(12))
        of = [os.path.dirname(os.path.dirname(images[index])) for index in order]
        assert len(set(of[:8])) == 2, "four images each of two shards"
        assert len(set(of[8:])) == 1
    assert len({images[order[-1]][: len(shards[0])] for order in orders}) > 1
    assert len({tuple(order) for order in orders}) == 8
    assert np.array_equal(orders[3], ShardImages(shards).order(np.random.PCG64(3)))


def test_shards_that_were_not_asked_for_lately_are_closed(shards, monkeypatch):
    monkeypatch.setattr(module, "OPEN", 2)
    images = ShardImages(shards)
    before = len(os.listdir("/proc/self/fd"))
    for index in (0, 4, 8, 0, 4, 8):
        images.load(index)
        assert len(images._open) <= 2
    assert len(os.listdir("/proc/self/fd")) == before + 2


def test_a_training_from_shards_is_broken_off_and_goes_on(tmp_path, monkeypatch, handlers):
    """In the midst of an epoch, to the last bit; and is the training from the files where they are in one shard."""
    monkeypatch.setattr(Log, "draw", lambda log: None)
    data_set(tmp_path)
    paths = (tmp_path / "list.txt").read_text().split()
    (tmp_path / "net.cfg").write_text(classifier(max_batches=7))

    def train(name, shards, **flags):
        text = (tmp_path / "set.data").read_text().replace("/backup", f"/{name}")
        if shards:
            make_shards(tmp_path / f"{shards}", paths, shards, [LABELS_OF.index(path.split("/")[-2]) for path in paths])
            text = text.replace("list.txt", f"{shards}/train-{{000..{shards - 1:03}}}.tar", 1)
        (tmp_path / f"{name}.data").write_text(text)
        given = {"device": "cpu", "workers": 0, "seed": 3, "epochs": True, **flags}
        return train_classifier(tmp_path / f"{name}.data", tmp_path / "net.cfg", **given)

    straight = train("straight", 3).weights.read_bytes()
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 4)
        assert train("broken", 3, workers=2).batch == 4
    assert train("broken", 3, resume=True).weights.read_bytes() == straight
    assert train("one", 1).weights.read_bytes() == train("files", 0).weights.read_bytes() != straight


# --- classes


def test_labels_are_found_in_the_paths_of_the_members(shards):
    images = ShardImages(shards)
    assert images.classes is None
    expected = [LABELS.index(name.split("/")[-2]) for name in images]
    assert image_classes(images, LABELS, "path", "train").first().tolist() == expected
    assert image_classes(images, LABELS, "folder", "train").first().tolist() == expected
    assert match_labels(images, LABELS).first().tolist() == folder_labels(images, LABELS).first().tolist()


def test_a_cls_beside_the_image_says_its_class(tmp_path, paths):
    """As webdataset's shards have it; a label in the path may agree, and no label need be in it."""
    images = ShardImages(make_shards(tmp_path / "cls", paths, 2, CLASSES))
    expected = [LABELS.index(name.split("/")[-2]) for name in images]
    assert image_classes(images, LABELS, "path", "train").first().tolist() == expected
    assert image_classes(images, ["a kit fox", "a pug", "a tench"], "path", "train").first().tolist() == expected


def test_a_cls_that_contradicts_the_label_in_the_path(tmp_path, paths):
    images = ShardImages(make_shards(tmp_path / "cls", paths, 1, [0] * 12))
    with pytest.raises(DataError) as error:
        image_classes(images, LABELS, "path", "train")
    assert str(error.value).startswith(
        f"{images[0]}: its .cls says class 0, which is 'n03' in the order of the labels, and the path holds 'n01', "
        "class 1; expected labels= in the order that the shards count in"
    )
    assert image_classes(images, LABELS, "folder", "train").first()[0] == 1


def test_a_key_ends_at_the_first_dot_of_the_name(tmp_path, paths):
    with open(paths[0], "rb") as file:
        image = file.read()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (
            ("v1.0/x.cls", b" 2\n"),
            ("v1.0/x.seg.png", image),
            ("v1.0/x.PNG", image),
            ("y.txt", b""),
        ):
            add(tar, name, content)
    images = ShardImages([str(tmp_path / "a.tar")])
    assert images.classes.tolist() == [2, 2]


def test_shards_of_one_class_each_are_warned_of(tmp_path, monkeypatch):
    """ImageNet's own archives are such: what is drawn from a few at a time would be a few classes."""
    monkeypatch.setattr(module, "TOGETHER", 1)
    paths = make_folders(tmp_path / "loose", 2)
    apart = [make_shards(tmp_path / label, [path for path in paths if f"/{label}/" in path], 1)[0] for label in LABELS]
    with pytest.warns(UserWarning, match=r"each of the 3 shards holds 1 or fewer of the 3 classes.*make_shards\.py"):
        image_classes(ShardImages(apart), LABELS, "path", "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_classes(ShardImages(make_shards(tmp_path / "mixed", paths, 2)), LABELS, "path", "train")
        monkeypatch.setattr(module, "TOGETHER", 2)
        image_classes(ShardImages(apart), LABELS, "path", "train")


# --- what is wrong with shards


@pytest.fixture
def write(tmp_path, paths):
    """Writes a tar with an image and what ``more`` adds, and says what reading it raises."""
    with open(paths[0], "rb") as file:
        image = file.read()

    def error(more=None, change=lambda body: body):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as tar:
            add(tar, "n01/x.png", image)
            if more:
                more(tar)
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(DataError) as caught:
            image_classes(ShardImages([str(path)]), LABELS, "path", "train")
        text = str(caught.value)
        assert text.startswith(str(path))
        assert "\n" not in text
        return text[len(str(path)) :]

    return error


def test_a_missing_shard(tmp_path, shards):
    with pytest.raises(DataError, match=r"gone\.tar: cannot read the shard: No such file or directory$"):
        ShardImages([*shards, str(tmp_path / "gone.tar")])


def test_what_is_no_tar_is_named(write):
    assert write(change=lambda body: b"no tar").startswith(": offset 0: no tar file, a compressed one, or a damaged")
    assert write(change=lambda body: b"\x1f\x8b\x08" + bytes(700)).startswith(": offset 0: no tar file, a compressed")
    assert write(change=lambda body: b"").startswith(": offset 0: no tar file")
    assert write(change=lambda body: bytes(10240)).startswith(
        ": no image in the shard; expected members ending in .jpg"
    )


def test_a_shard_that_was_cut_short(write):
    def two(tar):
        add(tar, "n01/y.png", bytes(5000))

    assert "unexpected end of data" in write(two, lambda body: body[:4000])
    assert write(two, lambda body: body[:1024]).startswith(
        ": offset 1024: ends without the mark of its end; it was cut"
    )
    assert write(two, lambda body: body[:1200]).startswith(
        ": offset 1024: ends without the mark of its end; it was cut"
    )


def test_a_damaged_header_between_members(write):
    """Python's tarfile takes it for the end, and the images behind it would be missing without a word."""

    def change(body):
        return body[:1030] + b"?" + body[1031:]

    said = write(lambda tar: add(tar, "n01/y.png", b"y"), change)
    assert said.startswith(": offset 1024: a damaged header; expected a whole .tar")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"dog", "b'dog'; expected the number of a class, from 0"),
        (b"-1", "b'-1'; expected the number"),
        (b"9" * 40, "expected the number"),
        (b"", "b''; expected the number"),
        (b"3", "/n01/x.png: its .cls says class 3; expected one of 0..2, as there are 3 labels"),
    ],
)
def test_a_cls_that_says_no_class(write, content, said):
    assert said in write(lambda tar: add(tar, "n01/x.cls", content))


def test_a_cls_for_some_images(write):
    def more(tar):
        add(tar, "n01/x.cls", b"1")
        add(tar, "n01/y.png", b"y")

    assert write(more).startswith("/n01/y.png: no .cls beside it, and other images of the shards have one")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_the_place_of_an_image(write, kind):
    said = write(lambda tar: add(tar, "n01/y.jpg", b"", type=kind, linkname="/etc/passwd"))
    assert said.startswith("/n01/y.jpg: a link; expected whole files: write the tar anew, with tar's -h and")


def test_a_file_with_holes(write):
    """Its bytes do not lie where its header says."""
    said = write(lambda tar: add(tar, "n01/y.jpg", b"", type=tarfile.GNUTYPE_SPARSE))
    assert said.startswith("/n01/y.jpg: a sparse file; expected whole files")


def test_a_name_that_would_change_the_terminal(write):
    assert "a header that makes no sense" in write(lambda tar: add(tar, "n01/\x1b[2Jy.png", b"y"))


def test_a_header_that_leads_back(write):
    """A negative size, in base 256: a tarfile of before 2025 never ends."""

    def change(body):
        header = bytearray(body[1024:1536])
        header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return body[:1024] + bytes(header) + body[1536:]

    assert "offset" in write(lambda tar: add(tar, "n01/y.png", b"y"), change)


def test_nothing_is_written_wherever_members_say_they_belong(tmp_path, paths, monkeypatch):
    place = tmp_path / "here" / "deep"
    place.mkdir(parents=True)
    with open(paths[0], "rb") as file:
        image = file.read()
    with tarfile.open(place / "a.tar", "w") as tar:
        for name in ("../n01.png", "/tmp/n02.png", "n03.png"):
            add(tar, name, image)
    monkeypatch.chdir(place)
    images = ShardImages(["a.tar"])
    assert [images.load(index).shape for index in range(3)] == [(10, 12, 3)] * 3
    assert list(images) == ["a.tar/../n01.png", "a.tar//tmp/n02.png", "a.tar/n03.png"]
    assert sorted(os.listdir(place)) == ["a.tar"]
    assert os.listdir(place.parent) == ["deep"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_member_that_is_no_image_is_named_with_its_shard(tmp_path, paths, workers):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "n01/x.png", b"no image")
    with pytest.raises(ImageError, match=r"/a\.tar/n01/x\.png: 8 bytes that do not decode, expected a whole JPEG"):
        stream(ShardImages([str(tmp_path / "a.tar")]), workers=workers)


def test_a_shard_that_changes_or_goes_while_it_is_used(shards):
    images = ShardImages(shards)
    with open(shards[0], "ab") as file:
        file.write(bytes(512))
    os.unlink(shards[1])
    for index, said in ((0, "the shard was changed after its headers"), (4, "No such file or directory")):
        with pytest.raises(ImageError) as error:
            images.load(index)
        assert str(error.value).startswith(f"{images[index]}: cannot read the image: {said}")


def test_a_shard_that_loses_its_end_while_it_is_open(shards):
    images = ShardImages(shards)
    images.load(0)
    os.truncate(shards[0], 600)
    with pytest.raises(ImageError, match=r"n01_0\.png: the shard ends inside the image; it has been cut short"):
        images.load(0)


def test_damage_of_any_kind_is_one_line(tmp_path, paths):
    """Bytes of headers changed at random: the images as they were, or one line."""
    (whole,) = make_shards(tmp_path / "one", paths, 1, CLASSES)
    with open(whole, "rb") as file:
        body = file.read()
    with tarfile.open(whole) as tar:
        headers = [one.offset for one in tar]
    rng, refused, path = random.Random(0), 0, tmp_path / "damaged.tar"
    for _ in range(300):
        damaged = bytearray(body)
        for _ in range(rng.choice([1, 3])):
            start = rng.choice(headers)
            damaged[start + rng.choice([*range(124, 136), 156, *range(345, 400), *range(10)])] = rng.randrange(256)
            damaged[start + 148 : start + 156] = b" " * 8
            damaged[start + 148 : start + 156] = b"%06o\0 " % sum(damaged[start : start + 512])
        path.write_bytes(damaged[: rng.choice([None, None, rng.randrange(len(body))])])
        said = outcome(path)
        refused += said is not None
        assert said is None or (str(path) in said and "\n" not in said)
    assert refused > 100


def outcome(path):
    try:
        images = ShardImages([str(path)])
        for index in range(len(images)):
            images.load(index)
    except DarknetError as error:
        return str(error)
    return None


READ = module._read_index


def together(shard):
    """Reads a shard when all three processes have begun to."""
    folder = Path(shard).parent
    (folder / f"{os.getpid()}.begun").touch()
    limit = time.monotonic() + 20
    while len(list(folder.glob("*.begun"))) < 3 and time.monotonic() < limit:
        time.sleep(0.001)
    return READ(shard)


def dies(shard):
    os._exit(1)


def test_headers_of_many_shards_are_read_at_a_time(shards, monkeypatch):
    """A network disk lets one wait for each header."""
    monkeypatch.setattr(module, "_read_index", together)
    assert len(ShardImages(shards)) == 12
    begun = {int(path.stem) for path in Path(shards[0]).parent.glob("*.begun")}
    assert len(begun) == 3
    assert os.getpid() not in begun


def test_a_process_that_dies_while_it_reads_headers(shards, monkeypatch):
    monkeypatch.setattr(module, "_read_index", dies)
    with pytest.raises(
        DataError, match=r"train-000\.tar: a process that reads the headers of the 3 shards died, perhaps"
    ):
        ShardImages(shards)


@pytest.mark.slow
def test_the_time_that_headers_take(tmp_path, capsys):
    """The figure of docs/PERFORMANCE.md: of each member, in time of a processor."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(20_000):
            add(tar, f"{index:08}_n01440764.jpg", bytes(3000))
            add(tar, f"{index:08}_n01440764.cls", b"449")
    start = time.process_time()
    images = ShardImages([str(tmp_path / "a.tar")])
    each = (time.process_time() - start) / (2 * len(images))
    with capsys.disabled():
        print(f"\n{1000 * each:.3f} ms for each member's header")
    assert each < 0.0001
