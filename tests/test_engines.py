"""Every engine gives torch's boxes, says in one line why it cannot, and keeps its graphs where it should."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import platform
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from darknet_compat import engines, load_network, save_weights
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.cli import main
from darknet_compat.detect import detect_files
from darknet_compat.engines import ENGINES, Engine, exported, packed, start_engine
from darknet_compat.errors import ExportError
from darknet_compat.images import letterbox_image, load_image
from darknet_compat.layers.activation import ACROSS_CHANNELS, ACTIVATIONS
from darknet_compat.network import Network
from tests.compare import TOLERANCE, net, network_of, randomise
from tests.conftest import ROOT, SHAPES

ALIKE = 1e-4  # boxes, relative to the image, and probabilities
CONV = "[conv]\nfilters={}\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky"
PHOTOGRAPHS = ["dog", "horses", "person", "eagle", "giraffe", "kite"]
RUNTIMES = ENGINES[1:]


def need(engine: str) -> None:
    for package in () if engine == "torch" else (engine, "onnx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'darknet_compat[{engine}]'")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A folder for graphs that no other test has used, and not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/darknet_compat"


def off_by(network: Network, engine, x: torch.Tensor) -> float:
    """The largest difference of boxes and probabilities."""
    with torch.inference_mode():
        pairs = zip(network.boxes(network.predict(x), 0.0), network.boxes(engine(x), 0.0), strict=True)
        # Not max(), which may pass over NaN.
        return float(np.max([float(((a - b).abs() / a.abs().clamp_min(1)).max()) for a, b in pairs]))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_real_boxes(detector, name, batch):
    need(name)
    network = load_network(*detector)
    engine = start_engine(network, name, batch=batch)
    generator = torch.Generator().manual_seed(0)
    for images in (1, 3, 4):
        assert off_by(network, engine, torch.rand(images, *network.input, generator=generator)) <= ALIKE


HEAD = "[{}]\nmask={}\nanchors=10,14, 23,27, 37.5,58, 81,82\nclasses=4\nnum=4\n{}"


@pytest.mark.parametrize(
    ("section", "planes", "activation", "options"),
    [
        ("yolo", 9, "linear", ""),
        ("yolo", 9, "logistic", "new_coords=1\nscale_x_y=2\nnms_kind=diounms"),
        ("Gaussian_yolo", 13, "linear", "scale_x_y=1.05"),
    ],
)
@pytest.mark.parametrize("name", ENGINES)
def test_several_heads(name, section, planes, activation, options):
    need(name)
    last = f"[conv]\nfilters={{}}\nactivation={activation}"
    text = net(
        64, 96, 3, CONV.format(8), "[maxpool]\nsize=8\nstride=8", CONV.format(8), CONV.format(8),
        last.format(3 * planes), HEAD.format(section, "1,2,3", options),
        "[route]\nlayers=-4", last.format(planes), HEAD.format(section, "0", options),
    )  # fmt: skip
    network = randomise(Network(parse_cfg(text)))
    engine, generator = start_engine(network, name, batch=2), torch.Generator().manual_seed(0)
    for images in (1, 2, 3):
        assert off_by(network, engine, torch.rand(images, *network.input, generator=generator)) <= ALIKE


@pytest.mark.parametrize("numerics", ["cudnn", "cpu"])
@pytest.mark.parametrize("name", ["yolov2-tiny-voc", "yolov2-voc"])
def test_the_torch_engine_on_stock_networks(name, numerics):
    """At 416, so that each layer takes the way that it takes in use."""
    network = randomise(Network(read_cfg(ROOT / f"cfg/{name}.cfg"), numerics))
    x = torch.rand(1, *network.input, generator=torch.Generator().manual_seed(0))
    if packed.has_onednn():
        tiles = [
            packed.winograd_tile(layer, 1, torch.float32)
            for layer in network.fuse().layers
            if layer.type == "convolutional"
        ]
        assert set(tiles) >= {0, 2}
    engine = start_engine(network)
    with torch.inference_mode():
        expected, [found] = network(x), engine(x)
    # The sizes are exp of random numbers here, so the map itself is compared.
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("name", ENGINES)
def test_photographs_give_darknets_detections(darknet_share, detector, name, threads):
    need(name)
    network = load_network(*detector)
    paths = [str(darknet_share / f"data/{photograph}.jpg") for photograph in PHOTOGRAPHS]
    plain = detect_files(network, paths, thresh=0.2)
    engine = start_engine(network, name, batch=4, threads=threads)
    fast = detect_files(network, paths, thresh=0.2, batch=4, engine=engine)
    for expected, found in zip(plain, fast, strict=True):
        np.testing.assert_allclose(found.prob, expected.prob, atol=ALIKE)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=ALIKE)


def test_detecting_leaves_torch_as_it_was(darknet_share):
    """The number of threads, also of threads yet to start, and cuDNN's switches."""

    def state():
        with ThreadPoolExecutor(1) as pool:
            threads = pool.submit(torch.get_num_threads).result()
        return threads, torch.get_num_threads(), torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32

    network = load_network(*SHAPES)
    before = state()
    paths = [str(darknet_share / "data/dog.jpg")] * 12
    assert len(list(detect_files(network, paths, engine=start_engine(network, threads=1)))) == 12
    assert state() == before


def test_an_engine_keeps_to_its_threads():
    seen = []
    engine = Engine(lambda images: seen.append(torch.get_num_threads()), 3)
    before = torch.get_num_threads()
    engine(torch.zeros(1))
    assert seen == [3]
    assert torch.get_num_threads() == before


def test_an_engine_has_the_threads_that_are_asked_for_or_torchs():
    network = load_network(*SHAPES)
    assert start_engine(network, threads=3).threads == 3
    assert start_engine(network).threads == torch.get_num_threads()


def test_torch_alone_takes_a_gpu_of_its_own_accord(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [engines.engine_device(name, None).type for name in ENGINES] == ["cuda", "cpu", "cpu"]
    assert engines.engine_device("torch", "cpu").type == "cpu"
    assert engines.engine_device("openvino", torch.device("cuda:0")).type == "cuda", "start_engine says that it cannot"


def test_lists_that_go_through_alike_share_an_engine(monkeypatch):
    """Each has the weights once more: of 199 lengths of lists ten do, and not one for each."""

    def start(network, name, precision, batch, threads, calibration):
        started.append((name, precision, batch, threads, calibration))
        return Engine(network.predict, threads)

    started = []
    monkeypatch.setattr(engines, "start_engine", start)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    made = engines.Engines(load_network(*SHAPES), "torch", "bf16", 4)
    for inputs in range(1, 200):
        engine, batch = made.take(inputs)
        assert batch == min(4, inputs)
        assert engine.threads == max(16 // math.ceil(inputs / batch), 1)
    assert [("torch", "bf16", *key) for key in made.started] == started
    assert len(started) == 10
    assert made.take(0)[1] == 1


@pytest.mark.parametrize("name", ENGINES)
def test_a_classifier(tmp_path, name):
    need(name)
    cfg, weights = ROOT / "cfg/tiny.cfg", tmp_path / "tiny.weights"
    save_weights(randomise(Network(read_cfg(cfg))), weights)
    network = load_network(cfg, weights)
    x = torch.rand(2, *network.input, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        np.testing.assert_allclose(start_engine(network, name)(x)[0], network(x), atol=1e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_convolutions_of_every_kind(tmp_path, activation):
    """Strides, groups, paddings, and Winograd's way, with every activation."""
    text = net(
        52, 52, 3,
        "[conv]\nfilters=8\nsize=3\nstride=2\npad=1\nbatch_normalize=1\nactivation=linear",
        f"[conv]\nfilters=8\nsize=3\npad=1\ngroups=4\nactivation={activation}",
        f"[conv]\nfilters=256\nsize=1\nactivation={activation}",
        f"[conv]\nfilters=256\nsize=3\npad=1\nactivation={activation}",
        "[conv]\nfilters=4\nsize=5\npadding=1\nactivation=linear",
    )  # fmt: skip
    network, _, _ = network_of(text, tmp_path)
    for batch in (1, 3):
        x = torch.rand(batch, 3, 52, 52, generator=torch.Generator().manual_seed(0))
        assert (packed.winograd_tile(network.layers[3], batch, torch.float32) > 0) == (
            activation not in ACROSS_CHANNELS
        )
        with torch.inference_mode():
            expected = network(x)
            [found] = start_engine(network, batch=batch)(x)
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


OLDER = [
    "[crop]\ncrop_height=12\ncrop_width=11",
    "[conv]\nfilters=6\nsize=3\npad=1\nactivation=leaky",
    "[lrn]\nalpha=.5",
    "[l2norm]",
    "[deconv]\nfilters=5\nsize=4\nstride=2\npadding=1\nactivation=leaky\nbatch_normalize=1",
    "[reorg]\nflatten=1",
    "[local]\nfilters=4\nsize=3\npad=1\nstride=2\nactivation=leaky",
    "[softmax]\nspatial=1",
    "[reorg]\nextra=2",
    "[logistic]",
]


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), pytest.param("bf16", 0.02, marks=pytest.mark.bf16)]
)
def test_the_older_sections(tmp_path, precision, tolerance):
    network, _, _ = network_of(net(14, 14, 3, *OLDER), tmp_path)
    x = torch.rand(3, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(x)
        [found] = start_engine(network, precision=precision, batch=2)(x)
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), pytest.param("bf16", 0.1, marks=pytest.mark.bf16)]
)
@pytest.mark.parametrize("section", ["rnn", "gru", "lstm", "crnn"])
def test_recurrent_layers_go_on_from_call_to_call(tmp_path, section, precision, tolerance):
    """With as many streams as a call has rows, whatever ``batch`` says; from zeros, whatever the network did before."""
    conv = "[conv]\nfilters=3\nsize=3\npad=1\nactivation=leaky"
    text = net(6, 6, 2, conv, f"[{section}]\nbatch_normalize=1", "[connected]\noutput=5\nactivation=linear")
    network, _, _ = network_of(text, tmp_path)
    steps = torch.rand(6, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        network(steps[0])
        engine = start_engine(network, precision=precision, batch=2)
        network.reset_state()
        expected = torch.stack([network(step) for step in steps])
        found = torch.stack([engine(step)[0] for step in steps])
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance


@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
def test_convolutions_of_alexeyabs_kinds(tmp_path, program):
    """Those that both programs have, and those of AlexeyAB's alone: no layer of them may take Winograd's way."""
    kinds = ["binary=1", "xnor=1", "xnor=1\ngroups=4"]
    if program == "alexeyab":
        kinds += ["dilation=2", "share_index=0", "stride_x=2", "antialiasing=1", "stride=2\nantialiasing=2"]
    batch, conv = 1, "[conv]\nfilters=256\nsize=3\npad=1\nactivation=leaky\n"
    # Each beside the one that may be shared: the signs of what only rounding tells apart would go on to the next.
    text = net(26, 26, 256, conv, *(f"[route]\nlayers=0\n{conv}{kind}" for kind in kinds))
    network, _, _ = network_of(text, tmp_path, numerics="gpu", program=program)
    x = torch.rand(batch, 256, 26, 26, generator=torch.Generator().manual_seed(0)) - 0.5
    fused = network.fuse()
    assert packed.winograd_tile(fused.layers[0], batch, torch.float32)
    with torch.inference_mode():
        read, *expected = network.outputs(x)
        for layer, output in zip(fused.layers[2::2], expected[1::2], strict=True):
            assert layer.shared or not packed.winograd_tile(layer, batch, torch.float32)
            layer.separate()
            found = packed._convolution(layer, batch, torch.float32)(read)
            assert float((found - output).abs().max() / output.abs().max()) <= 1e-5
        assert start_engine(network, batch=batch)(x)[0].shape == expected[-1].shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mish_in_place(layout, dtype):
    """Of several parts, over nearly all that a float32 holds. bf16 is rounded once, at the end."""
    x = torch.cat([torch.randn(2 * packed.PART - 6) * 8, torch.tensor([-1.5e38, -100, -20, 20, 100, 1.5e38])])
    x = x.reshape(4, 8, 128, 128).to(dtype, memory_format=layout)
    expected, y = F.mish(x.double()).float(), -x
    found = packed.mish_of_negative_(y)
    assert found.data_ptr() == y.data_ptr()
    digits = {"atol": 2e-6, "rtol": 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps / 2 * 1.001}
    torch.testing.assert_close(found.float(), expected, **digits)


@pytest.mark.parametrize("side", [13, 16])
@pytest.mark.parametrize(
    "options",
    ["size=2\nstride=2", "size=2\nstride=1", "size=2\nstride=2\npadding=0", "size=3\nstride=2", "size=3\nstride=3",
     "size=5\nstride=1", "size=13\nstride=1", "size=4\nstride=2\npadding=5", "size=2\nstride_x=1\nstride_y=2",
     "size=3\nstride=2\nantialiasing=1", "maxpool_depth=1\nout_channels=2\nsize=2\nstride=2"],
)  # fmt: skip
def test_a_maxpool_in_two_passes_is_a_maxpool(tmp_path, side, options):
    network, _, _ = network_of(net(side, side, 4, f"[maxpool]\n{options}"), tmp_path)
    layer = network.layers[0]
    x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    x[0, 0, 3, 3], x[1, 1] = float("nan"), float("-inf")
    for layout in (torch.contiguous_format, torch.channels_last):
        found = packed._maxpool(layer, x.to(memory_format=layout))
        torch.testing.assert_close(found, layer(x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.bf16)])
def test_sections_of_alexeyabs_program(tmp_path, precision):
    """All that reads an earlier layer, and all that has numbers of its own, in one network."""
    sections = [
        CONV.format(16), "[maxpool]\nsize=3\nstride=2\nantialiasing=1", "[route]\nlayers=-1\ngroups=2\ngroup_id=1",
        "[conv]\nfilters=8\nsize=3\npad=1\nbatch_normalize=1\nactivation=mish",
        "[shortcut]\nfrom=-2\nactivation=swish\nweights_type=per_channel\nweights_normalization=softmax",
        "[avgpool]", "[conv]\nfilters=8\nactivation=logistic", "[scale_channels]\nfrom=-3\nactivation=leaky",
        "[implicit]\nfilters=8", "[scale_channels]\nfrom=-2", "[conv]\nfilters=8\nactivation=logistic",
        "[sam]\nfrom=-2", "[reorg3d]\nstride=2", "[local_avgpool]\nsize=3\nstride=1", "[empty]",
    ]  # fmt: skip
    network, _, _ = network_of(net(32, 32, 3, *sections), tmp_path, numerics="gpu")
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, [found] = network(x), start_engine(network, precision=precision, batch=2)(x)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) <= {"float32": 1e-5, "bf16": 0.05}[precision]


@pytest.mark.parametrize("tile", sorted(packed.POINTS))
def test_winograds_matrices_correlate(tile):
    a, g, b = packed.winograd_matrices(tile)
    rng = np.random.default_rng(0)
    d, kernel = rng.random(tile + 2), rng.random(3)
    np.testing.assert_allclose(a @ ((g @ kernel) * (b @ d)), np.correlate(d, kernel), atol=1e-14)


WINOGRADS = [(2, "float32"), (4, "float32"), pytest.param(2, "bf16", marks=pytest.mark.bf16)]


@pytest.mark.parametrize(("tile", "precision"), WINOGRADS)
@pytest.mark.parametrize(("images", "h", "w"), [(1, 13, 13), (2, 12, 16), (1, 5, 6), (1, 1, 1)])
def test_winograd_is_a_convolution(tmp_path, tile, precision, images, h, w):
    if not packed.has_onednn():
        pytest.skip("needs torch with oneDNN")
    network, _, _ = network_of(net(w, h, 24, CONV.format(40)), tmp_path)
    layer, dtype = network.fuse().layers[0], {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    x = (torch.rand(images, 24, h, w, generator=torch.Generator().manual_seed(0)) - 0.5).to(dtype)
    with torch.inference_mode():
        found = packed.winograd(layer, tile, images, dtype)(x.to(memory_format=torch.channels_last))
        expected = F.leaky_relu(F.conv2d(x.double(), layer.weights.double(), layer.biases.double(), 1, 1), 0.1)
    assert found.dtype == dtype
    assert float((found - expected).abs().max() / expected.abs().max()) <= {"float32": 1e-5, "bf16": 0.02}[precision]


@pytest.mark.bf16
def test_bf16_takes_winograds_way_where_it_loses_few_digits(monkeypatch):
    """In tiles of 2, for layers of many channels; 4 would be faster still, and lose too many."""
    network = Network(read_cfg(ROOT / "cfg/yolov2-voc.cfg")).fuse()
    layers = [layer for layer in network.layers if layer.type == "convolutional"]
    tiles = {layer.index: packed.winograd_tile(layer, 1, torch.bfloat16) for layer in layers}
    assert set(tiles.values()) == {0, 2}
    assert tiles[24] == tiles[29] == 2
    assert tiles[2] == 0
    taken = []
    monkeypatch.setattr(packed, "winograd", lambda layer, tile, *_: taken.append(tile))
    for dtype in (torch.float32, torch.bfloat16):
        packed._convolution(network.layers[12], 8, dtype)
    assert taken == [4, 2]


@pytest.mark.bf16
@pytest.mark.parametrize("channels", [24, 1024])
def test_in_bf16_biases_are_not_rounded(tmp_path, channels):
    """With biases that are larger than what the weights add, in layers that take either way."""
    network, _, _ = network_of(net(13, 13, channels, CONV.format(channels)), tmp_path)
    layer = network.fuse().layers[0]
    x = (torch.rand(1, channels, 13, 13, generator=torch.Generator().manual_seed(0)) - 0.5).bfloat16()
    with torch.inference_mode():
        sums = F.conv2d(x.double(), layer.weights.double(), padding=1)
        layer.weights *= 0.004 / float(sums.std())
        layer.biases.copy_(torch.linspace(1.002, 1.0035, channels))  # all of them are 1 in bf16
        found = packed._convolution(layer, 1, torch.bfloat16)(x.to(memory_format=torch.channels_last))
        expected = F.conv2d(x.double(), layer.weights.double(), layer.biases.double(), padding=1)
    # With biases of 1 it would be -.0027.
    assert abs(float((found.double() - expected).mean())) < 1e-3


@pytest.mark.parametrize("tile", sorted(packed.POINTS))
def test_mish_behind_winograd(tmp_path, tile):
    """Whose weights and biases are negated for it."""
    if not packed.has_onednn():
        pytest.skip("needs torch with oneDNN")
    network, _, _ = network_of(net(13, 13, 24, CONV.format(40).replace("leaky", "mish")), tmp_path)
    layer = network.fuse().layers[0]
    x = torch.rand(1, 24, 13, 13, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        found = packed.winograd(layer, tile, 1, torch.float32)(x.to(memory_format=torch.channels_last))
        expected = F.mish(F.conv2d(x.double(), layer.weights.double(), layer.biases.double(), 1, 1))
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_without_onednn_it_is_the_fused_network(monkeypatch):
    monkeypatch.setattr(packed, "has_onednn", lambda: False)
    network = load_network(*SHAPES)
    assert off_by(network, start_engine(network), torch.rand(2, *network.input)) <= ALIKE


def test_the_torch_engine_gives_libdarknets_map(darknet, darknet_share, detector):
    network = load_network(*detector, numerics="cpu")
    reference = darknet.load_network(*detector)
    reference.set_batch(1)
    planes = darknet.letterbox_image(
        darknet.load_image_color(darknet_share / "data/dog.jpg"), network.width, network.height
    )
    expected = reference.predict(planes[None])
    [found] = start_engine(network)(torch.from_numpy(planes[None]))
    found = found.numpy().ravel()
    assert np.abs(found - np.asarray(expected).ravel()).max() <= TOLERANCE * np.abs(expected).max()


# bf16


@pytest.mark.bf16
@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_near(darknet_share, name):
    """The same detections over .5 on photographs; the change in AP stands in docs/PERFORMANCE.md."""
    need(name)
    network = load_network(*SHAPES)
    engine = start_engine(network, name, "bf16")
    for photograph in PHOTOGRAPHS:
        path = str(darknet_share / f"data/{photograph}.jpg")
        (expected,) = detect_files(network, [path], thresh=0.05)
        (found,) = detect_files(network, [path], thresh=0.05, engine=engine)
        best = [np.sort(detections.prob.max(0))[::-1][:3] for detections in (expected, found)]
        np.testing.assert_allclose(best[1], best[0], atol=0.05)


def test_bf16_needs_the_processor(monkeypatch):
    monkeypatch.setattr(engines, "has_bf16", lambda: False)
    with pytest.raises(ExportError, match="this processor does not multiply bf16"):
        start_engine(load_network(*SHAPES), precision="bf16")


@pytest.mark.bf16
def test_onnxruntime_has_no_bf16():
    with pytest.raises(ExportError, match="no bf16"):
        start_engine(load_network(*SHAPES), "onnxruntime", "bf16")


@pytest.mark.bf16
def test_bf16_keeps_both_ends_in_float32(darknet_share, detector):
    """The map of photographs is nearer to float32's than where all layers round."""
    network = load_network(*detector)
    images = np.empty((len(PHOTOGRAPHS), *network.input), np.float32)
    for photograph, slot in zip(PHOTOGRAPHS, images, strict=True):
        letterbox_image(load_image(darknet_share / f"data/{photograph}.jpg"), slot)
    images = torch.from_numpy(images)
    with torch.inference_mode():
        exact = network(images)
        [raw] = network.fuse().to(torch.bfloat16).raw_maps(images.bfloat16())
        rounded = network.detector(raw.float())
    [found] = start_engine(network, precision="bf16")(images)
    distances = [float((values - exact).square().mean().sqrt()) for values in (found, rounded)]
    print("root mean square error of the map: {:.4f}, all layers rounded {:.4f}".format(*distances))
    assert distances[0] < 0.75 * distances[1]


# The cache of graphs


@pytest.fixture
def built(monkeypatch) -> list[tuple[int, int]]:
    """The sizes of the graphs that were made anew."""
    need("onnxruntime")
    from darknet_compat.export import graph

    sizes, build = [], graph.build

    def count(network, **options):
        sizes.append((network.width, network.height))
        return build(network, **options)

    monkeypatch.setattr(graph, "build", count)
    return sizes


def start_at(size: int = 128, name: str = "onnxruntime") -> float:
    """Start an engine for the shipped network; how far its boxes are off."""
    network = load_network(*SHAPES)
    network.resize(size, size)
    x = torch.rand(1, *network.input, generator=torch.Generator().manual_seed(0))
    return off_by(network, start_engine(network, name, threads=1), x)


@pytest.fixture
def time_limit():
    """A test that waits for ever fails."""

    def give_up(*_):
        pytest.fail("waited for 30 s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_graph_is_made_and_checked_once(cache, built, name, monkeypatch):
    need(name)
    assert start_at(name=name) <= ALIKE
    assert re.fullmatch(r"[0-9a-f]{64}\.graph", only(cache).name)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(only(cache).stat().st_mode) == 0o600
    monkeypatch.setattr(exported, "_check", None)
    assert start_at(name=name) <= ALIKE
    assert len(built) == 1


def test_every_size_keeps_its_graph(cache, built):
    for size in (128, 256, 128, 256):
        assert start_at(size) <= ALIKE
    assert built == [(128, 128), (256, 256)]


def test_other_weights_or_numerics_make_another_graph(cache, built):
    for change in ("none", "weights", "numerics"):
        network = load_network(*SHAPES, numerics="gpu" if change == "numerics" else "cudnn")
        if change == "weights":
            with torch.no_grad():
                network.layers[0].biases[0] += 1
        engine = start_engine(network, "onnxruntime", threads=1)
        assert off_by(network, engine, torch.rand(1, *network.input)) <= ALIKE
    assert len(built) == len(list(cache.iterdir())) == 3


def test_a_signal_is_answered_after_an_engine_went_away_in_another_thread():
    """As the garbage collector may have it: with a Core of its own, OpenVINO took the memory of the signal's stack."""
    need("openvino")
    code = f"""
import os, signal, threading
from darknet_compat import load_network
from darknet_compat.engines import start_engine
engines = [start_engine(load_network({os.fspath(SHAPES[0])!r}, {os.fspath(SHAPES[1])!r}), "openvino")]
gone = threading.Thread(target=engines.clear)
gone.start()
gone.join()
signal.signal(signal.SIGINT, lambda *_: print("answered"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr


def test_another_runtime_or_version_compares_its_own_graph(cache, built, monkeypatch):
    need("openvino")
    for name in RUNTIMES:
        start_at(name=name)
    monkeypatch.setattr(exported, "installed", lambda package: "9.9")
    start_at()
    assert len(built) == len(list(cache.iterdir())) == 3


def test_a_graph_has_a_name_for_all_that_it_is_made_of(monkeypatch, tmp_path):
    """Two that differ in one of these are two files."""
    network = load_network(*SHAPES)
    text = SHAPES[0].read_text()
    assert "activation = leaky" in text
    (tmp_path / "relu.cfg").write_text(text.replace("activation = leaky", "activation = relu", 1))
    places = [
        exported._place(network, "onnxruntime", "float32"),
        exported._place(network, "openvino", "float32"),
        exported._place(network, "openvino", "bf16"),
        exported._place(load_network(tmp_path / "relu.cfg", SHAPES[1]), "onnxruntime", "float32"),
        exported._place(load_network(*SHAPES, program="alexeyab"), "onnxruntime", "float32"),
    ]
    (tmp_path / "graph.py").write_text("# another program that makes the graph")
    for target, name, value in (
        (exported, "__version__", "9.9"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "another"),
        (platform, "machine", lambda: "another"),
        (importlib.import_module("darknet_compat.export.graph"), "__file__", str(tmp_path / "graph.py")),
        (exported, "installed", lambda package: "1"),
        (exported, "installed", lambda package: "9.9" if package == "torch" else "1"),
        (exported, "installed", lambda package: "9.9" if package == "onnx" else "1"),
        (exported, "installed", lambda package: "9.9" if package == "onnxruntime" else "1"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(target, name, value)
            places.append(exported._place(network, "onnxruntime", "float32"))
    assert len(set(places)) == len(places)
    assert exported._place(network, "onnxruntime", "float32") == places[0]


def test_a_damaged_graph_is_made_again(cache, built):
    """Zeroed weights, 64 bytes changed, and cut off: none of it runs."""
    import onnx

    start_at()
    path, random = only(cache), Random(0)
    whole = path.read_bytes()
    model = onnx.load_from_string(whole[len(exported.MARK) + 32 :])
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weights"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    wrong = [whole[: len(exported.MARK) + 32] + model.SerializeToString(), whole[: len(whole) // 2], b""]
    wrong.append(b"X" + whole[1:])  # would never be cleared away
    for _ in range(12):
        content = bytearray(whole)
        for _ in range(64):
            content[random.randrange(len(content))] = random.randrange(256)
        wrong.append(bytes(content))
    for count, content in enumerate(wrong, 2):
        path.write_bytes(content)
        assert start_at() <= ALIKE
        assert len(built) == count
        assert path.read_bytes() == whole


def test_another_networks_graph_is_not_taken(cache, built):
    """A whole one, moved to the other's name."""
    start_at()
    small = only(cache)
    content = small.read_bytes()
    small.unlink()
    start_at(256)
    only(cache).write_bytes(content)
    assert start_at(256) <= ALIKE
    assert built == [(128, 128), (256, 256), (256, 256)]


def test_what_others_can_change_is_not_taken(cache, built, monkeypatch):
    """A file that others can write to, and one of another owner; what is made anew stands there afterwards."""
    start_at()
    os.chmod(only(cache), 0o666)
    start_at()
    assert len(built) == 2
    assert stat.S_IMODE(only(cache).stat().st_mode) == 0o600
    start_at()
    assert len(built) == 2
    monkeypatch.setattr(os, "geteuid", lambda: only(cache).stat().st_uid + 1)
    start_at()
    assert len(built) == 3


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "broken link"])
def test_what_is_no_plain_file_is_left_alone(cache, built, tmp_path, kind, time_limit):
    """And a FIFO does not make it wait."""
    start_at()
    path = only(cache)
    whole = path.read_bytes()
    path.unlink()
    (tmp_path / "other").write_bytes(whole)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("other" if kind == "link" else "none"))
    with pytest.raises(OSError, match=r"not a plain file|Too many levels"):
        exported._open_own(path)
    before = path.lstat()
    assert start_at() <= ALIKE
    assert len(built) == 2
    assert path.lstat() == before
    assert (tmp_path / "other").read_bytes() == whole
    assert not (tmp_path / "none").exists()


def test_the_graphs_used_longest_ago_go_and_nothing_else(cache, built, monkeypatch):
    start_at(128)
    one = only(cache).stat().st_size
    monkeypatch.setattr(exported, "MOST_BYTES", 2 * one + one // 2)
    mine = {
        cache / ("0" * 64 + ".graph"): "a name like ours, another content",
        cache / ("0" * 63 + ".graph"): exported.MARK.decode(),
        cache / "notes.txt": exported.MARK.decode(),
    }
    for path, text in mine.items():
        path.write_text(text)
        os.utime(path, (0, 0))
    start_at(160)
    start_at(128)  # used again: 160 is now the one used longest ago
    start_at(192)
    for size in (128, 192):
        start_at(size)
    assert built == [(128, 128), (160, 160), (192, 192)]
    start_at(160)
    assert built[3:] == [(160, 160)]
    assert len(list(cache.iterdir())) == 2 + len(mine)
    assert {path: path.read_text() for path in mine} == mine


def test_nowhere_to_keep_a_graph_is_no_error(tmp_path, built, monkeypatch):
    """A file where the folder would be; a name that is not absolute."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", "cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert start_at() <= ALIKE
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not list(SHAPES[1].parent.glob(".*"))


def test_wrong_outputs_are_an_error(cache, monkeypatch):
    need("onnxruntime")
    right = exported._onnxruntime
    wrong = lambda *given: lambda x: [values + 0.01 for values in right(*given)(x)]  # noqa: E731
    monkeypatch.setattr(exported, "_onnxruntime", wrong)
    with pytest.raises(ExportError, match=r"outputs are off by .* from torch's; .* use -engine torch") as caught:
        start_at()
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_nan_in_any_output_is_an_error(monkeypatch):
    """As in the first, which a greatest value could pass over, or in the second."""
    network = randomise(Network(parse_cfg(net(8, 8, 3, CONV.format(4)))))
    right = torch.ones(1, 2, 2)
    for values in ([right, right * math.nan], [right * math.nan, right]):
        monkeypatch.setattr(network, "predict", lambda _: [right, right])
        with pytest.raises(ExportError, match="outputs are off by nan"):
            exported._check(network, lambda _, values=values: values, "onnxruntime", "bf16", None)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_that_is_not_installed(name, monkeypatch):
    monkeypatch.setattr(exported, "installed", lambda _: None)
    with pytest.raises(ExportError, match=rf"pip install 'darknet_compat\[{name}\]'"):
        start_engine(load_network(*SHAPES), name)


def test_a_network_that_the_runtime_cannot_run(tmp_path):
    """A tree has no ONNX form, but the head stays with torch, so it runs; another layer without one is named."""
    need("onnxruntime")
    text = net(8, 8, 3, CONV.format(4), CONV.format(2), "[shortcut]\nfrom=-2\nalpha=2")
    network = randomise(Network(parse_cfg(text)))
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        np.testing.assert_allclose(start_engine(network, "onnxruntime")(x)[0], network(x), atol=1e-5)
    network = randomise(Network(parse_cfg(text.replace("filters=2", "filters=9"))))
    with pytest.raises(ExportError, match=r"\[shortcut\].*has no ONNX form"):
        start_engine(network, "onnxruntime")


# The command line


def test_the_flags(tmp_path, monkeypatch, capsys):
    need("onnxruntime")
    monkeypatch.chdir(tmp_path)
    files = [str(path) for path in (ROOT / "cfg/shapes.data", *SHAPES, ROOT / "data/shapes-sample.jpg")]
    printed = set()
    for flags in ([], ["-engine", "torch"], ["-engine", "onnxruntime"]):
        assert main(["detector", "test", *files, "-thresh", ".3", *flags]) == 0
        printed.add(capsys.readouterr().out.split("seconds.\n")[1])
    assert len(printed) == 1
    assert "disc: " in printed.pop()
    monkeypatch.setattr(exported, "installed", lambda _: None)
    assert main(["detector", "test", *files, "-engine", "openvino"]) == 1
    assert "pip install" in capsys.readouterr().err.splitlines()[-1]
