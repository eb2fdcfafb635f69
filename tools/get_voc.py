#!/usr/bin/env python3
"""Fetch PASCAL VOC 2007 and 2012 (2.9 GB), check the archives, and unpack them to DEST/VOCdevkit.

python tools/get_voc.py data/made/voc
python tools/voc_label.py data/made/voc/VOCdevkit
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from darknet_compat.download import DownloadError, download
from darknet_compat.errors import DarknetError

ADDRESSES = ("http://host.robots.ox.ac.uk/pascal/VOC/voc{year}", "https://data.pjreddie.com/files")


@dataclass(frozen=True)
class Archive:
    """A tar file of the VOC challenge, with its size in bytes and its md5 sum."""

    file: str
    year: int
    size: int
    md5: str


ARCHIVES = (
    Archive("VOCtrainval_06-Nov-2007.tar", 2007, 460_032_000, "c52e279531787c972589f7e41ab4ae64"),
    Archive("VOCtest_06-Nov-2007.tar", 2007, 451_020_800, "b6e924de25625d8de591ea690078ad9f"),
    Archive("VOCtrainval_11-May-2012.tar", 2012, 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dest", type=Path, help="folder for the archives and the VOCdevkit")
    parser.add_argument("--years", default="2007,2012", help="which years (default %(default)s)")
    parser.add_argument("--mirror", metavar="URL", help="another place that holds the archives by the same names")
    args = parser.parse_args()
    chosen = [archive for archive in ARCHIVES if str(archive.year) in args.years.split(",")]
    if not chosen:
        parser.error(f"--years {args.years}: expected 2007, 2012 or both")
    try:
        for archive in chosen:
            get(archive, args.dest, (args.mirror,) if args.mirror else ADDRESSES)
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.dest / 'VOCdevkit'} is complete; the archives beside it can be deleted")
    print(f"next: python tools/voc_label.py {args.dest / 'VOCdevkit'}")
    return 0


def get(archive: Archive, dest: Path, addresses: tuple[str, ...]) -> None:
    """Fetch, check and unpack one archive."""
    urls = [f"{address.format(year=archive.year)}/{archive.file}" for address in addresses]
    path = download(urls, dest / archive.file, archive.size, archive.md5)
    try:
        with tarfile.open(path) as tar:
            # "data" refuses members that would land outside the folder; Pythons before 3.10.12 do not have it.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tqdm(tar, desc=f"unpacking {archive.file}", unit=" files", disable=None):
                tar.extract(member, dest)
    except (tarfile.TarError, OSError) as error:
        raise DownloadError(f"{path}: cannot be unpacked: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
