"""The truth: VOC XML and Darknet's labels, which must score the same."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from darknet_compat.errors import DarknetError, DataError, ResultsError
from darknet_compat.evaluate.annotations import read_label_files, read_labels, read_voc
from darknet_compat.evaluate.results import read_comp4
from darknet_compat.evaluate.voc import score
from darknet_compat.labels import darknet_box


def test_objects_of_the_named_classes_are_read_without_their_parts(small):
    truths = read_voc(small.devkit, 2007, "test", small.names)
    assert truths.images == ["one", "two"]
    assert truths.image.tolist() == [0, 0, 0, 1]
    assert truths.class_id.tolist() == [0, 0, 1, 1]
    assert truths.difficult.tolist() == [False, True, False, False]
    assert truths.box[1].tolist() == [50, 10, 69, 29]
    assert truths.unknown == {"zebra": 1}


def test_a_set_without_a_year_is_read_too(small):
    (small.devkit / "VOC2007" / "Annotations").parent.rename(small.devkit.parent / "plain")
    assert len(read_voc(small.devkit.parent / "plain", 2007, "test", small.names).image) == 4


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("</annotation>", "", r"one.xml:\d+: not well-formed"),
        ("<xmin>50</xmin>", "", r"one.xml:\d+: this object has no <xmin>"),
        ("<xmin>50</xmin>", "<xmin>wide</xmin>", "<xmin> is 'wide'; expected a number"),
        ("<xmin>50</xmin>", "<xmin>nan</xmin>", "<xmin> is 'nan'; expected a number"),
        ("<difficult>1<", "<difficult>maybe<", "<difficult> is 'maybe'; expected a number"),
        (
            "<difficult>1</difficult>\n    <bndbox><xmin>50</xmin>",
            f"<difficult>{'9' * 400}</difficult>\n    <bndbox>",
            r"one.xml:\d+: <difficult> is '9{40}'; expected a number",
        ),
        ("<difficult>1<", f"<difficult>{'9' * 5000}<", r"one.xml:\d+: <difficult> is '9{40}'; expected a number"),
        ("<xmin>50</xmin>", "<xmin>1e308</xmin>", "<xmin> is '1e308'; expected a number under"),
    ],
)
def test_a_damaged_annotation_is_named_with_its_line(small, before, after, word):
    path = small.devkit / "VOC2007" / "Annotations" / "one.xml"
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    with pytest.raises((DataError, ResultsError), match=word) as error:
        read_voc(small.devkit, 2007, "test", small.names)
    assert "\n" not in str(error.value)
    if before.startswith("<xmin>50"):
        assert f"one.xml:{text[: text.index(before)].count(chr(10)) - 2}: " in str(error.value)


def test_what_is_not_there_is_named(small, tmp_path):
    with pytest.raises(ResultsError, match="no such folder; expected the XML files"):
        read_voc(tmp_path / "nowhere", 2007, "test", small.names)
    with pytest.raises(DarknetError, match=r"val\.txt"):
        read_voc(small.devkit, 2007, "val", small.names)
    (small.devkit / "VOC2007" / "Annotations" / "two.xml").unlink()
    with pytest.raises(DataError, match=r"two\.xml: no such file; every name in ImageSets needs its annotation"):
        read_voc(small.devkit, 2007, "test", small.names)


def test_an_image_listed_twice_is_refused(small):
    (small.devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt").write_text("one\ntwo\none\n")
    with pytest.raises(DataError, match="one stands in it twice"):
        read_voc(small.devkit, 2007, "test", small.names)


def png_header(width, height):
    """As much of a PNG file as holds its size."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0"


def as_darknet_data(folder, truths, sizes):
    """The same truths as Darknet labels with AlexeyAB's ``difficult`` list; pictures are headers only."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "names.list").write_text("".join(f"{name}\n" for name in truths.names))
    lines = {name: [] for image in truths.images for name in (image, f"difficult_{image}")}
    for image, class_id, box, difficult in zip(
        truths.image, truths.class_id, truths.box, truths.difficult, strict=True
    ):
        x, y, w, h = darknet_box(*sizes[image], box)
        lines[("difficult_" if difficult else "") + truths.images[image]].append(f"{class_id} {x} {y} {w} {h}\n")
    for name, rows in lines.items():
        (folder / "labels" / f"{name}.txt").write_text("".join(rows))
    for image, size in zip(truths.images, sizes, strict=True):
        (folder / "images" / f"{image}.png").write_bytes(png_header(*size))
    for prefix in ("", "difficult_"):
        (folder / f"{prefix}valid.txt").write_text(
            "".join(f"{folder}/images/{prefix}{image}.png\n" for image in truths.images)
        )
    (folder / "my.data").write_text(
        f"names={folder}/names.list\nvalid={folder}/valid.txt\ndifficult={folder}/difficult_valid.txt\n"
    )
    return folder / "my.data"


def test_labels_score_as_the_annotations_they_were_made_from(detected, tmp_path):
    truths = read_voc(detected.devkit, 2007, "test", detected.names)
    sizes = np.random.default_rng(0).integers(500, 700, (len(truths.images), 2)).tolist()  # no picture of VOC is larger
    labels = read_labels(as_darknet_data(tmp_path / "set", truths, sizes))
    detections = read_comp4(detected.results, detected.names, truths.images)
    assert labels.images == truths.images
    expected, got = score(truths, detections), score(labels, detections)
    for one, other in zip(expected.classes, got.classes, strict=True):
        assert (one.truths, one.difficult) == (other.truths, other.difficult)
        assert other.ap == pytest.approx(one.ap, abs=5e-5)


@pytest.fixture
def data(small, tmp_path):
    truths = read_voc(small.devkit, 2007, "test", small.names)
    return as_darknet_data(tmp_path / "set", truths, [(100, 80)] * 2)


def test_label_boxes_become_the_pixels_of_voc(small, data):
    labels = read_labels(data)
    order = np.lexsort((labels.box[:, 0], labels.image, labels.class_id))
    assert labels.box[order] == pytest.approx(read_voc(small.devkit, 2007, "test", small.names).box, abs=1e-9)
    assert labels.difficult[order].tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("0 .5 .5 .1", "one.txt:1"),
        ("0 .5 .5 .1 nan", "one.txt:1"),
        ("zero .5 .5 .1 .1", "one.txt:1"),
        ("\n3 .5 .5 .1 .1", "one.txt:2: class 3, expected one of 0..2"),
        ("-1 .5 .5 .1 .1", "class -1, expected one of 0..2"),
        ("0.5 .5 .5 .1 .1", "class 0.5, expected one of 0..2"),
        ("0 .5 .5 .1 .1\n0 120 80 30 20", "one.txt:2: a box outside of 0..1"),
        ("0 .5 .5 .1 -.1", "one.txt:1: a box outside of 0..1"),
    ],
)
def test_a_bad_label_line_is_named(data, line, word):
    (data.parent / "labels" / "one.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=word):
        read_labels(data)


def test_a_missing_label_file_is_reported_and_a_list_without_any_is_an_error(data):
    missing = data.parent / "labels" / "one.txt"
    missing.unlink()
    with pytest.warns(UserWarning, match=r"labels/one\.txt: no such label file; 1 of 2 pictures have none"):
        assert read_labels(data).image.tolist() == [0, 1]
    with pytest.raises(DataError, match="no such label file, nor any other of the list"):
        read_label_files([f"{data.parent}/images/one.png"], 3)


def test_two_pictures_of_one_id_are_refused(data):
    (data.parent / "valid.txt").write_text("a/images/one.1.png\nb/images/one.png\n")
    with pytest.raises(DataError, match=r"valid\.txt: b/images/one\.png has the image id 'one', as a/"):
        read_labels(data)


def test_names_are_as_many_as_classes(data):
    data.write_text(f"classes=2\n{data.read_text()}")
    with pytest.raises(DataError, match=r"my\.data:2: .*3 names; expected 2, the classes= of .*my\.data"):
        read_labels(data)
    assert read_labels(data, ["cat", "dog", "bird"]).names == ["cat", "dog", "bird"]


def test_a_difficult_list_of_another_length_is_refused(data):
    (data.parent / "difficult_valid.txt").write_text("one.png\n")
    with pytest.raises(DataError, match="1 lines; expected 2"):
        read_labels(data)
