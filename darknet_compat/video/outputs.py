"""Where the frames of a video and what was found in them go: a video file, images, a JSON file, a window, a port."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ..errors import ResultsError, VideoError
from ..files import whole_file
from ..image_files import make_folder, written_or_said
from .servers import JsonServer, MjpegServer
from .source import check_name, is_cut_off

# Of a file's suffix the codec that its kind of file takes; .avi is AlexeyAB's.
AVI = "DIVX"
CODECS = {".avi": AVI, ".mkv": AVI, ".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v"}
ROOM = 2**22  # bytes that must be free on the disk, for what the file's end needs
JPEG_QUALITY = 40  # of frames for browsers (demo.c)
ESCAPE = 27


class Output(Protocol):
    """Something that takes frames."""

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        """Frame ``number``, counted from 1: uint8 (h, w, 3) blue, green, red, with what was found in it, and that.

        ``drawn`` None stands for a frame that only counts.
        """

    def close(self) -> None:
        """Make whole what was written."""


class VideoFile:
    """A video file. What is in an .avi or .mkv can be played after a kill, too. Raises :class:`VideoError`."""

    def __init__(self, path: str | os.PathLike[str], size: tuple[int, int], fps: float) -> None:
        import cv2

        self.path = Path(path)
        codec = CODECS.get(self.path.suffix.lower())
        if codec is None:
            raise VideoError(f"{path}: expected a name that ends in {', '.join(CODECS)}")
        check_name(os.fspath(path))
        make_folder(self.path.parent)
        if codec != AVI:
            warnings.warn(f"{path}: cannot be played before its end is written; .avi and .mkv can", stacklevel=3)
        self._check_room()
        self.size, self._written = size, False
        # MPEG-4 divides a second by 65,535 at most, and OpenCV would take 134.373 for 134,373 / 1,000.
        fps = round(fps, 3 - (fps > 65.535) - (fps > 655.35))
        self._writer = cv2.VideoWriter(os.fspath(path), cv2.VideoWriter.fourcc(*codec), fps, size)
        if not self._writer.isOpened():
            raise VideoError(f"{path}: cannot be written as a video of {size[0]} x {size[1]}; expected another place")

    def _check_room(self) -> None:
        # The writer itself keeps silent.
        if shutil.disk_usage(self.path.parent).free < ROOM:
            raise VideoError(f"{self.path}: the disk is full; what was written before can be played")

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        if drawn is None:
            return
        self._check_room()
        if drawn.shape[1::-1] != self.size:
            import cv2

            drawn = cv2.resize(drawn, self.size)  # a stream may change its size, a file may not
        self._writer.write(drawn)
        self._written = True

    def close(self) -> None:
        import cv2

        self._writer.release()
        # Of a quota or a disk's error the writer keeps silent, too.
        said = cv2.VideoCapture(os.fspath(self.path)).get(cv2.CAP_PROP_FRAME_COUNT)
        if self._written and (said < 1 or is_cut_off(self.path)):
            raise VideoError(f"{self.path}: its end could not be written; expected a place for all of it")


class FrameFiles:
    """An image file for each frame: PREFIX_00000001.jpg ..."""

    def __init__(self, prefix: str, first: int) -> None:
        self.prefix, self.first = prefix, first
        make_folder(Path(os.path.dirname(prefix)))

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        from ..images import save_image

        if drawn is not None:
            save_image(drawn[..., ::-1], f"{self.prefix}_{number - 1 + self.first:08d}.jpg")

    def close(self) -> None:
        pass


class JsonFile:
    """One JSON list, an object a frame, byte for byte as AlexeyAB's -json_file_output writes it; whole at its end."""

    def __init__(self, path: str | os.PathLike[str], as_json: Callable[[Any, int], str]) -> None:
        self.path, self._stack, self._between, self._whole = path, ExitStack(), "[\n", False
        self._as_json = as_json
        make_folder(Path(path).parent)
        try:
            self._file: IO[str] = self._stack.enter_context(whole_file(path, "w"))
        except OSError as error:
            raise ResultsError(f"{os.fspath(path)}: {error.strerror}; expected a file that can be written") from None

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        self._whole = False
        with written_or_said(self.path):
            self._file.write(self._between + self._as_json(found, number))
        self._between, self._whole = ", \n", True

    def close(self) -> None:
        if not self._whole:  # it has no frame, or lacks a part of one: what stood there stays
            with suppress(OSError):
                self._stack.__exit__(ResultsError, ResultsError(), None)
            return
        with written_or_said(self.path):
            self._file.write("\n]")
            self._stack.close()


class Browser:
    """Frames for browsers at a port."""

    def __init__(self, port: int, host: str) -> None:
        self.server = MjpegServer(port, host)

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        if drawn is not None and self.server.watched:
            import cv2

            there, jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if there:
                self.server.show(jpeg.tobytes())

    def close(self) -> None:
        self.server.close()


class JsonPort:
    """What is found, for programs at a port."""

    def __init__(self, port: int, host: str, as_json: Callable[[Any, int], str]) -> None:
        self.server, self._as_json = JsonServer(port, host), as_json

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        self.server.show(self._as_json(found, number))

    def close(self) -> None:
        self.server.close()


class Window:
    """A window on the display. Escape closes it: :attr:`closed`. Raises :class:`VideoError` where there is none."""

    def __init__(self, title: str, full_screen: bool = False) -> None:
        import cv2

        self.title, self.closed = title, False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
            if full_screen:
                cv2.setWindowProperty(title, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
        except cv2.error:
            raise VideoError(
                "no window can be opened: it needs a display, and OpenCV with windows (pip install '.[gui]')"
            ) from None

    def add(self, number: int, drawn: np.ndarray | None, found: Any) -> None:
        import cv2

        if drawn is not None:
            cv2.imshow(self.title, drawn)
        self.closed |= cv2.waitKey(1) & 0xFF == ESCAPE

    def close(self) -> None:
        import cv2

        cv2.destroyWindow(self.title)


def close_all(outputs: Sequence[Any]) -> None:
    """Close each, the last one first, also where others fail; the error of the first of them is raised then."""
    with ExitStack() as stack:
        for output in outputs:
            stack.callback(output.close)
