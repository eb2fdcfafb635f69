"""Fetching a large published file: resumed where it broke off, checked, and there whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from .errors import DarknetError

BLOCK = 1 << 20
TIMEOUT = 30  # seconds without a byte
# Some hosts answer 403 to the name that urllib gives itself.
HEADERS = {"User-Agent": "darknet-compat", "Accept-Encoding": "identity"}


class DownloadError(DarknetError):
    """A file that cannot be fetched, or that is not the published one."""


def download(addresses: Sequence[str], path: Path, size: int | None = None, md5: str | None = None) -> Path:
    """Fetch a file to ``path`` from the first of ``addresses`` that has it; ``path`` comes back.

    What arrives stands in ``path`` + ".part" until it is complete and checked against ``size`` (bytes) and ``md5``; a
    later call goes on where that ends. A file that is already there is only checked.

    Raises :class:`DownloadError`: no address answers, the disk is full, the connection ends early, size or
    sum are wrong.
    """
    if path.exists():
        check(path, size, md5)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    hint = ""
    for address in addresses:
        try:
            fetch(address, part, size)
            break
        except urllib.error.HTTPError as error:
            failures.append(f"{address}: the server answers {error.code} {error.reason}")
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            failures.append(f"{address}: no connection: {getattr(error, 'reason', error) or type(error).__name__}")
            hint = "is there a network? if not, "
    else:
        raise DownloadError(f"{'; '.join(failures)}; {hint}fetch {path.name} by hand and put it at {path}")
    check(part, size, md5)
    os.replace(part, path)
    return path


def fetch(address: str, part: Path, size: int | None) -> None:
    """Append to ``part`` what it lacks of the file at ``address``; start it anew where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        return
    request = urllib.request.Request(address, headers={**HEADERS, **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Nothing comes after what is there: it is complete, or it is another file. Its length tells which.
        range_there = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if range_there and int(range_there[1]) == have:
            return
        part.unlink()
        fetch(address, part, size)
        return
    with answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if not resumed:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if size is not None and total is not None and total != size:
            raise DownloadError(f"{address}: the file there has {total:,} bytes; expected {size:,}; it is another file")
        expected = size if size is not None else total
        free = shutil.disk_usage(part.parent).free
        if expected is not None and expected - have > free:
            raise DownloadError(f"{part.parent}: {free:,} bytes are free; {expected - have:,} more are needed")
        with part.open("ab" if resumed else "wb") as file:
            copy(answer, file, have, expected)
    have = part.stat().st_size
    if expected is not None and have != expected:
        raise DownloadError(
            f"{address}: ended after {have:,} of {expected:,} bytes; run the same command again to go on"
        )


def copy(answer: http.client.HTTPResponse, file: BinaryIO, have: int, total: int | None) -> None:
    """Copy an answer to a file, with a progress bar, until it ends or breaks off."""
    name = Path(file.name).name.removesuffix(".part")
    with tqdm(desc=name, initial=have, total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        try:
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        except http.client.IncompleteRead as error:
            file.write(error.partial)
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
                raise DownloadError(f"{file.name}: {error.strerror}") from None


def check(path: Path, size: int | None, md5: str | None) -> None:
    """Compare a file with its published size and md5 sum; one that is wrong is named, and deleted if it is a part."""
    found = path.stat().st_size
    if size is not None and found != size:
        raise wrong(path, f"{found:,} bytes; expected {size:,}")
    if md5 is not None:
        digest = hashlib.md5(usedforsecurity=False)
        with (
            path.open("rb") as file,
            tqdm(
                desc=f"checking {path.name.removesuffix('.part')}", total=found, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            while block := file.read(BLOCK):
                digest.update(block)
                bar.update(len(block))
        if digest.hexdigest() != md5:
            raise wrong(path, f"md5 {digest.hexdigest()}; expected {md5}")


def wrong(path: Path, what: str) -> DownloadError:
    if path.suffix == ".part":
        path.unlink()
        return DownloadError(f"{path}: {what}; it was deleted, run the same command again")
    return DownloadError(f"{path}: {what}; it is damaged or another file: delete it and run the same command again")
