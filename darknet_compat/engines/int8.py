"""int8: an exported graph with 8-bit weights and maps, by ONNX Runtime's quantiser.

It needs images to see which values the maps take. ``docs/PERFORMANCE.md`` has the measurements behind the choices here.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DarknetError, ExportError, ImageError, first_line
from ..image_files import find_images
from ..images import Views, load_image, read_encoded
from ..network import Network
from .processor import has_vnni

if TYPE_CHECKING:
    import onnx

INPUTS = 100  # that are looked at: three times as many change nothing (docs/PERFORMANCE.md)

MULTIPLY = ["Conv", "Gemm"]  # the operators whose weights and inputs get 8 bits


@dataclass(frozen=True)
class Calibration:
    """Image files that show which values a network's maps take, and how a verb makes its inputs of an image."""

    paths: tuple[str, ...]
    views: Views

    @property
    def looked_at(self) -> list[str]:
        """:data:`INPUTS` inputs' worth of the images, evenly from the first to the last: lists go class by class."""
        number = max(INPUTS // self.views.number, 1)
        places = np.unique(np.linspace(0, len(self.paths) - 1, number).astype(int))
        return [self.paths[place] for place in places.tolist()]

    def inputs(self, network: Network) -> Iterator[np.ndarray]:
        """What the network gets of each image, float32 (views, 3, height, width). Raises :class:`ImageError`."""
        for path in self.looked_at:
            slots = np.empty((self.views.number, 3, network.height, network.width), np.float32)
            self.views.fill(_read(path, load_image), slots)
            yield slots

    def digest(self) -> str:
        """A name for what the files hold and what is made of it. Raises :class:`ImageError`."""
        content = hashlib.sha256(f"{self.views.fill.__name__} {self.views.number}".encode())
        for path in self.looked_at:
            content.update(hashlib.sha256(_read(path, read_encoded).data).digest())
        return content.hexdigest()


def _read(path: str, read: Callable[[str], np.ndarray]) -> np.ndarray:
    try:
        return read(path)
    except ImageError as error:
        raise ImageError(f"-calibration: {error}") from None


def check_calibration(given: object, precision: str) -> None:
    """Raises :class:`ExportError` where int8 has no images, or another precision some."""
    if precision == "int8" and given is None:
        raise ExportError("-precision int8 needs images to calibrate on; expected -calibration IMAGES")
    if precision != "int8" and given is not None:
        raise ExportError(f"-calibration is for -precision int8 alone; found -precision {precision}")


def calibration_images(
    given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None, precision: str
) -> tuple[str, ...]:
    """The images that ``given`` stands for: images, folders, patterns and lists of paths.

    Raises :class:`ExportError` where int8 has none, or another precision some, and :class:`ImageError`.
    """
    check_calibration(given, precision)
    if given is None:
        return ()
    words = [given] if isinstance(given, (str, os.PathLike)) else given
    images = find_images([os.fspath(word) for word in words])
    if not images:
        raise ExportError("-calibration: no image; expected images, a folder, a pattern, or a list of paths")
    return tuple(images)


def quantise(model: onnx.ModelProto, network: Network, calibration: Calibration) -> bytes:
    """The graph of a fused network with weights and inputs of its convolutions in 8 bits.

    A scale for each filter's weights, one for each map, from the least and greatest value that it takes. What a
    convolution gives is rounded where the next one reads it, behind activation and pooling, and nowhere else. The
    layers that make the maps of heads stay as they are: a small part of the work.

    Raises :class:`ExportError` where it cannot be, and :class:`ImageError`.
    """
    from onnxruntime import quantization

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.left = calibration.inputs(network)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": images} for images in self.left), None)

    into_heads = tuple(f"layers.{head.sources[0]}." for head in network.detectors)
    # What is missing are its simplifications, which this graph does not need; it would warn of that.
    note = model.metadata_props.add()
    note.key, note.value = "onnx.quant.pre_process", "onnxruntime.quant"
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model.SerializeToString())
        try:
            quantization.quantize_static(
                before,
                after,
                Inputs(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=MULTIPLY,
                nodes_to_exclude=[node.name for node in model.graph.node if node.name.startswith(into_heads)],
                per_channel=True,
                reduce_range=not has_vnni(),  # sums of pairs of products would overflow 16 bits
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"OpTypesToExcludeOutputQuantization": MULTIPLY},
            )
        except DarknetError:
            raise
        except Exception as error:  # it has many errors
            raise ExportError(
                f"-precision int8: ONNX Runtime does not quantise this network: {first_line(error)}; expected "
                "-precision bf16"
            ) from None
        return after.read_bytes()
