"""Random and damaged .data, names, list, label, tree and map files: read, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from darknet_compat.cfg import read_cfg, read_data, read_list, read_names
from darknet_compat.labels import read_labels
from darknet_compat.tree import Hierarchy, read_map, read_tree
from tests.conftest import ROOT
from tests.fuzz.outcome import outcome

READERS = {
    "cfg": read_cfg,
    "data": read_data,
    "names": read_names,
    "list": read_list,
    "labels": read_labels,
    "tree": lambda path: Hierarchy(read_tree(path)),
    "map": read_map,
}
WORDS = [
    b"0", b"-1", b"1", b"-2", b"2147483648", b"1e400", b"nan", b"inf", b".5", b"0.1", b"\xd9\xa1", b"\xc2\xb2",
    b"9" * 5000, b"name", b"=", b"#", b"[net]", b"classes", b"\xff", b"\0", b"\xef\xbb\xbf", b"\xc2\x85", b"\x1c",
]  # fmt: skip
BLANKS = [b" ", b"\n", b"\n", b"\n", b"\r\n", b"\t", b"\r", b"", b"="]
ANYTHING = st.lists(st.sampled_from(WORDS) | st.sampled_from(BLANKS) | st.binary(max_size=3), max_size=40).map(b"".join)
# Whole files, a few words of which are changed below.
FILES = {
    "cfg": (ROOT / "cfg" / "yolov2-shapes.cfg").read_bytes()[:600],
    "data": (ROOT / "cfg" / "voc.data").read_bytes(),
    "names": (ROOT / "data" / "voc.names").read_bytes(),
    "list": b"data/a.jpg\ndata/b c.png\n/d.jpg\n" * 3,
    "labels": b"0 0.5 0.5 0.25 0.25\n19 .1 .1 .2 .2\n\n2 0 0 0 0\n",
    "tree": b"animal -1\nthing -1\ncat 0\ndog 0\nbird 0\ncup 1\nball 1\npuppy 3\nhound 3\n",
    "map": b"3\n0\n12\n9417\n",
}


@st.composite
def files(draw):
    """What is to read it, and the bytes of a file."""
    what = draw(st.sampled_from(sorted(READERS)))
    if draw(st.booleans()):
        return what, draw(ANYTHING)
    content = bytearray(FILES[what])
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 12)))
        content[start:stop] = draw(st.sampled_from(WORDS) | st.binary(max_size=3))
    return what, bytes(content)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(files())
def test_fuzz_texts(tmp_path_factory, file):
    what, content = file
    path = Path(tmp_path_factory.getbasetemp()) / f"fuzz.{what}"
    path.write_bytes(content)
    result = outcome(lambda: READERS[what](path))
    event(f"{what} {'refused' if result is None else 'read'}")
