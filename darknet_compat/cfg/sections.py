"""What a .cfg text holds once it is read: sections with their options, each with its file and line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, TypeVar

from ..errors import CfgError, CfgWarning, DarknetError

# Every section name that src/parser.c, string_to_layer_type knows, pjreddie's or AlexeyAB's -> its full name.
SECTIONS = {
    "activation": "activation",
    "avg": "avgpool",
    "avgpool": "avgpool",
    "batchnorm": "batchnorm",
    "conn": "connected",
    "connected": "connected",
    "contrastive": "contrastive",
    "conv": "convolutional",
    "conv_lstm": "conv_lstm",
    "convolutional": "convolutional",
    "cost": "cost",
    "crnn": "crnn",
    "crop": "crop",
    "deconv": "deconvolutional",
    "deconvolutional": "deconvolutional",
    "detection": "detection",
    "dropout": "dropout",
    "empty": "empty",
    "Gaussian_yolo": "Gaussian_yolo",
    "gru": "gru",
    "history": "history",
    "implicit": "implicit",
    "iseg": "iseg",
    "l2norm": "l2norm",
    "local": "local",
    "local_avg": "local_avgpool",
    "local_avgpool": "local_avgpool",
    "logistic": "logistic",
    "lrn": "normalization",
    "lstm": "lstm",
    "max": "maxpool",
    "maxpool": "maxpool",
    "net": "net",
    "network": "net",
    "normalization": "normalization",
    "region": "region",
    "reorg": "reorg",
    "reorg3d": "reorg3d",
    "rnn": "rnn",
    "route": "route",
    "sam": "sam",
    "scale_channels": "scale_channels",
    "shortcut": "shortcut",
    "silence": "empty",
    "soft": "softmax",
    "softmax": "softmax",
    "upsample": "upsample",
    "yolo": "yolo",
}
# The names that AlexeyAB's program alone knows.
ALEXEYAB_SECTIONS = {
    *("Gaussian_yolo", "contrastive", "conv_lstm", "empty", "history", "implicit", "local_avg", "local_avgpool"),
    *("reorg3d", "sam", "scale_channels", "silence"),
}

SHOWN = 120  # characters of a line that a message shows
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
FLOAT_MAX = 3.4028234663852886e38  # C's FLT_MAX

# What C's atoi and atof take from the start of a text. Hexadecimal floats, which atof knows too, are refused below.
INTEGER = re.compile(r"[+-]?[0-9]+")
DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
HEXADECIMAL = re.compile(r"[+-]?0[xX]")

ErrorClass = TypeVar("ErrorClass", bound=DarknetError)
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Option:
    """One ``name=value`` line, blanks taken out."""

    name: str
    value: str
    file: str
    line: int
    text: str
    """The line as it stands in the file."""
    above: tuple[str, ...] = ()
    """The comments and blank lines before it."""


@dataclass(frozen=True)
class Section:
    """One ``[section]`` and the options below it."""

    type: str
    """The full name: ``convolutional`` where ``[conv]`` is written."""
    written: str
    """The name as it is written, with its brackets."""
    file: str
    line: int
    text: str
    """The line as it stands in the file."""
    options: tuple[Option, ...]
    above: tuple[str, ...] = ()
    """The comments and blank lines before it."""

    def find(self, name: str) -> Option | None:
        """The option called ``name``; of several, the first (src/option_list.c, option_find)."""
        return find_option(self.options, name)

    def with_option(self, name: str, value: str) -> Section:
        """The same section with another value for an option that it gives; its line says so."""
        options = tuple(
            replace(option, value=value, text=f"{name}={value}") if option.name == name else option
            for option in self.options
        )
        return replace(self, options=options)

    def read(self, defaults: Mapping[str, object], unread: Mapping[str, object] | None = None) -> SimpleNamespace:
        """The values of all options in ``defaults``, as Darknet's ``option_find_int`` and its kin read them.

        ``defaults`` maps each name to a value (the default; its type is the option's type), to ``int``,
        ``float`` or ``str`` (None where the option is absent), or to ``[int]`` or ``[float]`` (a list of
        numbers between commas, [] where absent). Integers are those of 32 bits, floats finite.
        A number counts as far as it goes, with a warning: ``21#note`` reads 21.

        What stands in ``unread`` alone is not read, and has the default that stands there.

        Unknown options and repeated ones are passed over with a :class:`CfgWarning`; a value of the wrong
        type raises :class:`CfgError`.
        """
        self._warn_of_unread(defaults)
        values = {name: _absent(default) for name, default in (unread or {}).items()}
        for name, default in defaults.items():
            option = self.find(name)
            values[name] = _absent(default) if option is None else _read(option, default)
        return SimpleNamespace(**values)

    def error(self, message: str, option: Option | str | None = None) -> CfgError:
        """The error to raise for this section, or for one of its options, where ``message`` says what is wrong.

        An option's name stands for its line; where the text does not give that option, the section's line counts.
        """
        place = (self.find(option) if isinstance(option, str) else option) or self
        return line_error(CfgError, place.file, place.line, place.text, message)

    def warn(self, message: str, option: str) -> None:
        """Warn with a :class:`CfgWarning` of an option; where the text does not give it, of this section."""
        _warn(self.find(option) or self, message)

    def _warn_of_unread(self, known: Iterable[str]) -> None:
        first: dict[str, Option] = {}
        for option in self.options:
            if option.name not in known:
                near = nearest(option.name, known)
                hint = f"; did you mean `{near}`?" if near else ""
                message = f"unknown option of [{self.type}], ignored{hint}"
            elif option.name in first:
                message = f"repeated option, ignored: line {first[option.name].line} counts"
            else:
                first[option.name] = option
                continue
            _warn(option, message)


@dataclass(frozen=True)
class Cfg:
    """A .cfg text: ``[net]`` and the layers."""

    file: str
    sections: tuple[Section, ...]
    end: tuple[str, ...] = ()
    """The comments and blank lines after the last option."""

    @property
    def net(self) -> Section:
        return self.sections[0]

    @property
    def layers(self) -> list[Section]:
        return list(self.sections[1:])

    def meaning(self) -> list[tuple[str, dict[str, str]]]:
        """Full name and options of every section; equal for two texts that differ in layout and comments only."""
        # Of two equal names the first counts, and a dict keeps the last that it is given.
        return [(section.type, {o.name: o.value for o in reversed(section.options)}) for section in self.sections]


def find_option(options: Iterable[Option], name: str) -> Option | None:
    """The first option called ``name``."""
    return next((option for option in options if option.name == name), None)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, if one is."""
    # Names of any length may stand in a damaged file, and comparing long ones takes long.
    near = get_close_matches(name[:40].lower(), list(known), n=1)
    return near[0] if near else None


def line_error(kind: type[ErrorClass], file: str, line: int, text: str, message: str) -> ErrorClass:
    """An error in one line: ``file:line: <the line itself>: message``."""
    return kind(_located(file, line, text, message))


def shown(text: str) -> str:
    """A line of a file as messages show it: trimmed, cut where long, everything unprintable escaped."""
    text = text.strip(" \t\r")
    return printable(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")


def printable(text: str) -> str:
    """``text`` with line ends, control characters and undecoded bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def read_integer(option: Option, kind: type[DarknetError] = CfgError) -> int:
    """The option's value as C's atoi reads it; ``kind`` is the error to raise where it is none."""
    return _number(option, option.value, int, kind)


def _absent(default: object) -> object:
    if isinstance(default, list):
        return []
    return None if isinstance(default, type) else default


def _read(option: Option, default: object) -> object:
    if isinstance(default, list):
        return [_number(option, item, default[0], CfgError) for item in option.value.split(",")]
    kind: type[Any] = default if isinstance(default, type) else type(default)
    return option.value if kind is str else _number(option, option.value, kind, CfgError)


def _number(option: Option, text: str, kind: type[Number], error: type[DarknetError]) -> Number:
    """The number at the start of ``text``, which is the option's value or one item of it."""

    def wrong(found: str, expected: str) -> DarknetError:
        message = f"`{option.name}` {found}; expected {expected}"
        return line_error(error, option.file, option.line, option.text, message)

    expected = "an integer" if kind is int else "a number"
    if not text:
        raise wrong("has an empty item", f"{expected} between commas")
    match = (INTEGER if kind is int else DECIMAL).match(text)
    if match is None or HEXADECIMAL.match(text):
        raise wrong(f"is `{shown(text)}`", expected if kind is int else "a finite decimal number")
    digits = match.group()
    # By way of float for integers too: int() refuses texts of thousands of digits, and 32 bits fit exactly.
    value = float(digits)
    if kind is int and not INT_MIN <= value <= INT_MAX:
        raise wrong(f"is {shown(digits)}", f"an integer from {INT_MIN} to {INT_MAX}")
    if abs(value) > FLOAT_MAX:
        raise wrong(f"is {shown(digits)}", "a number that a 32-bit float holds")
    if len(digits) < len(text):
        _warn(option, f"`{option.name}` reads {shown(digits)}: Darknet ignores `{shown(text[len(digits) :])}`")
    return kind(value)


def _warn(place: Option | Section, message: str) -> None:
    warnings.warn(_located(place.file, place.line, place.text, message), CfgWarning, stacklevel=2)


def _located(file: str, line: int, text: str, message: str) -> str:
    return printable(f"{file}:{line}: {shown(text)}: {message}")
