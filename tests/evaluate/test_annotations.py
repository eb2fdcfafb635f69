"""The truth: VOC XML and Darknet's labels, which must score the same."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from darknet_compat.errors import DarknetError, DataError, ResultsError
from darknet_compat.evaluate.annotations import find_images, read_label_files, read_labels, read_voc
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
    folder = small.devkit / "VOC2007" / "JPEGImages"
    assert truths.paths == [folder / "one.jpg", folder / "two.jpg"]


def test_objects_behind_one_of_another_class_are_read(small):
    path = small.devkit / "VOC2007" / "Annotations" / "one.xml"
    path.write_text(path.read_text().replace("<name>cat<", "<name>zebra<", 1))
    truths = read_voc(small.devkit, 2007, "test", small.names)
    assert (truths.class_id.tolist(), truths.unknown) == ([0, 1, 1], {"zebra": 2})


def test_the_year_goes_before_what_lies_beside_it(small):
    (small.devkit / "Annotations").mkdir()
    assert len(read_voc(small.devkit, 2007, "test", small.names).image) == 4


def test_an_object_is_easy_where_nothing_else_is_said_and_difficult_by_any_other_number(small):
    path = small.devkit / "VOC2007" / "Annotations" / "one.xml"
    text = path.read_text().replace("<difficult>0</difficult>", "", 1)
    path.write_text(text.replace("<difficult>1<", "<difficult>-2<").replace("<xmin>50<", "<xmin>-999999999.5<"))
    truths = read_voc(small.devkit, 2007, "test", small.names)
    assert truths.difficult.tolist() == [False, True, False, False]
    assert truths.box[1].tolist() == [-999999999.5, 10, 69, 29]


def test_of_several_damaged_annotations_the_first_is_named(small):
    """A number that is too large is seen when all files are read, and must be found again."""
    for name in ("one", "two"):
        path = small.devkit / "VOC2007" / "Annotations" / f"{name}.xml"
        path.write_text(
            path.read_text().replace("<name>dog</name>", "<name>dog</name>\n").replace("</xmax>", "e9</xmax>")
        )
    path = small.devkit / "VOC2007" / "Annotations" / "one.xml"
    text = path.read_text()
    for number, line in ((0, 3), (2, 9), (4, 15)):
        path.write_text(text.replace("e9</xmax>", "</xmax>", number))
        with pytest.raises(ResultsError, match=rf"one\.xml:{line}: <xmax> is '\d\de9'; expected a number under 1e\+09"):
            read_voc(small.devkit, 2007, "test", small.names)
    path.write_text(text.replace("e9</xmax>", "</xmax>"))
    with pytest.raises(ResultsError, match=r"two\.xml:3: <xmax> is '40e9'"):
        read_voc(small.devkit, 2007, "test", small.names)


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
        ("<difficult>1<", "<difficult>1.5<", "<difficult> is '1.5'; expected a number"),
        ("<xmin>50</xmin><ymin>10</ymin>", "<xmin>50.5</xmin><ymin>x</ymin>", "<ymin> is 'x'; expected a number"),
        ("<difficult>1<", "<difficult>maybe<", "<difficult> is 'maybe'; expected a number"),
        (
            "<difficult>1</difficult>\n    <bndbox><xmin>50</xmin>",
            f"<difficult>{'9' * 400}</difficult>\n    <bndbox>",
            r"one.xml:\d+: <difficult> is '9{40}'; expected a number",
        ),
        ("<difficult>1<", f"<difficult>{'9' * 5000}<", r"one.xml:\d+: <difficult> is '9{40}'; expected a number"),
        ("<xmin>50</xmin>", "<xmin>1e9</xmin>", "<xmin> is '1e9'; expected a number under"),
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


def test_objects_with_a_blank_or_attributes_in_their_tag_are_read_and_named(small):
    path = small.devkit / "VOC2007" / "Annotations" / "one.xml"
    text = path.read_text().replace("<object>", '<object id="1">')
    path.write_text(text)
    assert len(read_voc(small.devkit, 2007, "test", small.names).image) == 4
    path.write_text(text.replace("<difficult>1<", "<difficult>maybe<"))
    with pytest.raises(ResultsError, match=r"one\.xml:9: <difficult> is 'maybe'; expected a number"):
        read_voc(small.devkit, 2007, "test", small.names)


def test_what_is_wrong_in_utf16_is_named_too(small):
    path = small.devkit / "VOC2007" / "Annotations" / "one.xml"
    path.write_text(path.read_text().replace("<difficult>1<", "<difficult>maybe<"), encoding="utf-16")
    with pytest.raises(ResultsError, match=r"one\.xml:\d+: <difficult> is 'maybe'; expected a number"):
        read_voc(small.devkit, 2007, "test", small.names)


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
    with pytest.raises(DataError, match="one is listed twice"):
        read_voc(small.devkit, 2007, "test", small.names)


def png_header(width, height):
    """As much of a PNG file as holds its size."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0"


def as_darknet_data(folder, truths, sizes):
    """The same truths as Darknet labels with AlexeyAB's ``difficult`` list; images are headers only."""
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
    sizes = np.random.default_rng(0).integers(500, 700, (len(truths.images), 2)).tolist()  # no image of VOC is larger
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


def test_objects_stand_image_by_image_and_in_one_the_difficult_last(small, data):
    labels = read_labels(data)
    assert (labels.image.tolist(), labels.class_id.tolist()) == ([0, 0, 0, 1], [0, 1, 0, 1])
    assert labels.difficult.tolist() == [False, False, True, False]
    assert [path.name for path in labels.paths] == ["one.png", "two.png"]
    data.write_text("".join(line for line in data.open() if not line.startswith("difficult")))
    assert read_labels(data).difficult.tolist() == [False] * 3


def test_images_are_found_by_what_stands_before_the_first_dot_or_the_last(tmp_path):
    for name in ("one.png", "x_jpg.rf.1.jpg"):
        (tmp_path / name).touch()
    found = find_images(tmp_path, ["one", "x_jpg", "x_jpg.rf.1", "none"])
    assert [path.name for path in found] == ["one.png", "x_jpg.rf.1.jpg", "x_jpg.rf.1.jpg", "none.jpg"]
    assert {path.parent for path in found} == {tmp_path}


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


def test_of_several_bad_lines_or_missing_files_the_first_is_named(data):
    folder, images = data.parent / "labels", [f"{data.parent}/images/{name}.png" for name in ("one", "two")]
    for name in ("one", "two"):
        (folder / f"{name}.txt").write_text("0 .5 .5 .1 .1\n0 .5 .5 .1\n")
    with pytest.raises(DataError, match=r"one\.txt:2: .*; bad lines in all: 2"):
        read_label_files(images, 3)
    for name in ("one", "two"):
        (folder / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=r"labels/one\.txt: no such label file, and none for any other"):
        read_label_files(images, 3)


def test_a_missing_label_file_is_reported_and_a_list_without_any_is_an_error(data):
    missing = data.parent / "labels" / "one.txt"
    missing.unlink()
    with pytest.warns(UserWarning, match=r"labels/one\.txt: no such label file; 1 of 2 images have none"):
        assert read_labels(data).image.tolist() == [0, 1]
    with pytest.raises(DataError, match="no such label file, and none for any other image of the list"):
        read_label_files([f"{data.parent}/images/one.png"], 3)


def test_two_images_of_one_id_are_refused(data):
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
    with pytest.raises(DataError, match="1 lines in it; expected 2"):
        read_labels(data)
