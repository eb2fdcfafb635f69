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

from darknet_compat.engines import has_bf16
from darknet_compat.errors import DarknetError

ROOT = Path(__file__).resolve().parent.parent
RUN = Path("runs/quickstart")
SHAPES = Path("data/made/shapes")
# By its whole path: the command `darknet` of this project may stand first on the PATH.
PROGRAM = "/usr/bin/darknet"
DATA, CFG = "cfg/shapes.data", "cfg/yolov2-shapes.cfg"


class Failed(Exception):
    """A command did not end well; it has said why."""


def run(command: str, output: Path | None = None) -> None:
    """Run one command; ``output`` takes what it prints instead of the screen.

    ``python`` and ``darknet-compat`` are those of this interpreter.
    """
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "darknet-compat":
        words[:1] = [sys.executable, "-m", "darknet_compat"]
    if output is None:
        code = subprocess.run(words).returncode
    else:  # of the C program, which tells its progress on stderr, a line for every four images
        result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        code = result.returncode
        output.write_text(result.stdout, encoding="utf-8")
    if code:
        raise Failed(command)


def quickstart(seed: int) -> float:
    """All steps; returns the mAP."""
    backup, results = RUN / "backup", RUN / "results"
    weights = backup / f"{Path(CFG).stem}_final.weights"
    run(f"python tools/make_shapes.py {SHAPES}")
    run(f"darknet-compat detector calc_anchors {DATA} -num_of_clusters 5 -width 128 -height 128 -stride 8")
    run(f"darknet-compat net {CFG}")
    # Where the processor multiplies bf16, training takes two thirds of the time, and scores as well (docs/RESULTS.md).
    amp = " -amp bf16" if has_bf16() else ""
    # -cache decodes each image once: the same training to the last bit, and 5 % less time.
    run(f"darknet-compat detector train {DATA} {CFG} -fast{amp} -cache -seed {seed}")
    beside = ""
    if Path(PROGRAM).is_file():
        # Both programs write to the same folder, so the C program goes first and is scored at once.
        results.mkdir(parents=True, exist_ok=True)
        run(f"{PROGRAM} detector valid {DATA} {CFG} {weights}", RUN / "darknet.txt")
        run(
            f"darknet-compat voc_eval --results {results} --devkit {SHAPES}/VOCdevkit --names data/shapes.names "
            f"--json {RUN}/darknet.json"
        )
        shutil.rmtree(results)
        beside = f" -beside {RUN}/darknet.json"
    run(f"darknet-compat report {backup} -out {RUN} -devkit {SHAPES}/VOCdevkit -thresh .3 -batch 16{beside}")
    return json.loads((RUN / "scores.json").read_text(encoding="utf-8"))["mAP"]


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
