"""on_device.py against augment.py, whose own tests compare it with load_data_detection."""

from __future__ import annotations

from random import Random

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.errors import TrainingError
from darknet_compat.images import load_image, placement
from darknet_compat.train.augment import Augmentation, augment_image, draw
from darknet_compat.train.on_device import Decoded, augment, distort, room
from tests.train.test_data import SIZE, collect, make_set, training_set

ALIKE = 1e-4
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def both_ways(images, size, options, seed, device):
    """The batch as the loader's processes would make it, and as the device does."""
    w, h = size
    expected = np.empty((len(images), 3, h, w), np.float32)
    bytes_needed = room(len(images), w, h, max(image.shape[0] * image.shape[1] for image in images))
    decoded = Decoded.within(np.full(bytes_needed, 255, np.uint8), len(images), w, h)
    random = Random(seed)
    for i, image in enumerate(images):
        draws = draw(random, image.shape[1::-1], size, 0, options)
        augment_image(image, draws, expected[i])
        decoded.put(i, image, draws)
    return expected, augment(decoded, device).cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(416, 416), (320, 192), (96, 160)])
@pytest.mark.parametrize(
    "options",
    [
        Augmentation(jitter=0.2, hue=0.1, saturation=1.5, exposure=1.5),
        Augmentation(jitter=0.0, hue=0.0, saturation=1.0, exposure=1.0, flip=False),
        Augmentation(jitter=0.9, hue=0.5, saturation=4.0, exposure=4.0),
        Augmentation(jitter=0.4, hue=0.1, saturation=1.5, exposure=1.5, fit="stretch"),
    ],
)
def test_equals_the_loaders_augmentation(darknet_share, size, options, device):
    rng = np.random.default_rng(3)
    images = [load_image(darknet_share / f"data/{name}.jpg") for name in ("dog", "person", "scream")]
    images += [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((90, 400), (300, 110), (12, 15), (1, 1))]
    for seed in range(3):
        expected, found = both_ways(images, size, options, seed, device)
        np.testing.assert_allclose(found, expected, atol=ALIKE)


@pytest.mark.parametrize(("n", "w", "h", "most"), [(1, 32, 32, 1), (3, 20, 50, 777)])
def test_the_memory_is_as_large_as_the_largest_images_need(n, w, h, most):
    decoded = Decoded.within(np.zeros(room(n, w, h, most), np.uint8), n, w, h)
    assert decoded.pixels.shape == (n * most, 3)
    shapes = (1,), (n, w, 2), (n, h, 2), (n, w, 2), (n, h, 2), (n, 3)
    assert tuple(part.shape for part in decoded[:-1]) == shapes
    assert sum(part.nbytes for part in decoded) == room(n, w, h, most)
    assert len(Decoded.within(np.zeros(room(n, w, h, most) - 1, np.uint8), n, w, h).pixels) == n * most - 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_image_that_misses_the_input_is_grey(device):
    assert placement((40, 30), (32, 32), 0, 10, 0, 0).columns.index.shape == (0, 2)
    decoded = Decoded.within(np.zeros(room(1, 32, 32, 1200), np.uint8), 1, 32, 32)
    options = Augmentation(jitter=0)
    draws = draw(Random(0), (40, 30), (32, 32), 0, options)
    decoded.put(0, np.zeros((30, 40, 3), np.uint8), draws.__class__(**{**vars(draws), "dx": np.float32(99)}))
    assert (augment(decoded, device) == 0.5).all()


@pytest.mark.parametrize("device", DEVICES)
def test_every_colour_is_distorted_as_by_opencv(device):
    """All 27 corners, edges and middles of the cube of colours, at hues all around, with and without clipping."""
    levels = torch.tensor([0.0, 0.5, 1.0])
    colours = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 27, 1)
    for hue in np.linspace(-1, 1, 25):
        for saturation, exposure in ((1.0, 1.0), (1.7, 0.6), (0.4, 1.9)):
            hsv = cv2.cvtColor(colours.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV)
            hsv *= (1, saturation, exposure)
            hsv[..., 0] = (hsv[..., 0] + 360 * hue) % 360
            expected = np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), 0, 1).transpose(2, 0, 1)
            numbers = torch.tensor([hue, saturation, exposure], dtype=torch.float32, device=device).view(3, 1, 1, 1)
            found = distort(colours[None].to(device), *numbers)
            np.testing.assert_allclose(found[0].cpu(), expected, atol=ALIKE)


def test_what_cannot_be_is_one_line(tmp_path):
    data = training_set(make_set(tmp_path))
    data.most_pixels = 10**15
    size = f"{room(3, *SIZE, 10**15) / 2**20:,.0f}"
    with pytest.raises(TrainingError, match=f"no memory for 2 batches of {size} MiB"):
        collect(data, 1, device=torch.device("cpu"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_same_batches(tmp_path, workers, device):
    paths = make_set(tmp_path)
    expected = collect(training_set(paths), 9)
    found = collect(training_set(paths), 9, workers=workers, device=torch.device(device))
    assert tuple(found[0][0].shape[:1:-1]) == SIZE
    for (images, truth, names), (other_images, other_truth, other_names) in zip(expected, found, strict=True):
        assert names == other_names
        assert torch.equal(truth, other_truth)
        np.testing.assert_allclose(other_images.cpu(), images, atol=ALIKE)
