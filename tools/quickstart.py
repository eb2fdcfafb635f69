#!/usr/bin/env python3
"""From nothing to a trained, exported, scored detector, and one page that shows it: runs/quickstart/index.html.

    python tools/quickstart.py [--seed N]

It types the commands that a person would type, one after the other, and shows each. Everything lands under
runs/quickstart, but for the drawn images under data/made/shapes. Where Debian's `darknet` is installed, the C program
runs the trained weights too, and both scores stand side by side.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from darknet_compat.engines import has_bf16
from darknet_compat.errors import DarknetError
from darknet_compat.files import whole_file

if TYPE_CHECKING:
    from darknet_compat.detect import Detections

ROOT = Path(__file__).resolve().parent.parent
RUN = Path("runs/quickstart")
SHAPES = Path("data/made/shapes")
# By its whole path: the command `darknet` of this project may stand first on the PATH.
PROGRAM = "/usr/bin/darknet"
DATA, CFG = "cfg/shapes.data", "cfg/yolov2-shapes.cfg"
PAIRS = 8


class Failed(Exception):
    """A command did not end well; it has said why."""


class Commands:
    """Runs commands as they are typed, and remembers them for the page."""

    def __init__(self) -> None:
        self.done: list[dict[str, object]] = []

    def run(self, section: str, command: str, output: Path | None = None) -> None:
        """Run one command; ``output`` takes what it prints instead of the screen.

        ``python`` and ``darknet-compat`` are those of this interpreter.
        """
        print(f"\n$ {command}", flush=True)
        words = shlex.split(command)
        if words[0] == "python":
            words[0] = sys.executable
        elif words[0] == "darknet-compat":
            words[:1] = [sys.executable, "-m", "darknet_compat"]
        start = time.perf_counter()
        if output is None:
            code = subprocess.run(words).returncode
        else:
            # The C program tells its progress on stderr, a line for every four images.
            errors = subprocess.STDOUT if words[0] == PROGRAM else None
            result = subprocess.run(words, stdout=subprocess.PIPE, stderr=errors, text=True)
            code = result.returncode
            output.write_text(result.stdout, encoding="utf-8")
        if code:
            raise Failed(command)
        self.done.append({"section": section, "command": command, "seconds": time.perf_counter() - start})


def quickstart(seed: int) -> float:
    """All steps; returns the mAP."""
    commands = Commands()
    backup, results = RUN / "backup", RUN / "results"
    name = Path(CFG).stem
    commands.run("data", f"python tools/make_shapes.py {SHAPES}")
    commands.run(
        "data",
        f"darknet-compat detector calc_anchors {DATA} -num_of_clusters 5 -width 128 -height 128 -stride 8 "
        f"-show {RUN}/anchors.png",
    )
    draw_samples(SHAPES, RUN / "data.png")
    commands.run("network", f"darknet-compat net {CFG}", RUN / "network.txt")
    print((RUN / "network.txt").read_text(encoding="utf-8"), end="")
    # Where the processor multiplies bf16, training takes two thirds of the time, and scores as well (docs/RESULTS.md).
    amp = " -amp bf16" if has_bf16() else ""
    commands.run("training", f"darknet-compat detector train {DATA} {CFG} -fast{amp} -seed {seed}")
    weights = backup / f"{name}_final.weights"
    shutil.copy(backup / f"{name}.png", RUN / "chart.png")
    log = (backup / f"{name}.log").read_text(encoding="utf-8").splitlines()
    (RUN / "train.txt").write_text("\n".join(log[-12:]) + "\n", encoding="utf-8")

    score = f"darknet-compat voc_eval --results {results} --devkit {SHAPES}/VOCdevkit --names data/shapes.names"
    if Path(PROGRAM).is_file():
        # Both programs write to the same folder, so the C program goes first and is scored at once.
        results.mkdir(parents=True, exist_ok=True)
        commands.run("scores", f"{PROGRAM} detector valid {DATA} {CFG} {weights}", RUN / "darknet.txt")
        commands.run("scores", f"{score} --json {RUN}/darknet.json")
        shutil.rmtree(results)
    commands.run("scores", f"darknet-compat detector valid {DATA} {CFG} {weights} -batch 16")
    commands.run("scores", f"{score} --json {RUN}/scores.json --plots {RUN}/plots")
    for made, shown in (("precision_recall", "curves"), ("ap", "bars"), ("contact_sheet", "worst")):
        shutil.copy(RUN / "plots" / f"{made}.png", RUN / f"{shown}.png")
    draw_pairs(weights, RUN / "pairs", commands)
    with whole_file(RUN / "commands.json", "w") as file:
        json.dump(commands.done, file, indent=1)
    commands.run("detections", f"python tools/quickstart_page.py {RUN}")
    return json.loads((RUN / "scores.json").read_text(encoding="utf-8"))["mAP"]


def truth_of(path: str, names: list[str]) -> Detections:
    """The objects of an image's label file in the form of detections."""
    from darknet_compat.detect import Detections
    from darknet_compat.images import load_image
    from darknet_compat.labels import label_path, read_labels

    image, objects = load_image(path), read_labels(label_path(path)).astype(np.float32)
    prob = np.zeros((len(objects), len(names)), np.float32)
    prob[np.arange(len(objects)), objects[:, 0].astype(int)] = 1
    height, width = image.shape[:2]
    return Detections(path, width, height, objects[:, 1:], prob, relative=True, classes=names, pixels=image)


def draw_samples(shapes: Path, path: Path, columns: int = 8, rows: int = 3) -> None:
    """The first training images with their truth, on one sheet."""
    from darknet_compat.cfg import read_list, read_names
    from darknet_compat.images import save_image

    names = read_names("data/shapes.names")
    side, gap = 192, 6
    sheet = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, np.uint8)
    for place, image_path in enumerate(read_list(shapes / "train.txt")[: columns * rows]):
        drawn = truth_of(image_path, names).draw(bgr=False)
        row, column = divmod(place, columns)
        top, left = gap + row * (side + gap), gap + column * (side + gap)
        sheet[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn[:side, :side]
    save_image(sheet, path)


def draw_pairs(weights: Path, folder: Path, commands: Commands) -> None:
    """Some test images twice: with the truth, and with what ``detector test`` draws."""
    from darknet_compat.cfg import read_list, read_names
    from darknet_compat.images import save_image

    folder.mkdir(parents=True, exist_ok=True)
    names = read_names("data/shapes.names")
    listed = read_list(SHAPES / "2007_test.txt")
    chosen = [path for path in listed if len(truth_of(path, names).boxes) > 1][:PAIRS]
    (RUN / "some.txt").write_text("".join(f"{path}\n" for path in chosen), encoding="utf-8")
    commands.run(
        "detections",
        f"darknet-compat detector test {DATA} {CFG} {weights} {RUN}/some.txt -thresh .3 -out {RUN}/drawn "
        f"-json {RUN}/found.json",
    )
    for path in chosen:
        stem = Path(path).stem
        save_image(truth_of(path, names).draw(bgr=False), folder / f"{stem}-truth.jpg")
        shutil.copy(RUN / "drawn" / f"{stem}.jpg", folder / f"{stem}-found.jpg")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the training's random numbers (default 0)")
    options = parser.parse_args()
    if Path.cwd().resolve() != ROOT:
        parser.error(f"run it in {ROOT}: the .data file names its folders from there")
    start = time.perf_counter()
    # What an earlier run left would be mixed with this one's.
    if RUN.exists():
        shutil.rmtree(RUN)
    RUN.mkdir(parents=True)
    try:
        score = quickstart(options.seed)
    except Failed as failed:
        print(f"quickstart: this command did not end well: {failed}", file=sys.stderr)
        return 1
    except DarknetError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quickstart: stopped", file=sys.stderr)
        return 130
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    print(f"\nquickstart: mAP {score:.4f} in {minutes} min {seconds:02d} s; open {RUN}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
