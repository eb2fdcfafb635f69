"""Every stock cfg of pjreddie's folder: it builds, prints Darknet's table, and gives libdarknet's values and files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from darknet_compat import load_network
from darknet_compat.cfg import read_cfg
from darknet_compat.images import load_image
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.compare import TOLERANCE, randomise, worst_layer
from tests.oracle import PROGRAM
from tests.planes import letterbox, resize, to_planes

CFGS = Path("/usr/share/darknet/cfg")
NAMES = [
    "alexnet", "cifar", "cifar.test", "darknet", "darknet19", "darknet19_448", "darknet53", "darknet53_448",
    "darknet9000", "densenet201", "extraction", "extraction.conv", "extraction22k", "go", "go.test", "gru",
    "jnet-conv", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnext101-32x4d",
    "resnext152-32x4d", "resnext50", "rnn", "rnn.train", "strided", "t1.test", "tiny", "vgg-16", "vgg-conv",
    "writing", "yolo9000", "yolov1", "yolov1-tiny", "yolov2", "yolov2-tiny", "yolov2-tiny-voc", "yolov2-voc",
    "yolov3", "yolov3-openimages", "yolov3-spp", "yolov3-tiny", "yolov3-voc",
]  # fmt: skip
# Those that take a second or two; `make test-slow` runs the others too.
QUICK = ["cifar", "cifar.test", "go", "go.test", "gru", "rnn", "rnn.train", "writing"]
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
RECURRENT_STEPS = 20


def test_every_stock_cfg_builds(darknet_share, monkeypatch):
    monkeypatch.chdir(darknet_share)  # where data/9k.tree is
    assert sorted(path.stem for path in CFGS.glob("*.cfg")) == NAMES
    for name in NAMES:
        network = Network(read_cfg(CFGS / f"{name}.cfg"), device="meta")
        assert network.program == "pjreddie"
        assert len(network.table().splitlines()) >= len(network.layers) + 2
    print(f"pjreddie's: {len(NAMES)} of {len(NAMES)} build")


def for_testing(name: str) -> str:
    """The cfg's text for one image, or one step of one stream, at a time: Darknet makes room for all of a batch."""
    text = re.sub(r"(?m)^(batch|subdivisions|time_steps) *=.*", "", (CFGS / f"{name}.cfg").read_text())
    return text.replace("[net]", "[net]\nbatch=1\nsubdivisions=1", 1)


def inputs(share: Path, network: Network) -> list[np.ndarray]:
    """A photograph in the network's size, a position of go, or bytes of a text."""
    c, h, w = network.input
    if c == 3:
        fit = letterbox if network.detectors else resize
        return [fit(to_planes(load_image(share / "data/dog.jpg")), w, h)[None]]
    if c == 1:
        return [np.random.default_rng(0).integers(-1, 2, (1, c, h, w)).astype(np.float32)]
    text = np.frombuffer((share / "data/coco.names").read_bytes()[:RECURRENT_STEPS], np.uint8)
    return list(np.eye(c, dtype=np.float32)[text].reshape(-1, 1, c, h, w))


@pytest.mark.parametrize("name", ALL)
def test_every_layer_the_table_and_the_file_are_darknets(darknet, darknet_share, tmp_path, monkeypatch, name):
    """Random weights; the worst layer of each stands in docs/RESULTS.md."""
    monkeypatch.chdir(darknet_share)
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    text = for_testing(name)
    if name == "yolo9000":  # whose tree his CPU gets wrong: tests/layers/test_region.py holds it
        text = text.partition("[region]")[0]
    cfg.write_text(text)
    network = randomise(Network(read_cfg(cfg), "cpu"))
    save_weights(network, weights)
    assert weights.stat().st_size == 20 + 4 * sum(tensor.numel() for tensor in network.state_dict().values())

    reference = darknet.load_network(cfg, weights, folder=darknet_share)
    differences = [worst_layer(network, reference, x) for x in inputs(darknet_share, network)]
    difference, index = max(differences)
    print(f"{name}: worst layer {index}, {difference:.2g}")
    assert difference <= TOLERANCE

    reference.save_weights(tmp_path / "theirs.weights")
    theirs = (tmp_path / "theirs.weights").read_bytes()
    assert theirs == weights.read_bytes()
    again = tmp_path / "again.weights"
    save_weights(load_network(cfg, tmp_path / "theirs.weights"), again)
    assert again.read_bytes() == theirs


@pytest.mark.parametrize("name", ALL)
def test_the_table_has_darknets_lines(darknet_share, tmp_path, name):
    cfg = tmp_path / "net.cfg"
    cfg.write_text(for_testing(name))
    printed = subprocess.run([PROGRAM, "ops", cfg], capture_output=True, text=True, cwd=darknet_share).stderr
    printed = re.sub(r"\w+: Using default '.*'\n", "", printed)  # which stands within a [cost]'s row
    rows = [line for line in printed.splitlines() if line[:5].strip().isdigit() or line.startswith("\t\t")]
    network = Network(read_cfg(cfg), device="meta")
    ours = network.table().splitlines()[1:-1]
    assert len(rows) == len(ours) >= len(network.layers)
    for row, mine in zip(rows, ours, strict=True):
        assert mine.startswith("\t\t") == row.startswith("\t\t")
        assert " ".join(mine.split()).startswith(" ".join(row.split())), row
