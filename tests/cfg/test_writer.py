"""What the writer writes reads back equal."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darknet_compat.cfg import SECTIONS, Cfg, format_cfg, parse_cfg, read_cfg, write_cfg
from darknet_compat.errors import CfgError

BLANK = st.sampled_from(["", " ", "\t", " \t ", "\r"])
WORD = st.text(st.characters(exclude_characters="\n\0 \t\r", exclude_categories=["Cs"]), min_size=1, max_size=8)
NAME = WORD.filter(lambda word: "=" not in word and word[0] not in "[#;")
COMMENT = st.builds(
    "{}{}{}".format, BLANK, st.sampled_from("#;"), st.text(max_size=10).map(lambda t: t.replace("\n", ""))
)
GAPS = st.lists(COMMENT | BLANK, max_size=2)
OPTION = st.builds("{}{}{}={}{}{}".format, BLANK, NAME, BLANK, BLANK, WORD, BLANK)
BODY = st.lists(OPTION | COMMENT | BLANK, max_size=6)
NAMES = [name for name, full in SECTIONS.items() if full != "net"]
SECTION = st.builds(
    lambda name, blank, body: [f"{blank}[{blank}{name}{blank}]", *body], st.sampled_from(NAMES), BLANK, BODY
)
TEXTS = st.builds(
    lambda gaps, net, body, sections: "\n".join([*gaps, net, *body, *(line for lines in sections for line in lines)]),
    GAPS,
    st.sampled_from(["[net]", "[ network ]"]),
    BODY,
    st.lists(SECTION, max_size=4),
)


def without_place(cfg: Cfg) -> list:
    return [(s.type, s.written, s.above, [(o.name, o.value, o.above) for o in s.options]) for s in cfg.sections] + [
        cfg.end
    ]


@given(TEXTS)
def test_reads_back_equal(text):
    cfg = parse_cfg(text)
    again = parse_cfg(format_cfg(cfg))
    assert without_place(again) == without_place(cfg)
    assert again.meaning() == cfg.meaning()
    assert format_cfg(again) == format_cfg(cfg)


def test_layout():
    text = "# head\n\n[net]\n# why\nwidth = 3 2\n\n[conv]\n  ; note \nfilters=1 # one\n\n# end"
    assert format_cfg(parse_cfg(text)) == "# head\n\n[net]\n# why\nwidth=32\n\n[conv]\n; note\nfilters=1#one\n\n# end\n"


def test_changed_option_is_written(tmp_path):
    cfg = parse_cfg("[net]\nwidth=416\n")
    net = replace(cfg.net, options=(replace(cfg.net.options[0], value="320"),))
    write_cfg(replace(cfg, sections=(net,)), tmp_path / "a.cfg")
    assert read_cfg(tmp_path / "a.cfg").meaning() == [("net", {"width": "320"})]


def test_bytes_that_are_no_utf8_come_out_as_they_went_in(tmp_path):
    data = b"# gr\xf6\xdfe \xc3\xa9\n[net]\ntree=\xff.tree\n"
    (tmp_path / "a.cfg").write_bytes(data)
    write_cfg(read_cfg(tmp_path / "a.cfg"), tmp_path / "b.cfg")
    assert (tmp_path / "b.cfg").read_bytes() == data


def test_folder_that_is_missing(tmp_path):
    path = tmp_path / "no" / "a.cfg"
    with pytest.raises(CfgError) as error:
        write_cfg(parse_cfg("[net]\n"), path)
    assert str(error.value) == f"{path}: cannot be written (No such file or directory); expected a writable folder"
