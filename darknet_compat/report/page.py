"""A page that shows a job: one HTML file that holds its images too, to be opened from the disk or sent to somebody."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ..detect.draw import class_colour
from ..files import whole_file
from .steps import Steps

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1d2126; --soft: #5d6670; --line: #dcd9d0; --card: #fff;
  --mark: #0a7a5c; --code: #f1efe8 }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e6e8ea; --soft: #9aa4ae; --line: #30363d;
  --card: #1c2125; --mark: #4fd1a5; --code: #1f252a } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main, header { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem }
header { padding-top: 2.5rem }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; margin: 0 0 .4rem; letter-spacing: -.02em }
h2 { font-size: 1.35rem; margin: 0 0 .6rem; letter-spacing: -.01em }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem }
p { margin: 0 0 .9rem; max-width: 46rem; overflow-wrap: anywhere }
section { border-top: 1px solid var(--line); padding: 1.8rem 0 2rem; margin-top: 1.8rem }
.soft { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0 0 }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem }
.tile b { display: block; font-size: 1.55rem; line-height: 1.2; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: .85rem }
.scroll { overflow-x: auto; max-width: 100%; border: 1px solid var(--line); border-radius: .6rem;
  background: var(--card) }
pre { margin: 0; padding: .8rem 1rem; font: .8rem/1.5 ui-monospace, monospace; width: max-content; min-width: 100% }
.command { background: var(--code); margin: 0 0 .9rem }
.command pre { width: auto; white-space: pre-wrap; overflow-wrap: anywhere }
figure + .scroll, .scroll + .scroll { margin-top: 1rem }
.wrapped { width: auto; white-space: pre-wrap; overflow-wrap: anywhere }
.command pre::before { content: "$ "; color: var(--mark) }
.command small { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .45rem .9rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left }
tr:last-child td { border-bottom: 0 }
.summed tr:last-child td { font-weight: 650 }
th { color: var(--soft); font-weight: 600; font-size: .85rem }
.bar { display: inline-block; height: .6rem; width: 7rem; border-radius: .3rem; background: var(--line);
  overflow: hidden }
.chip { display: inline-block; margin-right: .9rem; white-space: nowrap }
.chip i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border: 1px solid var(--line) }
.wrapping td + td, .wrapping th + th { white-space: normal; overflow-wrap: anywhere; min-width: 9rem }
.bar i { display: block; height: 100%; background: var(--mark) }
figure { margin: 1rem 0 0 }
figure img { display: block; width: 100%; height: auto; border-radius: .5rem; background: #fff }
figure.image { border: 1px solid var(--line); border-radius: .6rem; background: #fff; padding: .4rem;
  width: fit-content; max-width: 100% }
figure.image img { width: auto; max-width: 100% }
figcaption { color: var(--soft); font-size: .85rem; padding-top: .35rem }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; align-items: start; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; padding: .6rem }
.pair figure { margin: 0; min-width: 0 }
.pairs + .soft { margin-top: 1rem }
footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem 3rem; color: var(--soft); font-size: .85rem }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    words: str
    parts: Sequence[str] = field(default_factory=list)
    """HTML, as the functions below give it."""


def write_page(
    path: str | os.PathLike[str], title: str, words: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Write the page, whole or not at all. ``tiles``: the figures that count, each with its name."""
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles
    )
    body = [
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(words)}</p><div class="tiles">{shown}</div></header>',
        "<main>",
        *(_section(number, section) for number, section in enumerate(sections, 1)),
        "</main>",
        "<footer>Made by darknet_compat. Everything is in this one file.</footer>",
    ]
    with whole_file(path, "w") as file:
        file.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        )
        file.write("\n".join(body))
        file.write("\n</body>\n</html>\n")


def _section(number: int, section: Section) -> str:
    parts = "\n".join(part for part in section.parts if part)
    words = f"<p>{escape(section.words)}</p>\n" if section.words else ""
    return f"<section><h2>{number}. {escape(section.title)}</h2>\n{words}{parts}</section>"


def commands(steps: Steps, part: str) -> list[str]:
    """Those of a part of the page."""
    return [command(words, seconds) for words, seconds in steps.of(part)]


def command(words: str, seconds: float | None = None) -> str:
    """A command, and how long it took."""
    time = "" if seconds is None else f"  <small># {clock(seconds)}</small>"
    return scroll(f"<pre>{escape(words)}{time}</pre>", "Command", "command")


def scroll(inner: str, label: str, kind: str = "") -> str:
    """A box that scrolls sideways by itself; it can be reached with the keyboard."""
    return f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(label)}">{inner}</div>'


def note(words: str) -> str:
    """A remark."""
    return f'<p class="soft">{escape(words)}</p>'


def text(lines: str, label: str, wrapped: bool = False) -> str:
    """Lines as they are; where they are ``wrapped`` none is wider than the page."""
    kind = ' class="wrapped"' if wrapped else ""
    return scroll(f"<pre{kind}>{escape(lines.rstrip())}</pre>", label)


def image(source: Path | bytes, words: str) -> str:
    """An image file, or the bytes of a PNG one, with what it shows; a remark where there is no such file."""
    if isinstance(source, Path) and not source.exists():
        return note(f"Left out: there is no {source.name}.")
    address = _embedded(source) if isinstance(source, Path) else _address(".png", source)
    return (
        f'<figure><figure class="image"><img src="{address}" alt="{escape(words)}"></figure>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def legend(names: Sequence[str]) -> str:
    """The classes, each with the colour that its boxes have in drawings."""
    chips = []
    for number, name in enumerate(names):
        colour = ",".join(map(str, class_colour(number, len(names))))
        chips.append(f'<span class="chip"><i style="background:rgb({colour})"></i>{escape(name)}</span>')
    return f'<p class="soft">{" ".join(chips)}</p>'


def pairs(images: Sequence[tuple[str, Path, Path]]) -> str:
    """Of each image its name, and two files of it side by side: with the truth, and with what was found."""
    cards = [
        '<div class="pair">'
        + "".join(
            f'<figure><img src="{_embedded(one)}" alt="{escape(name)}, {what}"><figcaption>{what}</figcaption></figure>'
            for one, what in ((truth, "truth"), (found, "found"))
        )
        + "</div>"
        for name, truth, found in images
    ]
    return f'<div class="pairs">{"".join(cards)}</div>' if cards else ""


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], label: str, last: bool = True, wrapping: bool = False
) -> str:
    """Rows of text or of what :func:`bar` gives; ``last``: the last is the sum or the mean of the others;
    ``wrapping``: cells of long text may have several lines.
    """
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    kinds = [kind for kind, there in (("summed", last), ("wrapping", wrapping)) if there]
    return scroll(f'<table class="{" ".join(kinds)}">' + "\n".join(lines) + "</table>", label)


class Bar(str):
    """A part of 1, drawn."""


def _cell(cell: str) -> str:
    return f'<span class="bar"><i style="width:{cell}%"></i></span>' if isinstance(cell, Bar) else escape(cell)


def bar(part: float | None) -> Bar:
    """A part of 1 to be drawn in a table."""
    return Bar(f"{100 * (part or 0):.1f}")


def score_table(ours: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any]]) -> str:
    """AP by class of what ``voc_eval -json`` writes; others by their names beside it, with the differences."""
    keys = ("truths", "difficult", "detections")
    head = ["class", "AP", ""]
    for name in beside:
        head += [f"AP, {name}", "difference"]
    rows = []
    for name, one in ours["classes"].items():
        others = [other["classes"].get(name, {}).get("ap") for other in beside.values()]
        counts = [count(one.get(key)) for key in keys]
        rows.append([name, number(one["ap"]), bar(one["ap"]), *_compared(one["ap"], others), *counts])
    sums = [count(sum(one.get(key) or 0 for one in ours["classes"].values())) for key in keys]
    mean = ours["mAP"]
    means = _compared(mean, [other["mAP"] for other in beside.values()])
    rows.append(["mean", number(mean), bar(mean), *means, *sums])
    return table([*head, "objects", "difficult", "detections"], rows, "AP by class")


def _compared(mine: float | None, others: Sequence[float | None]) -> list[str]:
    cells = []
    for other in others:
        cells += [number(other), "–" if mine is None or other is None else f"{mine - other:+.4f}"]
    return cells


def number(value: float | None) -> str:
    """A score."""
    return "–" if value is None else f"{value:.4f}"


def count(value: int | None) -> str:
    """A whole number."""
    return "–" if value is None else f"{value:,}"


def clock(seconds: float) -> str:
    """A time."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes}:{int(seconds) % 60:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def _embedded(path: Path) -> str:
    return _address(path.suffix.lower(), path.read_bytes())


def _address(suffix: str, data: bytes) -> str:
    """An image as a data: address."""
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(data).decode()}"
