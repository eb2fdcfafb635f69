"""crop_on_device.py against crop_augment.py, whose own tests compare it with load_data_augment."""

from __future__ import annotations

from random import Random

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.classify.labels import match_labels
from darknet_compat.errors import ImageError, TrainingError
from darknet_compat.images import load_image
from darknet_compat.train import data as module
from darknet_compat.train.crop_augment import MIXINGS, CropAugmentation, draw_crop, whole
from darknet_compat.train.crop_on_device import DecodedCrops, augment, room
from darknet_compat.train.data import ClassTrainingSet, load_batches

ALIKE = 1e-5
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LABELS = ["dog", "person", "scream", "wide", "tall", "tiny"]
OPTIONS = [
    CropAugmentation(angle=7, aspect=0.75, hue=0.1, saturation=0.75, exposure=0.75),
    CropAugmentation(0.3, 0.8, angle=40, aspect=0.5, hue=0.5, saturation=4, exposure=3),
    CropAugmentation(0.5, 1.5, flip=False),
    CropAugmentation(1, 1, exposure=0.4, program="alexeyab"),
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory, darknet_share):
    """Photographs, and noise of both aspects; some smaller than any crop, one a single pixel."""
    folder, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(4)
    made = {"wide": (90, 300), "tall": (240, 110), "tiny": (12, 15), "tiny_too": (1, 1)}
    drawn = {name: rng.integers(0, 256, (*shape, 3), np.uint8) for name, shape in made.items()}
    for name in ("dog", "person", "scream"):
        drawn[name] = cv2.imread(str(darknet_share / f"data/{name}.jpg"))
    for name, image in drawn.items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
    return [str(folder / f"{name}.png") for name in drawn]


def class_set(paths, options, **more):
    return ClassTrainingSet(match_labels(paths, LABELS), len(LABELS), options, **more)


def collect(data, size=48, count=8, stop=3, **options):
    batches = load_batches(data, count, lambda _: (size, size), (64, 64), stop=stop, **options)
    return [(batch.images.clone(), batch.truth.clone(), batch.paths) for batch in batches]


def assert_alike(found, expected):
    assert len(found) == len(expected)
    for (images, truth, names), (other_images, other_truth, other_names) in zip(found, expected, strict=True):
        assert names == other_names
        assert torch.equal(truth, other_truth)
        np.testing.assert_allclose(images.cpu(), other_images, atol=ALIKE)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [64, 47])
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_loaders_augmentation(paths, options, size, device):
    data = class_set(paths, options)
    expected = collect(data, size)
    assert expected[0][0].std() > 0.1
    assert_alike(collect(data, size, device=torch.device(device)), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mixing", MIXINGS[1:])
def test_mixes_as_the_loader_does(paths, mixing, device):
    data = class_set(paths, OPTIONS[0]._replace(mixing=mixing), smooth=0.1)
    expected = collect(data, count=5, stop=6)
    assert_alike(collect(data, count=5, stop=6, device=torch.device(device)), expected)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_batches_of_one_are_mixed_or_not(paths, mixing):
    data = class_set(paths, OPTIONS[0]._replace(mixing=mixing))
    found = collect(data, count=1, stop=10, device=torch.device("cpu"))
    assert_alike(found, collect(data, count=1, stop=10))


@pytest.mark.parametrize("cache", [False, True])
def test_the_loaders_processes_give_the_same_batches(paths, cache):
    data = class_set(paths, OPTIONS[0]._replace(mixing="mosaic"), cache=cache)
    expected = collect(data, stop=5)
    assert_alike(collect(data, stop=5, workers=2, device=torch.device("cpu")), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_does_not_fit_is_augmented_by_the_loader(paths, workers):
    """Room for all small images and for some large ones: batches of both kinds, in turns."""
    options = OPTIONS[0]._replace(mixing="mixup")
    expected = collect(class_set(paths, options), count=1, stop=12)
    data, whole_images = class_set(paths, options), []
    data.pixels = lambda index: 50_000  # fewer than a photograph has
    data.augment = lambda *arguments: whole_images.append(1) or ClassTrainingSet.augment(data, *arguments)
    assert_alike(collect(data, count=1, stop=12, workers=workers, device=torch.device("cpu")), expected)
    assert 0 < len(whole_images) < 12


def test_memory_is_that_of_the_largest_of_a_thousand(paths, monkeypatch):
    data = class_set([*paths] * 4, OPTIONS[0]._replace(mixing="cutmix"))
    sizes = sorted((np.prod(load_image(path).shape[:2]) for path in data.source), reverse=True)
    assert data.room(3, (32, 32)) == room(6, 32, sum(sizes[:6]))
    assert data.room(28, (32, 32)) == room(56, 32, 2 * sum(sizes))
    monkeypatch.setattr(module, "MEASURED", 2)
    measured = []
    data.pixels = lambda index: measured.append(index) or 100
    assert data.room(3, (32, 32)) == room(6, 32, 600)
    assert len(set(measured)) == 2


def test_the_memory_is_laid_out_without_gaps():
    for m, size, pixels in ((1, 1, 0), (3, 20, 777)):
        decoded = DecodedCrops.within(np.zeros(room(m, size, pixels), np.uint8), m, size)
        assert decoded.pixels.shape == (pixels, 3)
        assert sum(part.nbytes for part in decoded) == room(m, size, pixels)


def test_nothing_on_the_way_stands_on_another_device(paths):
    """Shown without a GPU: tensors of torch's meta device go with no others."""
    decoded = DecodedCrops.within(np.zeros(room(3, 16, 3 * 27_000), np.uint8), 3, 16)
    random, image = Random(0), load_image(paths[0])
    for sample in (0, 1, 1):
        draws = draw_crop(random, image.shape[1::-1], 16, OPTIONS[0])
        assert decoded.put(sample, image, draws, whole(16))
    assert augment(decoded, 2, "meta").shape == (2, 3, 16, 16)


def test_what_cannot_be_is_one_line(paths, tmp_path):
    with pytest.raises(TrainingError, match="only with center=0"):
        collect(class_set(paths, CropAugmentation(center=True)), device=torch.device("cpu"))
    (tmp_path / "dog.jpg").write_text("no image")
    with pytest.raises(ImageError, match="no JPEG, PNG or BMP file"):
        collect(class_set([str(tmp_path / "dog.jpg")], CropAugmentation()), device=torch.device("cpu"))
