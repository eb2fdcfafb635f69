"""fetch.py by the verbs get_weights and get_voc, with a server on this machine in the place of the published ones."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from darknet_compat import fetch
from darknet_compat.cfg import read_cfg
from darknet_compat.cli import main
from darknet_compat.errors import WeightsError
from darknet_compat.network import Network
from darknet_compat.stock import find_stock
from darknet_compat.weights import save_weights
from tests.server import serving
from tests.tools.run import one_line, run_verb


def test_sizes_agree_with_the_cfgs():
    """The published sizes in the table: 16 or 20 bytes of header, and the numbers that the cfg asks for."""
    for one in fetch.PUBLISHED.values():
        network = Network(read_cfg(find_stock(f"cfg/{one.cfg}.cfg")), device="meta")
        layers = network.layers[: one.layers]
        numbers = sum(tensor.numel() for layer in layers for _, tensor in layer.numbers())
        assert one.size is None or one.size - 4 * numbers in (16, 20), one.file


def test_weights_are_listed_and_not_fetched():
    result = run_verb("get_weights")
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(fetch.PUBLISHED)
    wrong = run_verb("get_weights", "yolov9")
    assert wrong.returncode == 2
    assert "yolov9: no published file of that name here; choose from yolov2-voc, " in wrong.stderr


def test_weights(tmp_path):
    network = Network(read_cfg(find_stock("cfg/tiny.cfg")))
    network.start()
    save_weights(network, tmp_path / "made")
    body = (tmp_path / "made").read_bytes()
    with serving({"/tiny.weights": body, "/darknet.weights": body}) as server:
        flags = ("--dest", tmp_path / "weights", "--mirror", server.address)
        result = run_verb("get_weights", "tiny", *flags)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"{tmp_path}/weights/tiny.weights: version 0.2.0, seen 0 images, ")
        assert (tmp_path / "weights" / "tiny.weights").read_bytes() == body
        assert "darknet.weights: offset" in one_line(run_verb("get_weights", "darknet", *flags))
        assert "the server answers 404" in one_line(run_verb("get_weights", "yolov2-tiny-voc", *flags))
        server.files["/yolov2-tiny-voc.weights"] = body
        assert "expected 63,471,556; it is another file" in one_line(run_verb("get_weights", "yolov2-tiny-voc", *flags))


@pytest.mark.parametrize(
    ("layers", "filled", "fits"), [(None, 100, True), (None, 5, False), (5, 5, True), (5, 3, False), (5, 100, False)]
)
def test_numbers_fill_the_layers_that_the_table_says(tmp_path, monkeypatch, layers, filled, fits):
    """A file that ends behind a layer loads, and may be one that was cut off there."""
    network = Network(read_cfg(find_stock("cfg/tiny.cfg"))).start()
    save_weights(network, tmp_path / "made")
    body = (tmp_path / "made").read_bytes()
    sizes = [4 * sum(tensor.numel() for _, tensor in layer.numbers()) for layer in network.layers]
    body = body[: len(body) - sum(sizes[filled:])]
    monkeypatch.setitem(fetch.PUBLISHED, "own", fetch.Published("own.weights", "tiny", None, "", layers))
    with serving({"/own.weights": body}) as server:
        if fits:
            assert fetch.get_weights("own", tmp_path / "weights", server.address)
            return
        with pytest.raises(WeightsError, match=r"own\.weights: the numbers fill \d+ layers of tiny\.cfg; expected \d+"):
            fetch.get_weights("own", tmp_path / "weights", server.address)


@pytest.fixture
def archives(monkeypatch):
    """Three small archives in the place of VOC's; both of 2007 belong to one folder."""
    files, made = {}, []
    for archive in fetch.ARCHIVES:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in ("Annotations", "JPEGImages"):
                member = tarfile.TarInfo(f"VOCdevkit/VOC{archive.year}/{name}/{archive.file}.txt")
                member.size = 4
                tar.addfile(member, io.BytesIO(b"text"))
        body = buffer.getvalue()
        files[f"/{archive.file}"] = body
        made.append(fetch.Archive(archive.file, archive.year, len(body), hashlib.md5(body).hexdigest()))
    monkeypatch.setattr(fetch, "ARCHIVES", tuple(made))
    return files


def run_get_voc(*arguments):
    return main(["get_voc", *map(str, arguments)])


def test_voc(tmp_path, monkeypatch, capsys, archives):
    dest = tmp_path / "vöc data"
    with serving(archives) as server:
        assert run_get_voc(dest, "--mirror", server.address) == 0
        assert f"next: darknet-compat voc_label {dest}/VOCdevkit" in capsys.readouterr().out
        asked = len(server.asked)
        assert run_get_voc(dest, "--mirror", server.address) == 0
        assert len(server.asked) == asked == 3
    unpacked = [path for path in dest.rglob("*.txt") if path.is_file()]
    assert len(unpacked) == 6
    assert {path.parent.parent.name for path in unpacked} == {"VOC2007", "VOC2012"}


def test_voc_damaged(tmp_path, monkeypatch, capsys, archives):
    name = fetch.ARCHIVES[2].file
    archives[f"/{name}"] = b"x" + archives[f"/{name}"][1:]
    with serving(archives) as server:
        assert run_get_voc(tmp_path, "--years", "2012", "--mirror", server.address) == 1
    assert f"{name}.part: md5 " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_voc_archive_that_reaches_out_of_its_folder(tmp_path, monkeypatch, capsys, archives):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    archive = fetch.Archive("bad.tar", 2007, len(buffer.getvalue()), hashlib.md5(buffer.getvalue()).hexdigest())
    monkeypatch.setattr(fetch, "ARCHIVES", (archive,))
    with serving({"/bad.tar": buffer.getvalue()}) as server:
        assert run_get_voc(tmp_path / "in", "--mirror", server.address) == 1
    assert "bad.tar: cannot be unpacked" in capsys.readouterr().err
    assert not (tmp_path / "escaped").exists()


def test_voc_years():
    result = run_verb("get_voc", "x", "--years", "2010")
    assert (result.returncode, "expected 2007, 2012 or both" in result.stderr) == (2, True)
