"""The verbs ``yolo ...``: those of ``detector`` as the C program has them for YOLOv1's networks.

Source: ``examples/yolo.c``. Names and lists come from a .data file, and not from paths of its author. Where the words
begin with the .cfg, as there, it is cfg/voc.data: both programs have VOC's names, and their author's lists of VOC.
"""

from __future__ import annotations

from typing import Any

from .arguments import EXAMPLE


def add(verbs: Any) -> None:
    """Make ``yolo`` and its verbs known to the command line."""
    from . import detector, train, valid, video

    parser = verbs.add_parser("yolo", help="detect, train and validate with a network of YOLOv1")
    parser.set_defaults(verbs="yolo")
    yolo = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))
    detector.add_test(yolo, f"cfg/voc.data {EXAMPLE['yolo']}", "default .2", "default .4")
    valid.add_valid(yolo, "yolo", "one comp4 file per class, pixels counted from 0")
    valid.add_recall(yolo, "yolo", "Images are stretched and no box is suppressed")
    video.add(yolo, "yolo", "default .2")
    train.add(yolo, "cfg/voc.data cfg/yolov1.cfg extraction.conv.weights")
    for parser in yolo.choices.values():
        parser.stands_for_data = "cfg/voc.data"
