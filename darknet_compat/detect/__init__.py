"""From images to detections, and from detections to drawings and result files."""

from .detections import Detections, detect
from .many import detect_files

__all__ = ["Detections", "detect", "detect_files"]
