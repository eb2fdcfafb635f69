"""A classifier is called on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_compat import Classifier, engines, load_classifier, load_network, save_weights
from darknet_compat.errors import CfgError, DataError, DeviceError, ImageError
from darknet_compat.images import load_image

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data/shapes-sample.jpg"
NAMES = ["photo", "shapes", "drawing"]
NET = "[net]\nwidth=64\nheight=48\nchannels=3\n[convolutional]\nfilters=3\nsize=5\nstride=2\nactivation=leaky\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.cfg").write_text(f"{NET}[avgpool]\n[softmax]\n")
    (folder / "toy.names").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "toy.data").write_text(f"classes=3\nlabels={folder}/toy.names\ntop=2\n")
    torch.manual_seed(1)
    network = load_network(folder / "toy.cfg")
    with torch.no_grad():
        network.layers[0].weights *= 3  # or all classes are as likely
    save_weights(network, folder / "toy.weights")
    return folder / "toy.cfg", folder / "toy.weights"


def test_one_image_or_many_of_any_kind(files):
    classifier = Classifier(*files, files[0].with_suffix(".names"), device="cpu")
    given = load_classifier(files[0].with_suffix(".data"), *files, device="cpu")
    (expected,) = given.classify([str(SAMPLE)], "predict", given.finish())
    rgb = load_image(SAMPLE)
    bgr = rgb[..., ::-1].copy()
    several = classifier([bgr, SAMPLE] * 10)
    for found in (classifier(SAMPLE), classifier(bgr), classifier(rgb, bgr=False), given(bgr), *several):
        np.testing.assert_allclose(found.prob, expected.prob, atol=1e-6)
        assert (found.width, found.height) == (rgb.shape[1], rgb.shape[0])
    assert [one.path for one in several] == ["", str(SAMPLE)] * 10
    assert np.abs(classifier(rgb).prob - expected.prob).max() > 1e-3, "another image"
    assert classifier([]) == []
    assert [one.path for one in classifier((SAMPLE,))] == [str(SAMPLE)]
    best = int(expected.prob.argmax())
    found = classifier(SAMPLE)
    assert (found.class_id, found.name) == (best, NAMES[best])
    assert found.score == pytest.approx(expected.prob.max())
    assert [one["name"] for one in found.as_json(2)["classes"]] == [NAMES[index] for index in found.top(2)]
    assert [one["prob"] for one in found.as_json(2)["classes"]] == [
        round(float(found.prob[index]), 6) for index in found.top(2)
    ]
    assert given(SAMPLE).name == found.name


def test_names_are_a_file_or_words_or_the_numbers(files, tmp_path):
    assert Classifier(*files, device="cpu").names == ["0", "1", "2"]
    assert Classifier(*files, device="cpu")(SAMPLE).name in "012"
    assert Classifier(*files, NAMES, device="cpu").names == NAMES
    with pytest.raises(DataError, match=r"^names: 2 names; expected 3, the classes of .*toy\.cfg$"):
        Classifier(*files, NAMES[:2], device="cpu")
    assert Classifier(load_network(*files), names=NAMES).names == NAMES


def test_without_names_those_of_the_tree_count(files, tmp_path):
    """And along it the probabilities are products: of pjreddie's program those of the leaves, of AlexeyAB's of all."""
    (tmp_path / "a.tree").write_text("thing -1\nplant -1\ntree 1\n")
    (tmp_path / "tree.cfg").write_text(f"{NET}[avgpool]\n[softmax]\ntree={tmp_path}/a.tree\n")
    for program, inner in (("pjreddie", False), ("alexeyab", True)):
        classifier = Classifier(tmp_path / "tree.cfg", files[1], device="cpu", program=program)
        assert classifier.names == ["thing", "plant", "tree"]
        found = classifier(SAMPLE)
        (expected,) = classifier.classify([SAMPLE], "predict", classifier.finish(inner=inner))
        np.testing.assert_allclose(found.prob, expected.prob, atol=1e-6)
        assert (found.prob[1] > 0) == inner
        assert found.prob[0] + found.prob[2] == pytest.approx(1), (
            "a tree is as likely as a plant, which it alone can be"
        )


def test_an_engine_is_started_once_for_calls_alike(files, monkeypatch):
    started, start = [], engines.start_engine
    monkeypatch.setattr(engines, "start_engine", lambda *words: started.append(words[3]) or start(*words))
    classifier = Classifier(*files, device="cpu", batch=2)
    for count in (1, 1, 2, 1, 2):
        classifier([SAMPLE] * count)
    assert started == [1, 2]


def test_what_is_no_image_or_no_classifier_is_one_line(files):
    with pytest.raises(ImageError, match="an array of float64"):
        Classifier(*files, device="cpu")(np.zeros((4, 4, 3)))
    with pytest.raises(CfgError, match=r"the network finds boxes in \[region\]; expected `detector`, not `classifier`"):
        Classifier(ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights", device="cpu")


def test_each_option_counts(files, monkeypatch):
    asked, shapes, start = [], [], engines.start_engine

    def started(network, *words):
        engine = start(network, threads=1)
        asked.append(words)
        return engines.Engine(lambda images: shapes.append(tuple(images.shape)) or engine(images), 1)

    monkeypatch.setattr(engines, "start_engine", started)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    classifier = Classifier(
        *files, engine="openvino", precision="bf16", batch=2, numerics="cpu", device=torch.device("cpu")
    )
    assert (classifier.network.numerics, classifier.network.program) == ("cpu", "pjreddie")
    assert len(classifier([SAMPLE] * 3)) == 3
    assert asked == [("openvino", "bf16", 2, 1, None)]
    assert sorted(shapes) == [(1, 3, 48, 64), (2, 3, 48, 64)]


def test_what_cannot_be_asked_for_is_one_line(files, tmp_path):
    for options, says in (
        ({"engine": "x"}, "engine is 'x'; expected one of"),
        ({"precision": "x"}, "precision is 'x'; expected one of"),
        ({"batch": 0}, "batch is 0; expected"),
        ({"program": "x"}, "program is 'x'; expected one of"),
        ({"numerics": "x"}, "numerics is 'x'; expected one of"),
    ):
        with pytest.raises(ValueError, match=f"^{says}"):
            Classifier(*files, **options)
    with pytest.raises(DeviceError, match=r"^-device nowhere: torch finds no such device here"):
        Classifier(*files, device="nowhere")
    with pytest.raises(ValueError, match=r"^weights is .* beside a network, which has its own; expected none$"):
        Classifier(load_network(*files), files[1])
    with pytest.raises(DataError, match=r"^names: \{0: 'a'"):
        Classifier(*files, dict(enumerate("abc")))
    with pytest.raises(TypeError, match="names"):
        load_classifier(files[0].with_suffix(".data"), *files, names=NAMES)
