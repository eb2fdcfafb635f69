"""A small classifier in training, and made images of three colours for it."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from darknet_compat.train.batch import Batch

LABELS = ["red", "green", "blue"]
NET = {
    "width": 32, "height": 32, "channels": 3, "batch": 8, "subdivisions": 2, "momentum": 0.9, "decay": 0.0005,
    "learning_rate": 0.01, "policy": "constant", "max_batches": 6, "min_crop": 32, "max_crop": 48, "angle": 7,
    "hue": 0.02, "saturation": 1.3, "exposure": 1.3, "aspect": 0.8,
}  # fmt: skip
CONV = "[convolutional]\n{norm}filters={filters}\nsize=3\nstride={stride}\npad=1\nactivation={activation}\n"
NORM = "batch_normalize=1\n"
# As every end of the stock classifiers: classes of a mean, a softmax, in some a cost behind it.
ENDS = {
    "softmax": "[softmax]\n",
    "cost": "[softmax]\n[cost]\n",
    "noloss": "[softmax]\nnoloss=1\n[cost]\ntype=sse\n",
    "logistic": "[logistic]\n",
}


def classifier(end="softmax", norm=NORM, mean="[avgpool]\n", **net):
    options = "".join(f"{name}={value}\n" for name, value in {**NET, **net}.items())
    layers = [
        CONV.format(norm=norm, filters=8, stride=2, activation="leaky"),
        "[maxpool]\nsize=2\nstride=2\n",
        CONV.format(norm=norm, filters=16, stride=2, activation="leaky"),
        CONV.format(norm="", filters=3, stride=1 if mean else 4, activation="linear"),
        mean,
    ]
    return f"[net]\n{options}" + "".join(layers) + ENDS.get(end, end)


def batches(seed, updates, subdivisions=2, count=4, size=32, truth=None):
    """``updates`` lists of mini-batches: noise, brighter where the class has its colour; ``truth`` may change the one
    of 0 and 1."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(updates):
        made.append([])
        for _ in range(subdivisions):
            images = rng.uniform(0, 0.7, (count, 3, size, size)).astype(np.float32)
            classes = rng.integers(0, 3, count)
            images[np.arange(count), classes] += 0.25
            rows = np.eye(3, dtype=np.float32)[classes]
            made[-1].append(Batch(torch.from_numpy(images), torch.from_numpy(truth(rows) if truth else rows)))
    return made


def data_set(folder, images=12):
    """Write images of 40 x 48 pixels as COLOUR/NUMBER.png, their list, labels and .data file; the .data file's path."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(images):
        kind = index % 3
        image = rng.integers(0, 120, (48, 40, 3)).astype(np.uint8)
        image[..., 2 - kind] += 100
        path = folder / "set" / LABELS[kind] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
        paths.append(path)
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    (folder / "the.labels").write_text("".join(f"{label}\n" for label in LABELS))
    data = folder / "set.data"
    data.write_text(
        f"classes=3\ntrain={folder}/list.txt\nvalid={folder}/list.txt\nlabels={folder}/the.labels\ntop=2\n"
        f"backup={folder}/backup\n"
    )
    return data
