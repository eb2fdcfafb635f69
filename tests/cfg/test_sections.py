"""Options as numbers: what C's atoi and atof read, and where this project refuses what they would guess."""

import ctypes
import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darknet_compat.cfg import ALEXEYAB_SECTIONS, SECTIONS, parse_cfg
from darknet_compat.errors import CfgError, CfgWarning


def read(line, default):
    name = line.split("=")[0].strip()
    section = parse_cfg(f"[net]\n{line}\n", "x.cfg").net
    return getattr(section.read({name: default}), name)


@pytest.mark.parametrize(
    ("line", "default", "value"),
    [
        ("batch=64", 1, 64),
        ("batch=-1", 1, -1),
        ("batch=+07", 1, 7),
        ("batch=2147483647", 1, 2**31 - 1),
        ("batch=-2147483648", 1, -(2**31)),
        ("batch=" + "0" * 5000 + "5", 1, 5),
        ("hue=.1", 0.0, 0.1),
        ("hue=-1.", 0.0, -1.0),
        ("hue=1e-3", 0.0, 0.001),
        ("hue=3", 0.0, 3.0),
        ("hue=3", float, 3.0),
        ("hue=-3.4028234663852886e38", 0.0, -3.4028234663852886e38),
        ("policy=ste ps", "constant", "steps"),
        ("steps = -1, 100 ,20000", [int], [-1, 100, 20000]),
        ("scales=.1,10", [float], [0.1, 10.0]),
        ("layers=3", [int], [3]),
    ],
)
def test_values(line, default, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read(line, default)
    assert result == value
    assert type(result) is type(value)


def test_absent_options():
    values = parse_cfg("[net]\n").net.read({"a": 3, "b": 0.5, "c": "x", "d": int, "e": str, "f": [float]})
    assert vars(values) == {"a": 3, "b": 0.5, "c": "x", "d": None, "e": None, "f": []}


WRONG = {
    ("batch=many", 1): "batch=many: `batch` is `many`; expected an integer",
    ("batch=.5", 1): "batch=.5: `batch` is `.5`; expected an integer",
    ("batch=0x10", 1): "batch=0x10: `batch` is `0x10`; expected an integer",
    (
        "batch=2147483648",
        1,
    ): "batch=2147483648: `batch` is 2147483648; expected an integer from -2147483648 to 2147483647",
    ("batch=-99999999999999", int): (
        "batch=-99999999999999: `batch` is -99999999999999; expected an integer from -2147483648 to 2147483647"
    ),
    ("hue=nan", 0.0): "hue=nan: `hue` is `nan`; expected a finite decimal number",
    ("hue=-inf", 0.0): "hue=-inf: `hue` is `-inf`; expected a finite decimal number",
    ("hue=0x1p3", 0.0): "hue=0x1p3: `hue` is `0x1p3`; expected a finite decimal number",
    ("hue=1e39", 0.0): "hue=1e39: `hue` is 1e39; expected a number that a 32-bit float holds",
    ("hue=3.4028234663852888e38", 0.0): (
        "hue=3.4028234663852888e38: `hue` is 3.4028234663852888e38; expected a number that a 32-bit float holds"
    ),
    ("steps=1,,2", "list"): "steps=1,,2: `steps` has an empty item; expected an integer between commas",
    ("steps=1,2,", "list"): "steps=1,2,: `steps` has an empty item; expected an integer between commas",
    ("steps=1,two", "list"): "steps=1,two: `steps` is `two`; expected an integer",
}


@pytest.mark.parametrize(("line", "default"), WRONG)
def test_wrong_type(line, default):
    with pytest.raises(CfgError) as error:
        read(line, [int] if default == "list" else default)
    assert str(error.value) == "x.cfg:2: " + WRONG[line, default]


def test_warnings_name_line_and_nearest():
    section = parse_cfg("[net]\n[conv]\n fliters = 3\nfilters=21#note\nfilters=5\nqqq=1\nbatch_normalise=1\n", "x.cfg")
    with pytest.warns(CfgWarning) as caught:
        values = section.layers[0].read({"filters": 1, "size": 1, "batch_normalize": 0})
    assert values.filters == 21
    assert [str(warning.message) for warning in caught] == [
        "x.cfg:3: fliters = 3: unknown option of [convolutional], ignored; did you mean `filters`?",
        "x.cfg:5: filters=5: repeated option, ignored: line 4 counts",
        "x.cfg:6: qqq=1: unknown option of [convolutional], ignored",
        "x.cfg:7: batch_normalise=1: unknown option of [convolutional], ignored; did you mean `batch_normalize`?",
        "x.cfg:4: filters=21#note: `filters` reads 21: Darknet ignores `#note`",
    ]


def test_error_stands_at_the_option_or_the_section():
    section = parse_cfg("[net]\n[conv]\nsize=99\n", "x.cfg").layers[0]
    assert str(section.error("too small")) == "x.cfg:2: [conv]: too small"
    assert str(section.error("too large", section.find("size"))) == "x.cfg:3: size=99: too large"
    assert str(section.error("too large", "size")) == "x.cfg:3: size=99: too large"
    assert str(section.error("too few", "filters")) == "x.cfg:2: [conv]: too few"
    with pytest.warns(CfgWarning, match=r"^x\.cfg:3: size=99: odd$"):
        section.warn("odd", "size")
    with pytest.warns(CfgWarning, match=r"^x\.cfg:2: \[conv\]: odd$"):
        section.warn("odd", "filters")


def test_another_value_for_an_option_that_is_given():
    section = parse_cfg("[net]\n# why\nwidth = 99\nheight=3\n", "x.cfg").net
    changed = section.with_option("width", "32").with_option("angle", "5")
    assert [(o.name, o.value, o.line, o.text, o.above) for o in changed.options] == [
        ("width", "32", 3, "width=32", ("# why",)),
        ("height", "3", 4, "height=3", ()),
    ]


NUMBERS = st.from_regex(r"\A[+-]?[0-9]{0,9}(\.[0-9]{0,5})?([eE][+-]?[0-9]?)?[a-z#]{0,3}\Z")


@given(NUMBERS.filter(lambda text: text.strip()))
def test_numbers_as_c_reads_them(text):
    """Where a value is taken at all, it is what the C library makes of the text."""
    libc = ctypes.CDLL(None)
    libc.atof.restype = ctypes.c_double
    for default, function in ((0, libc.atoi), (0.0, libc.atof)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CfgWarning)
            try:
                value = read(f"hue={text}", default)
            except CfgError:
                # C reads 0, an infinity, or no number, unless the text is hexadecimal.
                read_by_c = function(text.encode())
                assert read_by_c == 0 or not math.isfinite(read_by_c) or "x" in text
                continue
        assert value == function(text.encode())


def check_section_names(library, sections: dict[str, str], others: set[str]) -> None:
    function = ctypes.CDLL(str(library)).string_to_layer_type
    blank = function(b"[no such section]")
    number = {full: function(f"[{full}]".encode()) for full in set(sections.values())}
    assert blank not in number.values()
    assert len(set(number.values())) == len(number)
    for written, full in sections.items():
        assert function(f"[{written}]".encode()) == number[full]
    assert len(others) > 3
    assert {function(f"[{written}]".encode()) for written in others} == {blank}


def test_section_names_are_those_of_libdarknet(darknet_share):
    theirs = {written: full for written, full in SECTIONS.items() if written not in ALEXEYAB_SECTIONS}
    check_section_names("/usr/lib/darknet/libdarknet.so", theirs, ALEXEYAB_SECTIONS)


def test_section_names_are_those_of_alexeyabs_library(alexeyab):
    # He has dropped these, and knows [avg], [max] ... as pjreddie does.
    dropped = {"deconv", "deconvolutional", "iseg", "l2norm", "logistic"}
    his = {written: full for written, full in SECTIONS.items() if written not in dropped}
    check_section_names(alexeyab / "libdarknet.so", his, dropped)
