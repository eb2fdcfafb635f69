"""The command ``darknet-compat``: one file per family of verbs.

Exit codes: 0 fine, 1 the job failed, 2 the command is wrong, 128 + a signal's number where that stopped it: 130 for
Ctrl-C, 141 where the reader of a pipe went away before the job was done. An error is one line; ``-debug`` shows where
it came from.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from ..errors import DarknetError
from ..memory import keep_memory
from ..output import complain, drop, open_closed, print_anything

FINE, FAILED, WRONG, STOPPED, UNREAD = 0, 1, 2, 130, 141


class _Parser(argparse.ArgumentParser):
    """argparse with a one-line error that says where help is: the verb's own, for all that is wrong with its words."""

    def parse_known_args(  # type: ignore[override]  # typeshed's overloads have a namespace of any kind
        self, *arguments: Any, **options: Any
    ) -> tuple[argparse.Namespace, list[str]]:
        # A verb's parser hands on what it does not know, and the one at the top would complain.
        namespace, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their flags. Nothing here loads torch, OpenCV or matplotlib."""
    from . import check, classifier, detector, export, network, new, rnn, scores, yolo

    parser = _Parser(
        prog="darknet-compat",
        description="Darknet's networks in PyTorch: the same cfg, the same .weights, the same numbers.",
        epilog="example: darknet-compat detector test cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights dog.jpg",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    for family in (new, check, detector, yolo, classifier, rnn, network, export, scores):
        family.add(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    open_closed()
    print_anything()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    keep_memory()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # of a damaged image our own line says enough
    debug = any(argument in ("-debug", "--debug") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-debug", "--debug")]
    warnings.showwarning = _one_line
    try:
        code = _run(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        code = _explain(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        drop(sys.stdout)
        # After the job a reader that had enough of it (| head) is no error.
        if code == FINE and not isinstance(error, BrokenPipeError):
            complain(f"darknet-compat: standard output: {error.strerror}")
            code = FAILED
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        options = build_parser().parse_args(arguments)
        code: int = options.run(options)
        return code
    except SystemExit as exit:  # of argparse, which has said what there is to say
        return exit.code if isinstance(exit.code, int) else FAILED


def _explain(error: BaseException) -> int:
    """Say in one line why the job ended; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        # One Ctrl-C more could only put a traceback below the line.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        complain("darknet-compat: stopped")
        return STOPPED
    if isinstance(error, DarknetError):
        complain(f"darknet-compat: {error}")
        return FAILED
    if isinstance(error, BrokenPipeError):
        return UNREAD
    if isinstance(error, OSError):
        complain(f"darknet-compat: {error.filename or 'standard output, or a file'}: {error.strerror or error}")
        return FAILED
    complain(
        f"darknet-compat: {type(error).__name__}: {' '.join(str(error).split())}; "
        "this should not happen: run again with -debug and report it"
    )
    return FAILED


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    complain(f"warning: {' '.join(str(message).split())}")
