"""The flags of the C programs: taken wherever they stand, and a line about each that does nothing here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from darknet_compat.cli import build_parser
from darknet_compat.cli.arguments import chosen_device
from darknet_compat.cli.flags import ALEXEYABS, FAMILIES
from tests.conftest import ROOT

FILES = ["x.data", "a.cfg", "a.weights"]


def parsed(*words, name="darknet"):
    return build_parser(name).parse_args([str(word) for word in words])


def refused(capsys, *words):
    with pytest.raises(SystemExit) as exit:
        parsed(*words)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "detector test x.data a.cfg a.weights dog.jpg -dont_show -thresh .1 -i 0",
        "-i 0 detector -dont_show test -thresh .1 x.data a.cfg a.weights dog.jpg",
        "detector test -dont_show x.data a.cfg -i 0 a.weights -thresh .1 dog.jpg",
        "-thresh .1 -dont_show -i 0 detector test x.data a.cfg a.weights dog.jpg",
        "detector test x.data a.cfg a.weights -i 0 -dont_show -thresh .1 -- dog.jpg",
        "detector test --dont_show x.data a.cfg a.weights -thresh=.1 -i=0 dog.jpg",
    ],
)
def test_flags_stand_anywhere(line, capsys):
    options = parsed(*line.split())
    assert [options.data, options.cfg, options.weights, *options.images] == [*FILES, "dog.jpg"]
    assert (options.thresh, options.i) == (0.1, 0)
    assert capsys.readouterr() == ("", "")  # no window opens here, which is no news


def test_the_number_of_a_flag_is_no_verb(capsys):
    for words in (["-i", "0"], ["detector", "-i", "0", "-nogpu"], ["detector", "-thresh", ".1"], ["-dont_show"]):
        assert "the following arguments are required: VERB;" in refused(capsys, *words)


def test_images_may_stand_in_parts():
    options = parsed("detector", "test", *FILES, "a.jpg", "-nms", ".3", "b.jpg", "-skip", "c.jpg")
    assert options.images == ["a.jpg", "b.jpg", "c.jpg"]


def test_behind_two_dashes_stand_names_alone():
    options = parsed("detector", "test", *FILES, "-nms", ".3", "--", "-thresh", "a.jpg", "-b.jpg")
    assert (options.images, options.thresh) == (["-thresh", "a.jpg", "-b.jpg"], None)
    assert parsed("detector", "test", *FILES, "-", "a.jpg").images == ["-", "a.jpg"]  # one dash alone is a name


def test_show_of_calc_anchors_takes_an_images_name_alone():
    for flags, show in ((["-show"], "cloud.png"), (["-show", "a.png"], "a.png")):
        options = parsed("detector", "calc_anchors", *flags, "x.data")
        assert (str(options.show), options.data) == (show, "x.data")


@pytest.mark.parametrize(
    ("flags", "found"),
    [(["-letter_box"], 1), (["-letter_box", "1"], 1), (["-letter_box", "0"], 0), (["--letter_box", "0"], 0)],
)
def test_letter_box_takes_no_image_for_its_number(flags, found):
    for words in ((*flags, *FILES, "dog.jpg"), (*FILES, *flags, "dog.jpg"), (*FILES, "dog.jpg", *flags)):
        options = parsed("detector", "test", *words)
        assert (options.letter_box, options.images) == (found, ["dog.jpg"])
    assert parsed("detector", "test", *FILES).letter_box is None


def test_map_of_a_training_takes_no_file_for_its_number():
    for words in (("-map", *FILES), (*FILES, "-map"), (*FILES[:2], "-map", FILES[2])):
        options = parsed("detector", "train", *words)
        assert (options.map, options.weights) == (0, "a.weights")
    assert parsed("detector", "train", "-map", 20, *FILES).map == 20


def test_every_flag_of_the_family_is_taken_by_every_verb(capsys):
    """With the words that the C program reads behind it, and a line about each that does nothing."""
    files = {"detector": FILES, "detect": FILES[1:], "yolo": FILES, "classifier": FILES, "classify": FILES[1:],
             "rnn": FILES[1:]}  # fmt: skip
    verbs = {
        "detector": ["test", "valid", "valid2", "map", "recall", "train"], "yolo": ["test", "valid", "recall", "train"],
        "classifier": ["predict", "valid", "valid10", "validmulti", "validfull", "validcrop", "label", "csv", "test",
                       "train"],
        "rnn": ["train", "generate", "generatetactic", "valid", "validtactic", "vec"], "detect": [None],
        "classify": [None],
    }  # fmt: skip
    assert files.keys() == FAMILIES.keys()
    for family, names in verbs.items():
        for verb in names:
            for name, flag in FAMILIES[family].items():
                if name in ("letter_box", "show", "map", "topk"):
                    assert flag.words == 0
                value = "11" if name == "points" else "1"
                words = [family, *([verb] if verb else []), f"-{name}", *[value] * flag.words, *files[family]]
                options = parsed(*words)
                assert options.cfg == "a.cfg", words
                said = capsys.readouterr().err
                assert said in ("", f"darknet: -{name} has no meaning here: {flag.what}\n")
                if name in ("c", "s", "prefix", "json_port", "benchmark", "show_imgs"):
                    assert said, words


def test_the_line_about_a_flag_stands_once_and_calls_the_command(capsys):
    words = "detector", "test", *FILES, "dog.jpg", "-show_imgs", "-benchmark", "-dont_show"
    parsed(*words, name="darknet-compat")
    assert capsys.readouterr().err == (
        "darknet-compat: -show_imgs has no meaning here: it shows training images\n"
        "darknet-compat: -benchmark has no meaning here: it times a video\n"
    )


@pytest.mark.parametrize("flag", ["-savetxt", "-thr", "-ifoo", "-c5", "-s.jpg"])
def test_a_flag_that_nobody_has_is_named_whole(flag, capsys):
    """argparse alone would take -savetxt for -s avetxt."""
    assert f"unrecognized arguments: {flag};" in refused(capsys, "detector", "test", *FILES, "dog.jpg", flag)


def test_a_value_may_begin_with_a_dash(capsys):
    assert parsed("rnn", "generate", "a.cfg", "-seed", "-x").seed == "-x"
    assert parsed("detector", "test", *FILES, "-mjpeg_port", "-1", "dog.jpg").images == ["dog.jpg"]
    assert "expected one argument" in refused(capsys, "detector", "test", *FILES, "-out", "-thresh", ".5")


def test_i_and_nogpu_choose_the_device(monkeypatch, capsys):
    def device(*flags):
        return chosen_device(parsed("detector", "test", *FILES, "dog.jpg", *flags))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device() is None
    assert device("-i", 1) == "cuda:1"
    assert device("-i", 0) == "cuda:0"
    assert device("-i", -1) == device("-nogpu") == "cpu"
    for flags in (("-i", 1), ("-i", -1), ("-nogpu",)):
        assert device(*flags, "-device", "cuda:0") == "cuda:0"
    assert capsys.readouterr().err == ""
    line = "darknet: -i 1 has no meaning here: the network runs on the CPU\n"
    assert (device("-i", 1, "-engine", "openvino"), capsys.readouterr().err) == (None, line)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (device("-i", 1), capsys.readouterr().err) == (None, line)


def test_flags_that_alexeyabs_program_alone_has_say_that_it_is_meant():
    for name in sorted(ALEXEYABS):
        for verb in ("test", "train"):
            words = "detector", verb, *FILES, f"-{name}", *["1"] * FAMILIES["detector"][name].words
            assert parsed(*words).program == "alexeyab", name
            assert parsed(*words, "-program", "pjreddie").program == "pjreddie"
    for flags in ([], ["-letter_box"], ["-thresh", ".1"], ["-i", "0"], ["-prefix", "x"]):
        assert parsed("detector", "test", *FILES, *flags).program is None
    assert parsed("yolo", "test", *FILES, "-ext_output").program is None
    assert parsed("detect", *FILES[1:], "-ext_output").program == "alexeyab"
    assert parsed("detector", "test", *FILES, "-mjpeg_port=8090").said_by == "mjpeg_port"


def test_the_help_calls_the_command_by_its_name(capsys):
    for name in ("darknet", "darknet-compat"):
        for words in (["-h"], ["detector", "test", "-h"], ["detector", "train", "-h"], ["rnn", "generate", "-h"]):
            with pytest.raises(SystemExit):
                parsed(*words, name=name)
            said = capsys.readouterr().out
            assert f"usage: {name} " in said
            assert set(re.findall(r"\bdarknet(?:-compat)?(?= detector| rnn)", said)) == {name}
    assert "darknet detector test: the following" in refused(capsys, "detector", "test")


def test_yolo_takes_the_cfg_first_as_the_c_programs_do():
    options = parsed("yolo", "test", "yolov1.cfg", "yolov1.weights", "dog.jpg", "-thresh", ".1")
    assert [options.data, options.cfg, options.weights] == ["cfg/voc.data", "yolov1.cfg", "yolov1.weights"]
    assert parsed("yolo", "train", "x.data", "yolov1.cfg").data == "x.data"


PAGE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
VERBS = {
    "detector": ["test", "valid", "valid2", "map", "recall", "train", "calc_anchors", "demo"],
    "yolo": ["test", "valid", "recall", "train", "demo"],
    "classifier": [
        "predict", "valid", "valid10", "validmulti", "validfull", "validcrop", "label", "csv", "test", "train", "fout",
        "try", "demo",
    ],
    "rnn": ["train", "generate", "generatetactic", "valid", "validtactic", "vec"],
}  # fmt: skip
# What stands on the page beside the flags that a parser takes.
NOT_TAKEN = {"detector": {"h", "cuda_debug_sync"}}


def rows_of(family):
    """Of the page's table of a family: flag, does a word follow, whose, here."""
    table = PAGE.split(f"## Flags of `{family}`")[1].split("\n## ")[0]
    found = re.findall(r"^\| `-(\w+)( [^`]+)?` \| ([^|]+) \| ([^|]+) \|", table, re.MULTILINE)
    assert len(found) == table.count("\n| `-")
    return [(name, bool(word), whose, here) for name, word, whose, here in found]


@pytest.mark.parametrize("family", VERBS)
def test_the_page_says_of_every_flag_what_the_parser_does(family, capsys):
    rows = rows_of(family)
    assert {name for name, *_ in rows} == FAMILIES[family].keys() | NOT_TAKEN.get(family, set())
    for name, word, whose, here in rows:
        if here == "not here":
            assert name in NOT_TAKEN[family]
            continue
        flag = FAMILIES[family][name]
        assert word == bool(flag.words), name
        if family == "detector":
            assert (name in ALEXEYABS) == whose.endswith("says so"), name
        notes = 0
        for verb in VERBS[family]:
            value = "11" if name == "points" else "1"
            files = ["x.data"] if verb == "calc_anchors" else [] if family == "rnn" else ["x.data"]
            files += [] if verb == "calc_anchors" else ["a.cfg", "a.weights"]
            files += {"fout": ["a.jpg"], "try": ["a.jpg", "0"]}.get(verb, [])
            options = parsed(family, verb, f"-{name}", *[value] * flag.words, *files)
            said = capsys.readouterr().err
            assert said in ("", f"darknet: -{name} has no meaning here: {flag.what}\n")
            notes += "unused" in options and bool(getattr(options, "unused", None))
        assert here in ("same", "differently", "no meaning")
        assert (notes == len(VERBS[family])) == (here == "no meaning"), (name, notes)


def calls(path):
    """The flags that a C file reads, and whether a word follows."""
    text = re.sub(r"//.*", "", path.read_text(errors="replace"))
    return {name: kind != "" for kind, name in re.findall(r'find_(int_|char_|float_|)arg\(argc, argv, "-(\w+)"', text)}


@pytest.mark.parametrize("family", VERBS)
def test_the_page_has_every_flag_of_alexeyabs_sources(family, alexeyab):
    source = alexeyab / f"src/{family}.c"
    if not source.is_file():
        pytest.skip("needs AlexeyAB's sources (src/ beside the program that DARKNET_COMPAT_ALEXEYAB names)")
    read = {**calls(alexeyab / "src/darknet.c"), **calls(source)}
    rows = {name: (word, whose) for name, word, whose, _ in rows_of(family)}
    if family != "detector":
        read = {name: word for name, word in read.items() if name in rows or name in calls(source)}
    assert len(read) > 5
    for name, word in read.items():
        assert rows[name][0] == word, name
    for name, (_, whose) in rows.items():
        assert (name in read) == (whose != "pjreddie's"), name


@pytest.mark.parametrize("family", VERBS)
def test_whose_the_page_says_that_a_flag_is(family, pjreddie):
    """The flags stand as texts in pjreddie's program."""
    program = Path(pjreddie).read_bytes()
    for name, _, whose, _ in rows_of(family):
        if whose != "AlexeyAB's" or family == "detector":
            assert (f"-{name}\0".encode() in program) == (not whose.startswith("AlexeyAB's")), name


def test_the_page_says_of_every_verb_whether_it_is_here(capsys):
    table = PAGE.split("## Verbs")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \| ([^|]+) \|", table, re.MULTILINE)
    assert len(rows) == table.count("\n| `") > 30
    seen = set()
    for verbs, here in rows:
        family = None
        for text in re.findall(r"`([^`]+)`", verbs):
            words = text.split()
            family = words[0] if len(words) == 2 else family
            words = words if len(words) == 2 or family is None else [family, *words]
            said = refused(capsys, *words, "-nothing")
            known = "invalid choice" not in said
            assert known == (here in ("same", "differently", "another job")), (words, said)
            seen.add(" ".join(words))
    assert {f"{family} {verb}" for family, verbs in VERBS.items() for verb in verbs} <= seen


def test_the_page_has_every_verb_and_flag_that_only_this_project_has():
    own = PAGE.split("## Verbs and flags that only")[1]
    verbs, flags = own.split("\n| flag |")
    parsers = verbs_of(build_parser())
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", verbs, re.MULTILINE))))
    assert told == {verb for verb in parsers if verb not in {*FAMILIES, "partial"}}
    told = set(re.findall(r"`-(\w+)", "".join(re.findall(r"^\| (`.*?) \|", flags, re.MULTILINE))))
    parsers = [part for family in FAMILIES for part in (parsers[family], *verbs_of(parsers[family]).values())]
    there = {name.lstrip("-") for parser in parsers for name in parser._option_string_actions}
    theirs = {name for family in FAMILIES.values() for name in family} - {"seed"}  # which only rnn has there
    assert there - theirs - {"h", "help"} == told | {"top", "v3", "stride"}, "but for those of one verb"


def verbs_of(parser):
    """The parsers of its verbs, by name."""
    return parser._subparsers._group_actions[0].choices if parser._subparsers else {}
