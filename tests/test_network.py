from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import CfgError
from darknet_compat.images import load_image
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.compare import CFGS, TOLERANCE, net, randomise, worst_layer
from tests.conftest import ROOT
from tests.oracle import PROGRAM
from tests.planes import letterbox, resize, to_planes

CONV = "[conv]\nfilters={}\nsize=3\npad=1\nactivation=leaky"


def photograph(share: Path, network: Network) -> np.ndarray:
    """A real photograph in the network's size, as Darknet's detector (letterbox) or classifier (resize) gives it."""
    planes = to_planes(load_image(share / "data/dog.jpg"))
    fit = letterbox if network.layers[-1].type == "region" else resize
    return fit(planes, network.width, network.height)[None]


def measured(darknet, cfg: Path, weights: Path, x_of) -> tuple[float, int]:
    network = load_network(cfg, weights, numerics="cpu")
    return worst_layer(network, darknet.load_network(cfg, weights), x_of(network))


# The same layers stand in yolov2-voc and darknet19, of smaller images.
LARGE = {"yolov2", "darknet19_448"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in CFGS]
)
def test_every_layer_is_darknets(darknet, darknet_share, tmp_path, name):
    """Random weights and a real photograph; the worst per net stands in docs/RESULTS.md."""
    cfg, weights = ROOT / "cfg" / f"{name}.cfg", tmp_path / "random.weights"
    save_weights(randomise(Network(read_cfg(cfg))), weights)
    difference, index = measured(darknet, cfg, weights, lambda network: photograph(darknet_share, network))
    print(f"{name}: worst layer {index}, {difference:.2g}")
    assert difference <= TOLERANCE


def test_every_layer_of_trained_networks(darknet, darknet_share, trained):
    cfg, weights = trained
    difference, index = measured(darknet, cfg, weights, lambda network: photograph(darknet_share, network))
    print(f"{cfg.stem}, trained: worst layer {index}, {difference:.2g}")
    assert difference <= TOLERANCE


@pytest.mark.parametrize("size", [(320, 320), (416, 352)])
def test_resize_gives_darknets_outputs(darknet, tmp_path, size):
    cfg, weights = ROOT / "cfg/yolov2-tiny-voc.cfg", tmp_path / "random.weights"
    network = randomise(Network(read_cfg(cfg), "cpu"))
    save_weights(network, weights)
    reference = darknet.load_network(cfg, weights)
    reference.set_batch(1)
    reference.resize(*size)
    network.resize(*size)
    x = np.random.default_rng(0).random((1, *network.input), np.float32)
    assert worst_layer(network, reference, x)[0] <= TOLERANCE


@pytest.mark.parametrize(
    "sections",
    [
        "[maxpool]\nsize=3\nstride=1",
        "[reorg]\nstride=2\nreverse=1",
        "[reorg]\nflatten=1",
        "[normalization]",
        "[upsample]\nstride=2",
        "[avgpool]",
        "[maxpool]\nstride=2\n[shortcut]\nfrom=-2",
        "[activation]\n[route]\nlayers=-1,-2",
        "[conv]\nfilters=12\n[maxpool]\nstride=2\n[reorg]\nstride=2\n[route]\nlayers=-1\n[region]\nnum=8\nclasses=1",
    ],
    ids=lambda sections: sections.replace("\n", " "),
)
def test_a_compiled_network_takes_any_size(sections):
    """One program for the first size and one for all others: no size is a constant to torch.compile."""
    network = randomise(Network(parse_cfg(net(128, 128, 12, "[activation]", sections))))
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    for size in range(128, 448, 32):
        network.resize(size, size + 32)
        x = torch.rand(1, *network.input)
        with torch.inference_mode():
            assert torch.equal(compiled(x), network(x))
    assert counter.frame_count <= 2


def test_a_resize_that_does_not_fit_changes_nothing():
    network = Network(read_cfg(ROOT / "cfg/yolov2-voc.cfg"))
    with pytest.raises(CfgError, match="does not divide"):
        network.resize(400, 416)
    assert (network.width, network.height) == (416, 416)
    with pytest.raises(CfgError, match=r"cannot take another size"):
        Network(parse_cfg(net(8, 8, 3, "[connected]\noutput=4"))).resize(16, 16)


def test_a_network_without_numbers_stands_somewhere_too():
    assert Network(parse_cfg(net(8, 8, 3, "[avgpool]", "[softmax]"))).device == torch.device("cpu")
    assert Network(parse_cfg(net(8, 8, 3, CONV.format(1))), device="meta").device == torch.device("meta")


def test_maps_that_nothing_reads_are_let_go():
    """Of ten convolutions in a row, a forward pass holds no more than two outputs at a time."""
    network = Network(parse_cfg(net(64, 64, 3, *[CONV.format(8)] * 10))).start().eval()
    alive: list[int] = []
    live: set[int] = set()

    def watch(_module, _inputs, output):
        key = id(output)
        live.add(key)
        weakref.finalize(output, live.discard, key)
        alive.append(len(live))

    for layer in network.layers:
        layer.register_forward_hook(watch)
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 64))
    assert max(alive) <= 3


def test_table_has_darknets_lines(darknet, darknet_share):
    """Each line that Darknet prints while it builds a network starts a line of ours."""
    for name in ("yolov2-voc", "resnet50", "darknet19"):
        cfg = darknet_share / "cfg" / f"{name}.cfg"
        result = subprocess.run([PROGRAM, "ops", cfg], capture_output=True, text=True)
        printed = [line for line in result.stderr.splitlines() if line[:5].strip().isdigit()]
        table = Network(read_cfg(cfg), device="meta").table().splitlines()
        ours = [" ".join(line.split()) for line in table]
        assert len(printed) == len(ours) - 2
        for line, mine in zip(printed, ours[1:], strict=False):
            assert mine.startswith(" ".join(line.split())), line


def test_table_counts():
    table = Network(read_cfg(ROOT / "cfg/tiny.cfg"), device="meta").table().splitlines()
    assert "total: " in table[-1]
    network = Network(read_cfg(ROOT / "cfg/tiny.cfg"))
    count = sum(tensor.numel() for tensor in network.state_dict().values())
    assert f"{count:,}" in table[-1]


def test_receptive_field_is_where_the_gradient_reaches():
    sections = [CONV.format(2), "[maxpool]\nsize=2\nstride=2", CONV.format(2), CONV.format(2), "[route]\nlayers=-1,-3"]
    network = Network(parse_cfg(net(40, 40, 1, *sections)))
    field = int(network.table().splitlines()[5].split()[-1])
    with torch.no_grad():
        for layer in network.layers:
            for _, tensor in layer.numbers():
                tensor.fill_(0.01)
    # A rising image, so that every maximum is at the same corner; leaky passes something everywhere.
    x = torch.arange(1600.0).reshape(1, 1, 40, 40).requires_grad_()
    network(x)[0, :, 10, 10].sum().backward()
    reached = (x.grad[0, 0] != 0).any(0).nonzero().flatten()
    # The max of each window is one pixel, so the reach is that of the window less the pixels that were not the largest.
    assert field - 1 <= int(reached[-1] - reached[0]) + 1 <= field


def test_a_network_of_terabytes_is_refused_before_it_is_allocated():
    text = net(8, 8, 3, "[connected]\noutput=100000", "[connected]\noutput=20000", "[connected]\noutput=100000")
    text = text.replace("output=100000", "output=10000000", 1)
    with pytest.raises(CfgError, match=r"GiB|numbers"):
        Network(parse_cfg(text))


def test_the_verb_net(darknet_share):
    result = subprocess.run(
        [sys.executable, "-m", "darknet_compat", "net", str(ROOT / "cfg/yolov2-voc.cfg")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    *rows, total, program = result.stdout.splitlines()[1:]
    assert program == "program pjreddie"
    printed = sum(float(row.split(" BFLOPs")[0].split()[-1]) for row in rows if "BFLOPs" in row)
    assert float(total.split()[1]) == pytest.approx(printed, abs=0.02)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("[conv]\nfilters=4\n[connected]\noutput=4096", r":\d+: \[connected\]: .* numbers take 0\.1 GiB"),
        ("[conv]\nfilters=4\n[conv]\nfilters=400", r":\d+: \[conv\]: .* its largest map 0\.0 GiB, most of it in this"),
    ],
    ids=["numbers", "map"],
)
def test_what_this_machine_cannot_hold_is_refused_before_anything_is_allocated(monkeypatch, layers, found):
    """64 MiB of numbers, and a map of 1.6 MiB, on a machine of 1 MiB."""
    pages = 2**20 // os.sysconf("SC_PAGE_SIZE")
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: pages if name == "SC_PHYS_PAGES" else real(name))
    monkeypatch.setattr(Network, "_allocate", lambda _: pytest.fail("it allocates"))
    with pytest.raises(CfgError, match=found + r".*; this machine has 0\.0 GiB"):
        Network(parse_cfg(f"[net]\nwidth=32\nheight=32\nchannels=3\n{layers}\n"))
