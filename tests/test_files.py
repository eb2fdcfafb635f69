"""Files written whole, or straight through, and what is left behind by a kill."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from darknet_compat import files
from darknet_compat.files import clear_parts, regular_file, whole_file
from tests.hostile import no_longer_than
from tests.train.test_distributed import environment


def write(path, text="new", mode="w"):
    with whole_file(path, mode) as file:
        file.write(text)


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")

    def fill_the_disk():
        with whole_file(path, "w") as file:
            file.write("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, call=call: done.append(name) or call(*given))
    write(tmp_path / "a.txt")
    assert done == ["fsync", "replace"]


def test_where_nothing_locks_a_file_is_closed_before_it_takes_its_name(tmp_path, monkeypatch):
    """Windows, which renames no open file."""
    monkeypatch.setattr(files, "fcntl", None)
    replace = os.replace

    def closed(source, target):
        assert source not in [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        replace(source, target)

    monkeypatch.setattr(os, "replace", closed)
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"caf\xe9\r\n")
    with regular_file(tmp_path / "a") as file:
        assert file.read() == b"caf\xe9\r\n"
    with regular_file(tmp_path / "a", "utf-8", "replace") as file:
        assert file.read() == "caf\ufffd\n"
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="a device or a pipe"), no_longer_than(10):
        regular_file(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError):
        regular_file(tmp_path)
    with pytest.raises(OSError, match="embedded null byte"):
        regular_file("a\0b")
    with pytest.raises(OSError, match="surrogates not allowed"):
        regular_file("\ud800")


def test_rights_are_those_that_open_gives(tmp_path):
    umask = os.umask(0o027)
    try:
        write(tmp_path / "new")
        (tmp_path / "private").touch(0o600)
        write(tmp_path / "private")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


def test_names_that_are_no_utf_8_are_written_as_they_are(tmp_path):
    write(tmp_path / "a.txt", os.fsdecode(b"caf\xe9.jpg, \xc3\xa9"))
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9.jpg, \xc3\xa9"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written_whole(tmp_path, there):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a.txt", tmp_path / "link.txt"
    if there:
        target.write_text("old")
    link.symlink_to("far/a.txt")
    with whole_file(link, "w") as file:
        file.write("new")
        file.flush()
        assert not there or target.read_text() == "old", "whole or not at all"
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["a.txt"]


def test_a_fifo_is_written_straight_through(tmp_path):
    path, read = tmp_path / "fifo", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write(path)
    reader.join(10)
    assert read == ["new"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_written_straight_through(tmp_path):
    # By a link: were it wrong, root would lose the machine's own device.
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "full")
    assert (tmp_path / "full").is_symlink()


def test_a_folder_is_an_error_before_the_work(tmp_path):
    with pytest.raises(IsADirectoryError), whole_file(tmp_path):
        pytest.fail("all would be lost at the end")


@pytest.mark.parametrize("output", ["pipe", "file"])
def test_standard_output_can_be_named(tmp_path, output):
    """By a link as /dev/stdout is one; not by that itself, which root would lose were it replaced."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    code = (
        "from darknet_compat.files import whole_file\nprint('before')\n"
        f"with whole_file({str(tmp_path / 'stdout')!r}, 'w') as file:\n    file.write('new\\n')\nprint('after')"
    )
    with open(tmp_path / "out", "w+") as file:
        out = subprocess.PIPE if output == "pipe" else file
        env = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run([sys.executable, "-c", code], stdout=out, env=env, text=True, check=True)
        file.seek(0)
        assert (done.stdout or file.read()) == "before\nnew\nafter\n"
    assert (tmp_path / "stdout").is_symlink()


def test_parts_of_the_dead_are_cleared_and_those_of_the_living_stay(tmp_path):
    def start(name):
        code = (
            "import sys\nfrom darknet_compat.files import whole_file\n"
            f"with whole_file({str(tmp_path / name)!r}) as file:\n    print('open', flush=True)\n    sys.stdin.read()"
        )
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, env=environment())
        assert process.stdout.readline() == b"open\n"
        return process

    others = [".net.backup.notours.part", ".net.part", ".network.backup.abcd1234.part", "net.backup"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".net.link.abcd1234.part").symlink_to("net.backup")
    (tmp_path / ".net.folder.abcd1234.part").mkdir()
    os.mkfifo(tmp_path / ".net.fifo.abcd1234.part")
    others += [".net.link.abcd1234.part", ".net.folder.abcd1234.part", ".net.fifo.abcd1234.part"]
    dead = [start(name) for name in ("net.backup.state", "net_100.weights")]
    living = start("net.backup")
    for process in dead:
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    clear_parts(tmp_path, "n.t")  # a name, no pattern
    assert len(os.listdir(tmp_path)) == len(others) + 3
    clear_parts(tmp_path, "net")
    left = set(os.listdir(tmp_path)) - set(others)
    assert [name.startswith(".net.backup.") for name in left] == [True]
    assert living.communicate()[0] == b""
    assert living.returncode == 0
    assert sorted(os.listdir(tmp_path)) == sorted(others)
