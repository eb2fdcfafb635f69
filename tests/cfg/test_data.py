"""The .data files, names files and lists."""

import os

import pytest

from darknet_compat.cfg import check_names, read_data, read_list, read_names
from darknet_compat.errors import DataError
from tests.conftest import ROOT


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(data, name="x.data"):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return name

    return write


def test_data_file(write):
    data = read_data(write("# mine\r\nclasses= 20 \r\n\ttrain  = my images/träin.txt\nclasses=3\nname s=a=b\n"))
    assert data.get("classes") == "20"
    assert data.integer("classes") == 20
    assert data.integer("top", 1) == 1
    assert data.require("train") == "my images/träin.txt"
    assert data.get("names") == "a=b"
    assert data.get("valid") is None
    assert data.get("eval", "voc") == "voc"
    assert str(data.error("train", "no such list")) == ("x.data:3: train  = my images/träin.txt: no such list")


MALFORMED = {
    "train\n": "x.data:1: train: no `=` in the line; expected `name=value`",
    "\n=a\n": "x.data:2: =a: nothing before the `=`; expected `name=value`",
    "train=\n": "x.data:1: train=: nothing behind the `=`; expected `name=value`",
    "a=1\n[net]\nb=2\n[max]\n": "x.data:2: [net]: a section, and a .data file has none; is it a .cfg?",
    "a=1\n[net]\n": "x.data:2: [net]: a section, and a .data file has none; is it a .cfg?",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_data_file(write, text):
    with pytest.raises(DataError) as error:
        read_data(write(text))
    assert str(error.value) == MALFORMED[text]


def test_missing_key_and_wrong_type(write):
    data = read_data(write("trian=a.txt\nclasses=twenty\n"))
    calls = {
        "x.data: no `train` line; expected `train=...`; line 1 says `trian`, did you mean `train`?": lambda: (
            data.require("train")
        ),
        "x.data: no `backup` line; expected `backup=...`": lambda: data.require("backup"),
        "x.data: no `names` line; expected `names=...`": lambda: data.source("names", "nowhere/names.list"),
        "x.data: no `top` line; expected `top=...`": lambda: data.integer("top"),
        "x.data:2: classes=twenty: `classes` is `twenty`; expected an integer": lambda: data.integer("classes"),
    }
    for line, call in calls.items():
        with pytest.raises(DataError) as error:
            call()
        assert str(error.value) == line


def test_names(write):
    assert read_names(write("aeroplane\r\ntraffic light \n\nкот\n\n\n")) == ["aeroplane", "traffic light", "", "кот"]


def test_list_keeps_paths_as_they_are_written(write):
    data = "data/a b.jpg\r\n\n/abs/ü.jpg\n".encode() + b"latin\xfc.jpg"
    assert read_list(write(data)) == ["data/a b.jpg", "/abs/ü.jpg", "latin\udcfc.jpg"]


def test_names_and_lists_that_are_none(write, tmp_path):
    cases = [
        (read_names, write("\n\n", "empty"), "empty: no name in the file; expected one per line"),
        (
            read_names,
            write(b"a\nb\xfc\n", "latin"),
            "latin:2: bytes that are no UTF-8; expected a UTF-8 file",
        ),
        (
            read_names,
            write(b"a\n\n\x80", "low"),
            "low:3: bytes that are no UTF-8; expected a UTF-8 file",
        ),
        (read_names, write(b"\xff", "high"), "high:1: bytes that are no UTF-8; expected a UTF-8 file"),
        (read_list, write(b"\n\0", "first"), "first:2: a zero byte at offset 1; expected a text file"),
        (read_names, write(b"a\n\0", "zero"), "zero:2: a zero byte at offset 2; expected a text file"),
        (read_list, "empty", "empty: no path in the file; expected one per line"),
        (read_list, "missing", f"missing: no such file; expected one in {tmp_path}"),
        (read_data, "missing", f"missing: no such file; expected one in {tmp_path}"),
        (read_data, ".", ".: a folder; expected a file"),
    ]
    for read, path, line in cases:
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value) == line


@pytest.mark.parametrize(("read", "most"), [(read_names, 2**24), (read_list, 2**30), (read_data, 2**20)])
def test_a_file_longer_than_any_of_its_kind_is_refused_unread(write, read, most):
    """Half a million bytes of ImageNet's names, half a billion of OpenImages' list must pass."""
    os.truncate(write(""), most + 1)
    with pytest.raises(DataError) as error:
        read("x.data")
    assert str(error.value) == f"x.data: {most + 1:,} bytes; expected a text of at most {most:,}; is it another file?"


def test_error_of_a_key_that_is_not_there_names_the_file(write):
    assert str(read_data(write("a=1\n")).error("train", "no list")) == "x.data: no list"


def test_names_are_as_many_as_the_network_says(write):
    data = read_data(write("top=1\nnames=x.names\n"))
    check_names(data, ["a", "b"], 2, "x.cfg")
    for names in (["a"], ["a", "b", "c"]):
        with pytest.raises(DataError) as error:
            check_names(data, names, 2, "x.cfg")
        assert str(error.value) == f"x.data:2: names=x.names: {len(names)} names; expected 2, the classes= of x.cfg"


@pytest.mark.parametrize(("name", "classes"), [("voc", 20), ("coco", 80)])
def test_our_data_files(name, classes, monkeypatch):
    monkeypatch.chdir(ROOT)
    data = read_data(f"cfg/{name}.data")
    assert data.integer("classes") == classes == len(read_names(data.require("names")))
    assert data.get("eval") == name
    for key in ("train", "valid", "backup", "results"):
        data.require(key)
