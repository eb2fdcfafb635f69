"""One number for the boxes of an object in all frames in which it is seen.

By ByteTrack (Zhang and others, 2022) of the package trackers: the boxes of a frame are matched with where those of the
frames before should be by now. Neither C program's demo has it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..detect.detections import Detections
from ..errors import ExportError

NO_TRACK = -1


class Tracks:
    """The objects of one video. ``thresh``: boxes of so sure a class can begin a new one. ``fps``: frames a second,
    since an object that is not seen is remembered for a second.

    Raises :class:`ExportError` where the package is missing.
    """

    def __init__(self, thresh: float, fps: float) -> None:
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ModuleNotFoundError as error:
            raise ExportError(f"-track needs the package {error.name}: pip install '.[track]'") from None
        # Every box that is shown is one to follow: there is no second kind of less sure ones.
        self._tracker = ByteTrackTracker(
            frame_rate=fps, track_activation_threshold=thresh, high_conf_det_threshold=thresh
        )
        self._boxes = supervision.Detections

    def follow(self, found: Detections, seconds: float | None = None) -> Detections:
        """The detections of the next frame with their ``track_ids``; an object has its number from its second frame on.

        ``seconds``: when the frame was taken; None is one frame after the last.
        """
        rows = np.flatnonzero(found.prob.any(1))
        scores = found.prob[rows].max(1)
        boxes = self._boxes(found.corners()[rows], confidence=scores, data={"row": rows})
        followed = self._tracker.update(boxes, timestamp=seconds)
        track_ids = np.full(len(found.prob), NO_TRACK)
        if len(followed):
            track_ids[followed.data["row"]] = followed.tracker_id
        return replace(found, track_ids=track_ids)
