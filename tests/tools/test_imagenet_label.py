"""tools/imagenet_label.py, with archives of three classes in ImageNet's form."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from darknet_compat.cfg import read_data, read_list
from darknet_compat.classify.labels import match_labels
from darknet_compat.train.class_images import training_images
from tests.conftest import ROOT
from tests.tools.run import load_tool, one_line
from tests.train.shard_cases import add

imagenet_label = load_tool("imagenet_label")
LABELS = ["n02119789", "n02100735", "n01440764"]  # in the order of Darknet and of the devkit, which is not sorted
TRUTH = [3, 1, 1, 2]
DEVKIT = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as made:
        for name, content in members:
            add(made, name, content)


def inner(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in members:
            add(made, name, content)
    return file.getvalue()


@pytest.fixture
def archives(tmp_path, monkeypatch):
    folder = tmp_path / "with blank é"
    folder.mkdir()
    monkeypatch.chdir(folder)
    classes = [
        (f"{label}.tar", inner([(f"{label}_{i}.JPEG", f"{label} {i}".encode() * 400) for i in (10, 7)]))
        for label in sorted(LABELS)
    ]
    tar("train.tar", classes)
    tar("val.tar", [(f"ILSVRC2012_val_{i:08}.JPEG", b"val %d" % i) for i in (2, 1, 4, 3)])
    tar("devkit.tar.gz", [(DEVKIT, "".join(f"{number}\n" for number in TRUTH).encode())], "w:gz")
    (folder / "labels.list").write_text("".join(f"{label}\n" for label in LABELS))
    lines = [f"ILSVRC2012_val_{i:08},{LABELS[number - 1]} 1 2 3 4 \n" for i, number in enumerate(TRUTH, 1)]
    (folder / "val.csv").write_text("ImageId,PredictionString\n" + "".join(lines[::-1]))  # Kaggle's are in no order
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the tool as a command, in this process; what it said comes back."""

    def main(truth="devkit.tar.gz", **options):
        given = {"train": "train.tar", "val": "val.tar", "labels": "labels.list", "truth": truth, **options}
        flags = [word for name, value in given.items() if value for word in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["imagenet_label.py", "out", *flags])
        code = imagenet_label.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess([], code, said.out, said.err)

    return main


def written(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix == ".JPEG"
    }


EXPECTED = {
    **{f"train/{label}/{label}_{i}.JPEG": f"{label} {i}".encode() * 400 for label in LABELS for i in (7, 10)},
    **{f"val/{LABELS[k - 1]}/ILSVRC2012_val_{i:08}.JPEG": b"val %d" % i for i, k in enumerate(TRUTH, 1)},
}


def check(folder, result):
    assert result.returncode == 0, result.stderr
    out = folder / "out"
    assert written(out) == EXPECTED
    assert not list(out.rglob("*.part"))
    data = read_data(out / "imagenet.data")
    assert read_list(data.require("labels")) == LABELS
    assert data.integer("classes") == 3
    train, valid = list(training_images(data)), read_list(data.require("valid"))
    assert sorted(train + valid) == sorted(str(out / name) for name in EXPECTED)
    for paths in (train, valid):
        classes = match_labels(paths, LABELS)
        assert [LABELS[index] for index in classes.first()] == [path.split("/")[-2] for path in paths]
        assert len(classes.classes) == len(paths)


def test_the_whole_way(archives, run):
    result = run()
    check(archives, result)
    assert result.stdout.splitlines() == [
        "train: 6 images",
        "valid: 4 images",
        f"next: darknet-compat classifier train {archives}/out/imagenet.data cfg/darknet19.cfg",
    ]


def test_a_second_run_writes_only_what_is_missing_or_short(archives, run):
    run()
    out = archives / "out"
    files = sorted(path for path in out.rglob("*.JPEG"))
    files[0].unlink()
    files[1].write_bytes(b"short")
    before = {path: path.stat().st_mtime_ns for path in files[2:]}
    check(archives, run())
    assert before == {path: path.stat().st_mtime_ns for path in files[2:]}


@pytest.mark.parametrize("truth", ["val.csv", "truth.txt"])
def test_other_forms_of_the_ground_truth(archives, run, truth):
    (archives / "truth.txt").write_text("".join(f"{number}\n" for number in TRUTH))
    check(archives, run(truth=truth))


def test_folders_in_the_place_of_archives(archives, run):
    """Kaggle's: they stay where they are, and validation images get links."""
    run()
    shutil.move(archives / "out/train", archives / "train")
    (archives / "val").mkdir()
    for path in (archives / "out/val").glob("*/*"):
        shutil.move(path, archives / "val" / path.name)
    shutil.rmtree(archives / "out")
    for _ in range(2):
        result = run(truth="val.csv", train="train", val="val")
        assert result.returncode == 0, result.stderr
    data = read_data(archives / "out/imagenet.data")
    assert sorted(training_images(data)) == sorted(
        str(archives / name) for name in EXPECTED if name.startswith("train/")
    )
    for path in read_list(data.require("valid")):
        assert os.readlink(path) == str(archives / "val" / os.path.basename(path))
        assert EXPECTED[os.path.relpath(path, archives / "out")] == Path(path).read_bytes()


def test_links_follow_images_that_were_moved(archives, run):
    run()
    (archives / "val").mkdir()
    for path in (archives / "out/val").glob("*/*"):
        shutil.move(path, archives / "val" / path.name)
    assert run(val="val").returncode == 0
    shutil.move(archives / "val", archives / "moved")
    check(archives, run(val="moved"))


def test_what_is_missing_is_told(archives, run):
    tar("val.tar", [("ILSVRC2012_val_00000002.JPEG", b"x")])
    shutil.rmtree(archives / "out", ignore_errors=True)
    result = run()
    assert result.returncode == 0
    assert "warning: of the 4 images that devkit.tar.gz tells of, 1 are in val.tar" in result.stdout.splitlines()


def test_a_folder_that_no_label_is_called(archives, run):
    run()
    shutil.move(archives / "out/train", archives / "train")
    shutil.copytree(archives / "train/n01440764", archives / "train/goldfish")
    assert one_line(run(train="train")) == "train: goldfish is none of the 3 labels"


def test_an_alphabetical_order_is_told_loudly_or_refused(archives, run):
    """The devkit's numbers count in another order: all would be wrong without a word."""
    (archives / "sorted.list").write_text("".join(f"{label}\n" for label in sorted(LABELS)))
    said = one_line(run(labels="sorted.list"))
    assert said.startswith(
        "sorted.list: the labels are in alphabetical order, and the numbers of ILSVRC2012_validation_"
    )
    result = run(labels="sorted.list", truth="val.csv")
    assert "WARNING: the labels are in alphabetical order, and those of Darknet are not" in result.stdout
    assert written(archives / "out") == EXPECTED


def test_darknets_own_list_is_found_and_its_names(archives, run, darknet_share):
    """Debian's package has it; its first thousand lines are ILSVRC2012's."""
    result = run(labels=None)
    assert result.returncode == 0, result.stderr
    data = read_data(archives / "out/imagenet.data")
    own = (darknet_share / "data/imagenet.labels.list").read_text().split()[:1000]
    assert read_list(data.require("labels")) == own
    assert own[:2] == LABELS[:2]
    assert (data.integer("classes"), data.require("names")) == (1000, "data/imagenet.shortnames.list")
    assert "warning: 997 of 1000 classes have no training image, " in result.stdout


# --- what is wrong


def test_a_member_gets_nowhere_but_where_its_name_belongs(archives, run, tmp_path):
    """Folders in a member's path do not count, and what is no image of a class is refused."""
    for name in ("../../escaped.JPEG", "/tmp/n02119789.JPEG", "n02100735_1.JPEG", "..", "n02119789_1.JPEG/../x"):
        tar("train.tar", [("n02119789.tar", inner([(name, b"x")]))])
        said = one_line(run())
        assert said.startswith("train.tar/n02119789.tar: ")
        assert said.endswith("is in it, which is no image of ILSVRC2012's, or has no label")
    tar("train.tar", [("n02119789.tar", inner([("../../../n02119789_1.JPEG", b"x")]))])
    run()
    assert [str(path) for path in tmp_path.rglob("*_1.JPEG")] == [f"{archives}/out/train/n02119789/n02119789_1.JPEG"]


def test_archives_that_are_others(archives, run):
    tar("other.tar", [("n99999999.tar", b"")])
    said = one_line(run(train="other.tar"))
    assert said.startswith("other.tar: n99999999.tar is in it; expected an archive WNID.tar of each class alone")
    assert one_line(run(train="val.tar")).startswith("val.tar: ILSVRC2012_val_00000002.JPEG is in it; expected")
    assert "which is no image of ILSVRC2012's" in one_line(run(val="train.tar"))
    assert one_line(run(train="gone.tar")).startswith("gone.tar: no such file; expected what image-net.org")
    tar("val.tar", [("ILSVRC2012_val_00000005.JPEG", b"x")])
    assert "ILSVRC2012_val_00000005.JPEG is in it, which is no image of ILSVRC2012's, or has no label" in one_line(
        run()
    )


def test_an_archive_that_was_cut_short(archives, run):
    os.truncate(archives / "train.tar", os.path.getsize(archives / "train.tar") // 2)
    assert one_line(run()).startswith("train.tar: offset ")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.list", "n02119789\ndog\n", "labels.list:2: 'dog'; expected a WNID, as n02119789, in each line"),
        ("labels.list", "n02119789\nn02119789\n", "labels.list: a WNID stands in it twice"),
        (
            "truth.txt",
            "1\n4\n",
            "truth.txt: line 2 of ILSVRC2012_validation_ground_truth.txt is '4'; expected the number",
        ),
        (
            "truth.txt",
            "1\nx\n",
            "truth.txt: line 2 of ILSVRC2012_validation_ground_truth.txt is 'x'; expected the number",
        ),
        ("truth.txt", "\n", "truth.txt: ILSVRC2012_validation_ground_truth.txt is empty"),
        ("truth.csv", "ImageId\nx,y\n", "truth.csv:2: 'x,y'; expected ILSVRC2012_val_NUMBER,WNID"),
        ("truth.csv", "ImageId\nILSVRC2012_val_00000001,n99999999 1\n", "truth.csv:2: 'ILSVRC2012_val_00000001,n9999"),
        ("truth.csv", "ImageId\n", "truth.csv: no line in it"),
        ("truth.tar.gz", "no archive", "truth.tar.gz: cannot be unpacked: "),
        ("truth.gz", "\x1f\x8b", "truth.gz: cannot be unpacked: "),
    ],
)
def test_lists_that_are_wrong(archives, run, name, content, said):
    (archives / name).write_text(content, encoding="latin-1")
    truth = "devkit.tar.gz" if name == "labels.list" else name
    assert one_line(run(truth=truth)).startswith(said)
    assert not (archives / "out").exists()


def test_a_devkit_without_the_ground_truth(archives, run):
    tar("other.tar.gz", [("readme.txt", b"x")], "w:gz")
    said = one_line(run(truth="other.tar.gz"))
    assert said.startswith("other.tar.gz: no ILSVRC2012_validation_ground_truth.txt in it; expected ILSVRC2012_devkit")


def limited(size):
    """Files may have so many bytes: as a full disk, which a test cannot have."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def command(*more):
    flags = ["--train", "train.tar", "--val", "val.tar", "--truth", "devkit.tar.gz", "--labels", "labels.list"]
    return [sys.executable, ROOT / "tools/imagenet_label.py", "out", *flags, *more]


def test_a_full_disk_is_one_line_and_leaves_no_half_file(archives, run):
    result = subprocess.run(
        command(), cwd=archives, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: limited(3000), check=False,
    )  # fmt: skip
    assert "File too large" in one_line(result)
    assert "what is unpacked stays, the same command goes on" in result.stderr
    assert written(archives / "out") == {}
    assert not list((archives / "out").rglob("*.part"))
    check(archives, run())


def test_ctrl_c_says_that_the_same_command_goes_on(archives):
    big = [(f"n02119789_{i}.JPEG", bytes(20_000)) for i in range(4000)]
    tar("train.tar", [("n02119789.tar", inner(big))])
    process = subprocess.Popen(
        command(), cwd=archives, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    limit = time.monotonic() + 60
    while not list((archives / "out").glob("train/*/*.JPEG")) and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "stopped; the same command goes on")
    done = list((archives / "out/train").rglob("*"))
    assert not any(path.suffix == ".part" for path in done)
    assert 1 < len(done) < 4000
    assert all(path.stat().st_size == 20_000 for path in done if path.is_file())
