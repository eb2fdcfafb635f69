"""Downloads from a server on this machine: resumed, checked, and named where they fail."""

from __future__ import annotations

import hashlib
import socket

import numpy as np
import pytest

from darknet_compat.download import DownloadError, download
from tests.server import serving

BODY = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def server():
    with serving({"/file": BODY}) as server:
        yield server


def test_whole(server, tmp_path):
    path = tmp_path / "deep" / "file"
    assert download([f"{server.address}/file"], path, len(BODY), MD5) == path
    assert path.read_bytes() == BODY
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_already_there(server, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BODY)
    download([f"{server.address}/file"], path, len(BODY), MD5)
    assert server.asked == []
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(DownloadError, match=rf"file: md5 [0-9a-f]+; expected {MD5}; .* delete it"):
        download([f"{server.address}/file"], path, len(BODY), MD5)
    with pytest.raises(DownloadError, match=r"file: 3,000,000 bytes; expected 5"):
        download([f"{server.address}/file"], path, 5)


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_resumes_where_it_broke_off(server, tmp_path, size):
    path = tmp_path / "file"
    server.limit = 1_000_000
    with pytest.raises(DownloadError, match=r"ended after 1,000,000 of 3,000,000 bytes; run the same command again"):
        download([f"{server.address}/file"], path, size)
    assert not path.exists()
    server.limit = None
    download([f"{server.address}/file"], path, size, MD5)
    assert server.asked == [None, "bytes=1000000-"]
    assert path.read_bytes() == BODY


def test_starts_anew_without_ranges(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"old" * 1000)
    download([f"{server.address}/file"], tmp_path / "file", len(BODY), MD5)
    assert (tmp_path / "file").read_bytes() == BODY


def test_part_that_is_complete(server, tmp_path):
    """Killed between the last byte and the renaming; the length is known from the server alone."""
    (tmp_path / "file.part").write_bytes(BODY)
    download([f"{server.address}/file"], tmp_path / "file", md5=MD5)
    assert server.asked == ["bytes=3000000-"]
    assert (tmp_path / "file").read_bytes() == BODY


def test_part_that_is_too_long(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY + b"more")
    download([f"{server.address}/file"], tmp_path / "file", md5=MD5)
    assert server.asked == ["bytes=3000004-", None]
    assert (tmp_path / "file").read_bytes() == BODY


def test_wrong_size(server, tmp_path):
    with pytest.raises(
        DownloadError, match=r"/file: the file there has 3,000,000 bytes; expected 7; it is another file"
    ):
        download([f"{server.address}/file"], tmp_path / "file", 7)
    assert list(tmp_path.iterdir()) == []


def test_wrong_sum(server, tmp_path):
    with pytest.raises(DownloadError, match=rf"file.part: md5 {MD5}; expected 00; it was deleted"):
        download([f"{server.address}/file"], tmp_path / "file", len(BODY), "00")
    assert list(tmp_path.iterdir()) == []


def test_second_address(server, tmp_path):
    download([f"{server.address}/none", f"{server.address}/file"], tmp_path / "file", len(BODY), MD5)
    assert (tmp_path / "file").read_bytes() == BODY


def test_not_found(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/none: the server answers 404 Not Found; fetch none by hand"):
        download([f"{server.address}/none"], tmp_path / "none")


def test_no_network(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(
        DownloadError,
        match=r"no connection: .*refused; http://no.such.host.invalid/file: no connection: .*; is there a network",
    ) as caught:
        download([f"http://127.0.0.1:{port}/file", "http://no.such.host.invalid/file"], tmp_path / "file")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_disk_full(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(DownloadError, match=r"10 bytes are free; 3,000,000 more are needed"):
        download([f"{server.address}/file"], tmp_path / "file")
