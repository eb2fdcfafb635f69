"""Label files and VOC annotations, against Darknet's own script and C library where they are there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from darknet_compat.errors import DataError
from darknet_compat.labels import (
    Tally,
    basecfg,
    darknet_box,
    image_ids,
    image_paths,
    label_path,
    label_voc,
    parse_xml,
    read_all_labels,
    read_image_set,
    read_labels,
    read_voc,
    write_lists,
)
from tests.hostile import no_longer_than

SETS = [("2012", "train"), ("2012", "val"), ("2007", "train"), ("2007", "val"), ("2007", "test")]


def xml(objects: list[tuple], width: int = 500, height: int = 375) -> str:
    parts = [f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"]
    for name, difficult, *box in objects:
        corners = "".join(f"<{end}>{v}</{end}>" for end, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        parts.append(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
        )
    return "\n".join([*parts, "</annotation>"])


@pytest.fixture
def year(tmp_path: Path) -> Path:
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    return folder


def random_devkit(root: Path, names: list[str]) -> None:
    random = np.random.default_rng(5)
    for number, (year, image_set) in enumerate(SETS):
        folder = root / "VOCdevkit" / f"VOC{year}"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        identities = [f"{number}{index:05}" for index in range(12)]
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text("\n".join(identities))
        for identity in identities:
            w, h = (int(side) for side in random.integers(80, 600, 2))
            objects = []
            for _ in range(random.integers(0, 6)):
                left, top = random.integers(1, w - 20), random.integers(1, h - 20)
                right, bottom = random.integers(left + 1, w + 1), random.integers(top + 1, h + 1)
                corners = (left, top, f"{right - 0.4:.3f}", bottom)
                objects.append((random.choice([*names, "hat"]), random.integers(2), *corners))
            (folder / "Annotations" / f"{identity}.xml").write_text(xml(objects, w, h))
            (folder / "JPEGImages" / f"{identity}.jpg").touch()


def test_same_bytes_as_darknets_script(tmp_path, darknet_share):
    """scripts/voc_label.py in one folder, ours in another: labels and lists are the same files."""
    script = Path("/usr/lib/darknet/scripts/voc_label.py")
    names = (darknet_share / "data" / "voc.names").read_text().split()
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for root in (theirs, ours):
        root.mkdir()
        random_devkit(root, names)
    subprocess.run([sys.executable, script], cwd=theirs, check=True)

    sets = []
    for year, image_set in SETS:
        folder = ours / "VOCdevkit" / f"VOC{year}"
        identities = read_image_set(folder, image_set)
        label_voc(folder, identities, names)
        sets.append((year, image_set, image_paths(folder, identities)))
    write_lists(ours, sets)

    made = sorted(path.relative_to(theirs) for path in theirs.rglob("*.txt"))
    assert made == sorted(path.relative_to(ours) for path in ours.rglob("*.txt"))
    assert sum("labels" in path.parts for path in made) == 60
    for path in made:
        assert (theirs / path).read_text().replace(str(theirs), str(ours)) == (ours / path).read_text()


def test_box_arithmetic():
    """A box of VOC's pixels 1 to 10, in an image of 100 x 50: ``valid`` must give the same corners again."""
    x, y, w, h = darknet_box(100, 50, (1, 1, 10, 20))
    assert (x, y, w, h) == pytest.approx((0.045, 0.19, 0.09, 0.38))
    assert ((x - w / 2) * 100 + 1, (x + w / 2) * 100 + 1) == pytest.approx((1, 10))
    assert ((y - h / 2) * 50 + 1, (y + h / 2) * 50 + 1) == pytest.approx((1, 20))


@pytest.mark.parametrize("keep", [False, True])
def test_difficult_and_unknown(year, keep):
    objects = [("dog", 0, 1, 1, 50, 60), ("dog", 1, 5, 5, 80, 80), ("hat", 0, 1, 1, 9, 9), ("cat", 0, 0, 1, 501, 9)]
    (year / "Annotations" / "a.xml").write_text(xml(objects))
    (year / "Annotations" / "b.xml").write_text(xml([]))
    tally = label_voc(year, ["a", "b"], ["cat", "dog"], keep_difficult=keep)
    assert tally == Tally(
        images=2,
        kept={"dog": 1 + keep, "cat": 1},
        difficult=1 - keep,
        unknown={"hat": 1},
        outside=tally.outside,
    )
    assert "a.xml: cat at 0, 1, 501, 9 reaches out of the 500 x 375 image" in tally.outside[0]
    assert read_labels(year / "labels" / "a.txt")[:, 0].tolist() == [1] * (1 + keep) + [0]
    assert (year / "labels" / "b.txt").read_text() == ""
    assert read_labels(year / "labels" / "b.txt").shape == (0, 5)


def test_difficult_may_be_absent(year):
    path = year / "Annotations" / "a.xml"
    path.write_text(xml([("dog", 0, 1, 1, 5, 6)]).replace("<difficult>0</difficult>", ""))
    assert read_voc(path)[2][0].difficult is False


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("</annotation>", "", "a.xml:3: not well-formed XML at column"),
        ("<width>500</width>", "", "a.xml: <size/width> is missing; expected a number"),
        ("<width>500</width>", "<width>0</width>", "a.xml: <size> says 0 x 375; expected"),
        ("<name>dog</name>", "<name> </name>", "a.xml: object 1: <name> is missing"),
        ("<xmin>1<", "<xmin>one<", "a.xml: object 1: <bndbox/xmin> is 'one'; expected a number"),
        ("<xmin>1<", "<xmin>nan<", "a.xml: object 1: <bndbox/xmin> is 'nan'; expected a number"),
        ("<ymax>6</ymax>", "", "a.xml: object 1: <bndbox/ymax> is missing"),
        ("<xmin>1<", "<xmin>-1e308<", "a.xml: object 1: <bndbox/xmin> is '-1e308'; expected a number under 1e+09"),
        ("<xmax>5<", "<xmax>1e308<", "a.xml: object 1: <bndbox/xmax> is '1e308'; expected a number under 1e+09"),
        ("<width>500<", "<width>1e308<", "a.xml: <size/width> is '1e308'; expected a number under 1e+09"),
        ("<difficult>0<", f"<difficult>{'9' * 400}<", f"a.xml: object 1: <difficult> is '{'9' * 40}'; expected"),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "a.xml:1: a document type; expected plain"),
        ("<ymax>6</ymax>", "<ymax>0</ymax>", "a.xml: object 1: <bndbox> is 1, 1, 5, 0; expected xmin"),
    ],
)
def test_damaged_annotation(year, old, new, said):
    path = year / "Annotations" / "a.xml"
    path.write_text(xml([("dog", 0, 1, 1, 5, 6)]).replace(old, new))
    with pytest.raises(DataError) as caught:
        read_voc(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES_OF_ASIA = {
    "gbk": "细胞", "GB2312": "细胞", "gb18030": "细胞㐀", "Big5": "細胞", "Shift_JIS": "ネコ①", "EUC-JP": "ネコ",
    "euc-kr": "고양이", "cp949": "똠", "utf-8": "고양이", "utf-16": "고양이", "windows-1251": "кот",
}  # fmt: skip
CODECS = {"GB2312": "gbk", "Big5": "cp950", "Shift_JIS": "cp932"}  # as Windows writes what it calls so


@pytest.mark.parametrize("encoding", NAMES_OF_ASIA)
def test_annotations_in_the_encodings_of_labelling_programs(year, encoding):
    name = NAMES_OF_ASIA[encoding]
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{xml([(name, 0, 1, 1, 5, 6)])}'
    path = year / "Annotations" / "a.xml"
    path.write_bytes(text.encode(CODECS.get(encoding, encoding)))
    assert read_voc(path)[2][0].name == name
    assert label_voc(year, ["a"], [name]).kept == {name: 1}


def test_a_byte_order_mark_is_no_text(year):
    path = year / "Annotations" / "a.xml"
    path.write_bytes(xml([("고양이", 0, 1, 1, 5, 6)]).encode("utf-8-sig"))
    assert read_voc(path)[2][0].name == "고양이"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("klingon", "a.xml:1: encoding='klingon' is unknown, or not that of this file; save it as utf-8"),
        ("utf-16", "a.xml:1: encoding='utf-16' is unknown, or not that"),
        ("zip", "a.xml:1: encoding='zip' is unknown, or not that"),
        ("punycode", "a.xml:1: encoding='punycode' is unknown, or not that"),
        ("undefined", "a.xml:1: encoding='undefined' is unknown, or not that"),
        ("utf-8", "a.xml: byte 132 is not valid utf-8, the encoding of this file; save it as utf-8"),
        ("big5", "a.xml: byte 131 is not valid cp950, the encoding of this file; save it as utf-8"),
    ],
)
def test_an_encoding_that_does_not_read_the_file(year, encoding, said):
    path = year / "Annotations" / "a.xml"
    text = f'<?xml version="1.0" encoding="{encoding}"?>{xml([("!", 0, 1, 1, 5, 6)])}'
    path.write_bytes(text.encode().replace(b"!", b"\xff"))
    with pytest.raises(DataError) as caught:
        read_voc(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gbk", "cp1252"])
def test_entities_are_refused_before_they_grow(year, encoding):
    """Ten laughs of ten laughs ...: a kilobyte that stands for gigabytes."""
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(10))
    path = year / "Annotations" / "a.xml"
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [{entities}]><annotation>&a9;</annotation>'
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"a\.xml:1: a document type"):
        read_voc(path)


def test_missing_files(year):
    with pytest.raises(DataError, match=r"test.txt: no such file; sets there: none"):
        read_image_set(year, "test")
    (year / "ImageSets" / "Main" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val.txt: the file is empty"):
        read_image_set(year, "val")
    (year / "ImageSets" / "Main" / "latin.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9 b\n")
    assert read_image_set(year, "latin") == [os.fsdecode(b"caf\xe9 b")]
    (year / "ImageSets" / "Main" / "folder.txt").mkdir()
    with pytest.raises(DataError, match=r"folder.txt: a folder; expected a file"):
        read_image_set(year, "folder")
    with pytest.raises(DataError, match=r"a.xml: no such file"):
        label_voc(year, ["a"], ["dog"])
    with pytest.raises(DataError, match=r"a.jpg: no such image.*names without suffix, one a line"):
        image_paths(year, ["a"])
    (year / "JPEGImages").rmdir()
    with pytest.raises(DataError, match=r"JPEGImages: No such file or directory; expected the folder of the images"):
        image_paths(year, ["a"])


def test_names_in_image_sets_may_hold_blanks(year):
    """As Windows writes them, too: with a byte-order mark, with carriage returns, with bytes that are no UTF-8."""
    path = year / "ImageSets" / "Main" / "val.txt"
    path.write_bytes(b"\xef\xbb\xbfmy photo 1\r\n\r\n x_jpg.rf.0a1b \n\xb4\xf3\n")
    assert read_image_set(year, "val") == ["my photo 1", "x_jpg.rf.0a1b", "\udcb4\udcf3"]


def test_path_that_darknet_would_misread(year):
    (year / "JPEGImages" / "a.jpg").touch()
    with pytest.raises(DataError, match=r'replaces the first "images" and "raw"'):
        image_paths(year, ["a"], named="/home/draw/VOC2007")
    assert image_paths(year, ["a"], named="VOC2007") == ["VOC2007/JPEGImages/a.jpg"]


def test_no_joined_list_of_sets_that_are_not_vocs(tmp_path):
    """Of other sets nobody knows which are for training: test images must not end in train.txt."""
    for sets in (
        [("cells", "train", ["a"]), ("cells", "val", ["b"])],
        [("2007", "train", ["a"]), ("2007", "holdout", ["b"])],
        [("2031", "train", ["a"]), ("2031", "test", ["b"])],
    ):
        names = [path.name for path in write_lists(tmp_path, sets)]
        assert names == [f"{year}_{image_set}.txt" for year, image_set, _ in sets]
    assert not (tmp_path / "train.txt").exists()


def test_lists(tmp_path):
    written = write_lists(tmp_path, [("2007", "train", ["a", "b"]), ("2012", "val", ["c"]), ("2007", "test", ["d"])])
    assert {path.name: path.read_text().split() for path in written} == {
        "2007_train.txt": ["a", "b"],
        "2012_val.txt": ["c"],
        "2007_test.txt": ["d"],
        "train.txt": ["a", "b", "c"],
        "train.all.txt": ["a", "b", "d", "c"],
    }


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("/data/VOC2007/JPEGImages/000001.jpg", "000001"),
        ("images/x_jpg.rf.0a1b2c.jpg", "x_jpg"),
        ("cfg/deep.v2/net.v1.cfg", "net"),
        ("my photo 1.png", "my photo 1"),
        ("dir.a/name", "name"),
    ],
)
def test_image_id(darknet, path, identity):
    assert basecfg(path) == identity == darknet.image_id(path)


def test_image_ids_are_of_one_image_each():
    assert image_ids(["a/x.1.jpg", "a/y.1.jpg"], "list.txt") == ["x", "y"]
    for images, said in (
        (["a/x.1.jpg", "a/x.2.jpg"], "list.txt: a/x.2.jpg has the image id 'x', as a/x.1.jpg has"),
        (["a/x.jpg", "a/x.jpg"], "list.txt: a/x.jpg is listed twice"),
        (["a/x.jpg", "b/x .jpg"], "list.txt: b/x .jpg has the image id 'x ', as a/x.jpg has"),
        (["a/.jpg"], "list.txt: a/.jpg has no name before its first dot"),
    ):
        with pytest.raises(DataError) as caught:
            image_ids(images, "list.txt")
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/d/VOC2007/JPEGImages/1.jpg", "/d/VOC2007/labels/1.txt"),
        ("coco/images/train/1.png", "coco/labels/train/1.txt"),
        ("my images/raw/x.JPEG", "my labels/labels/x.txt"),
        ("images/images/1.jpg", "labels/images/1.txt"),
        ("a/1.jpg.jpg", "a/1.txt.jpg"),
        ("a/1.bmp", "a/1.bmp"),
    ],
)
def test_label_path(image, labels):
    assert label_path(image) == labels


@pytest.mark.parametrize("image", [
    "data/obj/1.jpg", "/d/VOC2007/JPEGImages/1.jpg", "/d/JPEGImages/JPEGImages/1.png", "coco/images/train2017/1.jpg",
    "/coco/images/val2017/1.jpg", "/coco/images/train2014/1.JPG", "c:\\images\\val2014\\1.bmp", "images/1.jpeg",
    "/my images/raw/x.JPEG", "a/1.jpg.jpg", "a/1.jpg.png", "a/1.PNG", "a/1.ppm", "a/1.TIFF", "c:\\JPEGImages\\1.BMP",
    "JPEGImages/1.jpg", " /a/JPEGImages/1.jpg ", "/images/train2017/images/val2017/1.tiff", "/images/test2017/1.jpg",
    "/a/JPEGImages/b/JPEGImages/1.jpg",
])  # fmt: skip
def test_label_path_of_alexeyabs(alexeyab_darknet, image):
    assert label_path(image, "alexeyab") == alexeyab_darknet.label_path(image)


@pytest.mark.parametrize("image", ["/a/JPEGImages/1.gif", "a/1.Jpg", "a/1.jpg.webp", "a/1"])
def test_alexeyabs_program_knows_no_label_file_of_other_suffixes(alexeyab_darknet, image, tmp_path):
    """His goes on with the image's own path, or one like it, and reads what it finds there; here it is an error."""
    assert not alexeyab_darknet.label_path(image).endswith(".txt")
    assert label_path(image, "alexeyab") == image
    assert read_all_labels([image], 1, program="alexeyab").bad == [
        f"{image}: no label file belongs to an image of this name; Darknet knows .jpg and .png"
    ]


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("a.txt", "a.xml"):
        os.mkfifo(tmp_path / name)
    with no_longer_than(10):
        assert read_all_labels([str(tmp_path / "a.jpg")], 6).bad == [
            f"{tmp_path}/a.txt: cannot read the label file: a device or a pipe"
        ]
        folder = tmp_path / "ImageSets/Main"
        folder.mkdir(parents=True)
        os.mkfifo(folder / "all.txt")
        with pytest.raises(DataError, match=r"all\.txt: .*a device or a pipe"):
            read_image_set(tmp_path, "all")
        with pytest.raises(DataError, match=r"a\.xml: cannot read the annotation: a device or a pipe"):
            parse_xml(tmp_path / "a.xml")


def test_read_labels(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0 .5 .5 1 1\n\n3 0.25 1e-1 .5 .2  \r\n")
    assert read_labels(path).tolist() == [[0, 0.5, 0.5, 1, 1], [3, 0.25, 0.1, 0.5, 0.2]]


@pytest.mark.parametrize("line", ["0 .5 .5 1", "0 .5 .5 1 1 1", "dog .5 .5 1 1", "0 .5 nan 1 1", "\x00\x01"])
def test_read_labels_malformed(tmp_path, line):
    path = tmp_path / "a.txt"
    path.write_text(f"0 .5 .5 1 1\n{line}\n")
    with pytest.raises(DataError, match=r"a.txt:2: .*expected 5 numbers"):
        read_labels(path)
