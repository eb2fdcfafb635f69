"""Whatever bytes an annotation or a label file holds: sound numbers come out, or an error of one line."""

from __future__ import annotations

import codecs

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darknet_compat.errors import DarknetError
from darknet_compat.evaluate.annotations import read_label_files
from darknet_compat.evaluate.annotations import read_voc as read_devkit
from darknet_compat.labels import darknet_box, label_voc, read_all_labels, read_labels, read_voc
from tests.test_labels import xml

OBJECTS = [("dog", 0, 1, 1, 50, 60), ("고양이", 1, 5, 5, 80.5, 80)]
SOUND = xml(OBJECTS)
LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(10))
BOMB = f"<!DOCTYPE a [{LAUGHS}]><annotation><object><name>&a9;</name></object></annotation>"
# What once ended in a traceback, in a label of inf, or in gigabytes.
ANNOTATIONS = {
    "sound": SOUND.encode(),
    "empty": b"",
    "cut": SOUND.encode()[:-20],
    **{
        name: f'<?xml version="1.0" encoding="{name}"?>{SOUND.replace("고양이", word)}'.encode(name)
        for name, word in {"gbk": "猫", "gb2312": "猫", "big5": "貓", "shift_jis": "猫", "euc-kr": "고양이"}.items()
    },
    "utf-16": SOUND.encode("utf-16"),
    "unknown encoding": f'<?xml version="1.0" encoding="klingon"?>{SOUND}'.encode(),
    "encoding of no text": f'<?xml version="1.0" encoding="zlib"?>{SOUND}'.encode(),
    "lone surrogate": rb'<?xml version="1.0" encoding="unicode_escape"?>' + SOUND.encode().replace(b"dog", rb"\ud800"),
    "not its encoding": f'<?xml version="1.0" encoding="utf-16"?>{SOUND}'.encode(),
    "difficult of 400 digits, no ymax": SOUND.replace("<difficult>0", f"<difficult>{'9' * 400}")
    .replace("<ymax>60</ymax>", "")
    .encode(),
    "difficult of 5000 digits": SOUND.replace("<difficult>0", f"<difficult>{'9' * 5000}").encode(),
    "xmin of 1e308": SOUND.replace("<xmin>1<", "<xmin>1e308<").replace("<xmax>50<", "<xmax>1.1e308<").encode(),
    "width of 1e308": SOUND.replace("<width>500", "<width>1e308").encode(),
    "width under 1": SOUND.replace("<width>500", "<width>.5").encode(),
    "laughs": BOMB.encode(),
    "laughs in EBCDIC": b'<?xml version="1.0" encoding="cp037"?>' + BOMB.encode("cp037"),
    "deep": b"<object>" * 20000 + b"</object>" * 20000,
}
LABELS = {
    "sound": b"0 .5 .5 .2 .2\n\n1 0.1 0.2 1 1\r\n",
    "empty": b"",
    "pixels": b"0 320 240 100 80\n",
    "infinite": b"0 .5 .5 inf .2\n0 nan .5 .2 .2\n",
    "huge": b"1e308 .5 .5 1e308 -1e308\n" + b"9" * 5000 + b" .5 .5 .1 .1\n",
    "other lines": "0 .5 .5 .2 .2\u2028\x0b\x1c1 2 3 4 5\n".encode(),
    "no text": b"\xff\xfe\x00\x00",
}
TOKENS = [
    *(b"<object>", b"</object>", b"<bndbox>", b"<xmin>", b"</xmin>", b"<difficult>", b"&a;", b"<![CDATA[", b"]]>"),
    *(b"<!--", b"<?xml", b'encoding="gbk"', b'encoding="cp037"', b"1e308", b"-1e308", b"inf", b"nan", b"9" * 400),
    *(b"1_0", b"0", b"1", b" ", b"\x00", b"\xff", b"\xfe\xff", codecs.BOM_UTF8, b"\r", b"\x85"),
]


@st.composite
def damaged(draw, seeds):
    """One of ``seeds`` with a few bytes turned, cut out, doubled or replaced by a token."""
    data = bytearray(draw(st.sampled_from([seed for seed in seeds if len(seed) < 5000])))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        data[start:stop] = draw(st.sampled_from([*TOKENS, b"", bytes(data[start:stop] * 2)]) | st.binary(max_size=3))
    return bytes(data)


def one_line(call, *arguments):
    """What ``call`` returns, or None where it raised one of our errors, which must be one line."""
    try:
        return call(*arguments)
    except DarknetError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 1000
    return None


def check_annotation(folder, data):
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("a\n")
    path = folder / "Annotations" / "a.xml"
    path.write_bytes(data)
    read = one_line(read_voc, path)
    if read:
        width, height, objects = read
        assert np.isfinite([darknet_box(width, height, thing.box) for thing in objects]).all()
        names = sorted({thing.name for thing in objects}) or ["dog"]
        label_voc(folder, ["a"], names, keep_difficult=True)
        assert len(read_labels(folder / "labels" / "a.txt")) == len(objects)
    truths = one_line(read_devkit, folder, 2007, "test", ["dog"])
    assert truths is None or np.isfinite(truths.box).all()


def check_labels(folder, data):
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_bytes(data)
    images = [str(folder / "images" / "a.jpg")]
    found = read_all_labels(images, 2)
    assert ((found.objects[:, 1:] >= 0) & (found.objects[:, 1:] <= 1)).all()
    assert np.isin(found.objects[:, 0], (0, 1)).all()
    assert not any("\n" in line for line in found.bad)
    boxes = one_line(read_label_files, images, 2)
    assert (boxes is None) == bool(found.bad)


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_that_were_once_trouble(tmp_path, name):
    check_annotation(tmp_path, ANNOTATIONS[name])


@pytest.mark.parametrize("name", LABELS)
def test_label_files_that_were_once_trouble(tmp_path, name):
    check_labels(tmp_path, LABELS[name])


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged(list(ANNOTATIONS.values())) | st.binary(max_size=200))
def test_any_annotation(tmp_path_factory, data):
    check_annotation(tmp_path_factory.getbasetemp() / "annotations", data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged(list(LABELS.values())) | st.binary(max_size=200))
def test_any_label_file(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "label_files"
    folder.mkdir(exist_ok=True)
    check_labels(folder, data)
