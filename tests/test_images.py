"""images.py against libdarknet's own functions, and the fast forms against the plain ones."""

from __future__ import annotations

import re
import struct

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_compat import images, load_network
from darknet_compat.boxes import corners, unletterbox
from darknet_compat.errors import ImageError
from darknet_compat.images import image_size
from tests import planes as planar
from tests.conftest import ROOT

SIZES = [(1, 1), (1, 7), (9, 1), (2, 2), (17, 13), (64, 48), (50, 75), (375, 500), (301, 43)]  # (h, w)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def random_image(rng, h, w):
    return rng.integers(0, 256, (h, w, 3), np.uint8)


@pytest.fixture
def dog(darknet_share):
    return images.load_image(darknet_share / "data" / "dog.jpg")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("new", [(2, 2), (32, 32), (41, 300), (416, 416)])
def test_resize(darknet, rng, size, new):
    planes = rng.random((3, *size), np.float32)
    mine = planar.resize(planes, new[1], new[0])
    np.testing.assert_allclose(mine, darknet.resize_image(planes, new[1], new[0]), atol=1e-6)


def test_resize_over_every_size(darknet, rng):
    """Also the sizes where rounding makes Darknet's last row black (4 in 100)."""
    black = 0
    for _ in range(300):
        (h, w), (new_h, new_w) = rng.integers(2, 200, (2, 2)).tolist()
        planes = rng.random((1, h, w), np.float32)
        theirs = darknet.resize_image(planes, new_w, new_h)
        np.testing.assert_allclose(planar.resize(planes, new_w, new_h), theirs, atol=1e-6)
        black += theirs[0, -1].max() < 0.01
    assert black


@pytest.mark.parametrize("size", [(64, 48), (50, 75), (375, 500), (301, 43), (33, 33)])
@pytest.mark.parametrize("net", [(32, 32), (64, 96), (416, 416), (608, 320)])
def test_letterbox(darknet, rng, size, net):
    image = random_image(rng, *size)
    planes = planar.to_planes(image)
    theirs = darknet.letterbox_image(planes, net[1], net[0])
    np.testing.assert_allclose(planar.letterbox(planes, net[1], net[0]), theirs, atol=1e-6)
    slot = np.empty((3, *net), np.float32)
    images.letterbox_image(image, slot)
    np.testing.assert_allclose(slot, theirs, atol=1e-6)


def test_sliver_leaves_the_letterbox_grey(rng):
    slot = np.empty((3, 32, 32), np.float32)
    images.letterbox_image(random_image(rng, 1, 1000), slot)
    assert (slot == 0.5).all()
    assert (planar.letterbox(rng.random((3, 1, 1000), np.float32), 32, 32) == 0.5).all()


@pytest.mark.parametrize("size", SIZES)
def test_resize_image(darknet, rng, size):
    image = random_image(rng, *size)
    slot = np.empty((3, 96, 64), np.float32)
    images.resize_image(image, slot)
    np.testing.assert_allclose(slot, darknet.resize_image(planar.to_planes(image), 64, 96), atol=1e-6)


def test_an_image_of_the_inputs_size_has_the_same_bits_as_one_that_is_resized(rng):
    """All 256 values: the longer way multiplies them by weights of 1 and 0."""
    image = random_image(rng, 96, 64)
    image.reshape(-1)[:256] = np.arange(256)
    slot, cropped = np.empty((2, 3, 96, 64), np.float32)
    images.resize_image(image, slot)
    images.crop_resized(image, cropped, 64, 96, 0, 0)
    np.testing.assert_array_equal(slot, cropped)


PLACES = [
    (20, 30, 5, 4),
    (64.9, 47.2, 0.7, 0.9),
    (100, 90, -20, -11),
    (1, 1, 63, 47),
    (30, 20, 60, 40),
    (10, 10, 70, 0),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spot", PLACES)
def test_place(darknet, rng, size, spot):
    image = random_image(rng, *size)
    planes = planar.to_planes(image)
    canvas = np.full((3, 48, 64), 0.5, np.float32)
    theirs = darknet.place_image(planes, *spot, canvas)
    planar.place(planes, *spot, canvas)
    np.testing.assert_allclose(canvas, theirs, atol=1e-5)
    for mirror in (False, True):
        slot = np.empty((3, 48, 64), np.float32)
        images.place_image(image, slot, *spot, mirror=mirror)
        np.testing.assert_allclose(slot, darknet.flip_image(theirs) if mirror else theirs, atol=1e-5)


COLOURS = [(0, 1, 1), (0.1, 1.5, 1.5), (-0.1, 1 / 1.5, 0.7), (0.37, 2, 0.5), (0, 1.3, 1), (-1, 1, 1), (0.05, 1, 1.9)]


@pytest.mark.parametrize("change", COLOURS)
def test_distort(darknet, rng, dog, change):
    for planes in (rng.random((3, 60, 50), np.float32), planar.to_planes(dog), planar.to_planes(dog // 85 * 85)):
        theirs = darknet.distort_image(planes, *change)
        np.testing.assert_allclose(planar.distort(planes, *change), theirs, atol=1e-6)
        slot = np.empty_like(planes)
        images._upright(np.ascontiguousarray(planes.transpose(2, 1, 0)) * 255, slot, *change)
        wrong = np.abs(slot - theirs).max(0) > 1e-5
        # A hue of exactly 1 is another colour to Darknet than 0; round hues on bytes meet it in a few pixels.
        hue = planar.rgb_to_hsv(planes)[0] + np.float32(change[0])
        assert wrong.sum() < 1e-4 * wrong.size
        assert (np.where(hue > 1, hue - 1, np.where(hue < 0, hue + 1, hue))[wrong] == 1).all()


def test_hsv(darknet, rng):
    planes = rng.random((3, 40, 30), np.float32)
    np.testing.assert_allclose(planar.rgb_to_hsv(planes), darknet.rgb_to_hsv(planes), atol=1e-6)
    np.testing.assert_allclose(planar.hsv_to_rgb(planes), darknet.hsv_to_rgb(planes), atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_placed_distorted_and_flipped(darknet, dog, mirror):
    canvas = darknet.place_image(planar.to_planes(dog), 300, 220, 50, 60, np.full((3, 320, 416), 0.5))
    theirs = darknet.distort_image(canvas, 0.07, 1.4, 1.3)
    slot = np.empty_like(theirs)
    images.place_image(dog, slot, 300, 220, 50, 60, 0.07, 1.4, 1.3, mirror)
    np.testing.assert_allclose(slot, darknet.flip_image(theirs) if mirror else theirs, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 24), (1, 1), (90, 70)])
@pytest.mark.parametrize("rectangle", [(0, 0, 40, 30), (-5, 3, 47, 20), (4, -6, 31, 50), (7, 8, 1, 1), (50, 40, 9, 9)])
def test_stretching_repeats_the_edge(rng, rectangle, size):
    """To the bit what resize_image makes of a rectangle that was cut out with its image's edge pixels around it."""
    image, (left, top, w, h) = random_image(rng, 30, 40), rectangle
    cut = image[np.arange(top, top + h).clip(0, 29)][:, np.arange(left, left + w).clip(0, 39)]
    expected, slot = np.empty((2, 3, size[1], size[0]), np.float32)
    images.resize_image(np.ascontiguousarray(cut), expected)
    for mirror in (False, True):
        images.stretch_image(image, slot, *rectangle, mirror=mirror)
        np.testing.assert_array_equal(slot[:, :, ::-1] if mirror else slot, expected)


def test_load_agrees_with_darknet(darknet, darknet_share, made_shapes):
    paths = sorted((darknet_share / "data").glob("*.jpg")) + sorted(
        made_shapes.glob("VOCdevkit/VOC2007/JPEGImages/*.jpg")
    )
    assert len(paths) > 30
    for path in paths:
        np.testing.assert_array_equal(planar.to_planes(images.load_image(path)), darknet.load_image_color(path))


def test_load_agrees_with_darknet_on_bccd(darknet, shared):
    for path in sorted((shared / "bccd" / "BCCD" / "JPEGImages").glob("*.jpg"))[::20]:
        np.testing.assert_array_equal(planar.to_planes(images.load_image(path)), darknet.load_image_color(path))


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_load_and_save_are_exact(tmp_path, rng, suffix, capfd):
    image = random_image(rng, 20, 31)
    images.save_image(image, tmp_path / f"Bläu lich{suffix}")
    np.testing.assert_array_equal(images.load_image(tmp_path / f"Bläu lich{suffix}"), image)
    np.testing.assert_array_equal(planar.to_image(planar.to_planes(image)), image)
    assert capfd.readouterr() == ("", "")  # OpenCV has nothing to warn of


def test_kinds_of_images(tmp_path, rng):
    grey = rng.integers(0, 256, (9, 7), np.uint8)
    alpha = rng.integers(0, 256, (9, 7, 4), np.uint8)
    deep = rng.integers(0, 65536, (9, 7, 3), np.uint16)
    for name, array in (("grey", grey), ("alpha", alpha), ("deep", deep)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), array)
    np.testing.assert_array_equal(images.load_image(tmp_path / "grey.png"), np.stack([grey] * 3, 2))
    np.testing.assert_array_equal(images.load_image(tmp_path / "alpha.png"), alpha[:, :, 2::-1])
    np.testing.assert_array_equal(images.load_image(tmp_path / "deep.png"), (deep >> 8)[:, :, ::-1])


@pytest.fixture(scope="module")
def documented():
    """The functions of docs/export.md."""
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    functions = {}
    exec(code, functions)
    return functions


def test_the_documented_letterbox_is_ours(documented, rng):
    # The first is one of those whose last row comes out black: row 38 of the 38 amid 100.
    for rows, columns, h, w in [(25, 50, 100, 76), *rng.integers(24, 160, (150, 4)).tolist()]:
        image = random_image(rng, rows, columns)
        ours = planar.letterbox(planar.to_planes(image), w, h)
        np.testing.assert_allclose(documented["letterbox"](image, w, h), ours, atol=1e-6)
        assert (rows, columns) != (25, 50) or ours[:, 31 + 38 - 1].max() < 1e-4
        boxes = rng.random((5, 4), np.float32)
        ours = corners(unletterbox(torch.from_numpy(boxes)[None], [(columns, rows)], (w, h), relative=False))[0]
        np.testing.assert_allclose(documented["to_pixels"](boxes, columns, rows, w, h), ours, rtol=1e-5, atol=1e-3)


def test_cv2_resize_is_not_darknets(darknet_share, detector):
    """How far off a letterbox by cv2.resize is, for docs/export.md."""
    network = load_network(*detector)
    w, h = network.width, network.height
    worst = 0.0
    for path in sorted((darknet_share / "data").glob("*.jpg")):
        image = images.load_image(path)
        new_w, new_h = images.letterbox_size(image.shape[1], image.shape[0], w, h)
        ours, theirs = planar.letterbox(planar.to_planes(image), w, h), np.full((3, h, w), 0.5, np.float32)
        x, y = (w - new_w) // 2, (h - new_h) // 2
        theirs[:, y : y + new_h, x : x + new_w] = planar.to_planes(cv2.resize(image, (new_w, new_h)))
        with torch.inference_mode():
            outputs = network.predict(torch.from_numpy(np.stack([ours, theirs])))
            prob = network.boxes(outputs, 0.0)[2]
        worst = max(worst, float((prob[0] - prob[1]).abs().max()))
    print(f"{detector[0].stem}: probabilities differ by up to {worst:.3f}")
    assert worst > 0.02


def turned_jpeg(image):
    """A JPEG whose EXIF note says "turn me by 90 degrees"."""
    jpeg = cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def test_exif_is_left_alone(darknet, tmp_path, rng):
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned_jpeg(random_image(rng, 16, 24)))
    assert images.load_image(path).shape == (16, 24, 3)
    assert darknet.load_image_color(path).shape == (3, 24, 16)  # Debian's build reads through OpenCV, which turns it


def test_damaged_images_are_named(tmp_path, rng):
    good = cv2.imencode(".jpg", random_image(rng, 64, 64))[1].tobytes()
    png = cv2.imencode(".png", random_image(rng, 64, 64))[1].tobytes()
    cases = {"empty.jpg": b"", "cut.jpg": good[: len(good) // 2], "cut.png": png[:-200], "text.jpg": b"hello" * 99}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    for name in [*cases, "missing.jpg", "."]:
        with pytest.raises(ImageError) as caught:
            images.load_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["two\nlines.jpg", "zero\0byte.jpg", "\udcff.jpg"])
def test_a_name_is_on_one_line(tmp_path, name):
    for read in (images.load_image, images.image_size):
        with pytest.raises(ImageError, match=r"(two\\nlines|zero\\x00byte|\\udcff)\.jpg: cannot read the image"):
            read(str(tmp_path / name))


def test_saving_refuses_what_it_cannot_write(tmp_path, rng):
    image = random_image(rng, 8, 8)
    with pytest.raises(ImageError, match="suffix"):
        images.save_image(image, tmp_path / "a.docx")
    with pytest.raises(ImageError, match="No such file"):
        images.save_image(image, tmp_path / "nowhere" / "a.png")
    assert not list(tmp_path.iterdir())


def test_flip(darknet, rng):
    planes = rng.random((3, 5, 8), np.float32)
    np.testing.assert_array_equal(planar.flip(planes), darknet.flip_image(planes))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_image_size_is_the_decoders(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    cv2.imwrite(str(path), np.zeros((37, 52, 3), np.uint8))
    assert image_size(path) == (52, 37)


def test_image_size_of_odd_heads(tmp_path, darknet_share):
    """Bytes of filling before a JPEG's markers, and the short head of an OS/2 bitmap."""
    jpeg = (darknet_share / "data/dog.jpg").read_bytes()
    path = tmp_path / "filled.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xff" + jpeg[2:])
    assert images.load_image(path).shape[:2] == image_size(path)[::-1] == (576, 768)
    bmp = b"BM" + struct.pack("<IHHI", 26 + 4 * 12, 0, 0, 26) + struct.pack("<IHHHH", 12, 4, 3, 1, 24) + b"\x50" * 36
    path = tmp_path / "os2.bmp"
    path.write_bytes(bmp)
    assert images.load_image(path).shape[:2] == image_size(path)[::-1] == (3, 4)


def test_image_size_of_real_photographs(darknet_share):
    paths = sorted((darknet_share / "data").glob("*.jpg"))
    assert paths
    for path in paths:
        height, width = cv2.imread(str(path), cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR).shape[:2]
        assert image_size(path) == (width, height)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x04ab", b"\x89PNG\r\n\x1a\n", b"BM"]),
    st.binary(max_size=64),
)
def test_damaged_images_raise_a_image_error(tmp_path_factory, start, rest):
    path = tmp_path_factory.getbasetemp() / "fuzz.jpg"
    path.write_bytes(start + rest)
    try:
        width, height = image_size(path)
    except ImageError:
        return
    assert isinstance(width, int)
    assert isinstance(height, int)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_an_image_of_no_size_is_named(tmp_path, width, height):
    """Anchors and boxes in pixels would divide by it."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    (tmp_path / "none.png").write_bytes(head + bytes(10))
    with pytest.raises(ImageError, match=rf"none.png: {width} x {height} pixels by its header; expected"):
        image_size(tmp_path / "none.png")
