"""What can be called an image."""

from __future__ import annotations

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
        ("nowhere.jpg", r"nowhere\.jpg: cannot read the image"),
    ],
)
def test_anything_else_is_one_line(source, said):
    with pytest.raises(ImageError, match=f"^{said}"):
        read_source(source)
