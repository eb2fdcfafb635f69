"""Frames of a video file, a camera or a stream, read by a thread of their own while others work on those before.

Source: AlexeyAB's ``src/image_opencv.cpp, get_capture_video_stream, get_capture_webcam, is_live_stream``.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from ..errors import VideoError

USUAL_FPS = 25.0  # where a stream says none
MOST_FPS = 1000.0
AHEAD = 4  # frames that wait
# is_live_stream: what begins so waits for nobody.
LIVE = ("rtsp://", "rtmp://", "http://", "https://", "udp://", "tcp://", "rtp://")


def check_name(name: str) -> None:
    """That OpenCV can be given it: one that is no UTF-8 ends its process. Raises :class:`VideoError`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise VideoError(f"{name}: OpenCV takes no name that is not UTF-8; expected another name") from None


class Frames:
    """The frames of ``source``: a file, an address that FFmpeg reads, or a camera's number. Closed by ``with``.

    Of a live source the newest frame is given, and those that came while nobody asked are dropped; of a file all are.
    Addresses are live but for those that ``LIVE`` does not have, such as file:// and srt://, as in AlexeyAB's program.
    ``size``: (width, height) to ask a camera for; ``fps`` likewise.

    Raises :class:`VideoError` in one line where there is no such video, or where it has no frame.
    """

    def __init__(
        self, source: str | os.PathLike[str] | int, size: tuple[int, int] | None = None, fps: float | None = None
    ) -> None:
        import cv2

        # FFmpeg's own lines about a damaged stream; ours says what there is to say.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self.source = source if isinstance(source, int) else os.fspath(source)
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        self.live = isinstance(source, int) or str(source).startswith(LIVE)
        if not self.live and "://" not in self.name and not os.path.exists(self.name):
            raise VideoError(f"{self.name}: no such file; expected a video, an address, or -c and a camera's number")
        if not self.live and os.path.isdir(self.name):
            raise VideoError(f"{self.name}: a folder; expected a video")
        check_name(self.name)
        try:
            self._capture = cv2.VideoCapture(self.source)
        except cv2.error:  # a camera's number that is no C int
            self._capture = cv2.VideoCapture()
        if self._capture.isOpened():
            for key, value in ((cv2.CAP_PROP_FRAME_WIDTH, size and size[0]),
                               (cv2.CAP_PROP_FRAME_HEIGHT, size and size[1]), (cv2.CAP_PROP_FPS, fps)):  # fmt: skip
                if value and isinstance(source, int):
                    self._capture.set(key, value)
        there, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not there or first is None:
            self._capture.release()
            expected = "a camera of that number" if isinstance(source, int) else "a video that OpenCV's FFmpeg reads"
            raise VideoError(f"{self.name}: no frame can be read; expected {expected}")
        self.height, self.width = first.shape[:2]
        said = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = said if 0 < said <= MOST_FPS else USUAL_FPS
        """Frames a second."""
        count = 0 if self.live else self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if 0 < count < 2**31 else None
        """How many frames a file says it has; None where it does not say, and of a live source."""
        self._waiting: deque[np.ndarray] = deque([np.asarray(first)])
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread that is in OpenCV's code as Python ends aborts the process

    def _read(self) -> None:
        try:
            while True:
                there, frame = self._capture.read()
                with self._changed:
                    if not there or self._closed:
                        break
                    if self.live:
                        self._waiting.clear()
                    self._waiting.append(frame)
                    self._changed.notify_all()
                    while not self.live and len(self._waiting) >= AHEAD and not self._closed:
                        self._changed.wait()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[np.ndarray]:
        """uint8 (h, w, 3), blue, green, red; at the end of the stream it ends."""
        while True:
            with self._changed:
                while not self._waiting and not self._ended and not self._closed:
                    self._changed.wait()
                if self._closed or not self._waiting:
                    break
                frame = self._waiting.popleft()
                self._changed.notify_all()
            yield frame
        if self._error is not None:
            raise VideoError(f"{self.name}: {self._error}") from None

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; nothing is to be asked of it then."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # A camera or an address that gives nothing any more can keep its thread, which ends with this process.
        self._thread.join(timeout=None if not self.live else 2.0)
        if not self._thread.is_alive():
            self._capture.release()


def is_cut_off(path: str | os.PathLike[str]) -> bool:
    """Does a file lack bytes that its own parts promise? Those of .avi, .mkv, .webm, .mp4 and .mov say how long they
    are; of other files nothing is known."""
    if not os.path.isfile(path):
        return False
    size, end = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while end < size:
            file.seek(end)
            length = _part_length(file.read(16), size - end)
            if not length:
                return False
            end += length
    return end > size


def _part_length(head: bytes, rest: int) -> int | None:
    """Bytes of the part of a file that begins so; None or 0 where it is none that says."""
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # Matroska: EBML, Segment
        more = 9 - head[4].bit_length()
        value = int.from_bytes(head[4 : 4 + more], "big") & ~(-1 << 7 * more)
        return rest if value == (1 << 7 * more) - 1 else 4 + more + value  # all ones: to the end
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"moof", b"styp", b"sidx"):
        length = int.from_bytes(head[:4], "big")
        return int.from_bytes(head[8:16], "big") if length == 1 else length  # 0: to the end
    return None
