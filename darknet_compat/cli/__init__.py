"""The command ``darknet-compat``: one file per family of verbs.

Exit codes: 0 fine, 1 the job failed, 2 the command is wrong, 130 stopped by Ctrl-C. An error is one line; ``-debug``
shows where it came from.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import DarknetError
from ..memory import keep_memory

FINE, FAILED, WRONG, STOPPED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """argparse with a one-line error that says where help is: the verb's own, for all that is wrong with its words."""

    def parse_known_args(self, *arguments: Any, **options: Any) -> tuple[argparse.Namespace, list[str]]:
        # A verb's parser hands on what it does not know, and the one at the top would complain.
        namespace, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their flags. Nothing here loads torch, OpenCV or matplotlib."""
    from . import detector, export, network, scores

    parser = _Parser(
        prog="darknet-compat",
        description="Darknet's networks in PyTorch: the same cfg, the same .weights, the same numbers.",
        epilog="example: darknet-compat detector test cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights dog.jpg",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    for family in (detector, network, export, scores):
        family.add(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    keep_memory()
    debug = any(argument in ("-debug", "--debug") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-debug", "--debug")]
    warnings.showwarning = _one_line
    options = build_parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except DarknetError as error:
        if debug:
            raise
        print(f"darknet-compat: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        if debug:
            raise
        print("darknet-compat: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        # The reader of a pipe went away (| head): no error, and nothing more to say into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except Exception as error:
        if debug:
            raise
        print(
            f"darknet-compat: {type(error).__name__}: {' '.join(str(error).split())}; "
            "this should not happen: run again with -debug and report it",
            file=sys.stderr,
        )
        return FAILED


def _one_line(message: Warning | str, category: type[Warning], *_: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
