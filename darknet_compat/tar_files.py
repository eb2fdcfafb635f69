"""Reading tar files that may be damaged, cut short or hostile, by Python's tarfile; nothing is unpacked here."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from .cfg.sections import printable
from .errors import DataError, first_line
from .images import SUFFIXES

BLOCK = 512
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # would end a line of an error, or tell a terminal what to do


def tar_members(file: BinaryIO, name: str) -> Iterator[tarfile.TarInfo]:
    """The plain files in an open, uncompressed tar file; nothing of them is read. ``name`` is what errors call it.

    A tarfile ends in silence where a header is damaged or missing; here that is an error, as is a member that reaches
    beyond the file's end, a link in the place of an image, and a sparse file. Raises :class:`DataError`.
    """
    at = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            # Of an empty one the offset stays 0, and Python 3.10 would seek before its start.
            while tar.offset and (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if member.size < 0 or CONTROL.search(member.name):
                    raise tarfile.ReadError("a header that makes no sense")
                at = member.offset_data
                link = member.issym() or member.islnk()
                if member.issparse() or (link and member.name.lower().endswith(SUFFIXES)):
                    raise DataError(
                        f"{printable(f'{name}/{member.name}')}: a {'link' if link else 'sparse file'}; expected whole "
                        "files: write the tar anew, with tar's -h and --hard-dereference"
                    )
                if member.isreg():
                    yield member
            at = tar.offset
            file.seek(at)
            end = file.read(BLOCK)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{printable(name)}: offset {at}: no tar file, a compressed one, or a damaged one: "
            f"{printable(first_line(error))}; expected a plain, whole .tar"
        ) from None
    if len(end) < BLOCK or end.strip(b"\0"):
        what = "ends without the mark of its end; it was cut short" if len(end) < BLOCK else "a damaged header"
        raise DataError(f"{printable(name)}: offset {at}: {what}; expected a whole .tar: copy or write it again")
