"""int8: a graph near torch's maps, calibrated on the images that are named, made as the verb makes its inputs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import (
    Classifier,
    Detector,
    engines,
    load_classifier,
    load_detector,
    load_network,
    mean_average_precision,
    save_weights,
)
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.classify.prepare import CENTRE_SQUARE, SHORTER_SIDE, TEN_CROPS
from darknet_compat.cli import main
from darknet_compat.detect.scores import recall
from darknet_compat.engines import Calibration, exported, int8, start_engine
from darknet_compat.errors import DataError, ExportError, ImageError
from darknet_compat.images import FITTED, STRETCHED, letterbox_image, load_image, resize_image
from darknet_compat.network import Network
from tests.compare import net, randomise
from tests.conftest import ROOT, SHAPES

PACKAGES = ("openvino", "onnx", "onnxruntime")
SAMPLE = ROOT / "data/shapes-sample.jpg"
NAMES = ROOT / "data/shapes.names"
HEAD = "layers.16."  # makes the map of SHAPES' [region]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A folder for graphs that no other test has used, and not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/darknet_compat"


@pytest.fixture
def runtimes():
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"needs {package}: pip install 'darknet_compat[int8]'")


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Four images of shapes that are not square: parts of the sample, and mirrored."""
    sample, paths = cv2.imread(str(SAMPLE)), []
    for number, part in enumerate((sample[:110], sample[-110:], sample[:110, ::-1], sample[::-1, :140])):
        paths.append(str(tmp_path / f"part{number}.png"))
        cv2.imwrite(paths[-1], part)
    return paths


@pytest.fixture
def made(monkeypatch) -> list[bytes]:
    """The graphs that were quantised anew."""
    graphs, quantise = [], int8.quantise
    monkeypatch.setattr(int8, "quantise", lambda *given: graphs.append(quantise(*given)) or graphs[-1])
    return graphs


class Calibrated(Exception):
    """What a calibration has looked at."""


@pytest.fixture
def looked_at(monkeypatch, runtimes):
    """A function that gives the inputs that a call calibrates on."""

    def stop(model, network, calibration):
        raise Calibrated(np.concatenate(list(calibration.inputs(network))))

    monkeypatch.setattr(int8, "quantise", stop)

    def run(function, *given, **options):
        with pytest.raises(Calibrated) as caught:
            function(*given, **options)
        return caught.value.args[0]

    return run


def fitted(paths, fit=letterbox_image, size=(3, 128, 128)):
    """The inputs that ``fit`` makes of image files."""
    slots = np.empty((len(paths), *size), np.float32)
    for path, slot in zip(paths, slots, strict=True):
        fit(load_image(path), slot)
    return slots


def distance(found, expected) -> float:
    """The root mean square of what values are off by, as a part of their own."""
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def one_line(error) -> str:
    text = str(error.value if hasattr(error, "value") else error)
    assert "\n" not in text
    return text


# The graph


def test_the_map_is_near_torchs_on_images(runtimes, images):
    """Nearer than a tenth, and not as near as bf16 (.01): 8 bits, and no more."""
    network = load_network(*SHAPES)
    engine = start_engine(network, precision="int8", batch=2, calibration=Calibration(tuple(images[:2]), FITTED))
    x = torch.from_numpy(fitted(images))
    with torch.inference_mode():
        [expected] = network.predict(x)
    for some in (1, 2, 3, 4):
        [found] = engine(x[:some])
        assert 0.015 < distance(found, expected[:some]) < 0.1


def test_detections_are_the_same(runtimes, images):
    plain, fast = (
        Detector(*SHAPES, NAMES, thresh=0.25, precision=precision, calibration=given)
        for precision, given in (("float32", None), ("int8", images))
    )
    for expected, found in zip(plain(images), fast(images), strict=True):
        assert sorted(found.names) == sorted(expected.names)
        np.testing.assert_allclose(np.sort(found.scores), np.sort(expected.scores), atol=0.05)


def test_all_but_the_head_s_convolution_gets_8_bits(runtimes, images, made):
    """Weights and inputs, a scale for each filter; nothing is rounded between a convolution and its activation."""
    onnx = pytest.importorskip("onnx")
    start_engine(load_network(*SHAPES), precision="int8", calibration=Calibration(tuple(images), FITTED))
    graph = onnx.load_from_string(made[0]).graph
    producer = {name: node for node in graph.node for name in node.output}
    numbers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    eight_bits = {}
    for node in graph.node:
        if node.op_type == "Conv":
            x, weights = (producer.get(name) for name in node.input[:2])
            eight_bits[node.name] = [one is not None and one.op_type == "DequantizeLinear" for one in (x, weights)]
            if all(eight_bits[node.name]):
                assert numbers[weights.input[0]].dtype == np.int8
                assert numbers[weights.input[1]].shape == (len(numbers[weights.input[0]]),)
        elif node.op_type == "QuantizeLinear":
            assert node.input[0] not in producer or producer[node.input[0]].op_type not in ("Conv", "QuantizeLinear")
    assert len(eight_bits) == 11
    assert {name for name, bits in eight_bits.items() if bits != [True, True]} == {f"{HEAD}Conv"}
    assert len(made[0]) < 0.3 * SHAPES[1].stat().st_size


def test_connected_layers_and_classifiers(runtimes, images, made):
    onnx = pytest.importorskip("onnx")
    conv = "[conv]\nfilters=16\nsize=3\nstride=2\nactivation=leaky"
    connected = "[connected]\noutput={}\nactivation={}"
    text = net(32, 48, 3, conv, conv, connected.format(50, "leaky"), connected.format(10, "linear"), "[softmax]")
    network = randomise(Network(parse_cfg(text)))
    engine = start_engine(network, precision="int8", calibration=Calibration(tuple(images), STRETCHED))
    x = torch.from_numpy(fitted(images, resize_image, network.input))
    with torch.inference_mode():
        expected = network(x)
    [found] = engine(x)
    graph = onnx.load_from_string(made[0]).graph
    read = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    multiplied = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert [read.issuperset(node.input[:2]) for node in multiplied] == [True] * 4
    assert 1e-4 < float((found.reshape(expected.shape) - expected).abs().max()) < 0.05


def test_the_same_images_give_the_same_graph(runtimes, images, made):
    for _ in range(2):
        network = load_network(*SHAPES)
        network.report = None  # no graph is kept
        start_engine(network, precision="int8", calibration=Calibration(tuple(images), FITTED))
    start_engine(network, precision="int8", calibration=Calibration(tuple(images[:1]), FITTED))
    assert made[0] == made[1] != made[2]


def test_without_vnni_weights_have_7_bits_and_it_says_that_it_may_be_slow(runtimes, images, made, monkeypatch):
    """Sums of pairs of products would overflow."""
    onnx = pytest.importorskip("onnx")
    largest = []
    for vnni in (True, False):
        monkeypatch.setattr(int8, "has_vnni", lambda vnni=vnni: vnni)
        monkeypatch.setattr(engines, "has_vnni", lambda vnni=vnni: vnni)
        monkeypatch.setattr(exported, "has_vnni", lambda vnni=vnni: vnni)
        given = {"precision": "int8", "calibration": Calibration(tuple(images), FITTED)}
        if vnni:
            start_engine(load_network(*SHAPES), **given)
        else:
            with pytest.warns(UserWarning, match="no VNNI, so float32 may be faster"):
                start_engine(load_network(*SHAPES), **given)
        tensors = [onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(made[-1]).graph.initializer]
        largest.append(max(int(np.abs(one.astype(int)).max()) for one in tensors if one.dtype == np.int8))
    assert largest == [127, 64]


# The images


def test_images_are_made_as_the_verb_makes_them(looked_at, images, tmp_path):
    detector = Detector(*SHAPES, precision="int8", calibration=images)
    np.testing.assert_array_equal(looked_at(detector, images[0]), fitted(images))
    detector = Detector(*SHAPES, precision="int8", calibration=images, letter_box=False)
    np.testing.assert_array_equal(looked_at(detector, images[0]), fitted(images, resize_image))


def test_recall_stretches_them_too(looked_at, images, tmp_path):
    detector = load_detector(data_of(tmp_path, images), *SHAPES, precision="int8")
    np.testing.assert_array_equal(looked_at(recall, detector), fitted(images, resize_image))


def data_of(folder: Path, images: list[str], **keys) -> Path:
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in images))
    for path in images:
        Path(path).with_suffix(".txt").write_text("0 .5 .5 .2 .2\n")
    keys = {"classes": 6, "names": NAMES, "train": folder / "list.txt", "valid": folder / "list.txt", **keys}
    (folder / "my.data").write_text("".join(f"{key}={value}\n" for key, value in keys.items() if value))
    return folder / "my.data"


@pytest.mark.parametrize(
    ("program", "verb", "views"),
    [
        ("pjreddie", "predict", FITTED),
        ("alexeyab", "predict", SHORTER_SIDE),
        ("pjreddie", "valid", CENTRE_SQUARE),
        ("pjreddie", "valid10", TEN_CROPS),
    ],
)
def test_a_classifiers_images_too(looked_at, images, tmp_path, program, verb, views):
    files = classifier_files(tmp_path)
    classifier = Classifier(*files, precision="int8", calibration=images, program=program)
    found = looked_at(lambda: list(classifier.classify(images, verb, classifier.finish())))
    expected = np.empty((len(images), views.number, 3, 48, 64), np.float32)
    for path, slots in zip(images, expected, strict=True):
        views.fill(load_image(path), slots)
    np.testing.assert_array_equal(found, expected.reshape(-1, 3, 48, 64))


def classifier_files(folder: Path) -> tuple[Path, Path]:
    text = "[net]\nwidth=64\nheight=48\nchannels=3\n[convolutional]\nfilters=3\nsize=5\nstride=2\nactivation=leaky\n"
    (folder / "toy.cfg").write_text(f"{text}[avgpool]\n[softmax]\n")
    save_weights(randomise(Network(read_cfg(folder / "toy.cfg"))), folder / "toy.weights")
    return folder / "toy.cfg", folder / "toy.weights"


def test_100_inputs_are_looked_at_from_the_first_image_to_the_last():
    paths = tuple(map(str, range(1001)))
    for views, number in ((FITTED, 100), (TEN_CROPS, 10)):
        found = [int(path) for path in Calibration(paths, views).looked_at]
        assert (len(found), found[0], found[-1]) == (number, 0, 1000)
        assert set(np.diff(found)) <= {1000 // (number - 1), 1000 // (number - 1) + 1}
    assert Calibration(paths[:7], FITTED).looked_at == list(paths[:7])


def test_images_are_a_folder_a_list_a_pattern_or_paths(images, tmp_path):
    (tmp_path / "some.txt").write_text("\n".join(images))
    for given in (tmp_path, str(tmp_path / "some.txt"), f"{tmp_path}/part*.png", images, [Path(one) for one in images]):
        assert list(int8.calibration_images(given, "int8")) == sorted(images)
    assert int8.calibration_images(None, "bf16") == ()


def test_those_of_train_where_none_are_named(images, tmp_path):
    data = data_of(tmp_path, images[:3])
    assert load_detector(data, *SHAPES, precision="int8")._engines.images == tuple(images[:3])
    assert load_detector(data, *SHAPES, precision="int8", calibration=images[3])._engines.images == (images[3],)
    assert load_detector(data, *SHAPES)._engines.images == ()
    files = classifier_files(tmp_path)
    data = data_of(tmp_path, images, classes=3, labels=NAMES)
    assert load_classifier(data, *files, precision="int8")._engines.images == tuple(images)


# The cache


def test_a_graph_is_kept_for_its_images(runtimes, images, made, cache, monkeypatch):
    def start(*paths, views=FITTED):
        before = len(made)
        start_engine(load_network(*SHAPES), precision="int8", calibration=Calibration(paths, views))
        return len(made) - before

    assert start(*images[:2]) == 1
    assert start(*images[:2]) == 0
    assert start(*images[:3]) == 1
    assert start(*images[:2], views=STRETCHED) == 1
    copy = Path(images[0]).with_name("copy.png")
    shutil.copy(images[0], copy)
    assert start(str(copy), images[1]) == 0, "the content counts"
    shutil.copy(images[3], images[1])
    assert start(*images[:2]) == 1
    assert len(list(cache.iterdir())) == 4
    network = load_network(*SHAPES)
    calibration = Calibration(tuple(images), FITTED)
    places = [exported._place(network, "openvino", "int8", calibration), exported._place(network, "openvino", "int8")]
    for name, value in (
        ("installed", lambda package: "9.9" if package == "onnxruntime" else exported.version(package)),
        ("has_vnni", lambda: not int8.has_vnni()),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(exported, name, value)
            places.append(exported._place(network, "openvino", "int8", calibration))
    other = cache.parent / "int8.py"
    other.write_text("# another program that makes the graph")
    monkeypatch.setattr(int8, "__file__", str(other))
    places.append(exported._place(network, "openvino", "int8", calibration))
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("how", ["noise", "NaN"])
def test_nonsense_is_refused_and_not_kept(runtimes, images, cache, monkeypatch, how):
    right = exported._openvino

    def wrong(*given):
        run = right(*given)
        spoilt = torch.randn if how == "noise" else lambda shape: torch.full(shape, float("nan"))
        return lambda x: [values + spoilt(values.shape) * values.std() for values in run(x)]

    monkeypatch.setattr(exported, "_openvino", wrong)
    with pytest.raises(ExportError, match=r"outputs are off by .* from torch's; .* use -precision bf16") as caught:
        start_engine(load_network(*SHAPES), precision="int8", calibration=Calibration(tuple(images), FITTED))
    one_line(caught)
    assert not cache.exists()


# What is refused


def test_no_images_or_images_for_another_precision_are_one_line(images, tmp_path):
    for options, says in (
        ({"precision": "int8"}, "-precision int8 needs images to calibrate on; expected -calibration IMAGES"),
        ({"precision": "int8", "calibration": []}, "-calibration: no image; expected"),
        ({"precision": "bf16", "calibration": images}, "-calibration is for -precision int8 alone; found .* bf16"),
        ({"calibration": images}, "-calibration is for -precision int8 alone; found -precision float32"),
        ({"precision": "int8", "engine": "torch"}, "-engine torch: int8 runs in OpenVINO alone; expected"),
        ({"precision": "int8", "engine": "onnxruntime"}, "-engine onnxruntime: int8 runs in OpenVINO alone"),
    ):
        with pytest.raises(ExportError, match=says):
            Detector(*SHAPES, **options)
        with pytest.raises(ExportError, match=says):
            Classifier(*classifier_files(tmp_path), **options)
    with pytest.raises(ExportError, match="needs images to calibrate on"):
        start_engine(load_network(*SHAPES), precision="int8")
    with pytest.raises(ExportError, match="-calibration is for -precision int8 alone"):
        start_engine(load_network(*SHAPES), "openvino", calibration=Calibration(tuple(images), FITTED))
    with pytest.raises(ImageError, match=r"nowhere\.txt: no such image, folder or list"):
        Detector(*SHAPES, precision="int8", calibration=tmp_path / "nowhere.txt")
    for train, says in (("", "no `train` line"), (tmp_path / "none.txt", r"none\.txt: ")):
        with pytest.raises(DataError, match=rf"{says}.*; or name images for int8: -calibration IMAGES$") as caught:
            load_detector(data_of(tmp_path, images, train=train), *SHAPES, precision="int8")
        one_line(caught)


def test_an_image_that_cannot_be_read_is_one_line(runtimes, images, tmp_path, cache):
    for name, content in (("none.jpg", None), ("text.jpg", b"no image")):
        if content:
            (tmp_path / name).write_bytes(content)
        calibration = Calibration((images[0], str(tmp_path / name)), FITTED)
        with pytest.raises(ImageError, match=rf"^-calibration: .*{name}: ") as caught:
            start_engine(load_network(*SHAPES), precision="int8", calibration=calibration)
        one_line(caught)
    assert not cache.exists()


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_package_that_is_not_installed(monkeypatch, missing, images):
    monkeypatch.setattr(exported, "installed", lambda package: None if package == missing else "1")
    with pytest.raises(ExportError, match=rf"the package {missing} is not .* pip install 'darknet_compat\[int8\]'"):
        start_engine(load_network(*SHAPES), precision="int8", calibration=Calibration(tuple(images), FITTED))


def test_what_the_quantiser_says_is_one_line(runtimes, images, monkeypatch):
    from onnxruntime import quantization

    def fail(*_, **__):
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(quantization, "quantize_static", fail)
    with pytest.raises(ExportError, match=r"^-precision int8: ONNX Runtime does not quantise this network: no such;"):
        start_engine(load_network(*SHAPES), precision="int8", calibration=Calibration(tuple(images), FITTED))


def test_it_runs_on_the_processor(monkeypatch, images):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    detector = Detector(*SHAPES, precision="int8", calibration=images)
    assert next(detector.network.parameters()).device.type == "cpu", "a GPU is not taken"
    monkeypatch.setattr(engines, "device_of", lambda _: "cuda")
    with pytest.raises(ExportError, match=r"^-precision int8 runs on the processor; expected -device cpu, or"):
        start_engine(detector.network, precision="int8", calibration=Calibration(tuple(images), FITTED))


# The command line


def test_the_verbs_print_as_they_do(runtimes, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["detector", "test", data_of(tmp_path, images), *SHAPES, SAMPLE, "-thresh", ".3"]
    printed = []
    for flags in (
        [],
        ["-precision", "int8"],
        ["-precision", "int8", "-calibration", "part*.png", "-engine", "openvino"],
    ):
        assert main([str(word) for word in [*words, *flags]]) == 0
        lines, said = (text.splitlines() for text in capsys.readouterr())
        source = "part*.png" if "-calibration" in flags else "train="
        assert said[1:] == [f"int8: OpenVINO runs the network, calibrated on images of {source}"] * bool(flags)
        assert " Predicted in " in lines[0]
        printed.append([line.rsplit(": ", 1) for line in lines[1:]])
    for found in printed[1:]:
        assert [name for name, _ in found] == [name for name, _ in printed[0]]
        for (_, expected), (_, percent) in zip(printed[0], found, strict=True):
            assert abs(int(percent[:-1]) - int(expected[:-1])) <= 5
    assert len({str(found) for found in printed}) > 1, "another arithmetic"
    files = classifier_files(tmp_path)
    words = ["classifier", "predict", data_of(tmp_path, images, classes=3, labels=NAMES), *files, SAMPLE]
    outputs = []
    for flags in ([], ["-precision", "int8", "-calibration", tmp_path]):
        assert main([str(word) for word in [*words, *flags]]) == 0
        outputs.append([line.split(": ")[1] for line in capsys.readouterr().out.splitlines()[1:]])
    assert outputs[0] == outputs[1]


def test_a_calibration_alone_is_one_line(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["detector", "test", data_of(tmp_path, images), *SHAPES, SAMPLE]
    for flags, says in (
        (["-calibration", images[0]], "-calibration is for -precision int8 alone"),
        (["-precision", "int8", "-engine", "torch"], "int8 runs in OpenVINO alone"),
    ):
        assert main([str(word) for word in [*words, *flags]]) == 1
        assert says in capsys.readouterr().err.splitlines()[-1]


def test_the_number_of_a_gpu_has_no_meaning(looked_at, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    words = ["detector", "test", data_of(tmp_path, images), *SHAPES, SAMPLE, "-precision", "int8", "-i", "0", "-debug"]
    looked_at(main, [str(word) for word in words])
    assert "-i 0 has no meaning here: the network runs on the CPU" in capsys.readouterr().err


@pytest.mark.slow
def test_ap_is_within_a_hundredth(runtimes, tmp_path):
    """On 200 drawn images; docs/PERFORMANCE.md has that of the quickstart's 500, and of blood cells."""
    made = [sys.executable, ROOT / "tools/make_shapes.py", tmp_path / "shapes", "--train", "100", "--test", "200"]
    subprocess.run(made, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    lists = {key: tmp_path / f"shapes/{name}.txt" for key, name in (("train", "train"), ("valid", "2007_test"))}
    data = tmp_path / "my.data"
    data.write_text("".join(f"{key}={path}\n" for key, path in {**lists, "names": NAMES, "classes": 6}.items()))
    exact, found = (
        mean_average_precision(load_detector(data, *SHAPES, precision=precision, device="cpu"), points=11).mean
        for precision in ("float32", "int8")
    )
    print(f"AP {exact:.4f}, in int8 {found:.4f}")
    assert exact > 0.8
    assert exact != found
    assert found == pytest.approx(exact, abs=0.01)
