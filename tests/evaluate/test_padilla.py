"""One text file per image: what is written reads back equal."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_compat.errors import ResultsError
from darknet_compat.evaluate.annotations import read_voc
from darknet_compat.evaluate.padilla import read_padilla, write_padilla
from darknet_compat.evaluate.results import Detections, read_comp4
from darknet_compat.evaluate.voc import score

NAMES = ["cat", "dining table"]


@pytest.fixture
def detections():
    rng = np.random.default_rng(0)
    return Detections(
        names=NAMES,
        images=["one", "two", "three"],
        image=np.array([0, 2, 0, 0]),
        class_id=np.array([0, 0, 1, 1]),
        prob=rng.random(4),
        box=rng.normal(0, 100, (4, 4)),
        missing=[],
        absent=[],
    )


def test_written_files_read_back_equal(detections, tmp_path):
    write_padilla(detections, tmp_path / "out")
    assert (tmp_path / "out" / "two.txt").read_text() == ""
    first = (tmp_path / "out" / "one.txt").read_text().splitlines()[1]
    assert first.startswith(f"dining_table {detections.prob[2]} ")
    back = read_padilla(tmp_path / "out", NAMES, detections.images)
    for name in ("image", "class_id", "prob", "box"):
        assert np.array_equal(getattr(back, name), getattr(detections, name))
    assert back.missing == []


def test_class_names_with_blanks_are_read_as_other_tools_write_them(tmp_path):
    (tmp_path / "one.txt").write_text("dining table 0.5 1 2 3 4\n")
    found = read_padilla(tmp_path, NAMES, ["one", "two"])
    assert found.class_id.tolist() == [1]
    assert found.missing == [tmp_path / "two.txt"]


@pytest.mark.slow
def test_real_detections_score_the_same_after_a_round_trip(detected, tmp_path):
    truths = read_voc(detected.devkit, 2007, "test", detected.names)
    detections = read_comp4(detected.results, detected.names, truths.images)
    write_padilla(detections, tmp_path / "out")
    back = read_padilla(tmp_path / "out", detected.names, truths.images)
    for one, other in zip(score(truths, detections).classes, score(truths, back).classes, strict=True):
        assert one.ap == other.ap


@pytest.mark.parametrize(
    ("name", "line", "word"),
    [
        ("one", "cat 0.5 1 2 3", r"one\.txt:1: .*5 fields; expected six"),
        ("one", "cow 0.5 1 2 3 4", r"one\.txt:1: .*class 'cow' is none of the 2 names"),
        ("one", "cat 0.5 1 2 3 nan", r"one\.txt:1: .*'nan' is not finite"),
        ("four", "cat 0.5 1 2 3 4", r"four\.txt: image four is not in the image set"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, line, word):
    (tmp_path / f"{name}.txt").write_text(f"{line}\n")
    with pytest.raises(ResultsError, match=word):
        read_padilla(tmp_path, NAMES, ["one", "two"])


def test_of_several_files_of_no_image_the_first_is_named(tmp_path):
    for name in ("z", "one", "a"):
        (tmp_path / f"{name}.txt").touch()
    with pytest.raises(ResultsError, match=r"/a\.txt: image a is not in the image set"):
        read_padilla(tmp_path, NAMES, ["one"])


def test_a_folder_may_be_empty_or_lie_in_none_yet(detections, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b" / "new"):
        write_padilla(detections, folder)
        assert sorted(path.name for path in folder.iterdir()) == ["one.txt", "three.txt", "two.txt"]
        assert [path.name for path in folder.parent.iterdir() if path.name[0] == "."] == []
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"file/out: cannot write: (File exists|Not a directory)"):
        write_padilla(detections, tmp_path / "file" / "out")


def test_blank_lines_count_and_classes_come_out_in_their_order(tmp_path):
    (tmp_path / "one.txt").write_text("dining_table 0.5 1 2 3 4\n\ncat 0.25 5 6 7 8\ndining table 0.125 1 2 3 4\n")
    found = read_padilla(tmp_path, NAMES, ["two", "one"])
    assert (found.class_id.tolist(), found.prob.tolist()) == ([0, 1, 1], [0.25, 0.5, 0.125])
    assert (found.image.tolist(), found.box[0].tolist()) == ([1, 1, 1], [5, 6, 7, 8])
    assert (found.missing, found.absent) == ([tmp_path / "two.txt"], [])
    (tmp_path / "one.txt").write_text("\n\ncat\n")
    with pytest.raises(ResultsError, match=r"one\.txt:3: 'cat': 1 fields; expected six"):
        read_padilla(tmp_path, NAMES, ["one"])


def test_folders_of_no_use_are_named(detections, tmp_path):
    with pytest.raises(ResultsError, match=r"no such folder; expected text files like one\.txt"):
        read_padilla(tmp_path / "nowhere", NAMES, ["one", "two"])
    with pytest.raises(ResultsError, match=r"no text files in it; expected one per image, like one\.txt"):
        read_padilla(tmp_path, NAMES, ["one", "two"])
    (tmp_path / "old.txt").touch()
    with pytest.raises(ResultsError, match="not empty; expected a new folder"):
        write_padilla(detections, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
