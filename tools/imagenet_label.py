#!/usr/bin/env python3
"""Unpack ImageNet's archives (ILSVRC2012) as Darknet trains on them: the class of an image stands in its path.

    python tools/imagenet_label.py data/imagenet --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar \\
        --truth ILSVRC2012_devkit_t12.tar.gz --labels darknet/data/imagenet.labels.list

Makes train/WNID/*.JPEG, val/WNID/*.JPEG, imagenet.train.list, imagenet.valid.list, imagenet.labels.list and
imagenet.data in the folder. Run it again after an interruption: what is there stays.

--truth may be Kaggle's LOC_val_solution.csv too, and --train and --val folders of images, as Kaggle's are; these stay
where they are. --labels is Darknet's list, whose order the classes of all published weights have; Debian's package
darknet has it. The order of the devkit is the same.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from tqdm import tqdm

from darknet_compat.cfg import read_names
from darknet_compat.cfg.reader import read_text
from darknet_compat.cfg.sections import printable
from darknet_compat.errors import DarknetError, DataError
from darknet_compat.files import regular_file, whole_file
from darknet_compat.image_files import folder_images
from darknet_compat.stock import find_stock
from darknet_compat.tar_files import tar_members

CLASSES = 1000  # Darknet's list goes on with those of the whole ImageNet
LABELS = "data/imagenet.labels.list"
NAMES = "data/imagenet.shortnames.list"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
MOST_TRUTH = 2**24  # bytes; the csv has 2 million
PART = 2**20
WNID = r"n\d{8}"
TRAIN_IMAGE = re.compile(rf"({WNID})_\d+\.JPEG", re.ASCII)
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.ASCII)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for images and lists; 150 GB for all of ILSVRC2012")
    parser.add_argument("--train", type=Path, required=True, help="ILSVRC2012_img_train.tar, or a folder WNID/*.JPEG")
    parser.add_argument("--val", type=Path, required=True, help="ILSVRC2012_img_val.tar, or a folder of its images")
    parser.add_argument(
        "--truth", type=Path, required=True, help=f"ILSVRC2012_devkit_t12.tar.gz, its {TRUTH}, or LOC_val_solution.csv"
    )
    parser.add_argument(
        "--labels", type=Path, help=f"the classes in their order, a WNID a line (default: Darknet's {LABELS})"
    )
    args = parser.parse_args()
    try:
        for line in prepare(args):
            print(line)
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error}; what is unpacked stays, the same command goes on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def prepare(args: argparse.Namespace) -> list[str]:
    """Unpack and write the lists; the lines to print come back."""
    out = args.out.resolve()
    for path in (args.train, args.val, args.truth):
        if not path.exists():
            raise DataError(f"{path}: no such file; expected what image-net.org or Kaggle gives")
    labels = read_order(args.labels, args.truth)
    truth = read_truth(args.truth, labels)
    out.mkdir(parents=True, exist_ok=True)
    if args.train.is_dir():
        train = folder_images(str(args.train.resolve()))
    else:
        train = sorted(unpack_train(args.train, out / "train", labels))
    if args.val.is_dir():
        val = sorted(link_val(args.val.resolve(), out / "val", truth))
    else:
        val = sorted(unpack_val(args.val, out / "val", truth))
    lines = [f"train: {len(train):,} images", f"valid: {len(val):,} images"]
    seen = {os.path.basename(os.path.dirname(path)) for path in train}
    if unknown := sorted(seen - set(labels)):
        raise DataError(f"{args.train}: {unknown[0]} is none of the {len(labels)} labels")
    if missing := sorted(set(labels) - seen):
        lines.append(
            f"warning: {len(missing)} of {len(labels)} classes have no training image, {missing[0]} among them"
        )
    if len(val) < len(truth):
        lines.append(
            f"warning: of the {len(truth):,} images that {args.truth} tells of, {len(val):,} are in {args.val}"
        )
    write_list(out / "imagenet.train.list", train)
    write_list(out / "imagenet.valid.list", val)
    write_list(out / "imagenet.labels.list", labels)
    keys = [f"classes={len(labels)}", f"train={out}/imagenet.train.list", f"valid={out}/imagenet.valid.list"]
    keys += ["backup=backup", f"labels={out}/imagenet.labels.list"]
    if labels == darknet_labels()[: len(labels)] and os.path.exists(find_stock(NAMES)):
        keys.append(f"names={NAMES}")
    write_list(out / "imagenet.data", [*keys, "top=5"])
    if labels == sorted(labels):
        lines.append(
            "WARNING: the labels are in alphabetical order, and those of Darknet are not: published weights would name "
            "every image wrongly, and weights trained so no other program of Darknet's kind can use with its names; "
            "give Darknet's list as --labels"
        )
    return [*lines, f"next: darknet-compat classifier train {out}/imagenet.data cfg/darknet19.cfg"]


def darknet_labels() -> list[str]:
    """Darknet's own list where this machine has it, else nothing."""
    found = find_stock(LABELS)
    return read_names(found)[:CLASSES] if os.path.exists(found) else []


def read_order(given: Path | None, truth: Path) -> list[str]:
    """The WNIDs of the classes, in order."""
    if given is None and not os.path.exists(find_stock(LABELS)):
        raise DataError(
            f"{LABELS}: no such file, nor in Debian's package darknet; expected --labels FILE, the list of that name "
            "in Darknet's repository"
        )
    labels = read_names(find_stock(LABELS) if given is None else given)[:CLASSES]
    for number, label in enumerate(labels, 1):
        if not re.fullmatch(WNID, label, re.ASCII):
            raise DataError(f"{given}:{number}: {printable(label)!r}; expected a WNID, as n02119789, in each line")
    if len(set(labels)) < len(labels):
        raise DataError(f"{given}: a WNID stands in it twice; expected each class once")
    if labels == sorted(labels) and truth.suffix != ".csv":
        raise DataError(
            f"{given}: the labels are in alphabetical order, and the numbers of {TRUTH} count in the devkit's, which "
            "is that of Darknet's imagenet.labels.list: all images would get wrong labels; expected that list"
        )
    return labels


def read_truth(path: Path, labels: list[str]) -> dict[str, str]:
    """The WNID of each validation image, by the image's number in eight digits."""
    if path.suffix == ".csv":
        return read_csv(path, labels)
    text = read_devkit(path) if path.name.endswith(("gz", ".tar")) else read_text(path, DataError, MOST_TRUTH)
    truth = {}
    for number, line in enumerate(text.split(), 1):
        if not line.isdigit() or not 1 <= int(line) <= len(labels):
            raise DataError(
                f"{path}: line {number} of {TRUTH} is {printable(line[:40])!r}; expected the number of a class, "
                f"1..{len(labels)}"
            )
        truth[f"{number:08}"] = labels[int(line) - 1]
    if not truth:
        raise DataError(f"{path}: {TRUTH} is empty; expected a number for each image")
    return truth


def read_devkit(path: Path) -> str:
    """The text of the ground truth in the devkit's archive."""
    try:
        with regular_file(path) as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                if member.isreg() and os.path.basename(member.name) == TRUTH and member.size <= MOST_TRUTH:
                    found = tar.extractfile(member)
                    return found.read().decode("utf-8", "replace") if found else ""
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be unpacked: {printable(str(error))}; expected the devkit's .tar.gz") from None
    except OSError as error:  # gzip's own errors are such too
        raise DataError(
            f"{path}: cannot be unpacked: {error.strerror or error}; expected the devkit's .tar.gz"
        ) from None
    raise DataError(f"{path}: no {TRUTH} in it; expected ILSVRC2012_devkit_t12.tar.gz")


def read_csv(path: Path, labels: list[str]) -> dict[str, str]:
    """Of Kaggle's ``ImageId,PredictionString``: lines as ``ILSVRC2012_val_00048981,n03995372 85 1 499 272 ...``."""
    truth, known = {}, set(labels)
    for number, line in enumerate(read_text(path, DataError, MOST_TRUTH).splitlines()[1:], 2):
        found = re.fullmatch(rf"ILSVRC2012_val_(\d{{8}}),({WNID})( .*)?", line.strip(), re.ASCII)
        if not found or found[2] not in known:
            raise DataError(
                f"{path}:{number}: {printable(line[:60])!r}; expected ILSVRC2012_val_NUMBER,WNID and one of the "
                f"{len(labels)} labels for the WNID"
            )
        truth[found[1]] = found[2]
    if not truth:
        raise DataError(f"{path}: no line in it; expected ImageId,PredictionString and a line for each image")
    return truth


def unpack_train(archive: Path, folder: Path, labels: list[str]) -> Iterator[str]:
    """The paths of the images in the archive of archives, which are in place when they come back."""
    known = set(labels)
    with regular_file(archive) as file:
        inner = list(tar_members(file, str(archive)))
        for member in inner:
            wnid, suffix = os.path.splitext(os.path.basename(member.name))
            if suffix != ".tar" or wnid not in known:
                raise DataError(
                    f"{archive}: {printable(member.name)} is in it; expected an archive WNID.tar of each class alone, "
                    f"with WNIDs out of the {len(labels)} labels"
                )
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tqdm(inner, desc="train", unit=" classes", disable=None):
                wnid = os.path.splitext(os.path.basename(member.name))[0]
                part = cast(BinaryIO, tar.extractfile(member))
                yield from unpack(part, f"{archive}/{member.name}", partial(train_place, folder, wnid))


def train_place(folder: Path, wnid: str, name: str) -> Path | None:
    found = TRAIN_IMAGE.fullmatch(name)
    return folder / wnid / name if found and found[1] == wnid else None


def unpack_val(archive: Path, folder: Path, truth: dict[str, str]) -> Iterator[str]:
    """The same of the validation images, each in the folder of its class."""
    with regular_file(archive) as file:
        yield from tqdm(
            unpack(file, str(archive), partial(val_place, folder, truth)),
            desc="val", total=len(truth), unit=" images", disable=None,
        )  # fmt: skip


def val_place(folder: Path, truth: dict[str, str], name: str) -> Path | None:
    found = VAL_IMAGE.fullmatch(name)
    wnid = truth.get(found[1]) if found else None
    return folder / wnid / name if wnid else None


def unpack(file: BinaryIO, archive: str, place: Callable[[str], Path | None]) -> Iterator[str]:
    """Write each member to where ``place`` puts its name, whole or not at all, but for those that are there.

    No folder of a member's path counts, and a name that ``place`` does not know is an error, so nothing gets anywhere
    else.
    """
    for member in tar_members(file, archive):
        path = place(os.path.basename(member.name))
        if path is None:
            raise DataError(
                f"{archive}: {printable(member.name)} is in it, which is no image of ILSVRC2012's, or has no label"
            )
        if not path.is_file() or path.stat().st_size != member.size:
            path.parent.mkdir(parents=True, exist_ok=True)
            file.seek(member.offset_data)
            write(file, member.size, path)
        yield str(path)


def write(file: BinaryIO, size: int, path: Path) -> None:
    """Not :func:`whole_file`: it waits for the disk, a million times."""
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as target:
            while size and (content := file.read(min(size, PART))):
                target.write(content)
                size -= len(content)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def link_val(source: Path, folder: Path, truth: dict[str, str]) -> Iterator[str]:
    """Validation images that lie in a folder get a link each in the folder of their class."""
    names = sorted(name for name in os.listdir(source) if VAL_IMAGE.fullmatch(name))
    if not names:
        raise DataError(f"{source}: no image in it; expected ILSVRC2012_val_00000001.JPEG and so on")
    for name in names:
        path = val_place(folder, truth, name)
        if path is None:
            raise DataError(f"{source / name}: the ground truth tells of {len(truth)} images, and not of this one")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.unlink(missing_ok=True)  # a link to where they lay before
            path.symlink_to(source / name)
        yield str(path)


def write_list(path: Path, lines: list[str]) -> None:
    with whole_file(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
