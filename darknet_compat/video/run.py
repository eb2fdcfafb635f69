"""A detector over a video, frame after frame.

Source: pjreddie's ``src/demo.c``; AlexeyAB's ``src/demo.c``. Frames are read, detected and written at the same time.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..defaults import HIER
from ..detect.detections import Detections, detect
from ..detect.detector import Detector
from ..detect.draw import draw_boxes
from ..detect.many import detect_many
from ..engines import Engine
from ..engines.threads import torch_threads
from ..errors import VideoError
from ..flow import forward_turns, results_in_order
from ..images import letterbox_image, resize_image
from ..program import ALEXEYAB, PJREDDIE
from .outputs import Browser, FrameFiles, JsonFile, JsonPort, Output, VideoFile, Window, close_all
from .servers import LOCAL
from .source import Frames

AVERAGED = 3  # frames, in pjreddie's program; AlexeyAB's -avgframes averages none
NMS = {PJREDDIE: 0.4, ALEXEYAB: 0.45}
BEHIND = 4  # frames that wait to be drawn and written
SMOOTHED = 0.9  # of the frames a second, what stays of those before
WINDOW = 3.0  # seconds over which AlexeyAB's program counts frames


def detect_frames(
    detector: Detector,
    frames: Iterable[np.ndarray],
    *,
    thresh: float | None = None,
    nms: float | None = None,
    hier: float | None = None,
    live: bool = False,
) -> Iterator[Detections]:
    """The detections of each frame, uint8 (h, w, 3) blue, green, red, in order, as ``detector demo`` of the network's
    program has them; ``pixels`` are the frame, red, green, blue.

    pjreddie's program takes the mean of what the network says of the last three frames (the first two have less
    behind them, as if there had been black before that has no object), and suppresses boxes by their objectness over
    an IOU of .4. AlexeyAB's takes each frame by itself, stretches it by OpenCV's arithmetic, and suppresses by .45;
    ``hier`` None is its ``thresh``. With tiles (:class:`Detector`) a frame is an image as any other, and there is no
    mean. ``live`` looks at one frame at a time, since the next is not there yet.
    """
    network = detector.network
    network.check_images()
    pjreddies = network.program == PJREDDIE
    thresh = detector.thresh if thresh is None else thresh
    hier = (HIER if pjreddies else thresh) if hier is None else hier
    nms = NMS[network.program] if nms is None else nms
    engine, batch = detector.engine(1 if live else 2**30)
    device = next(network.parameters()).device
    turn = forward_turns(engine.threads, device)
    options: dict[str, Any] = {
        "thresh": thresh, "nms": nms, "hier": hier, "letter_box": detector.letter_box, "classes": detector.names,
        "boxes_by_objectness": pjreddies,
    }  # fmt: skip

    if detector.tiles > 1:
        yield from detect_many(
            network, frames, _as_rgb, batch, detector.letter_box, engine, keep=True, tiles=detector.tiles,
            thresh=thresh, nms=nms, hier=hier, classes=detector.names,
        )  # fmt: skip
        return

    def found_in(frames: Sequence[np.ndarray], outputs: list[torch.Tensor]) -> list[Detections]:
        sizes = [(frame.shape[1], frame.shape[0]) for frame in frames]
        said = Engine(lambda _: outputs, 1)
        found = detect(network, torch.empty(len(frames), 0), sizes, [""] * len(frames), engine=said, **options)
        return [replace(one, pixels=frame[..., ::-1]) for one, frame in zip(found, frames, strict=True)]

    def forward(opened: Iterator[tuple[str, np.ndarray]]) -> list[tuple[np.ndarray, list[torch.Tensor]]]:
        images = torch.empty(batch, 3, network.height, network.width)
        frames: list[np.ndarray] = []
        for _, frame in opened:
            _fit(frame, images[len(frames)].numpy(), detector.letter_box, stretched_by_opencv=not pjreddies)
            frames.append(frame)
        with turn, torch.inference_mode():
            outputs = engine(images[: len(frames)].to(device))
        return [(frame, [one[index : index + 1] for one in outputs]) for index, frame in enumerate(frames)]

    def found_alone(opened: Iterator[tuple[str, np.ndarray]]) -> list[Detections]:
        said = forward(opened)
        outputs = [torch.cat(of_head) for of_head in zip(*(outputs for _, outputs in said), strict=True)]
        return found_in([frame for frame, _ in said], outputs)

    if not pjreddies:
        yield from results_in_order(found_alone, frames, batch, read=_unnamed)
        return
    last: deque[list[torch.Tensor]] = deque(maxlen=AVERAGED)
    for frame, outputs in results_in_order(forward, frames, batch, read=_unnamed):
        last.append(outputs)
        with torch_threads(1):  # those of a pool would wait, spinning, on the cores that the network is on
            found = found_in([frame], _means(last))
        yield from found


def _as_rgb(frame: np.ndarray) -> tuple[str, np.ndarray]:
    import cv2

    return "", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _unnamed(frame: np.ndarray) -> tuple[str, np.ndarray]:
    return "", frame


def _means(last: Sequence[list[torch.Tensor]]) -> list[torch.Tensor]:
    """``avg_predictions``: a third of each of the last three, or of fewer at the start."""
    return [torch.stack([one / AVERAGED for one in of_head]).sum(0) for of_head in zip(*last, strict=True)]


def _fit(frame: np.ndarray, slot: np.ndarray, letter_box: bool, stretched_by_opencv: bool) -> None:
    """A frame, blue, green, red, into the network's input."""
    import cv2

    if stretched_by_opencv and not letter_box:
        frame = cv2.resize(frame, slot.shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    (letterbox_image if letter_box else resize_image)(image, slot)


@dataclass(frozen=True)
class Shown:
    """A frame that was looked at."""

    number: int
    """Counted from 1."""
    found: Detections
    fps: float
    """Frames a second, a mean that the last frames count most in."""
    average_fps: float
    """Of the last seconds; 0 in the first three."""


@dataclass(frozen=True)
class Watched:
    """What :func:`demo` saw."""

    frames: int
    seconds: float
    expected: int | None
    """Frames that the file says it has."""

    @property
    def whole(self) -> bool:
        """Was that all that the file should hold? A broken one ends early."""
        return self.expected is None or self.frames >= self.expected


def demo(
    detector: Detector,
    source: str | os.PathLike[str] | int,
    *,
    thresh: float | None = None,
    hier: float | None = None,
    out_filename: str | os.PathLike[str] | None = None,
    prefix: str | None = None,
    json_file_output: str | os.PathLike[str] | None = None,
    json_port: int | None = None,
    mjpeg_port: int | None = None,
    host: str = LOCAL,
    window: bool = False,
    full_screen: bool = False,
    draw: bool = True,
    time_limit: float | None = None,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    begun: Callable[[Frames], None] = lambda frames: None,
    progress: Callable[[Shown], None] = lambda shown: None,
) -> Watched:
    """Detect in each frame of a video file, an address or a camera (its number), until it ends.

    ``out_filename`` is a video file with the boxes drawn, ``prefix`` the start of the names of an image for each frame,
    ``json_file_output`` AlexeyAB's list of all frames. ``mjpeg_port`` shows the frames to browsers, ``json_port`` sends
    what is found to programs; both at ``host``, this machine alone. ``draw`` False leaves the frames as they are.
    ``time_limit``: seconds after which it ends. ``size`` and ``fps`` are asked of a camera. ``begun`` is called with
    the source before the first frame, ``progress`` with each.

    Raises :class:`DarknetError` in one line; what was written before is whole then.
    """
    with ExitStack() as stack:
        frames = stack.enter_context(Frames(source, size, fps))
        if out_filename is not None and os.path.realpath(out_filename) == os.path.realpath(str(frames.source)):
            raise VideoError(f"{os.fspath(out_filename)}: the command reads this file too, and would overwrite it")
        outputs: list[Output] = []
        stack.callback(lambda: close_all(outputs))
        if out_filename is not None:
            outputs.append(VideoFile(out_filename, (frames.width, frames.height), frames.fps))
        if prefix is not None:
            outputs.append(FrameFiles(prefix, 0 if detector.network.program == PJREDDIE else 1))
        if json_file_output is not None:
            outputs.append(JsonFile(json_file_output))
        if json_port is not None:
            outputs.append(JsonPort(json_port, host))
        if mjpeg_port is not None:
            outputs.append(Browser(mjpeg_port, host))
        shown_in = Window("Demo", full_screen) if window else None
        if shown_in:
            stack.callback(shown_in.close)
        begun(frames)
        return _run(detector, frames, outputs, shown_in, draw, time_limit, progress, thresh=thresh, hier=hier)


def _run(
    detector: Detector, frames: Frames, outputs: Sequence[Output], window: Window | None, draw: bool,
    time_limit: float | None, progress: Callable[[Shown], None], **options: Any,
) -> Watched:  # fmt: skip
    drawn_by_others = any(not isinstance(output, (JsonFile, JsonPort)) for output in outputs)

    def write(number: int, found: Detections) -> np.ndarray | None:
        drawn = _drawn(found, draw) if window or drawn_by_others else None
        for output in outputs:
            output.add(number, drawn, found)
        return drawn

    def finish(waiting: deque[tuple[int, Detections, Future[np.ndarray | None]]]) -> None:
        number, found, future = waiting.popleft()
        drawn = future.result()
        if window:
            window.add(number, drawn, found)

    start = before = window_start = time.perf_counter()
    fps = average = 0.0
    number = counted = 0
    waiting: deque[tuple[int, Detections, Future[np.ndarray | None]]] = deque()
    with ThreadPoolExecutor(1) as writer:
        for number, found in enumerate(detect_frames(detector, frames, live=frames.live, **options), 1):
            waiting.append((number, found, writer.submit(write, number, found)))
            while len(waiting) > BEHIND:
                finish(waiting)
            now = time.perf_counter()
            fps = SMOOTHED * fps + (1 - SMOOTHED) / max(now - before, 1e-9)
            before, counted = now, counted + 1
            if now - window_start >= WINDOW:
                average, counted, window_start = counted / (now - window_start), 0, now
            progress(Shown(number, found, fps, average))
            if (window and window.closed) or (time_limit is not None and now - start > time_limit):
                break
        while waiting:
            finish(waiting)
    return Watched(number, time.perf_counter() - start, frames.count)


def _drawn(found: Detections, boxes: bool) -> np.ndarray:
    """The frame, blue, green, red, with its boxes."""
    assert found.pixels is not None
    frame = found.pixels[..., ::-1]
    return draw_boxes(frame, found.corners(), found.prob, found.name, bgr=True) if boxes else frame
