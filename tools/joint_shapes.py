#!/usr/bin/env python3
"""From the set of tools/make_shapes.py to one for joint training, as YOLO9000's: some classes have boxes, others none.

    python tools/joint_shapes.py data/made/shapes data/made/joint

Images without a ring and a cross keep their boxes. Rings and crosses are cut out of the others, each alone, into
folders called like them: those images show a class, and nobody says where. A tree says that a ring is round as a disc
is, and a cross has corners as a triangle has. Beside them lie a cfg and a .data file; the commands are printed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from darknet_compat.cfg import read_list
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.files import whole_file
from darknet_compat.images import load_image, save_image
from darknet_compat.labels import label_path, read_labels

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("disc", "ring", "triangle", "square", "star", "cross")  # of the set
UNBOXED = ("ring", "cross")
TREE = ("round -1", "cornered -1", "disc 0", "ring 0", "triangle 1", "square 1", "star 1", "cross 1")
# Of a box's longer side, what is left around it: the first of these by which no other object is in the way. An object
# that always filled its image would be found at no other size.
MARGINS = 2.0, 1.0, 0.5, 0.15
LEAST = 24  # pixels of a cut-out's shorter side
# First with boxes alone; then from there on, once with the class images and once without.
LATER = {"max_batches": 2500, "learning_rate": 0.001}
TRAININGS: dict[str, dict[str, float]] = {"boxes": {"max_batches": 5000}, "joint": LATER, "boxes-alone": LATER}


def number_of(name: str) -> int:
    """Of a class in the tree."""
    return [line.split()[0] for line in TREE].index(name)


def corners(objects: np.ndarray, w: int, h: int) -> np.ndarray:
    """(N, 4) left, top, right, bottom in pixels, of rows class, x, y, w, h."""
    centres, halves = objects[:, 1:3], objects[:, 3:] / 2
    return np.concatenate([centres - halves, centres + halves], 1) * [w, h, w, h]


def cut_outs(image: np.ndarray, objects: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The name and the pixels of each object without a box that no other object reaches into."""
    h, w = image.shape[:2]
    boxes = corners(objects, w, h)
    found = []
    for index, row in enumerate(objects):
        name = NAMES[int(row[0])]
        if name not in UNBOXED:
            continue
        longer, others = (boxes[index, 2:] - boxes[index, :2]).max(), np.delete(boxes, index, 0)
        for margin in MARGINS:
            left, top, right, bottom = boxes[index] + longer * margin * np.array([-1, -1, 1, 1])
            meets = (others[:, 0] < right) & (others[:, 2] > left) & (others[:, 1] < bottom) & (others[:, 3] > top)
            part = image[max(int(top), 0) : int(bottom) + 1, max(int(left), 0) : int(right) + 1]
            if not meets.any() and min(part.shape[:2]) >= LEAST:
                found.append((name, part))
                break
    return found


def prepare(shapes: Path, dest: Path) -> dict[str, int]:
    """Write images, labels, lists, tree, cfg and .data file under ``dest``; how many there are of what."""
    boxed, classified = [], []
    for path in tqdm(read_list(shapes / "train.txt"), "cutting out", unit=" images", disable=None):
        objects, image = read_labels(label_path(path)), load_image(path)
        if not np.isin(objects[:, 0], range(len(NAMES))).all():
            raise DataError(f"{label_path(path)}: a class that is none of the {len(NAMES)} of tools/make_shapes.py")
        names = {NAMES[int(number)] for number in objects[:, 0]}
        if not names & set(UNBOXED):
            target = dest / "images" / Path(path).name
            rows = [(number_of(NAMES[int(row[0])]), *row[1:]) for row in objects]
            write(
                dest / "labels" / f"{target.stem}.txt",
                "".join("{} {:.6f} {:.6f} {:.6f} {:.6f}\n".format(*row) for row in rows),
            )
            link(path, target)
            boxed.append(target)
            continue
        for number, (name, part) in enumerate(cut_outs(image, objects)):
            target = dest / "classes" / name / f"{Path(path).stem}-{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            save_image(part, target)
            classified.append(target)
    for name, paths in (("train.txt", boxed), ("classify.txt", classified)):
        write(dest / name, "".join(f"{path}\n" for path in paths))
    names = [line.split()[0] for line in TREE]
    write(dest / "joint.tree", "".join(f"{line}\n" for line in TREE))
    write(dest / "joint.names", "".join(f"{name}\n" for name in names))
    write(dest / "joint.labels", "".join(f"/{name}/\n" for name in names))
    # `valid` is to ask for the probability of every class, not for the one that is as deep as is sure.
    write(dest / "joint.map", "".join(f"{number}\n" for number in range(len(names))))
    lines = {
        "classes": len(names), "train": dest / "train.txt", "valid": shapes / "2007_test.txt",
        "names": dest / "joint.names", "labels": dest / "joint.labels", "map": dest / "joint.map",
        "backup": dest / "backup", "results": dest / "results",
    }  # fmt: skip
    write(dest / "joint.data", "".join(f"{key}={value}\n" for key, value in lines.items()))
    for name, options in TRAININGS.items():
        write(dest / f"{name}.cfg", cfg_text(dest / "joint.tree", options))
    return {"images with boxes": len(boxed), "cut-outs with a class alone": len(classified)}


def cfg_text(tree: Path, options: dict[str, float]) -> str:
    """cfg/yolov2-shapes.cfg with the classes of the tree, and with options of [net]."""
    text = (ROOT / "cfg/yolov2-shapes.cfg").read_text()
    classes = {"filters = 55": f"filters = {5 * (len(TREE) + 5)}", "classes = 6": f"classes = {len(TREE)}"}
    net = {rf"{name} = [\d.]+": f"{name} = {value}" for name, value in options.items()}
    for old, new in {**classes, **net}.items():
        text, count = re.subn(rf"^{old}$", new, text, flags=re.M)
        assert count == 1, old
    return text + f"tree = {tree}\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "w") as file:
        file.write(text)


def link(path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(Path(path).resolve())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path, help="what tools/make_shapes.py has drawn")
    parser.add_argument("dest", type=Path, help="folder to make")
    args = parser.parse_args()
    dest = args.dest
    try:
        if dest.exists():
            raise DataError(f"{dest}: is there already; delete it, or name another folder")
        try:
            counts = prepare(args.shapes, dest)
        except BaseException:  # Ctrl-C too
            shutil.rmtree(dest, ignore_errors=True)
            raise
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    for name in TRAININGS:
        start = "" if name == "boxes" else f" {dest}/backup/boxes_final.weights -clear"
        shown = f" -classify {dest}/classify.txt -ratio 1" if name == "joint" else ""
        print(f"darknet-compat detector train {dest}/joint.data {dest}/{name}.cfg{start}{shown}")
        print(f"darknet-compat detector valid {dest}/joint.data {dest}/{name}.cfg {dest}/backup/{name}_final.weights")
        scored = f"--results {dest}/results --devkit {args.shapes}/VOCdevkit --names data/shapes.names"
        print(f"darknet-compat voc_eval {scored}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
