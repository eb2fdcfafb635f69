"""alexeyab_on_device.py against alexeyab_augment.py, whose own tests compare it with AlexeyAB's load_data_detection."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest
import torch

from darknet_compat.errors import ImageError, TrainingError
from darknet_compat.labels import Labels
from darknet_compat.train import alexeyab_augment, alexeyab_on_device, data
from darknet_compat.train.alexeyab_augment import AlexeyabAugmentation, Stretched
from darknet_compat.train.alexeyab_on_device import Decoded, Layout, _blurred, _recoloured, padded, room
from darknet_compat.train.data import AlexeyabTrainingSet, load_batches
from darknet_compat.train.detector import DetectorTraining
from tests.train.nets import data_set
from tests.train.test_alexeyab import NET, V4, v4
from tests.train.test_alexeyab_augment import CASES, COLOURS
from tests.train.test_augment import make_images
from tests.train.test_heads import press_ctrl_c

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LEVEL = 1.001 / 255
FMA = cv2.checkHardwareSupport(12)  # CV_CPU_FMA3
NOISE = {"gaussian_noise": 20, **COLOURS}
ALL = {"blur": 5, "jitter": 0.3, "resize": 1.5, **NOISE}
MORE = {
    "exposure alone": {"exposure": 1.8, "jitter": 0.0},
    "noise": NOISE,
    "noisy mosaic": {"mixing": "mosaic", **NOISE},
    "all": ALL,
    "all of a mosaic": {"mixing": "mosaic", **ALL},
    "all of a mixture": {"mixing": "mixup", **ALL},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory, darknet_share):
    """Photographs and noise of both aspects with their labels, and one of a single pixel without any."""
    folder = tmp_path_factory.mktemp("set")
    paths, found = make_images(folder, darknet_share)
    cv2.imwrite(str(folder / "images/bare.png"), np.full((1, 1, 3), 200, np.uint8))
    found = [*found, np.zeros((0, 5))]
    return [*paths, str(folder / "images/bare.png")], Labels(
        np.concatenate(found).astype(np.float32), np.cumsum([0, *map(len, found)])
    )


def training_set(images, *, seed=0, cache=False, most=20, **options):
    return AlexeyabTrainingSet(*images, AlexeyabAugmentation(**options), seed=seed, cache=cache, most=most)


def collect(made, size=(160, 96), count=6, stop=3, largest=(416, 416), sizes=None, **options):
    batches = load_batches(made, count, lambda index: sizes[index] if sizes else size, largest, stop=stop, **options)
    return [(batch.images.clone().cpu(), batch.truth.clone(), batch.paths) for batch in batches]


def assert_alike(found, expected, tolerance=0.0):
    assert len(found) == len(expected)
    for (images, truth, names), (other_images, other_truth, other_names) in zip(found, expected, strict=True):
        assert names == other_names
        assert torch.equal(truth, other_truth)
        np.testing.assert_allclose(images, other_images, rtol=0, atol=tolerance)


def on_device(made, *arguments, device="cpu", **options):
    """What :func:`collect` gives where every batch is augmented on the device."""
    made.pixels, augmented = lambda index: 500_000, []  # no image has more: there is room for all
    made.augment = lambda *arguments: augmented.append(1) or AlexeyabTrainingSet.augment(made, *arguments)
    found = collect(made, *arguments, device=torch.device(device), **options)
    assert len(augmented) == len(found)
    return found


def tolerance(device):
    if not FMA:
        return LEVEL
    return 0.0 if device == "cpu" else 1e-6  # where one over 255 is multiplied by


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(160, 96), (96, 128)], ids=str)
@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_equals_the_loaders_augmentation(images, case, size, device):
    made = training_set(images, **(CASES | MORE)[case])
    expected = collect(made, size)
    assert min(batch.std() for batch, _, _ in expected) > 0.1
    assert_alike(on_device(made, size, device=device), expected, tolerance(device))


@pytest.mark.parametrize("device", DEVICES)
def test_a_whole_mosaic_of_photographs(images, device):
    paths, labels = images
    photographs = paths[:3], Labels(labels.objects[: labels.starts[3]], labels.starts[:4])
    made = training_set(photographs, mixing="mosaic", jitter=0.3, resize=1.5, **COLOURS)
    expected = collect(made, (416, 416), stop=1)
    assert_alike(on_device(made, (416, 416), stop=1, device=device), expected, tolerance(device))


@pytest.mark.parametrize("case", ["colours", "mixup", "background", "all of a mosaic"])
def test_a_width_that_is_no_multiple_of_32_is_alike_to_one_level(images, case):
    """OpenCV cuts colours off where it works on whole blocks of a row, and rounds them behind."""
    made = training_set(images, **({"mixing": "mixup", **COLOURS} if case == "mixup" else (CASES | MORE)[case]))
    expected, found = collect(made, (200, 136)), on_device(made, (200, 136))
    assert_alike(found, expected, LEVEL)
    off = torch.cat([(a[0] - b[0]).abs() for a, b in zip(found, expected, strict=True)])
    assert 0 < (off > 0).float().mean() < 0.03


def test_every_colour_is_recoloured_as_by_opencv():
    """All 2**24, at hues all around, with and without clipping."""
    levels = np.arange(256, dtype=np.uint8)
    others = np.stack(np.meshgrid(levels, levels, indexing="ij"), -1)
    for number, reds in enumerate(levels.reshape(8, 32)):
        images = np.stack([np.dstack([np.full((256, 256), red), others]) for red in reds]).astype(np.uint8)
        hues = np.linspace(-0.6, 0.6, 32).astype(np.float32)
        saturations = np.roll(np.geomspace(0.3, 3, 32), 5 * number).astype(np.float32)
        exposures = np.roll(np.geomspace(2.5, 0.4, 32), 11 * number).astype(np.float32)
        planes = torch.from_numpy(images.astype(np.int32)).permute(3, 0, 1, 2)
        colours = torch.from_numpy(np.stack([179 * hues, saturations, exposures], 1))
        found = _recoloured(planes, colours).permute(1, 2, 3, 0).numpy()
        for image, one, *drawn in zip(images, found, hues, saturations, exposures, strict=True):
            hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), alexeyab_augment._colours(*drawn))
            expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
            np.testing.assert_array_equal(one, expected) if FMA else np.testing.assert_allclose(one, expected, atol=1)


@pytest.mark.parametrize("shape", [(40, 56), (7, 5), (1, 9)])
def test_every_kernel_blurs_as_opencv(shape):
    """Of several sizes at once, and larger than the image, which is then reflected several times."""
    kernels = np.array([3, 61, 17, 5, 11, 255])
    images = np.random.default_rng(1).integers(0, 256, (len(kernels), *shape, 3), np.uint8)
    images[0] = 255
    found = _blurred(torch.from_numpy(images.astype(np.int32)).permute(3, 0, 1, 2), kernels)
    for image, kernel, one in zip(images, kernels.tolist(), found.permute(1, 2, 3, 0).numpy(), strict=True):
        # Without parallel threads or a region: an image of its own.
        np.testing.assert_array_equal(one, cv2.GaussianBlur(image.copy(), (kernel, kernel), 0))


@pytest.mark.parametrize("cache", [False, True])
def test_the_loaders_processes_give_the_same_batches(images, cache):
    made = training_set(images, cache=cache, mixing="mosaic", **ALL)
    expected = collect(made, stop=5)
    assert_alike(on_device(made, stop=5, workers=2), expected, tolerance("cpu"))


def test_sizes_and_counts_change_from_batch_to_batch(images):
    """random=1 and dynamic_minibatch=1."""
    made, counts = training_set(images, mixing="mosaic", **ALL), [2, 18, 3, 9]
    options = {"sizes": [(96, 96), (32, 32), (64, 96), (32, 32)], "counts": counts.__getitem__, "most": 18, "count": 2}
    options |= {"stop": 4, "largest": (96, 96), "first": 5}
    found = on_device(made, **options)  # there is room for the batch of 18
    assert_alike(found, collect(made, **options), tolerance("cpu"))
    assert [len(names) for _, _, names in found] == counts


@pytest.mark.parametrize("workers", [0, 1])
def test_what_does_not_fit_is_augmented_by_the_loader(images, workers):
    """Room for all small images and for some large ones: batches of both kinds, in turns."""
    expected = collect(training_set(images, mixing="mosaic"), (32, 32), 1, 12)
    made, decoded = training_set(images, mixing="mosaic"), []
    made.pixels = lambda index: 100_000  # fewer than a photograph has
    made.augment = lambda *arguments: decoded.append(1) or AlexeyabTrainingSet.augment(made, *arguments)
    found = collect(made, (32, 32), 1, 12, (32, 32), workers=workers, device=torch.device("cpu"))
    assert_alike(found, expected)
    assert 0 < len(decoded) < 12


@pytest.mark.parametrize(("mixing", "count"), [("", 1), ("mixup", 2), ("mosaic", 4)])
def test_memory_is_that_of_the_largest_of_a_thousand(images, monkeypatch, mixing, count):
    paths, labels = images
    made = training_set((paths * 4, labels), mixing=mixing, blur=3)
    shapes = [cv2.imread(path).shape for path in made.source]
    sizes = sorted((padded(width, height) for height, width, _ in shapes), reverse=True)
    layout = Layout(3, 3 * count, 64, 32, 20, False)
    assert made.room(3, (64, 32)) == room(layout, sum(sizes[: 3 * count]))
    monkeypatch.setattr(data, "MEASURED", 2)
    measured = []
    made.pixels = lambda index: measured.append(index) or 100
    assert made.room(3, (64, 32)) == room(layout, 300 * count)
    assert len(set(measured)) == 2


@pytest.mark.parametrize("layout", [Layout(1, 1, 32, 32, 0, False), Layout(3, 12, 20, 50, 7, True)])
def test_the_memory_is_laid_out_without_gaps(layout):
    memory = np.zeros(room(layout, 777), np.uint8)
    decoded = Decoded.within(memory, layout)
    assert decoded.pixels.shape == (777, 3)
    assert sum(part.nbytes for part in decoded) == len(memory)
    assert decoded.noise.shape == (layout.images * layout.noise, layout.h, layout.w, 3)
    starts = [part.__array_interface__["data"][0] for part in decoded if part.size]
    assert starts == sorted(starts)
    assert all(start < following for start, following in pairwise(starts))


@pytest.mark.parametrize("less", [0, 1])
def test_an_image_is_written_where_its_pixels_have_room(less):
    """The second of two for which there is just enough, or a pixel too few."""
    layout, image = Layout(2, 2, 32, 32, 0, False), np.full((20, 30, 3), 7, np.uint8)
    draws = alexeyab_augment.draw(Random(0), (30, 20), (32, 32), 0, AlexeyabAugmentation())
    shown = Stretched(image, draws, np.zeros((0, 5), np.float32), None)
    decoded = Decoded.within(np.zeros(room(layout, 2 * padded(30, 20) - less), np.uint8), layout)
    assert decoded.put(0, 0, shown)
    assert decoded.put(1, 0, shown) == (less == 0)
    assert decoded.used.tolist() == [2 - less, (2 - less) * padded(30, 20)]


def test_there_is_no_memory_for_what_the_cfg_does_not_ask_for(images):
    plain, blurred, noisy = (training_set(images, **more) for more in ({}, {"blur": 3}, {"gaussian_noise": 3}))
    least = plain.room(2, (32, 32))
    assert blurred.room(2, (32, 32)) - least == 2 * 20 * 4 * 8
    assert noisy.room(2, (32, 32)) - least == 2 * 32 * 32 * 3


def test_what_cannot_be_is_one_line(images, tmp_path):
    paths, labels = images
    made = training_set(images)
    made.pixels = lambda index: 10**15
    with pytest.raises(TrainingError, match=r"no memory for 2 batches of [\d,]+ MiB"):
        collect(made, device=torch.device("cpu"))
    (tmp_path / "dog.jpg").write_text("no image")
    with pytest.raises(ImageError, match="no JPEG, PNG or BMP file"):
        collect(training_set(([str(tmp_path / "dog.jpg")], labels)), device=torch.device("cpu"))
    # Its head is right, and what follows is not.
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(paths[0]).read_bytes()[:100])
    for workers in (0, 1):
        with pytest.raises(ImageError, match=r"cut\.png: "):
            collect(training_set(([str(cut)], labels)), workers=workers, device=torch.device("cpu"))


@pytest.fixture
def folder(tmp_path):
    data_set(tmp_path)
    more = "mosaic=1\nblur=3\ngaussian_noise=9\nhue=.1\nsaturation=1.5\nexposure=1.5\n"
    layers = v4(options=V4 + "resize=1.5\nrandom=1\n").replace("jitter=0", "jitter=.2")
    (tmp_path / "net.cfg").write_text(NET.format(rate=0.001, updates=20).replace("flip=0\n", more) + layers)
    return tmp_path


def train(folder, name, *, stop=None, monkeypatch=None, **options):
    text = (folder / "set.data").read_text().replace(f"{folder}/backup", str(folder / name))
    (folder / f"{name}.data").write_text(text)
    made = DetectorTraining(folder / f"{name}.data", folder / "net.cfg", device="cpu", **options)
    losses, update = [], made.trainer.update

    def watched(batches):
        found = update(batches)
        losses.append(found.loss)
        return found

    made.trainer.update = watched
    if stop is None:
        made.run()
    else:
        with monkeypatch.context() as patch:
            press_ctrl_c(patch, stop)
            made.run()
    return made.trainer, losses


def test_twenty_updates_are_those_of_the_loaders_images(folder, monkeypatch):
    """And a training that is taken up goes on to the bit."""
    augmented, augment = [], alexeyab_on_device.augment
    monkeypatch.setattr(alexeyab_on_device, "augment", lambda *given: augmented.append(1) or augment(*given))
    loader, expected = train(folder, "loader", seed=5)
    assert not augmented
    device, losses = train(folder, "device", seed=5, augment="device")
    assert len(augmented) == 40, "two mini-batches an update"
    assert losses == (expected if FMA else pytest.approx(expected, rel=1e-3))
    _, before = train(folder, "parts", stop=9, monkeypatch=monkeypatch, seed=5, augment="device")
    assert 9 <= len(before) < 20
    parts, behind = train(folder, "parts", resume=True, augment="device")
    assert before + behind == losses
    for whole, broken, other in zip(
        *(one.network.state_dict().values() for one in (device, parts, loader)), strict=True
    ):
        assert torch.equal(whole, broken)
        assert not FMA or torch.equal(whole, other)
