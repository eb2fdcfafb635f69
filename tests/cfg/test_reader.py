"""The reader: what it takes, and the exact line that each kind of malformed text gives."""

import os
import time
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import CfgError, CfgWarning, DarknetError
from tests.conftest import ROOT

TEXT = """\
# a small net
 [ net ]
batch = 64
  width=416\theight
; another comment

[conv]
filt ers = 3 2#note
filters=16
name=a=b
"""


def test_blanks_vanish_and_first_key_is_found():
    cfg = parse_cfg(TEXT, "a.cfg")
    assert [(s.type, s.written, s.line, s.text) for s in cfg.sections] == [
        ("net", "[net]", 2, " [ net ]"),
        ("convolutional", "[conv]", 7, "[conv]"),
    ]
    assert [(o.name, o.value, o.line) for o in cfg.net.options] == [("batch", "64", 3), ("width", "416height", 4)]
    assert [(o.name, o.value, o.line) for o in cfg.layers[0].options] == [
        ("filters", "32#note", 8),
        ("filters", "16", 9),
        ("name", "a=b", 10),
    ]
    filters = cfg.layers[0].find("filters")
    assert (filters.line, filters.file, filters.text) == (8, "a.cfg", "filt ers = 3 2#note")
    assert cfg.layers[0].find("size") is None
    assert cfg.meaning() == [
        ("net", {"batch": "64", "width": "416height"}),
        ("convolutional", {"filters": "32#note", "name": "a=b"}),
    ]


def test_comments_and_blank_lines_are_kept():
    cfg = parse_cfg(TEXT + "# the end\n")
    assert cfg.net.above == ("# a small net",)
    assert cfg.layers[0].above == ("; another comment", "")
    assert cfg.end == ("# the end",)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", " \t", "\n#"])
def test_every_end_of_a_text(end):
    assert parse_cfg("[net]\nwidth=3" + end).meaning() == [("net", {"width": "3"})]


def test_windows_lines_bom_and_latin1_comments(tmp_path):
    path = tmp_path / "größe.cfg"
    path.write_bytes(b"\xef\xbb\xbf# gr\xf6\xdfe\r\n[net]\r\nwidth=32\r\n\r\n[max]\r\n")
    cfg = read_cfg(path)
    assert cfg.meaning() == [("net", {"width": "32"}), ("maxpool", {})]
    assert (cfg.file, cfg.net.line, cfg.layers[0].line) == (str(path), 2, 5)


MALFORMED = {
    "": "x.cfg:1: no section in the file; expected `[net]` first",
    "# only a comment\n": "x.cfg:1: no section in the file; expected `[net]` first",
    "\n batch=1\n[net]\n": "x.cfg:2: batch=1: option outside a section; expected `[net]` first",
    "a=1\nb=2\n[net]\n": "x.cfg:1: a=1: option outside a section; expected `[net]` first",
    "[net]\n[max]\n[net]\n": "x.cfg:3: [net]: a second `[net]`; expected one network in a file, and line 1 begins it",
    "[conv]\nfilters=1\n[net]\n": "x.cfg:1: [conv]: this is the first section; expected `[net]` before it",
    "[net]\nwidth=1\n[network]\n": (
        "x.cfg:3: [network]: a second `[net]`; expected one network in a file, and line 1 begins it"
    ),
    "[net]\n[convolutionl]\n": "x.cfg:2: [convolutionl]: unknown section; did you mean `[convolutional]`?",
    "[net]\n[Max Pool]\n": "x.cfg:2: [Max Pool]: unknown section; did you mean `[maxpool]`?",
    "[net]\n[xyz]\n": (
        "x.cfg:2: [xyz]: unknown section; expected one of activation, avg, avgpool, batchnorm, conn, connected, "
        "contrastive, conv, conv_lstm, convolutional, cost, crnn, crop, deconv, deconvolutional, detection, dropout, "
        "empty, Gaussian_yolo, gru, history, implicit, iseg, l2norm, local, local_avg, local_avgpool, logistic, lrn, "
        "lstm, max, maxpool, net, network, normalization, region, reorg, reorg3d, rnn, route, sam, scale_channels, "
        "shortcut, silence, soft, softmax, upsample, yolo"
    ),
    "[net]\n\n  width 416  \n": "x.cfg:3: width 416: no `=` in the line; expected `name=value`",
    "[net]\nwidth": "x.cfg:2: width: no `=` in the line; expected `name=value`",
    "[net]\n= 5\n": "x.cfg:2: = 5: nothing before the `=`; expected `name=value`",
    "[net]\na=1\n\n# \n=5\n": "x.cfg:5: =5: nothing before the `=`; expected `name=value`",
    "[net]\nwidth= \r\n": "x.cfg:2: width=: nothing behind the `=`; expected `name=value`",
    "[ ]\n": "x.cfg:1: [ ]: no name behind the `[`; expected one such as `[convolutional]`",
    "[net]\n[[max]]\n": "x.cfg:2: [[max]]: no name behind the `[`; expected one such as `[convolutional]`",
    "[net\nwidth=1\n": "x.cfg:1: [net: no `]` behind the section's name; expected one such as `[convolutional]`",
    "[net]\n[max] # pool\n": "x.cfg:2: [max] # pool: text behind the `]`; expected it on a line of its own",
    "[net]\n\x1b[31m\udcff\n": "x.cfg:2: \\x1b[31m\\udcff: no `=` in the line; expected `name=value`",
    "[net]\n" + "y" * 120: f"x.cfg:2: {'y' * 120}: no `=` in the line; expected `name=value`",
    "[net]\n" + "y" * 5000: f"x.cfg:2: {'y' * 120}...: no `=` in the line; expected `name=value`",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_text(text):
    with pytest.raises(CfgError) as error:
        parse_cfg(text, "x.cfg")
    assert str(error.value) == MALFORMED[text]


@pytest.mark.posix
def test_files_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero.cfg").write_bytes(b"[net]\nwidth=\0\n")
    (tmp_path / "long.cfg").write_bytes(b"\n" * (2**20 + 1))
    (tmp_path / "many.cfg").write_bytes(b"\n" * 20_000)
    os.mkfifo(tmp_path / "pipe.cfg")
    expected = {
        "missing.cfg": f"missing.cfg: no such file; expected one in {tmp_path}",
        "a\nb\0.cfg": "a\\nb\\x00.cfg: cannot be read (embedded null byte); expected a text file",
        "/no/such.cfg": "/no/such.cfg: no such file; expected one",
        "folder": "folder: a folder; expected a file",
        "zero.cfg/x": "zero.cfg/x: cannot be read (Not a directory); expected a text file",
        "zero.cfg": "zero.cfg:2: a zero byte at offset 12; expected a text file",
        "long.cfg": "long.cfg: 1,048,577 bytes; expected a text of at most 1,048,576; is it another file?",
        "many.cfg": "many.cfg: 20,001 lines; expected at most 20,000",
        "pipe.cfg": "pipe.cfg: cannot be read (a device or a pipe); expected a text file",
        "/dev/zero": "/dev/zero: cannot be read (a device or a pipe); expected a text file",
        "y" * 300: f"{'y' * 300}: cannot be read (File name too long); expected a text file",
    }
    for path, line in expected.items():
        with pytest.raises(CfgError) as error:
            read_cfg(path)
        assert str(error.value) == line


def test_the_longest_texts_that_are_read(tmp_path):
    (tmp_path / "long.cfg").write_bytes(b"[net]\n" + b"#" * (2**20 - 6))
    assert len(read_cfg(tmp_path / "long.cfg").end[0]) == 2**20 - 6
    assert parse_cfg("[net]\n" + "\n" * 19_998).end == ("",) * 19_998


OURS = sorted((ROOT / "cfg").glob("*.cfg"))
CHARACTERS = st.sampled_from("[]=#;,.-+ \t\r\n\x0b0123456789exinfa_%") | st.characters()
LINES = st.sampled_from(["[net]", "[conv]", "[max]", "[bogus]", "[", "a=1", "filters=3", "filters=", "=", "x", "#", ""])
SIMPLE = {"filters": 1, "scale": 1.0, "activation": "linear", "width": int, "steps": [int], "scales": [float]}


def only_our_errors(text):
    """Read ``text`` and all its options; any error is one of the project's, in one short line."""
    start = time.monotonic()
    try:
        cfg = parse_cfg(text, "f.cfg")
        for section in cfg.sections:
            section.read({**dict.fromkeys((o.name for o in section.options), float), **SIMPLE})
    except DarknetError as error:
        message = str(error)
        assert message.isprintable()
        assert message.startswith("f.cfg:")
        assert len(message) < 600
    assert time.monotonic() - start < 2


@pytest.fixture(autouse=True)
def _without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CfgWarning)
        yield


FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FUZZ
@given(st.text(CHARACTERS, max_size=200) | st.lists(LINES | st.text(CHARACTERS, max_size=20)).map("\n".join))
@example("\ufeff[net]\n")
@example("[net]\nwidth=" + "9" * 10000)
@example("[net]\nwidth=" + "," * 10000)
def test_random_text(text):
    only_our_errors(text)
    only_our_errors("[net]\n" + text)


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "f.cfg"
    path.write_bytes(data)
    try:
        read_cfg(path)
    except CfgError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()


@FUZZ
@given(st.data())
def test_damaged_cfgs(data):
    text = data.draw(st.sampled_from(OURS)).read_text()[:4000]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 60)))
        text = text[:start] + data.draw(st.text(CHARACTERS, max_size=5)) + text[stop:]
    only_our_errors(text)
