"""Video: detections frame after frame, to a window, files and ports."""

from .run import Shown, Watched, demo, detect_frames
from .source import Frames

__all__ = ["Frames", "Shown", "Watched", "demo", "detect_frames"]
