"""Every engine gives torch's boxes, says in one line why it cannot, and keeps its graphs where it should."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from darknet_compat import engines, load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.cli import main
from darknet_compat.detect import detect_files
from darknet_compat.engines import ENGINES, Engine, exported, has_bf16, packed, start_engine
from darknet_compat.errors import ExportError
from darknet_compat.images import letterbox_picture, load_picture
from darknet_compat.layers.activation import ACTIVATIONS
from darknet_compat.network import Network
from tests.compare import TOLERANCE, net, network_of, randomise
from tests.conftest import ROOT

ALIKE = 1e-4  # boxes, relative to the picture, and probabilities
CONV = "[conv]\nfilters={}\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky"
PHOTOGRAPHS = ["dog", "horses", "person", "eagle", "giraffe", "kite"]
RUNTIMES = ENGINES[1:]

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="needs a processor with bf16")


def need(engine: str) -> None:
    for package in () if engine == "torch" else (engine, "onnx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'darknet_compat[{engine}]'")


@pytest.fixture
def trial3(shared, tmp_path):
    """The cfg and a copy of the weights, for graphs are kept beside them."""
    weights = tmp_path / "weights" / "trial3.weights"
    weights.parent.mkdir()
    shutil.copyfile(shared / "yolo-lite/tiny-yolov2-trial3.weights", weights)
    return shared / "yolo-lite/tiny-yolov2-trial3.cfg", weights


def off_by(network: Network, engine, x: torch.Tensor) -> float:
    """The largest difference of boxes and probabilities."""
    with torch.inference_mode():
        pairs = zip(network.head.boxes(network(x), 0.0), network.head.boxes(engine(x), 0.0), strict=True)
        # Not max(), which may pass over NaN.
        return float(np.max([float(((a - b).abs() / a.abs().clamp_min(1)).max()) for a, b in pairs]))


def graphs(folder) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.onnx"))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_real_boxes(trial3, name, batch):
    need(name)
    network = load_network(*trial3)
    engine = start_engine(network, name, batch=batch)
    generator = torch.Generator().manual_seed(0)
    for pictures in (1, 3, 4):
        assert off_by(network, engine, torch.rand(pictures, *network.input, generator=generator)) <= ALIKE


@pytest.mark.parametrize("numerics", ["cudnn", "cpu"])
@pytest.mark.parametrize("name", ["yolov2-tiny-voc", "yolov2-voc"])
def test_the_torch_engine_on_stock_networks(name, numerics):
    """At 416, so that each layer takes the way that it takes in use."""
    network = randomise(Network(read_cfg(ROOT / f"cfg/{name}.cfg"), numerics))
    x = torch.rand(1, *network.input, generator=torch.Generator().manual_seed(0))
    if packed.has_onednn():
        tiles = [packed.winograd_tile(layer, 1) for layer in network.fuse().layers if layer.type == "convolutional"]
        assert set(tiles) >= {0, 2}
    engine = start_engine(network)
    with torch.inference_mode():
        expected, found = network(x), engine(x)
    # The sizes are exp of random numbers here, so the map itself is compared.
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("name", ENGINES)
def test_photographs_give_darknets_detections(darknet_share, trial3, name, threads):
    need(name)
    network = load_network(*trial3)
    paths = [str(darknet_share / f"data/{photograph}.jpg") for photograph in PHOTOGRAPHS]
    plain = detect_files(network, paths, thresh=0.2)
    engine = start_engine(network, name, batch=4, threads=threads)
    fast = detect_files(network, paths, thresh=0.2, batch=4, engine=engine)
    for expected, found in zip(plain, fast, strict=True):
        np.testing.assert_allclose(found.prob, expected.prob, atol=ALIKE)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=ALIKE)


def test_detecting_leaves_torch_as_it_was(darknet_share, trial3):
    """The number of threads, also of threads yet to start, and cuDNN's switches."""

    def state():
        with ThreadPoolExecutor(1) as pool:
            threads = pool.submit(torch.get_num_threads).result()
        return threads, torch.get_num_threads(), torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32

    network = load_network(*trial3)
    before = state()
    paths = [str(darknet_share / "data/dog.jpg")] * 12
    assert len(list(detect_files(network, paths, engine=start_engine(network, threads=1)))) == 12
    assert state() == before


def test_an_engine_keeps_to_its_threads():
    seen = []
    engine = Engine(lambda pictures: seen.append(torch.get_num_threads()), 3)
    before = torch.get_num_threads()
    engine(torch.zeros(1))
    assert seen == [3]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ENGINES)
def test_a_classifier(shared, name):
    need(name)
    network = load_network(shared / "tiny-imagenet/tiny.cfg", shared / "tiny-imagenet/tiny.weights")
    network.report = None  # the shared folder stays as it is
    x = torch.rand(2, *network.input, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        np.testing.assert_allclose(start_engine(network, name)(x), network(x), atol=1e-5)


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
        assert packed.winograd_tile(network.layers[3], batch) > 0
        with torch.inference_mode():
            expected = network(x)
            found = start_engine(network, batch=batch)(x)
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("tile", sorted(packed.POINTS))
def test_winograds_matrices_correlate(tile):
    a, g, b = packed.winograd_matrices(tile)
    rng = np.random.default_rng(0)
    d, kernel = rng.random(tile + 2), rng.random(3)
    np.testing.assert_allclose(a @ ((g @ kernel) * (b @ d)), np.correlate(d, kernel), atol=1e-14)


@pytest.mark.parametrize("tile", sorted(packed.POINTS))
@pytest.mark.parametrize(("pictures", "h", "w"), [(1, 13, 13), (2, 12, 16), (1, 5, 6), (1, 1, 1)])
def test_winograd_is_a_convolution(tmp_path, tile, pictures, h, w):
    if not packed.has_onednn():
        pytest.skip("needs torch with oneDNN")
    network, _, _ = network_of(net(w, h, 24, CONV.format(40)), tmp_path)
    layer = network.fuse().layers[0]
    x = torch.rand(pictures, 24, h, w, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        found = packed.winograd(layer, tile, pictures)(x.to(memory_format=torch.channels_last))
        expected = F.leaky_relu(F.conv2d(x.double(), layer.weights.double(), layer.biases.double(), 1, 1), 0.1)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_without_onednn_it_is_the_fused_network(trial3, monkeypatch):
    monkeypatch.setattr(packed, "has_onednn", lambda: False)
    network = load_network(*trial3)
    assert off_by(network, start_engine(network), torch.rand(2, *network.input)) <= ALIKE


def test_the_torch_engine_gives_libdarknets_map(darknet, darknet_share, trial3):
    network = load_network(*trial3, numerics="cpu")
    reference = darknet.load_network(*trial3)
    reference.set_batch(1)
    planes = darknet.letterbox_image(darknet.load_image_color(darknet_share / "data/dog.jpg"), 224, 224)
    expected = reference.predict(planes[None])
    found = start_engine(network)(torch.from_numpy(planes[None])).numpy().ravel()
    assert np.abs(found - np.asarray(expected).ravel()).max() <= TOLERANCE * np.abs(expected).max()


# bf16


@needs_bf16
@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_near(darknet_share, trial3, name):
    """The same detections over .5 on photographs; the change in AP stands in docs/PERFORMANCE.md."""
    need(name)
    network = load_network(*trial3)
    engine = start_engine(network, name, "bf16")
    for photograph in PHOTOGRAPHS:
        path = str(darknet_share / f"data/{photograph}.jpg")
        (expected,) = detect_files(network, [path], thresh=0.05)
        (found,) = detect_files(network, [path], thresh=0.05, engine=engine)
        best = [np.sort(detections.prob.max(0))[::-1][:3] for detections in (expected, found)]
        np.testing.assert_allclose(best[1], best[0], atol=0.05)


def test_bf16_needs_the_processor(trial3, monkeypatch):
    monkeypatch.setattr(engines, "has_bf16", lambda: False)
    with pytest.raises(ExportError, match="this processor does not multiply bf16"):
        start_engine(load_network(*trial3), precision="bf16")


@needs_bf16
def test_onnxruntime_has_no_bf16(trial3):
    with pytest.raises(ExportError, match="no bf16"):
        start_engine(load_network(*trial3), "onnxruntime", "bf16")


@needs_bf16
def test_bf16_keeps_both_ends_in_float32(darknet_share, trial3):
    """The map of photographs is nearer to float32's than where all layers round."""
    network = load_network(*trial3)
    pictures = np.empty((len(PHOTOGRAPHS), *network.input), np.float32)
    for photograph, slot in zip(PHOTOGRAPHS, pictures, strict=True):
        letterbox_picture(load_picture(darknet_share / f"data/{photograph}.jpg"), slot)
    pictures = torch.from_numpy(pictures)
    with torch.inference_mode():
        exact = network(pictures)
        rounded = network.head(network.fuse().to(torch.bfloat16).head_map(pictures.bfloat16()).float())
    found = start_engine(network, precision="bf16")(pictures)
    distances = [float((values - exact).square().mean().sqrt()) for values in (found, rounded)]
    print("root mean square error of the map: {:.4f}, all layers rounded {:.4f}".format(*distances))
    assert distances[0] < 0.75 * distances[1]


# The cache of graphs


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_graph_is_made_and_checked_once(trial3, name, monkeypatch):
    need(name)
    start_engine(load_network(*trial3), name)
    made = graphs(trial3[1].parent)
    assert len(made) == 1
    assert made[0].startswith(f".trial3.{name}-")

    def refuse(*_args, **_kwargs):
        raise AssertionError("made again")

    network = load_network(*trial3)
    with monkeypatch.context() as patch:
        patch.setattr("darknet_compat.export.graph.build", refuse)
        patch.setattr(exported, "_check", refuse)
        engine = start_engine(network, name)
    assert off_by(network, engine, torch.rand(1, *network.input)) <= ALIKE


def test_other_weights_size_or_numerics_make_another_graph(trial3):
    need("onnxruntime")
    folder = trial3[1].parent
    seen = set()
    for change in ("none", "weights", "size", "numerics"):
        network = load_network(*trial3, numerics="gpu" if change == "numerics" else "cudnn")
        if change == "weights":
            with torch.no_grad():
                network.layers[0].biases[0] += 1
        if change == "size":
            network.resize(160, 160)
        engine = start_engine(network, "onnxruntime")
        assert off_by(network, engine, torch.rand(1, *network.input)) <= ALIKE
        (name,) = graphs(folder)  # the older one is gone
        seen.add(name)
    assert len(seen) == 4


def test_a_damaged_graph_is_made_again(trial3):
    need("onnxruntime")
    network = load_network(*trial3)
    start_engine(network, "onnxruntime")
    (graph,) = trial3[1].parent.glob(".*.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    assert off_by(network, start_engine(network, "onnxruntime"), torch.rand(1, *network.input)) <= ALIKE
    assert graph.read_bytes() == whole


def test_a_read_only_folder_leaves_the_cache_folder(trial3, tmp_path, monkeypatch):
    need("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole_file = exported.whole_file

    def refusing(path):
        if path.parent == trial3[1].parent:
            raise PermissionError(13, "Permission denied")
        return whole_file(path)

    monkeypatch.setattr(exported, "whole_file", refusing)
    network = load_network(*trial3)
    start_engine(network, "onnxruntime")
    assert graphs(trial3[1].parent) == []
    (kept,) = graphs(tmp_path / "cache/darknet_compat")
    assert stat.S_ISREG(os.stat(tmp_path / "cache/darknet_compat" / kept).st_mode)
    # Nowhere to write is no error either.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    start_engine(network, "onnxruntime")


def test_wrong_outputs_are_an_error(trial3, monkeypatch):
    need("onnxruntime")
    right = exported._onnxruntime
    monkeypatch.setattr(exported, "_onnxruntime", lambda *given: lambda pictures: right(*given)(pictures) + 0.01)
    with pytest.raises(ExportError, match=r"outputs are off by .* from torch's; .* use -engine torch") as caught:
        start_engine(load_network(*trial3), "onnxruntime")
    assert "\n" not in str(caught.value)
    assert graphs(trial3[1].parent) == []


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_that_is_not_installed(trial3, name, monkeypatch):
    monkeypatch.setattr(exported, "installed", lambda _: None)
    with pytest.raises(ExportError, match=rf"pip install 'darknet_compat\[{name}\]'"):
        start_engine(load_network(*trial3), name)


def test_a_network_that_the_runtime_cannot_run(tmp_path):
    """A tree has no ONNX form, but the head stays with torch, so it runs; another layer without one is named."""
    need("onnxruntime")
    text = net(8, 8, 3, CONV.format(4), CONV.format(2), "[shortcut]\nfrom=-2\nalpha=2")
    network = randomise(Network(parse_cfg(text)))
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        np.testing.assert_allclose(start_engine(network, "onnxruntime")(x), network(x), atol=1e-5)
    network = randomise(Network(parse_cfg(text.replace("filters=2", "filters=9"))))
    with pytest.raises(ExportError, match=r"\[shortcut\].*has no ONNX form"):
        start_engine(network, "onnxruntime")


# The command line


def test_the_flags(trial3, darknet_share, tmp_path, monkeypatch, capsys):
    need("onnxruntime")
    monkeypatch.chdir(tmp_path)
    files = [str(path) for path in ("cfg/voc.data", *trial3, darknet_share / "data/dog.jpg")]
    printed = set()
    for flags in ([], ["-engine", "torch"], ["-engine", "onnxruntime"]):
        assert main(["detector", "test", *files, "-thresh", ".3", *flags]) == 0
        printed.add(capsys.readouterr().out.split("seconds.\n")[1])
    assert len(printed) == 1
    assert "dog" in printed.pop()
    monkeypatch.setattr(exported, "installed", lambda _: None)
    assert main(["detector", "test", *files, "-engine", "openvino"]) == 1
    assert "pip install" in capsys.readouterr().err.splitlines()[-1]
