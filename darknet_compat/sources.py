"""What a detector or a classifier can be called on: paths, arrays, images of PIL's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from .errors import ImageError, first_line
from .images import load_image

if TYPE_CHECKING:
    import PIL.Image

Source: TypeAlias = Union[str, "os.PathLike[str]", np.ndarray, "PIL.Image.Image"]


def read_source(source: Any, bgr: bool = True) -> tuple[str, np.ndarray]:
    """The path, "" where there is none, and the pixels of an image, uint8 RGB (h, w, 3).

    ``source``: a path; an array, uint8 (h, w, 3), in OpenCV's order of colours or, without ``bgr``, red first; an image
    of PIL's, of which a note on how to turn it (EXIF) is left alone, as of a file. The pixels are a copy. Raises
    ImageError for anything else.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        return path, load_image(path)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise ImageError(
                f"an array of {source.dtype} {source.shape}; expected uint8 (height, width, 3), as cv2.imread gives it"
            )
        return "", np.array(source[..., ::-1] if bgr else source, order="C")
    # Without the package, as its images are known by what they can do.
    if hasattr(source, "convert") and hasattr(source, "getbands"):
        return os.fsdecode(getattr(source, "filename", "")), _converted(source)
    raise ImageError(f"{type(source).__name__} is no image; expected a path, a NumPy array, or an image of PIL's")


def _converted(image: PIL.Image.Image) -> np.ndarray:
    what = f"an image of PIL's in mode {image.mode}, {image.width} x {image.height}"
    if image.mode.startswith(("I", "F")):  # PIL would cut off what is over 255
        raise ImageError(f"{what}: its values have more than 8 bits; expected a mode such as RGB or L")
    if not (image.width and image.height):
        raise ImageError(f"{what}: it has no pixel")
    try:
        return np.array(image.convert("RGB"))
    except Exception as error:  # PIL decodes a file only now, and what is in it can fail in any way
        raise ImageError(f"{what}: {first_line(error)}; expected one that PIL makes RGB of") from None
