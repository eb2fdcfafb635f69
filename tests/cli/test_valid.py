"""``detector valid`` and its sisters against the C program, as whole programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from darknet_compat.boxes import iou
from darknet_compat.cfg import read_cfg
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.cli.test_main import run
from tests.compare import randomise
from tests.conftest import ROOT, SHAPES, real

PROBABILITY, CORNER = 1e-4, 0.05  # allowed differences; corners in pixels
THRESH, NMS = 0.005, 0.45
VOC = {"classes": 20, "names": ROOT / "data/voc.names"}


def data_file(folder, paths, **keys):
    """A .data file over a list of pictures; the results folder exists, as the C program needs it."""
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    names = ROOT / "data/shapes.names"
    keys = {"classes": 6, "names": names, "valid": folder / "list.txt", "results": folder / "results", **keys}
    (folder / "valid.data").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
    (folder / "results").mkdir(exist_ok=True)
    return folder / "valid.data"


def read_lines(folder):
    """(class, image, prob, corners...) of all comp4 files of a folder, in the order of the files."""
    rows = []
    for path in sorted(folder.glob("comp4_det_test_*.txt")):
        for line in path.read_text().splitlines():
            image, *numbers = line.split()
            rows.append((path.stem[15:], image, *map(float, numbers)))
    return rows


def pair(ours, theirs):
    """Lines of the same class and image, in the order of the files, paired by nearest corners; and those left over."""
    pairs, only = [], []
    keys = {row[:2] for row in ours} | {row[:2] for row in theirs}
    for key in sorted(keys):
        left = [row for row in ours if row[:2] == key]
        right = [row for row in theirs if row[:2] == key]
        while left and right:
            distances = np.abs(np.array([r[2:] for r in left])[:, None] - np.array([r[2:] for r in right])[None]).max(2)
            i, j = np.unravel_index(distances.argmin(), distances.shape)
            if distances[i, j] > 1:
                break
            pairs.append((left.pop(i), right.pop(j)))
        only += left + right
    return pairs, only


def at_the_edge(row, everything):
    """Whether a line's presence hangs on the last digits: its probability at the threshold, or its IOU at NMS's."""
    if abs(row[2] - THRESH) < PROBABILITY:
        return True
    same = np.array([other[3:] for other in everything if other[:2] == row[:2]])
    box = np.array(row[3:])

    def centred(corners):
        return np.concatenate([corners[..., :2] + corners[..., 2:], 2 * (corners[..., 2:] - corners[..., :2])], -1) / 2

    import torch

    return bool((np.abs(iou(torch.tensor(centred(box)), torch.tensor(centred(same))).numpy() - NMS) < 0.02).any())


@pytest.fixture
def photographs(darknet_share):
    """Debian's photographs."""
    return sorted((darknet_share / "data").glob("*.jpg"))


@pytest.fixture
def made(made_shapes):
    """What the network that comes along was trained for."""
    return sorted(made_shapes.glob("VOCdevkit/VOC2007/JPEGImages/*.jpg"))


@pytest.fixture
def bccd(shared):
    """Photographs through a microscope."""
    return sorted((shared / "bccd/BCCD/JPEGImages").glob("*.jpg"))[:60]


@pytest.mark.parametrize("images", ["photographs", "made", real("bccd")])
def test_lines_are_the_c_programs(darknet, detector, tmp_path, images, request):
    data = data_file(tmp_path, request.getfixturevalue(images), **({} if detector == SHAPES else VOC))
    subprocess.run(["darknet", "detector", "valid", data, *detector], check=True, capture_output=True, cwd=tmp_path)
    theirs = read_lines(tmp_path / "results")
    shutil.rmtree(tmp_path / "results")
    result = run("detector", "valid", data, *detector, "-numerics", "cpu", "-batch", "4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    ours = read_lines(tmp_path / "results")
    pairs, only = pair(ours, theirs)
    numbers = np.array([(a[2:], b[2:]) for a, b in pairs])
    differences = np.abs(numbers[:, 0] - numbers[:, 1])
    print(f"{detector[0].stem}, {images}: {len(ours)} lines here, {len(theirs)} there, {len(only)} on one side only, "
          f"probability {differences[:, 0].max():.1g}, corner {differences[:, 1:].max():.2g} pixel")  # fmt: skip
    assert len(pairs) > 100
    assert differences[:, 0].max() <= PROBABILITY
    assert differences[:, 1:].max() <= CORNER
    strange = [row for row in only if not at_the_edge(row, ours + theirs)]
    assert not strange


def test_coco_and_valid2(darknet_share, tmp_path):
    paths = [darknet_share / "data/dog.jpg", darknet_share / "data/eagle.jpg"]
    data = data_file(tmp_path, paths, eval="coco")
    result = run("detector", "valid2", data, *SHAPES, "-out", "mine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "results/mine.json").read_text())
    assert found
    assert all(set(one) == {"image_id", "category_id", "bbox", "score"} for one in found)


def test_a_missing_picture_leaves_no_results(darknet_share, tmp_path):
    data = data_file(tmp_path, [darknet_share / "data/dog.jpg", tmp_path / "none.jpg"])
    result = run("detector", "valid", data, *SHAPES, cwd=tmp_path)
    assert result.returncode == 1
    assert "none.jpg" in result.stderr.splitlines()[-1]
    assert list((tmp_path / "results").iterdir()) == []


def test_an_unknown_eval_is_named(darknet_share, tmp_path):
    data = data_file(tmp_path, [darknet_share / "data/dog.jpg"], eval="vok")
    result = run("detector", "valid", data, *SHAPES, cwd=tmp_path)
    assert result.returncode == 1
    assert "valid.data:5: eval=vok" in result.stderr
    assert result.stderr.count("\n") == 1


def test_map_and_recall_print_their_tables(tmp_path):
    """The arithmetic is tested in tests/evaluate; here, that the verbs feed it with the right boxes."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    shutil.copy(ROOT / "data/shapes-sample.jpg", tmp_path / "images")
    # The disc of shapes-sample.jpg, by eye, relative to 187 x 192.
    (tmp_path / "labels/shapes-sample.txt").write_text("0 0.148 0.207 0.246 0.26\n")
    data = data_file(tmp_path, [tmp_path / "images/shapes-sample.jpg"])
    result = run("detector", "map", data, *SHAPES, "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "class_id = 0, name = disc, ap = 100.00%" in result.stdout
    result = run("detector", "recall", data, *SHAPES, "-numerics", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[:3] == ["0", "1", "1"]


MEMORY = """
import resource, sys
from darknet_compat.memory import keep_memory
keep_memory()  # as the command does
from darknet_compat import load_network
from darknet_compat.detect import detect_files
network = load_network(sys.argv[1], sys.argv[2])
paths = sys.argv[4:] * (int(sys.argv[3]) // len(sys.argv[4:]))
for index, found in enumerate(detect_files(network, paths, batch=4, thresh=.005, relative=False)):
    if index == 200:
        early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early) / 1024)
"""


@pytest.mark.slow
def test_memory_stays_flat_over_5000_pictures(darknet_share):
    pictures = sorted((darknet_share / "data").glob("*.jpg"))
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, *map(str, SHAPES), "5000", *map(str, pictures)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    print(f"after 200 pictures, 4,800 more took {float(result.stdout):.1f} MiB")
    assert float(result.stdout) < 40


@pytest.mark.slow
def test_valid_is_five_times_as_fast(darknet, darknet_share, tmp_path):
    """Images per second on yolov2-tiny-voc at 416, in one run, by the detection time that both programs print.

    The C program runs the network on one core; ours on all.
    """
    cfg = ROOT / "cfg/yolov2-tiny-voc.cfg"
    save_weights(randomise(Network(read_cfg(cfg))), tmp_path / "tiny.weights")
    data = data_file(tmp_path, sorted((darknet_share / "data").glob("*.jpg")) * 10, **VOC)
    seconds = {}
    for name, command in (("C", ["darknet"]), ("ours", [sys.executable, "-m", "darknet_compat"])):
        result = subprocess.run(
            [*command, "detector", "valid", data, cfg, tmp_path / "tiny.weights"],
            check=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        seconds[name] = float(re.search(r"Total Detection Time: (\S+) Seconds", result.stderr).group(1))
    ratio = seconds["C"] / seconds["ours"]
    print(f"80 pictures: C {seconds['C']:.1f} s, ours {seconds['ours']:.1f} s, {ratio:.1f} times")
    assert ratio >= 5
