"""COCO's average precision and recall of a results JSON, through faster-coco-eval (the extra ``coco``).

The figures are pycocotools' own; docs/scores.md says why the other library computes them.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

from ..errors import DarknetError, ResultsError
from ..files import regular_file

# The order of COCOeval's stats, and what it prints of each.
STATS = {
    "AP": "IOU .50:.95, all sizes, 100 per image",
    "AP50": "IOU .50",
    "AP75": "IOU .75",
    "AP_small": "truths under 32x32 pixels",
    "AP_medium": "32x32 to 96x96",
    "AP_large": "over 96x96",
    "AR_1": "1 detection per image",
    "AR_10": "10 per image",
    "AR_100": "100 per image",
    "AR_small": "truths under 32x32 pixels",
    "AR_medium": "32x32 to 96x96",
    "AR_large": "over 96x96",
}


def coco_scores(results: str | os.PathLike[str], annotations: str | os.PathLike[str]) -> dict[str, float | None]:
    """COCO's twelve figures, 0..1, under the names of STATS; None where there is nothing to score (no small truth).

    ``results``: a list of ``{image_id, category_id, bbox: [x, y, w, h], score}``, as ``detector valid`` writes it with
    ``eval=coco``. ``annotations``: COCO's instances JSON. Raises ResultsError, with the line or the entry.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise DarknetError("COCO scoring needs faster-coco-eval: pip install 'darknet-compat[coco]'") from None

    truth = _read_json(annotations)
    if not isinstance(truth, dict) or not all(
        isinstance(truth.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise ResultsError(f"{annotations}: no COCO annotations; expected the lists images, annotations and categories")
    found = _read_json(results)
    try:
        images = {image["id"] for image in truth["images"]}
        categories = {category["id"] for category in truth["categories"]}
        check_results(found, results, images, categories)
        # The library asks for keys that are right to be missing where there are boxes only.
        truth = {"info": {}, **truth}
        dataset = COCO(truth)
        evaluation = COCOeval_faster(dataset, dataset.loadRes(found), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    except (LookupError, TypeError, ValueError) as error:
        raise ResultsError(f"{annotations}: not as COCO writes annotations: {type(error).__name__} {error}") from None
    values = [float(value) for value in evaluation.stats[: len(STATS)]]
    return {name: value if value >= 0 else None for name, value in zip(STATS, values, strict=True)}


def check_results(found: Any, path: str | os.PathLike[str], images: set[int], categories: set[int]) -> None:
    """Raise ResultsError, naming the entry, unless ``found`` is a list of sound detections of these images."""
    if not isinstance(found, list):
        raise ResultsError(f"{path}: expected a list of detections, found {type(found).__name__}")
    for number, entry in enumerate(found):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise ResultsError(f"{where}: expected an object with image_id, category_id, bbox and score")
        missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in entry]
        if missing:
            raise ResultsError(f"{where}: no {missing[0]!r}; expected image_id, category_id, bbox and score")
        box = entry["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, [*box, entry["score"]])):
            raise ResultsError(f"{where}: bbox {box}, score {entry['score']}; expected [x, y, w, h] and a number")
        if not isinstance(entry["image_id"], int) or entry["image_id"] not in images:
            raise ResultsError(f"{where}: image_id {entry['image_id']} is not among the {len(images)} annotated images")
        if not isinstance(entry["category_id"], int) or entry["category_id"] not in categories:
            raise ResultsError(
                f"{where}: category_id {entry['category_id']} is none of the {len(categories)} categories; "
                "COCO's ids run to 90 with gaps"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _read_json(path: str | os.PathLike[str]) -> Any:
    try:
        with regular_file(path) as file:
            return json.loads(file.read())
    except OSError as error:
        raise ResultsError(f"{path}: cannot read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path}:{error.lineno}: not JSON at column {error.colno}: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError):
        raise ResultsError(f"{path}: not JSON text") from None


def format_coco(scores: dict[str, float | None]) -> str:
    """The twelve figures as text, one per line."""
    return "\n".join(
        f"{name:<10} {'     -' if scores[name] is None else f'{scores[name]:.4f}'}  {meaning}"
        for name, meaning in STATS.items()
    )
