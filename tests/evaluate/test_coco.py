"""COCO's figures against pycocotools on random detections."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os

import numpy as np
import pytest

from darknet_compat.errors import DarknetError, ResultsError
from darknet_compat.evaluate.coco import STATS, coco_scores, format_coco
from tests.hostile import no_longer_than

pytest.importorskip("faster_coco_eval", reason="needs the extra coco: pip install 'darknet_compat[coco]'")


def test_a_pipe_in_the_place_of_a_file_is_no_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResultsError, match="pipe: cannot read: a device or a pipe"), no_longer_than(20):
        coco_scores(tmp_path / "pipe", tmp_path / "pipe")


def made_set(seed, count=12, categories=(1, 3, 90)):
    """Random truths of all sizes, some of them crowds, and detections near them and anywhere."""
    rng = np.random.default_rng(seed)
    images = [{"id": 100 + number, "width": 640, "height": 480} for number in range(count)]
    annotations, results = [], []
    for image in images:
        for _ in range(rng.integers(0, 12)):
            side = rng.choice([12, 60, 200])
            box = np.concatenate((rng.random(2) * (400, 250), side * (0.7 + rng.random(2))))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice(categories)),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 4)):
                near = box + rng.normal(0, 0.1, 4) * box[2]
                results.append((image["id"], annotations[-1]["category_id"], near, rng.random()))
        for _ in range(rng.integers(0, 130)):
            anywhere = np.concatenate((rng.random(2) * 400, 5 + rng.random(2) * 200))
            results.append((image["id"], int(rng.choice(categories)), anywhere, round(rng.random(), 1)))
    truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in categories],
    }
    return truth, [
        {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": float(score)}
        for image, category, box, score in results
    ]


@pytest.fixture
def files(tmp_path):
    def write(truth, results):
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "results.json").write_text(results if isinstance(results, str) else json.dumps(results))
        return tmp_path / "results.json", tmp_path / "truth.json"

    return write


@pytest.mark.parametrize("seed", range(6))
def test_the_twelve_figures_are_pycocotools(files, seed):
    pycocotools = pytest.importorskip("pycocotools.coco", reason="needs pycocotools: pip install pycocotools")
    from pycocotools.cocoeval import COCOeval

    results, truth = files(*made_set(seed))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = pycocotools.COCO(truth)
        dataset.dataset["info"] = {}
        evaluation = COCOeval(dataset, dataset.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = coco_scores(results, truth)
    assert list(scores) == list(STATS)
    assert list(scores.values()) == pytest.approx(evaluation.stats.tolist(), abs=1e-12)


def test_no_detections_score_zero_and_what_cannot_be_scored_is_none(files):
    truth, _ = made_set(0)
    truth["annotations"] = [one for one in truth["annotations"] if one["area"] > 96**2]
    scores = coco_scores(*files(truth, []))
    assert scores["AP"] == 0
    assert scores["AP_small"] is None
    assert "AP_small        -  truths under" in format_coco(scores)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image_id": 7}, "entry 1: image_id 7 is not among the 12 annotated images"),
        ({"category_id": 2}, "entry 1: category_id 2 is none of the 3 categories"),
        ({"bbox": [1, 2, 3]}, r"entry 1: bbox \[1, 2, 3\]"),
        ({"score": float("nan")}, "entry 1: .*score nan"),
        ({"score": "1"}, "entry 1: .*score 1; expected"),
        ({"bbox": [1, 2, 3, "4"]}, r"entry 1: bbox \[1, 2, 3, '4'\]"),
        ({"bbox": "wide"}, "entry 1: bbox wide"),
        ({"category_id": []}, r"entry 1: category_id \[\] is none of the 3 categories"),
        ({"image_id": []}, r"entry 1: image_id \[\] is not among"),
    ],
)
def test_a_bad_entry_is_named(files, change, word):
    truth, results = made_set(1)
    results[1] |= change
    with pytest.raises(ResultsError, match=word):
        coco_scores(*files(truth, results))


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_key_that_is_missing_is_named(files, key):
    truth, results = made_set(1)
    del results[2][key]
    with pytest.raises(ResultsError, match=f"entry 2: no '{key}'; expected image_id, category_id, bbox and score"):
        coco_scores(*files(truth, results))


def test_the_lines_of_the_figures():
    lines = format_coco(dict.fromkeys(STATS, 0.25) | {"AP": 0.5, "AR_small": None}).splitlines()
    assert lines[0] == "AP         0.5000  IOU .50:.95, all sizes, 100 per image"
    assert lines[9] == "AR_small        -  truths under 32x32 pixels"
    assert len(lines) == 12


@pytest.mark.parametrize("data", [b"\xff", b"[\xff]"])
def test_a_result_of_other_bytes_is_named(files, data):
    results, truth = files(made_set(1)[0], [])
    results.write_bytes(data)
    with pytest.raises(ResultsError, match="not JSON"):
        coco_scores(results, truth)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", r"results\.json:1: not JSON"),
        ('[\n{"image_id": 1,\n', r"results\.json:3: not JSON"),
        ("{}", "expected a list of detections, found dict"),
        ("[3]", "entry 0: expected an object"),
        ('[{"image_id": 100}]', "entry 0: no 'category_id'"),
        ("[" * 100000, "not JSON text"),
    ],
)
def test_a_file_that_is_no_result_is_named(files, text, word):
    with pytest.raises(ResultsError, match=word) as error:
        coco_scores(*files(made_set(1)[0], text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_annotations_without_one_of_the_lists_are_named(files, key):
    truth, results = made_set(0)
    for other in (None, {}):
        with pytest.raises(ResultsError, match=r"truth\.json: no COCO annotations; expected the lists"):
            coco_scores(*files(truth | {key: other}, results))


def test_annotations_of_another_kind_are_named(files, tmp_path):
    results, _ = files({}, [])
    with pytest.raises(ResultsError, match=r"truth\.json: no COCO annotations"):
        coco_scores(results, tmp_path / "truth.json")
    truth, _ = made_set(0)
    del truth["images"][0]["id"]
    results, path = files(truth, [])
    with pytest.raises(ResultsError, match=r"truth\.json: not as COCO writes annotations: KeyError 'id'"):
        coco_scores(results, path)
    truth, found = made_set(0)
    truth["annotations"][0]["bbox"] = "wide"
    with pytest.raises(ResultsError, match=r"truth\.json: not as COCO writes annotations"):
        coco_scores(*files(truth, found))
    with pytest.raises(ResultsError, match=r"nowhere\.json: cannot read: No such file"):
        coco_scores(tmp_path / "nowhere.json", path)


def test_without_the_extra_the_line_says_what_to_install(files, monkeypatch):
    plain = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("faster_coco_eval"):
            raise ImportError(name)
        return plain(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DarknetError, match=r"pip install 'darknet-compat\[coco\]'"):
        coco_scores(*files(*made_set(0)))
