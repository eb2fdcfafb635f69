"""A detector or a classifier over a video, frame after frame.

Source: ``src/demo.c`` of both programs; ``demo_classifier`` in pjreddie's ``examples/classifier.c`` and AlexeyAB's
``src/classifier.c``. Frames are read, looked at and written at the same time.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..classify.classifier import Classifier
from ..classify.draw import draw_lines
from ..classify.predictions import Prediction
from ..defaults import HIER, TEST
from ..detect.detections import Detections, detect
from ..detect.detector import Detector
from ..detect.draw import draw_boxes
from ..detect.many import detect_many
from ..detect.results import frame_json
from ..engines import MANY, Engine
from ..engines.threads import torch_threads
from ..errors import VideoError
from ..flow import forward_turns, results_in_order
from ..images import letterbox_image, resize_image
from ..program import ALEXEYAB, PJREDDIE
from .lines import class_lines
from .outputs import Browser, FrameFiles, JsonFile, JsonPort, Output, VideoFile, Window, close_all
from .servers import LOCAL
from .source import Frames
from .tracks import Tracks

AVERAGED = 3  # frames, in pjreddie's program; AlexeyAB's -avgframes averages none
NMS = {PJREDDIE: 0.4, ALEXEYAB: 0.45}
BEHIND = 4  # frames that wait to be drawn and written
SMOOTHED = 0.9  # of the frames a second, what stays of those before
COUNTED = 3.0  # seconds over which AlexeyAB's program counts frames
WINDOW = "Demo"  # as both programs call it


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
    an IOU of .4. AlexeyAB's takes each frame by itself, stretches it by OpenCV's arithmetic, and suppresses by .45.
    ``hier`` None is .5, which his program takes always. With tiles (:class:`Detector`) a frame is an image as any
    other, and there is no mean. ``live`` looks at one frame at a time, since the next is not there yet.
    """
    network = detector.network
    network.check_images()
    pjreddies = network.program == PJREDDIE
    thresh = detector.thresh if thresh is None else thresh
    hier = HIER if hier is None else hier
    nms = NMS[network.program] if nms is None else nms
    engine, batch = detector.engine(1 if live else MANY)
    device = network.device
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


def classify_frames(
    classifier: Classifier, frames: Iterable[np.ndarray], *, live: bool = False
) -> Iterator[Prediction]:
    """What each frame shows, uint8 (h, w, 3) blue, green, red, in order, as ``classifier demo`` of the network's
    program has it: pjreddie's fits a frame into the network's input, AlexeyAB's stretches it. ``pixels`` are the frame,
    red, green, blue. ``live`` looks at one frame at a time, since the next is not there yet.
    """
    yield from classifier.classify(
        frames, "demo", classifier.finish(), 1 if live else MANY, classes=classifier.names, keep=True, read=_as_rgb
    )


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
    found: Any
    """:class:`Detections`, or :class:`Prediction`, as it was that looked."""
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
    """Frames that the file says it has; None where it does not say, or where it was left before its end."""

    @property
    def whole(self) -> bool:
        """Was that all that the file should hold? One that is cut off ends early, and so does one with gaps in time."""
        return self.expected is None or self.frames >= self.expected


class _Look(NamedTuple):
    """What looks at frames, and what is made of what it finds."""

    found_in: Callable[[Frames], Iterator[Any]]
    drawn: Callable[[Any], np.ndarray]
    """The frame, blue, green, red, with what is found on it."""
    json: Callable[[Any, int], str]


def _detecting(
    detector: Detector, thresh: float | None, hier: float | None, track: bool, draw: bool, fps: float
) -> _Look:
    tracks = Tracks(TEST[detector.network.program].thresh if thresh is None else thresh, fps) if track else None

    def found_in(frames: Frames) -> Iterator[Detections]:
        for found in detect_frames(detector, frames, thresh=thresh, hier=hier, live=frames.live):
            if tracks is None:
                yield found
            else:
                yield tracks.follow(found, time.perf_counter() if frames.live else None)

    def drawn(found: Detections) -> np.ndarray:
        frame = _bgr(found)
        return draw_boxes(frame, found.corners(), found.prob, found.name, True, found.track) if draw else frame

    return _Look(found_in, drawn, frame_json)


def _classifying(classifier: Classifier, top: int, draw: bool) -> _Look:
    def drawn(found: Prediction) -> np.ndarray:
        return draw_lines(_bgr(found), class_lines(found, top)) if draw else _bgr(found)

    return _Look(
        lambda frames: classify_frames(classifier, frames, live=frames.live), drawn,
        lambda found, number: found.frame_json(number, top),
    )  # fmt: skip


def _bgr(found: Detections | Prediction) -> np.ndarray:
    assert found.pixels is not None
    return found.pixels[..., ::-1]


def demo(
    model: Detector | Classifier,
    source: str | os.PathLike[str] | int,
    *,
    thresh: float | None = None,
    hier: float | None = None,
    track: bool = False,
    top: int = 5,
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
    """Detect in each frame of a video file, an address or a camera (its number), or classify each, until it ends.

    Of a detector: ``thresh``, ``hier`` are those of :func:`detect_frames`, and ``track`` numbers the objects
    (:class:`Tracks`). Of a classifier: ``top`` classes are named.
    ``out_filename`` is a video file with the boxes drawn, ``prefix`` the start of the names of an image for each frame,
    ``json_file_output`` AlexeyAB's list of all frames. ``mjpeg_port`` shows the frames to browsers, ``json_port`` sends
    what is found to programs; both at ``host``, this machine alone. ``draw`` False leaves the frames as they are.
    ``time_limit``: seconds after which it ends. ``size`` and ``fps`` are asked of a camera. ``begun`` is called with
    the source before the first frame, ``progress`` with each.

    Raises :class:`DarknetError` in one line; what was written before is whole then.
    """
    with ExitStack() as stack:
        frames = stack.enter_context(Frames(source, size, fps))
        _check_files(frames.source, out_filename, json_file_output)
        look = (
            _detecting(model, thresh, hier, track, draw, frames.fps)
            if isinstance(model, Detector)
            else _classifying(model, top, draw)
        )
        outputs: list[Output] = []
        stack.callback(lambda: close_all(outputs))
        if prefix is not None:
            outputs.append(FrameFiles(prefix, 0 if model.network.program == PJREDDIE else 1))
        if json_file_output is not None:
            outputs.append(JsonFile(json_file_output, look.json))
        if json_port is not None:
            outputs.append(JsonPort(json_port, host, look.json))
        if mjpeg_port is not None:
            outputs.append(Browser(mjpeg_port, host))
        shown_in = Window(WINDOW, full_screen) if window else None
        if shown_in:
            stack.callback(shown_in.close)
        if out_filename is not None:  # after all else that may fail: it writes over a file of its name as it begins
            outputs.append(VideoFile(out_filename, (frames.width, frames.height), frames.fps))
        begun(frames)
        return _run(look, frames, outputs, shown_in, time_limit, progress)


def _check_files(source: str | int, *outputs: str | os.PathLike[str] | None) -> None:
    """Refuse an output that would overwrite what is read, or another output. Raises :class:`VideoError`."""
    taken = {} if isinstance(source, int) else {os.path.realpath(source): "the command reads this file too"}
    for path in outputs:
        if path is not None:
            real = os.path.realpath(path)
            if real in taken:
                raise VideoError(f"{os.fspath(path)}: {taken[real]}, and would overwrite it")
            taken[real] = "another output has this name too"


def _run(
    look: _Look, frames: Frames, outputs: Sequence[Output], window: Window | None, time_limit: float | None,
    progress: Callable[[Shown], None],
) -> Watched:  # fmt: skip
    drawn_by_others = any(not isinstance(output, (JsonFile, JsonPort)) for output in outputs)

    def write(number: int, found: Any) -> np.ndarray | None:
        drawn = look.drawn(found) if window or drawn_by_others else None
        for output in outputs:
            output.add(number, drawn, found)
        return drawn

    def finish(waiting: deque[tuple[int, Any, Future[np.ndarray | None]]]) -> None:
        number, found, future = waiting.popleft()
        drawn = future.result()
        if window:
            window.add(number, drawn, found)

    start = before = window_start = time.perf_counter()
    fps = average = 0.0
    number = counted = 0
    expected = frames.count
    waiting: deque[tuple[int, Any, Future[np.ndarray | None]]] = deque()
    with ThreadPoolExecutor(1) as writer:
        for number, found in enumerate(look.found_in(frames), 1):
            waiting.append((number, found, writer.submit(write, number, found)))
            while len(waiting) > BEHIND:
                finish(waiting)
            now = time.perf_counter()
            fps = SMOOTHED * fps + (1 - SMOOTHED) / max(now - before, 1e-9)
            before, counted = now, counted + 1
            if now - window_start >= COUNTED:
                average, counted, window_start = counted / (now - window_start), 0, now
            progress(Shown(number, found, fps, average))
            if (window and window.closed) or (time_limit is not None and now - start > time_limit):
                expected = None
                break
        while waiting:
            finish(waiting)
    return Watched(number, time.perf_counter() - start, expected)
