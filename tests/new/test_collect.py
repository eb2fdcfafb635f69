"""new/collect.py: one data set in three forms is one, and what is wrong with a data set is said."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.errors import DarknetError
from darknet_compat.new.collect import collect

from .conftest import MAKERS, NAMES, OBJECTS


def by_name(found):
    return {Path(image.path).stem: image for image in found.images}


@pytest.mark.parametrize("form", MAKERS)
def test_each_form_holds_the_same_objects(data_set, form):
    MAKERS[form](data_set)
    found = collect(data_set.root)
    assert found.form == form
    assert found.names == NAMES
    assert not found.left_out.total()
    images = by_name(found)
    assert images.keys() == OBJECTS.keys()
    for name, (size, objects) in OBJECTS.items():
        # VOC's boxes lie half a pixel beside the others', as Darknet's own script has them.
        beside = 0.5 if form == "voc" else 0
        expected = [
            (number, (left + w / 2) / size[0], (top + h / 2) / size[1], w / size[0], h / size[1])
            for number, left, top, w, h in objects
        ]
        assert images[name].objects.shape == (len(objects), 5)
        assert np.allclose(images[name].objects, np.reshape(expected, (-1, 5)), atol=beside / min(size) + 1e-12)
        assert Path(images[name].path).is_absolute()


def test_a_coco_file_is_a_source(data_set):
    MAKERS["coco"](data_set)
    shutil.copy(data_set.root / "pictures/one.jpg", data_set.root / "not in it.jpg")
    found = collect(data_set.root / "annotations/instances.json")
    assert by_name(found).keys() == OBJECTS.keys()
    assert found.form == "coco"


def test_files_lie_in_any_folders(data_set):
    """Image and XML in one folder; two of one name in two folders; labels beside their images."""
    for folder in ("a", "b/c"):
        data_set.image(f"{folder}/x.png", (60, 40), ".png")
    data_set.xml("a/x.xml", (60, 40), [(0, 1, 1, 9, 9)])
    data_set.xml("b/c/x.xml", (60, 40), [(1, 1, 1, 9, 9)])
    found = collect(data_set.root)
    assert {image.name: image.objects[0, 0] for image in found.images} == {"a/x.png": 0, "b/c/x.png": 1}
    data_set.txt("a/x.txt", (60, 40), [(1, 1, 1, 9, 9)])
    (data_set.root / "names.txt").write_text("fish\ncat\n")
    found = collect(data_set.root, "darknet", data_set.root / "names.txt")
    assert [(image.name, image.objects[0, 0]) for image in found.images] == [("x.png", 1)]
    assert found.names == ["fish", "cat"]
    assert found.left_out == {"images without a label file": 1}


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("train", "valid", "test"), ("train", "valid", "test")),
        (("train2017", "val2017"), ("train", "valid")),
        (("Training", "my_test"), ("train", "test")),
        (("red", "green"), ("", "")),
        (("valley", "trained"), ("", "")),
    ],
)
def test_folders_say_the_part(data_set, folders, parts):
    for folder in folders:
        data_set.image(f"{folder}/{folder}.jpg")
        data_set.xml(f"{folder}/{folder}.xml", (60, 40), [(0, 1, 1, 9, 9)])
    assert {Path(image.path).stem: image.part for image in collect(data_set.root).images} == dict(
        zip(folders, parts, strict=True)
    )


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        ({"train": "a b", "val": "c"}, {"a": "train", "b": "train", "c": "valid"}),
        ({"trainval": "a b", "test": "c"}, {"a": "train", "b": "train", "c": "test"}),
        ({"train": "a", "val": "b", "trainval": "a b", "test": "c"}, {"a": "train", "b": "train", "c": "test"}),
        ({"train": "a", "val": "b", "trainval": "a b"}, {"a": "train", "b": "valid", "c": ""}),
        ({"trainval": "a b c"}, {"a": "", "b": "", "c": ""}),
    ],
)
def test_image_sets_say_the_part(data_set, sets, parts):
    """val is trained on where there is a set to test on; trainval alone divides nothing."""
    for name in "abc":
        data_set.image(f"JPEGImages/{name}.jpg")
        data_set.xml(f"Annotations/{name}.xml", (60, 40), [(0, 1, 1, 9, 9)])
    main = data_set.root / "ImageSets/Main"
    main.mkdir(parents=True)
    for word, names in sets.items():
        (main / f"{word}.txt").write_text("\n".join(names.split()) + "\n")
    assert {Path(image.path).stem: image.part for image in collect(data_set.root).images} == parts


def test_json_files_say_the_part(data_set):
    for folder in ("train2017", "val2017"):
        data_set.image(f"{folder}/same.jpg")
        data_set.coco(f"annotations/instances_{folder}.json", {"same.jpg": ((60, 40), [(0, 1, 1, 9, 9)])})
    found = collect(data_set.root)
    assert [(image.name, image.part) for image in found.images] == [
        ("train2017/same.jpg", "train"), ("val2017/same.jpg", "valid"),
    ]  # fmt: skip


def test_what_is_left_out_is_counted(data_set):
    data_set.image("a.jpg")
    data_set.xml("a.xml", (60, 40), [(0, 1, 1, 9, 9), (1, 1, 1, 9, 9), (1, 2, 2, 9, 9)], difficult=[1])
    data_set.xml("lost.xml", (60, 40), [(0, 1, 1, 9, 9)])
    data_set.image("bare.jpg")
    names = data_set.root / "bird.names"
    names.write_text("bird\n")
    found = collect(data_set.root, names=names)
    assert +found.left_out == Counter(
        {
            "annotations without an image": 1,
            "difficult objects": 1,
            "objects of classes that are not among the names": 1,
            "images without an annotation": 1,
        }
    )
    assert [image.objects[:, 0].tolist() for image in found.images] == [[0]]


def break_turned(made):
    made.image("two words.jpg", (60, 40))
    made.xml("two words.xml", (40, 60), [(0, 1, 1, 9, 9)])


def break_xml(made):
    made.image("b.jpg")
    (made.root / "b.xml").write_text("<annotation><size>")


def break_image(made):
    (made.root / "c.jpg").write_bytes(b"no image")
    made.xml("c.xml", (40, 60), [(0, 1, 1, 9, 9)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_turned, "turned as its EXIF note says"),
        (break_xml, "not well-formed XML"),
        (break_image, "no JPEG, PNG or BMP file"),
    ],
)
def test_a_bad_file_is_an_error_or_left_out(data_set, spoil, message):
    data_set.image("a.jpg")
    data_set.xml("a.xml", (60, 40), [(0, 1, 1, 9, 9)])
    spoil(data_set)
    with pytest.raises(DarknetError, match=message) as raised:
        collect(data_set.root)
    assert "1 such files; -skip leaves them out" in str(raised.value)
    found = collect(data_set.root, skip=True)
    assert [image.name for image in found.images] == ["a.jpg"]
    assert found.left_out["images that cannot be read, or whose annotation cannot"] == 1


def test_what_cannot_be_told_apart(data_set):
    for folder in ("a", "b"):
        data_set.image(f"{folder}/x.jpg")
    data_set.xml("marks/deep/x.xml", (60, 40), [(0, 1, 1, 9, 9)])
    with pytest.raises(DarknetError, match="2 images could be meant"):
        collect(data_set.root)
    data_set.coco("both.json", {"x.jpg": ((60, 40), [(0, 1, 1, 9, 9)])})
    with pytest.raises(DarknetError, match=r"x\.jpg could be .*a/x\.jpg or .*b/x\.jpg"):
        collect(data_set.root, "coco")
    data_set.coco("both.json", {"b/x.jpg": ((60, 40), [(0, 1, 1, 9, 9)])})
    assert [image.name for image in collect(data_set.root, "coco").images] == ["x.jpg"]


@pytest.mark.parametrize("label", ["photos/a.txt", "labels/photos/a.txt", "labels/a.txt"])
def test_where_label_files_stand(data_set, label):
    """A BMP is one more kind for which pjreddie's program knows none: it takes the image itself for its labels."""
    data_set.image("photos/a.bmp", (60, 40), ".bmp")
    data_set.txt(label, (60, 40), [(0, 6, 4, 12, 8)])
    (data_set.root / "a.names").write_text("bird\n")
    [image] = collect(data_set.root).images
    assert image.objects.tolist() == [[0, 0.2, 0.2, 0.2, 0.2]]


def test_images_come_in_the_order_of_their_paths(data_set):
    for name in ("b", "a/x", "c/a"):
        data_set.image(f"{name}.jpg")
        data_set.xml(f"{name}.xml", (60, 40), [(0, 1, 1, 9, 9)])
    assert [image.name for image in collect(data_set.root).images] == ["a/x.jpg", "b.jpg", "c/a.jpg"]


def test_folders_say_the_part_of_what_a_json_file_names(data_set):
    names = ["train/a.jpg", "val/b.jpg", "c.jpg"]
    for name in names:
        data_set.image(name)
    data_set.coco("instances.json", {name: ((60, 40), [(0, 1, 1, 9, 9)]) for name in names})
    assert {image.name: image.part for image in collect(data_set.root).images} == dict(
        zip(names, ["train", "valid", ""], strict=True)
    )


def test_json_of_another_kind_is_no_instances_file(data_set):
    """As results are, or what a tool for labelling keeps for itself."""
    MAKERS["darknet"](data_set)
    (data_set.root / "results.json").write_text('[{"images": 1, "annotations": 2, "categories": 3}]')
    (data_set.root / "settings.json").write_text('{"theme": "dark"}')
    assert collect(data_set.root).form == "darknet"


def test_darknet_labels_need_names(data_set):
    data_set.image("a.jpg")
    data_set.txt("a.txt", (60, 40), [(1, 1, 1, 9, 9)])
    with pytest.raises(DarknetError, match="there is none; -names FILE says it"):
        collect(data_set.root)
    (data_set.root / "one.names").write_text("bird\n")
    with pytest.raises(DarknetError, match="a class that is none of 0 to 0"):
        collect(data_set.root)
    (data_set.root / "a.txt").write_text("0.5 .5 .5 .2 .2\n")
    with pytest.raises(DarknetError, match="a class that is none of 0 to 0"):
        collect(data_set.root)
    data_set.txt("a.txt", (60, 40), [(1, 1, 1, 9, 9)])
    (data_set.root / "two.names").write_text("bird\ncat\n")
    with pytest.raises(DarknetError, match="2 that differ"):
        collect(data_set.root)
    assert collect(data_set.root, names=data_set.root / "two.names").names == NAMES


@pytest.mark.parametrize("what", ["nothing", "no labels", "no objects", "no folder"])
def test_nothing_to_learn_is_an_error(data_set, what):
    data_set.root.mkdir()
    if what in ("no labels", "no objects"):
        data_set.image("a.jpg")
    if what == "no objects":
        data_set.xml("a.xml", (60, 40), [])
    (data_set.root / "a.names").write_text("bird\n")
    source = data_set.root / "none" if what == "no folder" else data_set.root
    message = {"no objects": "no object in the labels", "no folder": "no such file or folder"}.get(
        what, "no labelled image"
    )
    with pytest.raises(DarknetError, match=message):
        collect(source)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('"width": 60', '"width": Infinity', "images[0]: expected a file_name, and width and height over 0 and under"),
        ('"height": 40', '"height": 1' + "0" * 400, "images[0]: expected a file_name, and width and height over 0"),
        ("[1, 1, 9, 9]", "[1, 1, Infinity, 9]", "annotations[0]: expected finite numbers in bbox, not [1, 1, inf, 9]"),
        ("[1, 1, 9, 9]", "[NaN, 1, 9, 9]", "annotations[0]: expected finite numbers in bbox"),
        ("[1, 1, 9, 9]", f"[1, 1, 1{'0' * 400}, 9]", "annotations[0]: int too large to convert to float"),
        ("[1, 1, 9, 9]", "[" * 100_000, "no JSON: maximum recursion depth exceeded"),
        ("9, 9]}]}", "9, 9", "no JSON: Expecting ',' delimiter"),
        ('"bird"', '"bi\\nrd"', r"a class is called 'bi\nrd'; expected one line"),
        ('"bird"', '" bird"', "a class is called ' bird'; expected one line"),
        ('"bird"', '""', "a class is called ''; expected one line"),
    ],
)
def test_a_coco_file_that_is_none_is_one_line(data_set, old, new, found):
    data_set.image("a.jpg")
    data_set.coco("instances.json", {"a.jpg": ((60, 40), [(0, 1, 1, 9, 9)])})
    path = data_set.root / "instances.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DarknetError) as raised:
        collect(data_set.root)
    assert found in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_name_is_no_source(data_set, monkeypatch):
    data_set.image("a.jpg")
    data_set.xml("a.xml", (60, 40), [(0, 1, 1, 9, 9)])
    monkeypatch.chdir(data_set.root)
    assert len(collect(".").images) == 1
    with pytest.raises(DarknetError, match=r"^: no such file or folder"):
        collect("")


@pytest.mark.parametrize("name", ["{root}/images/b.jpg", "../images/b.jpg", "../../b.jpg", "/etc/b.jpg", "", "."])
def test_no_file_outside_the_folder_is_taken_for_an_image(data_set, name):
    """A whole path is the file's where it stands in the folder."""
    for one in ("a.jpg", "b.jpg"):
        data_set.image(f"images/{one}")
    data_set.image("../b.jpg")
    images = ["a.jpg", name.format(root=data_set.root)]
    data_set.coco("instances.json", {one: ((60, 40), [(0, 1, 1, 9, 9)]) for one in images})
    found = collect(data_set.root)
    assert [image.name for image in found.images] == ["a.jpg", *(["b.jpg"] if "root" in name else [])]
    assert found.left_out["images that the JSON names and that are not there"] == 2 - len(found.images)


def test_an_image_that_a_json_file_names_twice(data_set):
    data_set.image("a.jpg")
    data_set.coco("instances.json", {name: ((60, 40), [(0, 1, 1, 9, 9)]) for name in ("a.jpg", "./a.jpg")})
    with pytest.raises(DarknetError, match=r"a\.jpg is named twice; expected each image once"):
        collect(data_set.root)
    assert len(collect(data_set.root, skip=True).images) == 1
