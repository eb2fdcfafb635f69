"""The verbs ``demo``: a network over a video, a stream or a camera."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..output import complain
from .arguments import (
    BATCH,
    EXAMPLE,
    above_0,
    add_letter_box,
    add_network,
    add_tiles,
    add_top,
    count,
    end_by_signal,
    fraction,
    load,
    load_classifier,
    positive,
)

if TYPE_CHECKING:
    from ..classify.classifier import DataClassifier
    from ..detect.detector import DataDetector
    from ..video import Frames, Shown, Watched


def add(verbs: Any, family: str, thresh: str) -> None:
    """Make the verb known to a family of verbs that detect; ``thresh`` says what its default is."""
    parser, flag = _add(verbs, "detect", "the detections", f"cfg/voc.data {EXAMPLE[family]}")
    add_letter_box(parser)
    add_tiles(parser)
    flag("thresh", type=fraction, help=f"lowest probability shown ({thresh})")
    if family == "detector":  # YOLOv1 has no tree
        flag("hier", type=fraction,
             help="with a tree of classes: name a subclass only above this probability (default .5; AlexeyAB's "
             "Darknet always uses .5)")  # fmt: skip
    flag("track", action="store_true", help="number the objects: each keeps its number from frame to frame")
    flag("ext_output", action="store_true", help="print boxes too")
    flag("dontdraw_bbox", action="store_true", help="draw no boxes")
    parser.set_defaults(run=demo, **({} if family == "detector" else {"hier": None}))


def add_classifier(verbs: Any, example: str, batch: int) -> None:
    """Make the verb known to those that classify."""
    parser, _ = _add(verbs, "classify", "the likeliest classes", example, batch)
    add_top(parser)
    parser.set_defaults(run=classify)


def _add(
    verbs: Any, what: str, prints: str, example: str, batch: int = BATCH
) -> tuple[argparse.ArgumentParser, Callable[..., None]]:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "demo",
        help=f"{what} in a video, a stream or a camera's images",
        description=f"{what.capitalize()} in each frame of FILE, a video or an address that FFmpeg reads, or of a "
        f"camera, and print {prints}. Reading, the network and writing run at the same time; frames of a live source "
        "that come too fast are dropped. Escape in the window, or Ctrl-C, ends it; the files written are complete.",
        epilog=f"example: %(prog)s {example} street.mp4 -out_filename found.avi -dont_show",
        allow_abbrev=False,
    )
    add_network(parser, batch=batch)

    def flag(name: str, **options: Any) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **options)

    parser.add_argument("file", metavar="FILE", nargs="?", help="a video, or an address (default: a camera)")
    flag("c", type=count, default=0, metavar="N", help="which camera (default 0)")
    flag("w", type=positive, metavar="N", help="ask the camera for this width")
    flag("fps", type=positive, metavar="N", help="ask the camera for this many frames per second")
    flag("out_filename", metavar="FILE", help="write a video with the results drawn on it: .avi, .mkv, .mp4 ...")
    flag("prefix", metavar="NAME", help="write an image for each frame: NAME_00000001.jpg ...; no window")
    flag("json_file_output", metavar="FILE", help="write the results of all frames as one JSON list")
    flag("json_port", type=_port, metavar="PORT", help="serve the results as JSON over HTTP")
    flag("mjpeg_port", type=_port, metavar="PORT", help="serve the frames, with the results drawn on them, to browsers")
    flag("host", default="127.0.0.1", help="address of the two ports (default %(default)s; 0.0.0.0: for everybody)")
    flag("dont_show", action="store_true", help="open no window")
    flag("fullscreen", action="store_true", help="the window is as large as the screen")
    flag("time_limit_sec", type=above_0, metavar="N", help="end after N seconds")
    return parser, flag


def _port(text: str) -> int | None:
    """As in AlexeyAB's program no number over 0 is no port."""
    port = int(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 65535")
    return port if port > 0 else None


def demo(options: argparse.Namespace) -> int:
    """``src/demo.c, demo``. 1 where a file is cut off."""
    from ..program import PJREDDIE

    detector = load(options)
    print("Demo")

    def begin(frames: Frames) -> None:
        if not isinstance(frames.source, int):
            print(f"video file: {frames.source}")
        _print_stream(frames, detector.network.program)

    watched = _watch(
        detector, options, thresh=options.thresh, hier=options.hier, track=options.track,
        draw=not options.dontdraw_bbox, begun=begin,
        progress=lambda shown: _print(shown, detector, options),
    )  # fmt: skip
    if detector.network.program != PJREDDIE:
        print("input video stream closed. ")
        if options.out_filename is not None:
            print("output_video_writer closed. ")
    return _end(watched, options)


def classify(options: argparse.Namespace) -> int:
    """``demo_classifier``. 1 where a file is cut off."""
    from ..video.lines import classified_lines

    classifier = load_classifier(options)
    top, program = options.top or classifier.top, classifier.network.program
    print("Classifier Demo")

    def show(shown: Shown) -> None:
        print(classified_lines(shown.found, top, program, shown.fps), end="", flush=True)

    return _end(
        _watch(classifier, options, top=top, begun=lambda frames: _print_stream(frames, program), progress=show),
        options,
    )


def _watch(model: DataDetector | DataClassifier, options: argparse.Namespace, **more: Any) -> Watched:
    from ..video import demo as run

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # Windows has no SIGHUP
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, end_by_signal)
    window = not options.dont_show and options.prefix is None
    if window and sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        complain(f"{options.command}: there is no display for a window; use -dont_show")
        window = False
    return run(
        model, options.c if options.file is None else options.file, out_filename=options.out_filename,
        prefix=options.prefix, json_file_output=options.json_file_output, json_port=options.json_port,
        mjpeg_port=options.mjpeg_port, host=options.host, window=window, full_screen=options.fullscreen,
        time_limit=options.time_limit_sec, size=(options.w, options.w) if options.w else None, fps=options.fps, **more,
    )  # fmt: skip


def _end(watched: Watched, options: argparse.Namespace) -> int:
    from ..video.source import is_cut_off

    rate = watched.frames / watched.seconds
    print(f"{watched.frames} frames in {watched.seconds:.1f} s, {rate:.1f} a second", file=sys.stderr)
    if watched.whole:
        return 0
    ends = f"{options.file}: it ends after {watched.frames} of {watched.expected} frames"
    if is_cut_off(options.file):
        complain(f"{options.command}: {ends}; the file is cut off")
        return 1
    # Many a whole file says too many: one with gaps in time, or with sound that is longer.
    complain(f"warning: {ends}; it is damaged, or that number an estimate")
    return 0


def _print_stream(frames: Frames, program: str) -> None:
    """What AlexeyAB's program says of a source; pjreddie's says nothing."""
    from ..program import PJREDDIE

    if program == PJREDDIE:
        return
    if isinstance(frames.source, int):
        print(f"Webcam index: {frames.source}")
    print(f"Video stream: {frames.width} x {frames.height} ")


def _print(shown: Shown, detector: DataDetector, options: argparse.Namespace) -> None:
    from ..video.lines import frame_lines

    # With -prefix pjreddie's program counts no time.
    fps = 0.0 if options.prefix is not None else shown.fps
    program, writes = detector.network.program, options.out_filename is not None
    print(frame_lines(shown.found, program, fps, shown.average_fps, options.ext_output, writes), end="", flush=True)
