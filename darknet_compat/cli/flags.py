"""The flags of the two C programs: how many words each takes, and which mean nothing here.

Both programs take a flag off the command line wherever it stands, and every verb of a family takes every flag of it
(``src/utils.c, find_arg, find_int_arg``), so that command lines carry flags which do nothing there either. Source:
``run_detector``, ``run_yolo``, ``run_classifier``, ``run_char_rnn`` and ``main`` of both.
"""

from __future__ import annotations

from typing import NamedTuple


class Flag(NamedTuple):
    """``words``: that follow it. ``what`` it does in a C program, for the line that says it does nothing here; ""
    where that is no news."""

    words: int
    what: str


OF_MANY = "it is for training, and for verbs that look at many images"
OF_TEST, OF_TRAIN, OF_MAP = "it is for the verb test", "it is for training", "it is for the verb map"
OF_ANCHORS, OF_DETECTION = "it is for the verb calc_anchors", "this verb has it fixed"
FRAMES, CAMERA, BROWSER = "it is for videos", "it chooses a camera", "it shows images in a browser"

MAIN = {"i": Flag(1, "it chooses a GPU"), "nogpu": Flag(0, "")}
_VIDEO = {
    "c": Flag(1, CAMERA), "s": Flag(1, FRAMES), "prefix": Flag(1, FRAMES), "out_filename": Flag(1, FRAMES),
    "json_port": Flag(1, FRAMES), "json_file_output": Flag(1, FRAMES), "mjpeg_port": Flag(1, BROWSER),
    "dont_show": Flag(0, ""),  # no window opens here
    "ext_output": Flag(0, OF_TEST), "thresh": Flag(1, OF_DETECTION), "hier": Flag(1, OF_DETECTION),
    "avg": Flag(1, FRAMES),
}  # fmt: skip
FAMILIES: dict[str, dict[str, Flag]] = {
    "detector": {
        **MAIN, **_VIDEO,
        "benchmark": Flag(0, "it times a video"), "benchmark_layers": Flag(0, "it times each layer"),
        "show": Flag(0, OF_ANCHORS), "letter_box": Flag(0, OF_DETECTION), "map": Flag(0, OF_TRAIN),
        "points": Flag(1, OF_MAP), "show_imgs": Flag(0, "it shows training images"), "avgframes": Flag(1, FRAMES),
        "dontdraw_bbox": Flag(0, FRAMES), "http_post_host": Flag(1, FRAMES), "time_limit_sec": Flag(1, FRAMES),
        "out": Flag(1, "this verb writes no such file"), "iou_thresh": Flag(1, "it is for the verbs map and train"),
        "num_of_clusters": Flag(1, OF_ANCHORS), "width": Flag(1, OF_ANCHORS), "height": Flag(1, OF_ANCHORS),
        "save_labels": Flag(0, OF_TEST), "mAP_epochs": Flag(1, OF_TRAIN), "gpus": Flag(1, OF_MANY),
        "chart": Flag(1, "the chart is drawn from NAME.csv, which a resumed training goes on with"),
        "clear": Flag(0, OF_TRAIN), "fullscreen": Flag(0, "no window opens"), "w": Flag(1, CAMERA),
        "fps": Flag(1, CAMERA),
    },
    "yolo": {**MAIN, **_VIDEO},
    "classifier": {
        **MAIN,
        "c": Flag(1, CAMERA), "t": Flag(1, "it is for the verb predict"), "gpus": Flag(1, OF_MANY),
        "clear": Flag(0, OF_TRAIN), "mjpeg_port": Flag(1, BROWSER), "dont_show": Flag(0, ""),
        "benchmark": Flag(0, "it times a video"), "benchmark_layers": Flag(0, "it times a video"),
        "dontuse_opencv": Flag(0, "one loader serves all"), "show_imgs": Flag(0, "it shows training images"),
        "topk": Flag(0, OF_TRAIN),
        "chart": Flag(1, "the chart is drawn from NAME.csv, which a resumed training goes on with"),
    },
    "rnn": {
        **MAIN,
        "file": Flag(1, OF_TRAIN), "seed": Flag(1, "this verb reads no seed"),
        "len": Flag(1, "it is for the verbs that write"), "temp": Flag(1, "it is for the verbs that write"),
        "srand": Flag(1, "nothing is drawn"), "clear": Flag(0, OF_TRAIN), "tokenized": Flag(0, OF_TRAIN),
        "tokens": Flag(1, "it is for the verbs that write"),
    },
}  # fmt: skip
FAMILIES["detect"] = FAMILIES["detector"]
FAMILIES["classify"] = FAMILIES["classifier"]

WORDS = {name: flag.words for family in FAMILIES.values() for name, flag in family.items()}
"""Of every flag, for those that stand before the verb."""

ALEXEYABS = frozenset({
    "dont_show", "ext_output", "save_labels", "benchmark", "benchmark_layers", "show_imgs", "avgframes", "mjpeg_port",
    "dontdraw_bbox", "json_port", "http_post_host", "time_limit_sec", "out_filename", "json_file_output", "chart",
})  # fmt: skip
"""Those of ``detector`` and ``detect`` that AlexeyAB's program alone has: where neither the cfg nor -program says whose
program is meant, they do. Not among them are those that verbs here have for networks of both: -letter_box, -map,
-mAP_epochs, -points, -iou_thresh and those of calc_anchors."""
