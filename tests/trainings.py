"""Trainings of two updates, to report of."""

from __future__ import annotations

import contextlib
import io
import os
import shutil

from darknet_compat.cli import main
from tests.conftest import ROOT

NET = """[net]
batch=2
subdivisions=1
width=64
height=64
channels=3
learning_rate=0.001
max_batches=2

[convolutional]
filters=8
size=3
stride=16
pad=1
activation=leaky

[convolutional]
filters={filters}
size=1
activation=linear

{head}
"""
REGION = NET.format(filters=22, head="[region]\nanchors=1,1,2,2\nclasses=6\nnum=2")
YOLO = NET.format(filters=22, head="[yolo]\nmask=0,1\nanchors=10,12,30,32\nclasses=6\nnum=2\niou_loss=ciou\nrandom=0")
CLASSIFIER = NET.format(filters=6, head="[avgpool]\n\n[softmax]")


def run(folder, *words):
    """What ``darknet-compat`` prints, run in a folder; it must end well."""
    printed, before = io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed):
            assert main([*map(str, words)]) == 0
    finally:
        os.chdir(before)
    return printed.getvalue()


def make_trainings(folder, made_shapes):
    """Start three trainings in a folder, with snapshots in runs/region, runs/yolo and runs/classes."""
    shutil.copytree(made_shapes, folder / "shapes")
    lists = {}
    for name, file in (("train", "train.txt"), ("valid", "2007_test.txt")):
        images = [path.rsplit("/", 1)[-1] for path in (made_shapes / file).read_text().split()]
        lists[name] = [f"shapes/VOCdevkit/VOC2007/JPEGImages/{image}" for image in images]
        (folder / f"{name}.txt").write_text("".join(f"{path}\n" for path in lists[name]))
    (folder / "shapes.names").write_text((ROOT / "data/shapes.names").read_text())
    (folder / "shapes.data").write_text(
        "classes=6\ntrain=train.txt\nvalid=valid.txt\nnames=shapes.names\nbackup=backup\nresults=results\neval=coco\n"
    )
    for kind in ("train", "test"):
        for number, path in enumerate(lists["train"]):
            place = folder / "classes" / kind / f"{'ab'[number % 2]}_disc"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / path, place)
        images = sorted((folder / "classes" / kind).rglob("*.jpg"))
        (folder / f"{kind}-classes.txt").write_text("".join(f"{path}\n" for path in images))
    (folder / "classes.labels").write_text("a_disc\nb_disc\nc\nd\ne\nf\n")
    (folder / "classes.data").write_text(
        "classes=6\ntrain=train-classes.txt\nvalid=test-classes.txt\nlabels=classes.labels\nbackup=backup\ntop=2\n"
    )
    for name, cfg in (("region", REGION), ("yolo", YOLO), ("classes", CLASSIFIER)):
        (folder / f"{name}.cfg").write_text(cfg)
        family, data = ("classifier", "classes.data") if name == "classes" else ("detector", "shapes.data")
        words = ["-seed", "3", "-workers", "0", *["-map", "1"] * (name == "yolo")]
        run(folder, family, "train", data, f"{name}.cfg", *words, "-backup", f"runs/{name}")
