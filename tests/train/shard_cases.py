"""Small sets of classes, as loose files and as tar shards."""

from __future__ import annotations

import io
import tarfile

import cv2
import numpy as np

LABELS = ["n03", "n01", "n02"]


def make_folders(folder, images=4, size=(12, 10)):
    """``folder/LABEL/LABEL_i.png``; the paths, sorted."""
    rng = np.random.default_rng(1)
    paths = []
    for label in sorted(LABELS):
        (folder / label).mkdir(parents=True)
        for i in range(images):
            paths.append(str(folder / label / f"{label}_{i}.png"))
            cv2.imwrite(paths[-1], rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    return paths


def add(tar, name, content, **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def make_shards(folder, paths, number, classes=None):
    """Every ``number``-th image goes into one shard, as ``LABEL/NAME``, with its .cls where ``classes`` says it."""
    folder.mkdir(exist_ok=True)
    shards = []
    for shard in range(number):
        shards.append(str(folder / f"train-{shard:03d}.tar"))
        with tarfile.open(shards[-1], "w") as tar:
            for path in paths[shard::number]:
                name = "/".join(path.split("/")[-2:])
                with open(path, "rb") as file:
                    add(tar, name, file.read())
                if classes is not None:
                    add(tar, f"{name.split('.')[0]}.cls", b"%d\n" % classes[paths.index(path)])
    return shards
