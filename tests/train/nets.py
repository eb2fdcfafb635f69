"""The small networks that training tests run, and made images with truth for them."""

from __future__ import annotations

import numpy as np
import torch

from darknet_compat.train.batch import Batch

# Of the log's table, for a network with one [region].
COLUMNS = ("batch", "images", "loss", "avg_loss", "rate", "seconds", "loading_seconds", "avg_iou", "class", "obj",
           "no_obj", "avg_recall", "count", "size", "map")  # fmt: skip

# conv+bn, maxpool, route, reorg, region: every kind of layer that YOLOv2 has, 32 x 32 -> 4 x 4.
SMALL = """
[net]
width=32
height=32
channels=3
batch=8
subdivisions=2
momentum=0.9
decay=0.0005
learning_rate=0.002
burn_in=20
max_batches=1000
policy=steps
steps=30
scales=.5
{net}

[convolutional]
{first}
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
{second}
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=12
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=16
size=3
stride=1
pad=1
activation=leaky

[route]
layers=-3

[reorg]
stride=2

[route]
layers=-1,-3

[convolutional]
size=1
filters=16
activation=linear

[region]
anchors=1.0,1.2, 2.5,2.0
classes=3
coords=4
num=2
softmax=1
jitter=.2
rescore=1
object_scale=5
noobject_scale=1
class_scale=1
coord_scale=1
thresh=.6
bias_match=1
random={random}
"""


def small(net="", first="", second="", random=0):
    """The text of SMALL with options added to [net] and to the first two convolutions."""
    text = SMALL.format(net=net, first=first, second=second, random=random)
    names = [line.split("=")[0] for line in net.split() if line]
    head, tail = text.split("\n[convolutional]", 1)
    # The first of two equal keys counts in a cfg, so what is given anew takes the place of the old line.
    kept = [line for line in head.split("\n") if line.split("=")[0] not in names]
    return "\n".join([*kept, net, "[convolutional]" + tail])


def dropping(net=""):
    """``small`` with a [dropout] before its last convolution."""
    last = "[convolutional]\nsize=1"
    return small(net).replace(last, f"[dropout]\nprobability=.5\n\n{last}")


# YOLOv1's kinds of layers, but for [dropout], whose random numbers are not C's.
V1 = """
[net]
width=48
height=32
channels=3
batch=8
subdivisions=2
momentum=0.9
decay=0.0005
learning_rate=0.0005
hue=.1
saturation=1.5
exposure=1.5
policy=steps
steps=20,40
scales=2,.5
{net}
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=leaky
"""
# YOLOv1's kinds of layers.
V1_HEAD = """
[local]
size=3
stride=1
pad=1
filters=6
activation=leaky

{drawn}
[connected]
output=208
activation=linear

[detection]
classes=3
coords=4
rescore=1
side=4
num=2
sqrt=1
jitter=.2
object_scale=1
noobject_scale=.5
class_scale=1
coord_scale=5
"""


def v1(net="max_batches=6", **values):
    text = V1.format(net=net) + V1_HEAD.format(drawn="")
    for name, value in values.items():
        before = next(line for line in text.split("\n") if line.startswith(f"{name}="))
        text = text.replace(f"{before}\n", f"{name}={value}\n")
    return text


# Two heads that share one line of anchors, as v3's do. What is read twice is followed by a [route]: on a CPU a
# convolution overwrites the gradient of its input, in AlexeyAB's program every one (col2im_cpu_ext), in pjreddie's one
# of size 1.
V3_NET = """
[net]
width=64
height=64
channels=3
batch=8
subdivisions=2
momentum=0.9
decay=0.0005
learning_rate={rate}
burn_in=5
max_batches=1000
policy=steps
steps=15
scales=.5
"""
V3_CONV = "[convolutional]\n{}filters={}\nsize=3\nstride={}\npad=1\nactivation=leaky\n"
V3_HEAD = "[convolutional]\nfilters={}\nsize=3\npad=1\nactivation=linear\n[{}]\nmask={}\nclasses=3\nnum=6\n{}\n"
ALONE = "[route]\nlayers=-1\n"
V3_ANCHORS = "anchors=10,14, 13,27, 20,20, 28,41, 37,28, 50,45\nignore_thresh=.5\n"


def two_heads(norm="", options="", rate=0.001, head="yolo"):
    filters = 24 if head == "yolo" else 36
    sections = [
        V3_CONV.format(norm, 8, 2), V3_CONV.format(norm, 12, 2), ALONE, V3_CONV.format(norm, 16, 2), ALONE,
        V3_HEAD.format(filters, head, "3,4,5", V3_ANCHORS + options),
        "[route]\nlayers=-4\n[upsample]\nstride=2\n[route]\nlayers=-1,1\n", V3_CONV.format(norm, 12, 1),
        V3_HEAD.format(filters, head, "0,1,2", V3_ANCHORS + options),
    ]  # fmt: skip
    return V3_NET.format(rate=rate) + "\n".join(sections)


def batches(seed, updates, subdivisions=2, count=4, size=32, classes=3):
    """``updates`` lists of mini-batches: noise with bright boxes, and truth, some of it several in one cell."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(updates):
        made.append([])
        for _ in range(subdivisions):
            images = rng.uniform(0, 0.3, (count, 3, size, size)).astype(np.float32)
            truth = np.zeros((count, 30, 5), np.float32)
            for image, rows in zip(images, truth, strict=True):
                for row in rows[: rng.integers(0, 5)]:
                    w, h = rng.uniform(0.1, 0.6, 2)
                    x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
                    kind = rng.integers(classes)
                    row[:] = x, y, w, h, kind
                    corner = (
                        slice(int((y - h / 2) * size), int((y + h / 2) * size) + 1),
                        slice(int((x - w / 2) * size), int((x + w / 2) * size) + 1),
                    )
                    image[kind][corner] += 0.6
            made[-1].append(Batch(torch.from_numpy(images), torch.from_numpy(truth), ()))
    return made


def grid_of(truth, side, classes):
    """Darknet's own layout of rows: the first of a cell counts (src/data.c, fill_truth_region)."""
    grid = np.zeros((len(truth), side, side, 1 + classes + 4), np.float32)
    for image, rows in zip(grid, truth, strict=True):
        for x, y, w, h, number in rows:
            if x == 0:
                break
            column, row = int(np.float32(x * side)), int(np.float32(y * side))
            if not image[row, column, 0]:
                image[row, column, 0] = image[row, column, 1 + int(number)] = 1
                image[row, column, -4:] = x * side - column, y * side - row, w, h
    return grid.reshape(len(truth), -1)


def data_set(folder, images=12, classes=3):
    """Write images with bright boxes, their labels, lists and a .data file; returns the .data file's path."""
    import cv2

    rng = np.random.default_rng(0)
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "labels").mkdir()
    names = []
    for index in range(images):
        image = rng.integers(0, 90, (48, 64, 3)).astype(np.uint8)
        lines = []
        for _ in range(int(rng.integers(1, 4))):
            w, h = rng.uniform(0.2, 0.6, 2)
            x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
            kind = int(rng.integers(classes))
            rows = slice(int((y - h / 2) * 48), int((y + h / 2) * 48) + 1)
            image[rows, int((x - w / 2) * 64) : int((x + w / 2) * 64) + 1, 2 - kind] += 140
            lines.append(f"{kind} {x} {y} {w} {h}\n")
        names.append(folder / "JPEGImages" / f"{index:03d}.png")
        cv2.imwrite(str(names[-1]), image)
        (folder / "labels" / f"{index:03d}.txt").write_text("".join(lines))
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "class.names").write_text("".join(f"class {i}\n" for i in range(classes)))
    data = folder / "set.data"
    data.write_text(
        f"classes={classes}\ntrain={folder}/list.txt\nvalid={folder}/list.txt\nnames={folder}/class.names\n"
        f"backup={folder}/backup\n"
    )
    return data


# What HEADS share: 32 x 32 images, a batch of two mini-batches of two; what is given anew takes the place of a line.
OF_HEADS = {
    "width": 32, "height": 32, "channels": 3, "batch": 4, "subdivisions": 2, "momentum": 0.9, "decay": 0.0005,
    "learning_rate": 0.001, "policy": "constant", "max_batches": 4,
}  # fmt: skip
CONV = "[convolutional]\n{norm}filters={filters}\nsize=3\nstride={stride}\npad=1\nactivation={activation}\n"
REGION = (16, "[region]\nclasses=3\nnum=2\nanchors=1.0,1.2, 2.5,2.0\nbias_match=1\nrescore=1\nsoftmax=1\nthresh=.6\n")
ANCHORS = "anchors=5,7, 7,13, 10,10, 14,20, 18,14, 25,22\nclasses=3\nnum=6\n"
CIOU = "iou_loss=ciou\niou_normalizer=.5\nscale_x_y=1.05\niou_thresh=.213\n"


def yolo(mask, options="", kind="yolo"):
    return (36 if kind == "Gaussian_yolo" else 24), f"[{kind}]\nmask={mask}\n{ANCHORS}ignore_thresh=.5\n{options}"


# For each head and both programs a network that trains in no time: the head over the map of 8 x 8, and that of 4 x 4.
HEADS = {
    "region": [REGION],
    "region of alexeyab": [(REGION[0], f"{REGION[1]}resize=1\n")],
    "yolo": [yolo("0,1,2"), yolo("3,4,5")],
    "yolo of alexeyab": [yolo("0,1,2", CIOU), yolo("3,4,5", CIOU)],
    "Gaussian_yolo": [yolo("0,1,2", CIOU, "Gaussian_yolo"), yolo("3,4,5", CIOU, "Gaussian_yolo")],
    "detection": [],
    "yolo and region": [yolo("0,1,2"), REGION],
    "yolo and Gaussian_yolo": [yolo("0,1,2", CIOU), yolo("3,4,5", CIOU, "Gaussian_yolo")],
}


def of_heads(name, random=0, drawn=True, norm=True, **net):
    """The text of a network of :data:`HEADS`. ``drawn``: with layers that draw random numbers, [crop] and [dropout],
    where its kind has such; ``norm``: with batch normalisation. ``net`` holds options of [net]."""
    options = "".join(f"{key}={value}\n" for key, value in {**OF_HEADS, **net}.items())
    normal, last = (
        {"norm": norm, "stride": stride, "activation": activation}
        for norm, stride, activation in (("batch_normalize=1\n" * norm, 2, "leaky"), ("", 1, "linear"))
    )
    parts = [f"[net]\n{options}", CONV.format(filters=8, **normal), CONV.format(filters=12, **normal)]
    if name == "detection":
        crop, drop = "[crop]\ncrop_width=28\ncrop_height=28\nflip=1\n", "[dropout]\nprobability=.3\n"
        return "\n".join([parts[0], crop * drawn, *parts[1:], V1_HEAD.format(drawn=drop * drawn)])
    for number, (filters, head) in enumerate(HEADS[name]):
        if number:
            parts += ["[route]\nlayers=-3\n", CONV.format(filters=12, **normal)]
        parts += [CONV.format(filters=filters, **last), head + f"random={random}\n" * bool(random)]
    return "\n".join(parts)
