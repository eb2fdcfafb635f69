"""Images through a classifier: batches, threads, what cannot be read, and the likeliest classes."""

from __future__ import annotations

import ctypes

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.classify.predictions import Prediction, classify_files, classify_resized
from darknet_compat.classify.prepare import CENTRE_SQUARE, TEN_CROPS, shorter_to
from darknet_compat.engines import Engine, start_engine
from darknet_compat.errors import CfgError, ImageError
from tests.compare import network_of

TEXT = """[net]
width=48
height=40
channels=3
[conv]
batch_normalize=1
filters=5
size=3
stride=2
pad=1
activation=leaky
[conv]
filters=7
size=1
activation=linear
{}
[softmax]
"""


@pytest.fixture
def network(tmp_path):
    return network_of(TEXT.format("[avgpool]"), tmp_path)[0]


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{index}.png") for index in range(7)]
    for path in paths:
        height, width = rng.integers(20, 70, 2)
        cv2.imwrite(path, cv2.resize(rng.integers(0, 256, (3, 3, 3), np.uint8), (int(width), int(height))))
    return paths


@pytest.mark.parametrize("views", [CENTRE_SQUARE, TEN_CROPS])
def test_a_batch_gives_what_single_images_give(network, paths, views):
    singly = list(classify_files(network, paths, views))
    for engine in (None, Engine(network.predict, 1), start_engine(network, batch=30, threads=1)):
        together = list(classify_files(network, iter(paths), views, batch=30, engine=engine))
        assert [found.path for found in together] == paths
        for one, many in zip(singly, together, strict=True):
            np.testing.assert_allclose(many.prob, one.prob, atol=1e-5)
            assert (many.width, many.height) == (one.width, one.height)
            assert many.prob.sum() == pytest.approx(views.number, abs=1e-4)


def test_a_batch_counts_the_views(network, paths):
    sizes = []
    engine = Engine(lambda images: sizes.append(len(images)) or network.predict(images), 1)
    list(classify_files(network, paths, TEN_CROPS, batch=35, engine=engine))
    assert sorted(sizes) == [10, 30, 30], "of seven images"


def test_an_unreadable_image_ends_it_after_those_before_or_is_passed_over(network, paths, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    mixed = [*paths[:3], str(tmp_path / "text.png"), *paths[3:]]
    runs = (
        lambda **words: classify_files(network, mixed, CENTRE_SQUARE, batch=4, **words),
        lambda **words: classify_resized(network, mixed, lambda image: [shorter_to(image, 48)], **words),
    )
    for run in runs:
        before = []
        with pytest.raises(ImageError, match=r"text\.png"):
            before.extend(run())
        assert [found.path for found in before] == paths[:3]
        errors = []
        assert [found.path for found in run(unreadable=errors.append)] == paths
        assert len(errors) == 1


def test_a_network_has_its_size_again_also_after_an_error(network, paths, tmp_path):
    cv2.imwrite(str(tmp_path / "thin.png"), np.zeros((1, 900, 3), np.uint8))
    mixed = [*paths, str(tmp_path / "thin.png")]
    with pytest.raises(ImageError, match="900 x 1 pixels, of which 60 x 0 would be left"):
        list(classify_resized(network, mixed, lambda image: [(60, min(60, len(image) - 1))]))
    assert (network.width, network.height) == (48, 40)


def test_a_network_that_cannot_be_resized_is_named(tmp_path, paths):
    network, *_ = network_of(TEXT.format("[connected]\noutput=7"), tmp_path)
    with pytest.raises(CfgError, match=r"network with \[connected\] cannot take another size.*0\.png is seen as 60 x"):
        list(classify_resized(network, paths, lambda image: [(60, 50)]))


@pytest.mark.parametrize("number", [1, 5, 12])
def test_equal_probabilities_come_in_darknets_order(darknet, number):
    rng = np.random.default_rng(1)
    unlike = 0
    for _ in range(50):
        prob = rng.integers(0, 6, 12).astype(np.float32) / 4
        index = np.zeros(number, np.int32)
        darknet.lib.top_k(ctypes.c_void_p(prob.ctypes.data), 12, number, ctypes.c_void_p(index.ctypes.data))
        assert Prediction("", 1, 1, prob).top(number).tolist() == index.tolist()
        unlike += index.tolist() != np.argsort(-prob, kind="stable")[:number].tolist()
    assert (unlike > 10) == (number > 1), "the order of the first that comes would do"


def test_torchs_threads_are_as_many_as_before(network, paths):
    before = torch.get_num_threads()
    list(classify_files(network, paths, CENTRE_SQUARE, batch=2))
    assert torch.get_num_threads() == before
