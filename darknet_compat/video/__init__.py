"""Video: detections or classes frame after frame, to a window, files and ports."""

from .run import Shown, Watched, classify_frames, demo, detect_frames
from .source import Frames

__all__ = ["Frames", "Shown", "Watched", "classify_frames", "demo", "detect_frames"]
