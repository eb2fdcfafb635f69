"""Result files: what is read, and the one line that says what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_compat.errors import ResultsError
from darknet_compat.evaluate import results
from darknet_compat.evaluate.results import comp4_ids, read_class_file, read_comp4
from tests.evaluate.conftest import write_results

INDEX = {"one": 0, "two": 1}


def read(tmp_path, text):
    path = tmp_path / "comp4_det_test_cat.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_file(path, INDEX)


@pytest.mark.parametrize(
    "text",
    [
        "one 0.5 1 2 3 4\ntwo 1e-3 -1.5 2 3 4\n",
        "one 0.5 1 2 3 4\r\ntwo 1e-3 -1.5 2 3 4\r\n",
        "one  0.5\t1 2 3 4 \n\n   two 1e-3 -1.5 2 3 4",
    ],
)
def test_any_blanks_read_the_same(tmp_path, text):
    image, numbers = read(tmp_path, text)
    assert image.tolist() == [0, 1]
    assert numbers.tolist() == [[0.5, 1, 2, 3, 4], [0.001, -1.5, 2, 3, 4]]


def test_an_id_may_hold_blanks(tmp_path):
    """Darknet writes it as it is; the five numbers are found from the right."""
    rows = ["my photo 1 0.5 1 2 3 4", "my  photo 0.4 1 2 3 4", "one 0.3 1 2 3 4", "写真　一 0.2 1 2 3 4"]
    folder = write_results(tmp_path, {"cat": rows})
    images = ["my photo 1", "my  photo", "one", "写真　一"]
    found = read_comp4(folder, ["cat"], images)
    assert [images[image] for image in found.image] == images
    assert found.prob.tolist() == [0.5, 0.4, 0.3, 0.2]
    assert comp4_ids(folder, ["cat"]) == sorted(images)


def test_ids_of_a_devkit_are_found_up_to_their_first_dot_too(tmp_path):
    """``valid`` writes x_jpg for x_jpg.rf.abc.jpg; the devkit's image set says x_jpg.rf.abc."""
    folder = write_results(tmp_path, {"cat": ["x_jpg 0.5 1 2 3 4", "y_jpg.rf.1 0.4 1 2 3 4"]})
    images = ["x_jpg.rf.abc", "y_jpg.rf.1", "y_jpg.rf.2"]
    assert read_comp4(folder, ["cat"], images).image.tolist() == [0, 1]
    write_results(tmp_path, {"cat": ["y_jpg 0.5 1 2 3 4"]})
    with pytest.raises(ResultsError, match="image y_jpg is not in the image set"):
        read_comp4(folder, ["cat"], images)


def test_an_empty_file_is_a_class_without_detections(tmp_path):
    image, numbers = read(tmp_path, "")
    assert image.shape == (0,)
    assert numbers.shape == (0, 5)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("one 0.5 1 2 3", "5 fields; expected six"),
        ("one 0.5 1 2 3 4 5", "image one 0.5 is not in the image set"),
        ("one 0.5 1 2 3 x", "'x' is no number"),
        ("one nan 1 2 3 4", "'nan' is not finite"),
        ("one 0.5 1 2 3 inf", "'inf' is not finite"),
        ("three 0.5 1 2 3 4", "image three is not in the image set"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path, line, word):
    with pytest.raises(ResultsError) as error:
        read(tmp_path, f"one 0.5 1 2 3 4\n{line}\ntwo 0.5 1 2 3 4\n")
    message = str(error.value)
    assert word in message
    assert "comp4_det_test_cat.txt:2: " in message
    assert "\n" not in message


def test_a_short_and_a_long_line_do_not_make_up_for_each_other(tmp_path):
    with pytest.raises(ResultsError, match=r":1: .*5 fields"):
        read(tmp_path, "one 0.5 1 2 3\none 0.5 1 2 3 4 5\n")


@pytest.mark.parametrize("lines", [1, 5, 6])
def test_short_lines_with_two_blanks_are_not_read_across_their_ends(tmp_path, lines):
    """Where ids are numbers: six lines of five fields are five of six, and have the blanks of six."""
    (tmp_path / "comp4_det_test_cat.txt").write_text("1  1 1 1 1\n" * lines)
    with pytest.raises(ResultsError, match=r":1: .*5 fields"):
        read_comp4(tmp_path, ["cat"], ["1"])
    (tmp_path / "comp4_det_test_cat.txt").write_text("1 1 1 1 1\n" * lines)
    with pytest.raises(ResultsError, match=r":1: .*5 fields"):
        read_comp4(tmp_path, ["cat"], ["1"])


@pytest.mark.parametrize(
    "text",
    [
        *("1 1 1 1 1 1\n".replace(" ", "\n", count) for count in range(1, 6)),
        "1 1 1 1 1\n1\n",
        "1 1 1 1 1 1 1 1 1 1 1 1\n",
    ],
)
def test_six_fields_that_are_no_line_are_no_detection(tmp_path, text):
    """Where ids are numbers only the line ends tell them from the rest."""
    (tmp_path / "comp4_det_test_cat.txt").write_text(text)
    with pytest.raises(ResultsError, match=r"_cat\.txt:1: "):
        read_comp4(tmp_path, ["cat"], ["1"])


def test_what_darknet_writes_is_read_without_a_list_for_each_line(tmp_path, monkeypatch):
    """A quarter of a million lines in a fifth of a second."""
    monkeypatch.setattr(results, "_read_by_line", None)
    text = "one 0.5 1 2 3 4\ntwo 1e-3 -1.5 2 3 4\none 0.25 5 6 7 8\n"
    image, numbers = read(tmp_path, text)
    assert image.tolist() == [0, 1, 0]
    assert numbers.tolist() == [[0.5, 1, 2, 3, 4], [0.001, -1.5, 2, 3, 4], [0.25, 5, 6, 7, 8]]


def test_a_file_of_other_bytes_is_named(tmp_path):
    with pytest.raises(ResultsError, match="a zero byte at offset 2; expected a text file"):
        read(tmp_path, b"\xff\xfe\x00")
    with pytest.raises(ResultsError, match=r":1: .*is not in the image set"):
        read(tmp_path, b"\xff\xfe 0.5 1 2 3 4\n")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from("one tw0.5e-naif\t\r\n\x1c\u00a0é12"), max_size=40), max_size=5))
def test_whatever_the_text_only_a_results_error_comes_out(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    try:
        image, numbers = read_class_file(path, INDEX)
    except ResultsError as error:
        message = str(error)
    else:
        message = ""
        assert numbers.shape == (len(image), 5)
        assert np.isfinite(numbers).all()
    assert "\n" not in message


def test_result_files_of_another_program_are_found_by_their_common_beginning(tmp_path):
    folder = write_results(tmp_path, {"cat": ["one 0.5 1 2 3 4"], "bobcat": []}, prefix="comp4_a1b2_det_val_")
    found = read_comp4(folder, ["cat", "bobcat"], ["one"])
    assert found.missing == []
    assert found.class_id.tolist() == [0]
    assert comp4_ids(folder, ["cat", "bobcat"]) == ["one"]


def test_two_sets_in_one_folder_are_refused(tmp_path):
    write_results(tmp_path, {"cat": []}, prefix="first_")
    write_results(tmp_path, {"cat": []}, prefix="second_")
    with pytest.raises(ResultsError, match=r"two sets of result files, first_\*.txt and second_\*.txt"):
        read_comp4(tmp_path, ["cat"], ["one"])


def test_darknets_own_set_is_taken_whatever_stands_beside_it(tmp_path):
    write_results(tmp_path, {"cat": ["one 0.5 1 2 3 4"]})
    for prefix in ("first_", "second_"):
        write_results(tmp_path, {"cat": [], "dog": []}, prefix=prefix)
    found = read_comp4(tmp_path, ["cat", "dog"], ["one"])
    assert (found.prob.tolist(), found.absent) == ([0.5], [1])
    assert found.missing == [tmp_path / "comp4_det_test_dog.txt"]


def test_the_set_of_most_classes_is_taken(tmp_path):
    write_results(tmp_path, {"cat": [], "dog": ["one 0.5 1 2 3 4"]}, prefix="mine_")
    write_results(tmp_path, {"cat": ["one 0.25 1 2 3 4"]}, prefix="old_")
    assert read_comp4(tmp_path, ["cat", "dog"], ["one"]).prob.tolist() == [0.5]


def test_rows_of_a_class_are_those_of_its_file(tmp_path):
    write_results(tmp_path, {"cat": ["two 0.5 1 2 3 4", "one 0.75 5 6 7 8"], "dog": [], "bird": ["one 0.25 1 1 1 1"]})
    found = read_comp4(tmp_path, ["cat", "dog", "bird"], ["one", "two"])
    assert [found.of_class(number) for number in range(3)] == [slice(0, 2), slice(2, 2), slice(2, 3)]
    assert (found.class_id.tolist(), found.image.tolist()) == ([0, 0, 2], [1, 0, 0])
    assert found.box.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 1, 1]]


def test_a_missing_file_is_absent_and_a_folder_without_any_is_an_error(tmp_path):
    write_results(tmp_path, {"dog": ["one 0.5 1 2 3 4"]})
    found = read_comp4(tmp_path, ["cat", "dog"], ["one"])
    assert found.absent == [0]
    assert found.missing == [tmp_path / "comp4_det_test_cat.txt"]
    assert found.of_class(1) == slice(0, 1)
    with pytest.raises(
        ResultsError, match=r"no result file of any of the 2 classes; expected files like comp4_det_test_cat\.txt"
    ):
        read_comp4(tmp_path, ["cat", "cow"], ["one"])
    with pytest.raises(ResultsError, match=r"no such folder; expected result files like comp4_det_test_cat\.txt"):
        read_comp4(tmp_path / "nowhere", ["cat", "cow"], ["one"])
