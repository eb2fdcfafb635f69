#!/usr/bin/env python3
"""Show a quickstart run on one page: RUN/index.html, self-contained, to be opened from the disk or sent to somebody.

    python tools/quickstart_page.py runs/quickstart

What it looks for in the folder (whatever is missing is left out, with a word):

    data.png  anchors.png          samples of the training images; their boxes with the anchors
    network.txt                    what `darknet-compat net` printed
    chart.png  train.txt           loss over the batches; the last lines of the training log
    scores.json  darknet.json      AP by class from our detections, and from those of the C program (voc_eval --json)
    curves.png  bars.png           precision-recall curves, AP bars
    pairs/NAME-truth.EXT  pairs/NAME-found.EXT     an image with its truth, and with the detections
    worst.png                      the worst false positives and misses
    commands.json                  [{"section": "data", "command": "...", "seconds": 9.5}, ...]; sections are data,
                                   network, training, scores, detections
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from darknet_compat.errors import DarknetError, DataError
from darknet_compat.files import whole_file

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
METRICS = {"voc07": "11 points of recall", "area": "area under the curve"}
OWN_DATA = """\
# 1. From labelled images (VOC XML, COCO JSON or Darknet labels) to lists, anchors and a cfg: the folder cells
darknet-compat new cells --from my_images

# 2. What is wrong with them, before hours of training
darknet-compat check cells/cells.data -cfg cells/cells.cfg

# 3. Train; the log says how long it will take
darknet-compat detector train cells/cells.data cells/cells.cfg -fast -map

# 4. Look, then measure
darknet-compat detector test cells/cells.data cells/cells.cfg cells/backup/cells_final.weights photo.jpg
darknet-compat detector map cells/cells.data cells/cells.cfg cells/backup/cells_final.weights
"""
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
figure + .scroll { margin-top: 1rem }
.command pre::before { content: "$ "; color: var(--mark) }
.command small { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .45rem .9rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left }
tr:last-child td { border-bottom: 0; font-weight: 650 }
th { color: var(--soft); font-weight: 600; font-size: .85rem }
.bar { display: inline-block; height: .6rem; width: 7rem; border-radius: .3rem; background: var(--line);
  overflow: hidden }
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


def make_page(folder: Path) -> Path:
    """Write ``index.html`` into the folder of a run, from what is there; its path comes back.

    Raises DataError where the folder is missing or one of its JSON files is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the folder of a run")
    commands = read_json(folder / "commands.json") or []
    ours, theirs = (read_scores(folder / name) for name in ("scores.json", "darknet.json"))
    body = [
        header(ours, theirs, commands),
        "<main>",
        section(
            "1. The data",
            "Drawn for this run: shapes in random colours, textures and sizes, some cut, hidden or nearly invisible.",
            made_by(commands, "data"),
            image(
                folder,
                "data.png",
                "Training images with their boxes. Difficult ones are trained on too, and passed over in the scores.",
            ),
            image(folder, "anchors.png", "Every box by width and height, and the anchors that k-means found."),
        ),
        section(
            "2. The network",
            "A small YOLOv2, built from its .cfg: convolutions with batch norm, a passthrough, five anchors.",
            made_by(commands, "network"),
            text(folder, "network.txt"),
        ),
        section(
            "3. Training",
            "From random numbers, with Darknet's loss, augmentation, schedule and log.",
            made_by(commands, "training"),
            image(folder, "chart.png", "Loss over the batches."),
            text(folder, "train.txt"),
        ),
        section(
            "4. Scores",
            "On images that the training never saw, from Darknet's result files.",
            made_by(commands, "scores"),
            table(ours, theirs),
            image(folder, "curves.png", "Precision over recall, by class."),
            image(folder, "bars.png", "AP by class."),
        ),
        section(
            "5. Detections",
            "Left the truth, right what the network found.",
            made_by(commands, "detections"),
            pairs(folder / "pairs"),
            image(folder, "worst.png", "The worst false positives and misses."),
        ),
        section(
            "6. Your own data",
            "The same road with your images. docs/ has a page for each step, with the usual mistakes.",
            scroll(f"<pre>{escape(OWN_DATA)}</pre>", "Commands for your own data"),
        ),
        "</main>",
        "<footer>Made by darknet_compat, tools/quickstart_page.py. Everything is in this one file.</footer>",
    ]
    page = folder / "index.html"
    with whole_file(page, "w") as file:
        file.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>darknet_compat quickstart</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        )
        file.write("\n".join(body))
        file.write("\n</body>\n</html>\n")
    return page


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path}: no JSON: {error}; delete the file and make it anew") from None


def read_scores(path: Path) -> dict[str, Any] | None:
    """A file that ``voc_eval --json`` wrote; None where there is none."""
    scores = read_json(path)
    if scores is not None and not (isinstance(scores, dict) and {"mAP", "classes"} <= scores.keys()):
        raise DataError(f"{path}: expected mAP and classes, as voc_eval --json writes them")
    return scores


def header(ours: dict | None, theirs: dict | None, commands: list[dict]) -> str:
    """Title and the figures that count."""
    tiles = []
    if ours:
        tiles.append((number(ours["mAP"]), f"mAP, {METRICS.get(ours.get('metric'), 'by class')}"))
    if theirs:
        tiles.append((number(theirs["mAP"]), "mAP of the same weights in the C program"))
    seconds = {
        part: sum(one.get("seconds") or 0 for one in commands if one.get("section") == part or not part)
        for part in ("training", "")
    }
    if seconds["training"]:
        tiles.append((clock(seconds["training"]), "training"))
    if seconds[""]:
        tiles.append((clock(seconds[""]), "the whole road"))
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles)
    return (
        "<header><h1>From nothing to a scored YOLOv2</h1>"
        '<p class="soft">Data, training, .weights, detections and scores, made on this machine by one command.</p>'
        f'<div class="tiles">{shown}</div></header>'
    )


def section(title: str, words: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>\n<p>{words}</p>\n" + "\n".join(part for part in parts if part) + "</section>"


def made_by(commands: list[dict], part: str) -> str:
    """The commands of one section, each with its time."""
    lines = []
    for one in commands:
        if one.get("section") == part:
            time = f"  <small># {clock(one['seconds'])}</small>" if one.get("seconds") else ""
            lines.append(scroll(f"<pre>{escape(one['command'])}{time}</pre>", "Command", "command"))
    return "\n".join(lines)


def scroll(inner: str, label: str, kind: str = "") -> str:
    """A box that scrolls sideways by itself; it can be reached with the keyboard."""
    return f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{label}">{inner}</div>'


def absent(name: str) -> str:
    return f'<p class="soft">Left out: there is no {escape(name)} in this run.</p>'


def text(folder: Path, name: str) -> str:
    path = folder / name
    if not path.exists():
        return absent(name)
    return scroll(f"<pre>{escape(path.read_text(encoding='utf-8', errors='replace').rstrip())}</pre>", name)


def embedded(path: Path) -> str:
    """An image as a data: address."""
    return f"data:{TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def image(folder: Path, name: str, words: str) -> str:
    path = folder / name
    if not path.exists():
        return absent(name)
    return (
        f'<figure><figure class="image"><img src="{embedded(path)}" alt="{escape(words)}"></figure>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def pairs(folder: Path) -> str:
    """Truth and detections side by side."""
    cards = []
    for truth in sorted(folder.glob("*-truth.*")):
        found = truth.with_name(truth.name.replace("-truth.", "-found."))
        if truth.suffix.lower() in TYPES and found.exists():
            name = escape(truth.name.rpartition("-truth.")[0])
            cards.append(
                '<div class="pair">'
                + "".join(
                    f'<figure><img src="{embedded(one)}" alt="{name}, {what}"><figcaption>{what}</figcaption></figure>'
                    for one, what in ((truth, "truth"), (found, "found"))
                )
                + "</div>"
            )
    return f'<div class="pairs">{"".join(cards)}</div>' if cards else absent("pairs/")


def table(ours: dict | None, theirs: dict | None) -> str:
    """AP by class; with the C program's beside it where it ran."""
    if ours is None:
        return absent("scores.json")
    other = theirs["classes"] if theirs else {}
    head = [
        "class",
        "AP",
        "",
        *(["AP, C program", "difference"] if theirs else []),
        "objects",
        "difficult",
        "detections",
    ]
    rows = []
    for name, one in ours["classes"].items():
        beside = other.get(name, {}).get("ap")
        counts = [count(one.get(key)) for key in ("truths", "difficult", "detections")]
        rows.append([escape(name), number(one["ap"]), bar(one["ap"]), *compared(one["ap"], beside, theirs), *counts])
    sums = [
        count(sum(one.get(key) or 0 for one in ours["classes"].values()))
        for key in ("truths", "difficult", "detections")
    ]
    mean = ours["mAP"]
    rows.append(["mean", number(mean), bar(mean), *compared(mean, theirs and theirs["mAP"], theirs), *sums])
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    missing = (
        "" if theirs else '<p class="soft">Left out: the C program\'s AP; apt-get install darknet, and run again.</p>'
    )
    return scroll("<table>" + "\n".join(lines) + "</table>", "AP by class") + missing


def compared(mine: float | None, theirs: float | None, shown: Any) -> list[str]:
    if not shown:
        return []
    return [number(theirs), "–" if mine is None or theirs is None else f"{mine - theirs:+.4f}"]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def bar(part: float | None) -> str:
    return f'<span class="bar"><i style="width:{100 * (part or 0):.1f}%"></i></span>'


def clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02} min"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    try:
        print(make_page(parser.parse_args().run))
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
