"""tools/make_shards.py: what it writes is trained on as the files are, and is what webdataset reads."""

from __future__ import annotations

import os
import sys
import tarfile

import numpy as np
import pytest

from darknet_compat.cfg import read_data
from darknet_compat.train.class_images import image_classes, training_images
from darknet_compat.train.shards import ShardImages
from tests.tools.run import load_tool
from tests.train.shard_cases import LABELS, make_folders, make_shards

make_shards_tool = load_tool("make_shards")


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_folders(tmp_path / "loose", 6)
    (tmp_path / "labels").write_text("".join(f"{label}\n" for label in LABELS))
    (tmp_path / "my.data").write_text("classes=3\nlabels=labels\ntrain=loose\n")
    return made


@pytest.fixture
def run(monkeypatch, capsys):
    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_shards.py", "my.data", "shards/my", *arguments])
        code = make_shards_tool.main()
        said = capsys.readouterr()
        return code, said.out.strip(), said.err.strip()

    return main


def images_by_class(data):
    images = training_images(read_data(data))
    classes = image_classes(images, LABELS, "path", "train").first().tolist()
    return {images.load(index).tobytes(): name for index, name in enumerate(classes)}


def test_shards_hold_each_image_once_with_its_class(paths, tmp_path, run):
    expected = images_by_class("my.data")
    code, said, _ = run("--images", "5")
    assert (code, said) == (0, "train=shards/my-{000..003}.tar")
    (tmp_path / "shards.data").write_text(f"{said}\n")
    assert images_by_class("shards.data") == expected
    assert len(expected) == 18
    images = training_images(read_data("shards.data"))
    assert [sum(name.startswith(shard) for name in images) for shard in images.shards] == [5, 5, 5, 3]
    assert len(set(image_classes(images, LABELS, "path", "train").first()[:5])) > 1, "they are mixed"


def test_a_key_holds_the_label_without_what_ends_it(paths, tmp_path, run):
    """Two members of one key in turn, which ends at the first dot of its name; the class as a number."""
    (tmp_path / "labels").write_text("n03\nn01/\nn02.x\nn02\n")
    (tmp_path / "my.data").write_text("classes=4\nlabels=labels\ntrain=loose\n")
    assert run()[0] == 0
    with tarfile.open("shards/my-000.tar") as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    for (image, _), (number, text) in zip(members[::2], members[1::2], strict=True):
        key, suffix = image.split(".")
        assert (suffix, number) == ("png", f"{key}.cls")
        assert key.endswith({b"0": "_n03", b"1": "_n01_", b"3": "_n02"}[text])


def test_a_key_ends_in_small_letters(paths, run):
    """As webdataset's decoders know them."""
    os.rename(paths[0], paths[0].replace(".png", ".PNG"))
    assert run()[0] == 0
    with tarfile.open("shards/my-000.tar") as tar:
        assert {name.rsplit(".")[-1] for name in tar.getnames()} == {"png", "cls"}


def test_webdataset_reads_them_alike_and_writes_what_is_read_here(paths, tmp_path, run):
    webdataset = pytest.importorskip("webdataset", reason="needs webdataset: pip install webdataset")
    run("--images", "7")
    images = ShardImages([f"shards/my-{number:03}.tar" for number in range(3)])
    theirs = list(webdataset.WebDataset("shards/my-{000..002}.tar", shardshuffle=False))
    assert [f"{one['__url__']}/{one['__key__']}.png" for one in theirs] == list(images)
    assert [one["png"] for one in theirs] == [images.encoded(index) for index in range(18)]
    assert [int(one["cls"]) for one in theirs] == images.classes.tolist()
    with webdataset.TarWriter("theirs.tar") as sink:
        for number, one in enumerate(theirs):
            sink.write({"__key__": f"a/{number:05}", "json": {"n": 1}, "png": one["png"], "cls": number % 3})
    written = ShardImages(["theirs.tar"])
    assert [written.encoded(index) for index in range(18)] == [one["png"] for one in theirs]
    assert written.classes.tolist() == 6 * [0, 1, 2]


def test_shards_of_one_class_each_become_mixed_ones(paths, tmp_path, run):
    """ImageNet's own archives are such."""
    expected = images_by_class("my.data")
    apart = [make_shards(tmp_path / label, [path for path in paths if f"/{label}/" in path], 1)[0] for label in LABELS]
    (tmp_path / "apart.list").write_text("".join(f"{shard}\n" for shard in apart))
    (tmp_path / "my.data").write_text("classes=3\nlabels=labels\ntrain=apart.list\n")
    assert run("--images", "9")[0] == 0
    (tmp_path / "shards.data").write_text("train=shards/my-{000..001}.tar\n")
    assert images_by_class("shards.data") == expected
    assert set(image_classes(training_images(read_data("shards.data")), LABELS, "path", "train").first()[:9]) == {
        0,
        1,
        2,
    }


def test_the_same_data_give_the_same_bytes(paths, tmp_path, run):
    run()
    first = (tmp_path / "shards/my-000.tar").read_bytes()
    run()
    assert (tmp_path / "shards/my-000.tar").read_bytes() == first
    assert np.frombuffer(first, np.uint8).any()


def test_errors(paths, tmp_path, run):
    (tmp_path / "labels").write_text("n03\nn01\nn05\n")
    code, _, said = run()
    assert (code, said.splitlines()[-1]) == (
        1,
        "loose/n02/n02_0.png: no label is in the path; expected a class for each image",
    )
    code, _, said = run("--labels", "folder")
    assert (
        code,
        said.startswith("loose/n02/n02_0.png: its folder is called 'n02', which is none of the 3 labels"),
    ) == (1, True)
    assert not (tmp_path / "shards").exists()
    with pytest.raises(SystemExit, match="2"):
        run("--images", "0")


def test_a_file_that_is_gone_leaves_no_half_shard(paths, tmp_path, run, monkeypatch):
    monkeypatch.setattr("darknet_compat.image_files.CHECKED", 2)
    (tmp_path / "all.list").write_text("".join(f"{path}\n" for path in [paths[0], "loose/n01/gone.png", *paths[1:]]))
    (tmp_path / "my.data").write_text("classes=3\nlabels=labels\ntrain=all.list\n")
    code, _, said = run()
    assert (code, said) == (1, "loose/n01/gone.png: cannot read the image: No such file or directory")
    assert list((tmp_path / "shards").iterdir()) == []
