"""What can be called an image."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from darknet_compat.errors import ImageError
from darknet_compat.images import load_image
from darknet_compat.sources import read_source

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data/shapes-sample.jpg"


def test_a_path_an_array_and_an_image_of_pils_are_the_same_pixels():
    image = pytest.importorskip("PIL.Image")
    path, pixels = read_source(SAMPLE)
    assert path == str(SAMPLE)
    np.testing.assert_array_equal(pixels, load_image(SAMPLE))
    png = cv2.imencode(".png", pixels[..., ::-1])[1]
    for name, source, bgr in (
        ("", cv2.imdecode(png, cv2.IMREAD_COLOR), True),
        ("", pixels, False),
        ("", image.fromarray(pixels), True),  # it says its order itself
        ("", image.fromarray(pixels).convert("RGBA"), True),
    ):
        found, same = read_source(source, bgr)
        assert found == name
        np.testing.assert_array_equal(same, pixels)
    assert read_source(image.open(SAMPLE))[0] == str(SAMPLE)
    grey = image.fromarray(pixels).convert("L")
    np.testing.assert_array_equal(read_source(grey)[1], np.repeat(np.asarray(grey)[..., None], 3, 2))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array of float32 \(4, 4, 3\); expected uint8 \(height, width, 3\)"),
        (np.zeros((4, 4), np.uint8), r"an array of uint8 \(4, 4\); expected"),
        (np.zeros((4, 4, 4), np.uint8), r"an array of uint8 \(4, 4, 4\); expected"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of uint8 \(0, 4, 3\); expected"),
        (None, "NoneType is no image; expected a path, a NumPy array, or an image of PIL's"),
        (SimpleNamespace(), "SimpleNamespace is no image"),
        (SimpleNamespace(convert=str), "SimpleNamespace is no image"),
        ("nowhere.jpg", r"nowhere\.jpg: cannot read the image"),
    ],
)
def test_anything_else_is_one_line(source, said):
    with pytest.raises(ImageError, match=f"^{said}"):
        read_source(source)


def test_the_pixels_are_a_copy_that_may_be_written():
    """Who draws on an image afterwards, or reads the next frame into its memory, changes no detection's image."""
    pixels = load_image(SAMPLE)
    for bgr in (True, False):
        given = pixels.copy()
        found = read_source(given, bgr)[1]
        given[:] = 0
        np.testing.assert_array_equal(found, pixels[..., ::-1] if bgr else pixels)
        given.setflags(write=False)
        assert read_source(given, bgr)[1].flags.writeable, "torch warns of others"
    image = pytest.importorskip("PIL.Image")
    assert read_source(image.fromarray(pixels))[1].flags.writeable


def test_what_pil_has_no_8_bits_of_or_cannot_read_is_one_line():
    image = pytest.importorskip("PIL.Image")
    closed = image.open(SAMPLE)
    closed.close()
    cut = image.open(io.BytesIO(SAMPLE.read_bytes()[:3000]))
    for source, said in (
        (image.fromarray(np.full((2, 3), 40000, np.uint16)), r"mode I;16, 3 x 2: its values have more than 8 bits"),
        (image.new("I", (3, 2), 300), "mode I, 3 x 2: its values"),
        (image.new("F", (3, 2), 0.5), "mode F, 3 x 2: its values"),
        (image.new("RGB", (0, 2)), "mode RGB, 0 x 2: it has no pixel"),
        (closed, "mode RGB, .*closed"),
        (cut, "mode RGB, .*truncated"),
    ):
        with pytest.raises(ImageError, match=f"^an image of PIL's in {said}"):
            read_source(source)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_of_8_bits_is_made_rgb(mode):
    image = pytest.importorskip("PIL.Image")
    rgb = image.open(SAMPLE).convert("RGB").convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_source(rgb)[1], np.asarray(rgb.convert("RGB")))
