#!/usr/bin/env python3
"""Write the training images of a classifier as tar shards, for network disks: mixed, each with its class beside it.

    python tools/make_shards.py imagenet.data shards/imagenet-train

writes shards/imagenet-train-000.tar and so on, in the form of webdataset (KEY.jpg and KEY.cls), and says the line
train= for the .data file. train= may name shards too, such as ImageNet's own archives of one class each.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import sys
import tarfile
import warnings
from pathlib import Path

from tqdm import tqdm

from darknet_compat.cfg import read_data
from darknet_compat.classify.labels import read_labels
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.files import whole_file
from darknet_compat.train.class_images import image_classes, training_images

IMAGES = 10_000  # per shard: a gigabyte of ImageNet's
SEED = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help=".data file; its train= is what is written, its labels= the classes")
    parser.add_argument("prefix", type=Path, help="of the shards: shards/train makes shards/train-000.tar")
    parser.add_argument("--labels", choices=("path", "folder"), default="path", help="as in `classifier train`")
    parser.add_argument("--images", type=int, default=IMAGES, help="images per shard (default %(default)s)")
    args = parser.parse_args()
    if args.images < 1:
        parser.error(f"--images {args.images}: expected 1 or more")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        print(make_shards(args.data, args.prefix, args.labels, args.images))
    except (DarknetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def make_shards(data: Path, prefix: Path, how: str, size: int) -> str:
    """Write them; the line for the .data file comes back."""
    read = read_data(data)
    images, labels = training_images(read), read_labels(read)
    classes = image_classes(images, labels, how, str(data)).first()
    if classes.min() < 0:
        raise DataError(f"{images[int(classes.argmin())]}: no label is in the path; expected a class for each image")
    order = list(range(len(images)))
    random.Random(SEED).shuffle(order)
    last = -(-len(order) // size) - 1
    digits = max(3, len(str(last)))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(last + 1), desc="writing", unit=" shards", disable=None):
        path = prefix.with_name(f"{prefix.name}-{number:0{digits}}.tar")
        with whole_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in order[number * size : (number + 1) * size]:
                label = re.sub(r"[^A-Za-z0-9_-]", "_", labels[classes[index]])[:40]  # a key has no dot
                key = f"{index:08}_{label}"
                add(tar, f"{key}{os.path.splitext(images[index])[1].lower()}", images.encoded(index))
                add(tar, f"{key}.cls", b"%d" % classes[index])
    return f"train={prefix}-{{{0:0{digits}}..{last:0{digits}}}}.tar"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    sys.exit(main())
