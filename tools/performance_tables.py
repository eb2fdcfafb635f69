#!/usr/bin/env python3
"""Write the tables of docs/PERFORMANCE.md anew, from the figures of one run of tools/bench.py.

    python tools/bench.py --opencv4 other/bin/python --alexeyab FOLDER/darknet --json docs/performance.json
    python tools/performance_tables.py docs/performance.json docs/PERFORMANCE.md

Each table stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``; all other text stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PLACE = re.compile(r"(?<=^<!-- table: )([^\n]+)( -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
NETS = "yolov2-tiny-voc", "yolov2-voc", "yolov3-tiny", "yolov4-tiny", "yolov7-tiny", "yolov4", "darknet19"
PROGRAMS = {
    "darknet_compat": "darknet_compat", "OpenVINO": "OpenVINO", "ONNX Runtime": "ONNX Runtime",
    "OpenCV 4": "OpenCV 4 dnn", "OpenCV": "OpenCV 5 dnn, from our ONNX file", "plain PyTorch": "plain eager PyTorch",
    "AlexeyAB's library": "AlexeyAB's library, with AVX and OpenMP", "libdarknet": "libdarknet, one thread",
}  # fmt: skip
PRECISIONS = {
    "-precision int8": "`-precision int8`", "darknet_compat": "`-precision bf16`",
    "-engine openvino": "`-precision bf16 -engine openvino`", "OpenVINO": "OpenVINO without this toolkit, bf16",
}  # fmt: skip
LOADERS = {
    "darknet_compat": "", "darknet_compat -cache": ", with `-cache`",
    "-augment device": ", what `-augment device` leaves to the loader",
    "-augment device, -cache": ", with `-cache` too",
}  # fmt: skip


class Figures:
    """What a run of ``tools/bench.py --json`` measured."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.rows: dict[tuple[str, str, str], Row] = {
            (row["section"], row["case"], row["who"]): row for row in content["rows"]
        }

    def races(self, section: str) -> list[str]:
        """The cases of a section, in order."""
        return list(dict.fromkeys(case for of, case, _ in self.rows if of == section))

    def row(self, section: str, case: str, who: str) -> Row | None:
        return self.rows.get((section, case, who))

    def seconds(self, section: str, case: str, who: str) -> float:
        return float(self.rows[section, case, who]["seconds"])

    def of_the_limit(self, row: Row) -> float:
        """How much of the machine's rate was reached."""
        rate, amount = row["work"]
        return float(amount / self.content["limits"][rate] / row["seconds"])


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |").replace("|  |", "| |") for row in rows)


def milliseconds(seconds: float) -> str:
    """Three digits; in seconds where it takes two or more."""
    if seconds >= 2:
        return f"{seconds:.2f} s"
    found = seconds * 1e3
    return f"{found:,.0f}" if found >= 100 else f"{found:.1f}" if found >= 10 else f"{found:.2f}".removeprefix("0")


def inference(figures: Figures, batch: int) -> str:
    return _nets(figures, f"batch {batch}, kept", PROGRAMS, f"batch {batch}")


def given_back(figures: Figures, batch: int) -> str:
    whos = {who: PROGRAMS[who] for who in ("darknet_compat", "OpenVINO", "ONNX Runtime", "OpenCV 4", "OpenCV")}
    return _nets(figures, f"batch {batch}, given back", whos, f"batch {batch}")


def precisions(figures: Figures, batch: int) -> str:
    return _nets(figures, f"batch {batch}, bf16, int8", PRECISIONS, f"batch {batch}")


def _nets(figures: Figures, case: str, whos: dict[str, str], head: str) -> str:
    """Milliseconds of an image, and how many times as long as the first of ``whos``."""
    lines = []
    for who, name in whos.items():
        cells = []
        for net in NETS:
            row, first = (figures.row("inference", f"{net} {case}", one) for one in (who, next(iter(whos))))
            if row is None:
                cells.append("")
            elif first is None or row is first:
                cells.append(milliseconds(row["seconds"]))
            else:
                cells.append(f"{milliseconds(row['seconds'])} ({_ratio(row['seconds'] / first['seconds'])}×)")
        if any(cells):
            lines.append([name, *cells])
    return table([head, *NETS], lines)


def _ratio(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 9.995 else f"{value:.1f}"


def memory(figures: Figures) -> str:
    """Peak MiB at batch 1."""
    lines = []
    for case, whos in (("batch 1, kept", PROGRAMS), ("batch 1, bf16, int8", PRECISIONS)):
        for who, name in whos.items():
            rows = [figures.row("inference", f"{net} {case}", who) for net in NETS]
            lines.append([name, *(f"{row['peak_mib']:,.0f}" if row else "" for row in rows)])
    return table(["MiB, batch 1", *NETS], lines)


def of_the_limit(figures: Figures) -> str:
    """How many of the machine's operations a second, were each multiplication of the plain convolution done."""
    lines = []
    for who in ("darknet_compat", "OpenVINO"):
        for batch in (1, 8):
            rows = [figures.rows["inference", f"{net} batch {batch}, kept", who] for net in NETS]
            lines.append([f"{who}, batch {batch}", *(_ratio(figures.of_the_limit(row)) for row in rows)])
    return table(["share of the limit", *NETS], lines)


def kept_memory(figures: Figures) -> str:
    names = {
        "yolov2-tiny-voc forward": "yolov2-tiny-voc, forward", "yolov2-voc forward": "yolov2-voc, forward",
        "yolov2-tiny-voc training": "yolov2-tiny-voc, training step", "yolov2-tiny-voc -fast": "the same with `-fast`",
    }  # fmt: skip
    lines = []
    for case, name in names.items():
        back, kept = (figures.seconds("memory", case, who) for who in ("given back", "kept"))
        lines.append([name, milliseconds(back), milliseconds(kept), f"{_ratio(back / kept)}×"])
    return table(["ms per image, batch 8", "given back", "kept", ""], lines)


def shares(figures: Figures, section: str, head: str) -> str:
    """What stands in files, beside the network alone."""
    cases = [case for case in figures.races(section) if figures.row(section, case, "network alone")]
    whos = [who for of, case, who in figures.rows if (of, case) == (section, cases[0])]
    lines = []
    for case in cases:
        alone = figures.seconds(section, case, "network alone")
        cells = [milliseconds(alone)]
        for who in whos[1:]:
            seconds = figures.seconds(section, case, who)
            cells.append(f"{milliseconds(seconds)} ({_ratio(alone / seconds)})")
        lines.append([case, *cells])
    return table([head, *whos], lines)


def training_step(figures: Figures) -> str:
    names = {
        "darknet_compat": "the whole step", "bare layers": "the bare layers", "loss alone": "the loss alone",
        "libdarknet, batch 8": "libdarknet's step, one thread",
    }  # fmt: skip
    cases = figures.races("training step")
    lines = []
    for who, name in names.items():
        cells = []
        for case in cases:
            row, ours = (
                figures.row("training step", case, who),
                figures.seconds("training step", case, "darknet_compat"),
            )
            if row is None:
                cells.append("")
            elif who == "darknet_compat":
                cells.append(milliseconds(row["seconds"]))
            elif who == "loss alone":
                cells.append(f"{milliseconds(row['seconds'])} ({row['seconds'] / ours:.1%})")
            else:
                cells.append(f"{milliseconds(row['seconds'])} ({_ratio(row['seconds'] / ours)}×)")
        lines.append([name, *cells])
    heads = [f"`{case.split()[1]}`" if case.endswith("-fast") else case.split()[0] for case in cases]
    return table(["ms per image, batch 8", *heads], lines)


def training_profile(figures: Figures) -> str:
    plain, fast = figures.races("training profile")
    rows = [key for key in figures.rows if key[0] == "training profile"]
    names = [who for _, case, who in rows if case == plain]
    names += [who for _, case, who in rows if case == fast and who not in names]
    names.sort(key=lambda name: name == "all others")
    lines = []
    for name in names:
        cells = [name.removeprefix("aten::") if name == "all others" else f"`{name}`"]
        for case in (plain, fast):
            row = figures.row("training profile", case, name)
            cells += [f"{row['seconds'] * 1e3:.1f}", f"{row['times_first']:.0%}"] if row else ["", ""]
        lines.append(cells)
    return table(["ms per image", "without `-fast`", "", "`-fast`", ""], lines)


def training_images(figures: Figures) -> str:
    names = {
        "500x375 to 416, one core": ("a detector's, to 416", "libdarknet"),
        "mosaic, 500x375 to 416, one core": ("mosaics, to 416", "AlexeyAB's library"),
        "classifier, to 256, one core": ("a classifier's, to 256", "libdarknet"),
        "classifier, to 224, one core": ("a classifier's, to 224", "libdarknet"),
    }
    lines = []
    for case, (name, other) in names.items():
        theirs = figures.row("training images", case, other)
        for who, suffix in LOADERS.items():
            row = figures.row("training images", case, who)
            if row:
                seconds = row["seconds"]
                ratio = f"{other} {milliseconds(theirs['seconds'])}" if theirs else ""
                times = f"{_ratio(theirs['seconds'] / seconds)}×" if theirs else ""
                lines.append([name + suffix, milliseconds(seconds), ratio, times])
    return table(["ms per image or mosaic, one core", "ours", "", ""], lines)


def image_stages(figures: Figures) -> str:
    lines = []
    for case in figures.races("training images"):
        stages = [(who, row) for (_, of, who), row in figures.rows.items() if of == case and who.startswith("stage: ")]
        cells = (f"{who.removeprefix('stage: ')} {milliseconds(row['seconds'])}" for who, row in stages)
        lines.append([case.removesuffix(", one core"), ", ".join(cells)])
    return table(["of this", "ms per image, each with those before it"], lines)


def others(figures: Figures) -> str:
    lines = []
    for section in ("NMS", "voc_eval", "weights"):
        for case in figures.races(section):
            ours = figures.seconds(section, case, "darknet_compat")
            rest = [(who, row) for (of, on, who), row in figures.rows.items() if (of, on) == (section, case)][1:]
            cells = (f"{who} {_time(row['seconds'])}" for who, row in rest)
            ratios = (f"{_ratio(row['seconds'] / ours)}×" for _, row in rest)
            lines.append([f"{section}: {case}", _time(ours), "; ".join(cells), "; ".join(ratios)])
    return table(["what", "ours", "others", "they take"], lines)


def _time(seconds: float) -> str:
    return f"{milliseconds(seconds)} ms" if seconds < 1 else f"{seconds:.2f} s"


def start_up(figures: Figures) -> str:
    lines = []
    for case in figures.races("start-up"):
        if not case.startswith("one image, "):
            continue
        rows = [figures.row("start-up", case, who) for who in
                ("darknet_compat", "import torch", "darknet (Debian)", "AlexeyAB's darknet")]  # fmt: skip
        cells = [_ratio(row["seconds"]) if row else "" for row in rows]
        assert rows[0]
        assert rows[1]
        difference = f"{rows[0]['seconds'] - rows[1]['seconds']:.2f}".replace("-0", "−").removeprefix("0")
        lines.append([case.removeprefix("one image, "), *cells[:2], difference, *cells[2:]])
    heads = "ours", "`import torch`", "difference", "Debian's `darknet`", "AlexeyAB's"
    return table(["seconds, whole process", *heads], lines)


def machine(figures: Figures) -> str:
    content = figures.content
    rates, versions = content["limits"], content["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "darknet_compat")
    lines = [
        ["command", f"`{content['command']}`"], ["day", content["date"].split()[0]],
        ["machine", f"{content['processor']}; {content['system']}"], ["versions", named],
        ["reached there", f"{rates['float32'] / 1e9:.0f} GFLOP/s in float32, "
         + (f"{rates['bf16'] / 1e9:.0f} in bf16, " if "bf16" in rates else "")
         + f"{rates['memory'] / 1e9:.1f} GB/s of memory"],
    ]  # fmt: skip
    return table(["", ""], lines)


TABLES: dict[str, Callable[[Figures], str]] = {
    "machine": machine,
    "inference, batch 1": lambda figures: inference(figures, 1),
    "inference, batch 8": lambda figures: inference(figures, 8),
    "given back, batch 1": lambda figures: given_back(figures, 1),
    "given back, batch 8": lambda figures: given_back(figures, 8),
    "share of the limit": of_the_limit,
    "memory": memory,
    "precisions, batch 1": lambda figures: precisions(figures, 1),
    "precisions, batch 8": lambda figures: precisions(figures, 8),
    "kept memory": kept_memory,
    "JPEG to boxes": lambda figures: shares(figures, "JPEG to boxes", "ms per image, 100 photographs, batch 4"),
    "video": lambda figures: shares(figures, "video", "ms per frame"),
    "classifying": lambda figures: shares(figures, "classifying", "ms per image"),
    "training step": training_step,
    "training profile": training_profile,
    "training images": training_images,
    "image stages": image_stages,
    "others": others,
    "start-up": start_up,
}


def filled(text: str, figures: Figures) -> str:
    """``text`` with all its tables anew. Raises KeyError for one that is none of :data:`TABLES`."""
    return PLACE.sub(lambda place: f"{place[1]}{place[2]}\n{TABLES[place[1]](figures)}\n", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="what tools/bench.py --json wrote")
    parser.add_argument("page", type=Path, help="the page whose tables are replaced")
    options = parser.parse_args()
    try:
        figures = Figures(json.loads(options.figures.read_text()))
        page = filled(options.page.read_text(), figures)
    except (OSError, ValueError) as error:
        sys.exit(f"performance_tables: {error}")
    except KeyError as error:
        sys.exit(f"performance_tables: {options.figures} and {options.page} do not fit: no {error}")
    options.page.write_text(page)


if __name__ == "__main__":
    main()
