"""The commands ``darknet-compat`` and ``darknet``, which are one: one file per family of verbs.

Exit codes: 0 fine, 1 the job failed, 2 the command is wrong, 128 + a signal's number where that stopped it: 130 for
Ctrl-C, 141 where the reader of a pipe went away before the job was done. An error is one line; ``-debug`` shows where
it came from.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from .. import __version__
from ..errors import DarknetError
from ..memory import keep_memory
from ..output import STARTED_BY, complain, drop, is_first, open_closed, print_anything
from .flags import ALEXEYABS, FAMILIES, WORDS

FINE, FAILED, WRONG, STOPPED, UNREAD = 0, 1, 2, 130, 141
NAME = "darknet-compat"


class _Parser(argparse.ArgumentParser):
    """argparse with a one-line error that says where help is: the verb's own, for all that is wrong with its words.

    As in the C programs, flags may stand anywhere, before the verb too, and a verb takes all flags of its family.
    """

    stands_for_data: str | None = None
    """The .data file where the words begin with a .cfg: the verbs of YOLOv1 have none in the C programs."""

    def parse_args(  # type: ignore[override]  # as below
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        # Of the parser at the top only: those of the verbs get what it leaves.
        options = super().parse_args(args, namespace)
        for line in getattr(options, "notes", ()) if is_first() and STARTED_BY not in os.environ else ():
            complain(f"{self.prog}: {line}")
        return options

    def parse_known_args(  # type: ignore[override]  # typeshed's overloads have a namespace of any kind
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is not None:
            namespace, unknown = super().parse_known_args(_verb_first(words), namespace)
        else:
            unused = self._add_unused()
            words, given = self._flags_last(words)
            namespace, unknown = super().parse_known_args(words, namespace)
            namespace.notes = [f"-{name} has no meaning here: {unused[name]}" for name in given if unused.get(name)]
            if getattr(namespace, "program", "") is None and self._family in ("detector", "detect"):
                namespace.said_by = next((name for name in given if name in ALEXEYABS), None)
                namespace.program = "alexeyab" if namespace.said_by else None
        # A verb's parser hands on what it does not know, and the one at the top would complain.
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    @property
    def _family(self) -> str:
        """The first verb."""
        return f"{self.prog} ".split(" ")[1]

    def _add_unused(self) -> dict[str, str]:
        """Let the verb take what others of its family take; what each flag does there, by its name."""
        unused = {}
        for name, flag in FAMILIES.get(self._family, {}).items():
            if f"-{name}" not in self._option_string_actions:
                takes: dict[str, Any] = {} if flag.words else {"action": "store_true"}
                self.add_argument(f"-{name}", f"--{name}", dest="unused", help=argparse.SUPPRESS, **takes)
                unused[name] = flag.what
        return unused

    def _flags_last(self, words: list[str]) -> tuple[list[str], list[str]]:
        """The words with all flags behind the rest, and the names of the flags.

        argparse takes no rest in two parts, and lets a flag whose number may be left away swallow a file's name.
        """
        rest: list[str] = []
        flags: list[str] = []
        given: list[str] = []
        unknown: list[str] = []
        left = deque(words)
        while left:
            word = left.popleft()
            action = self._option_string_actions.get(word)
            if word == "--":
                rest += left
                break
            if action is not None:
                given.append(word.lstrip("-"))
                flags.append(word)
                if left and (action.nargs is None or (action.nargs == "?" and _is_for(action, left[0]))):
                    value = left.popleft()
                    if value.startswith("-") and value not in self._option_string_actions:
                        value = f"{flags.pop()}={value}"
                    flags.append(value)
            elif (flag := word.split("=")[0]) in self._option_string_actions:
                given.append(flag.lstrip("-"))
                flags.append(word)
            elif word.startswith("-") and word != "-":
                unknown.append(word)  # argparse would take it for one that begins so
            else:
                rest.append(word)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        if self.stands_for_data is not None and rest and rest[0].endswith(".cfg"):
            rest.insert(0, self.stands_for_data)
        return [*flags, *(["--"] if rest else []), *rest], given

    def error(self, message: str) -> NoReturn:
        said = f"{self.prog}: {message}; see {self.prog} --help\n"
        self.exit(WRONG, said if is_first() else None)


def _verb_first(words: list[str]) -> list[str]:
    """The words with the flags that stand before the verb behind it."""
    end = 0
    while end < len(words) and words[end].lstrip("-") in WORDS and words[end].startswith("-"):
        end += 1 + WORDS[words[end].lstrip("-")]
    # Without a verb the flags' numbers would be taken for one.
    return [words[end], *words[:end], *words[end + 1 :]] if end < len(words) else []


def _is_for(action: argparse.Action, word: str) -> bool:
    """Does ``word`` belong to a flag that may stand alone? A number does, or what its type takes."""
    if re.fullmatch(r"[+-]?\d+", word):
        return True
    try:
        action.type(word)  # type: ignore[operator, misc]  # those flags have one
    except (ValueError, argparse.ArgumentTypeError):
        return False
    return True


def build_parser(name: str = NAME) -> argparse.ArgumentParser:
    """All verbs and their flags, for a command of a name. Nothing here loads torch, OpenCV or matplotlib."""
    from . import check, classifier, detector, export, network, new, prepare, report, rnn, scores, yolo

    parser = _Parser(
        prog=name,
        description="Darknet's networks in PyTorch: the same cfg, the same .weights, the same numbers.",
        epilog="example: %(prog)s detector test cfg/voc.data cfg/yolov2-voc.cfg yolov2-voc.weights dog.jpg",
        allow_abbrev=False,
    )
    parser.add_argument("-version", "--version", action="version", version=f"darknet_compat {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    for family in (new, check, report, detector, yolo, classifier, rnn, network, export, scores, prepare):
        family.add(verbs)
    parser.set_defaults(command=name)
    return parser


def darknet() -> int:
    """The command ``darknet``, so that lines written for the C programs run; returns its exit code."""
    return main(name="darknet")


def main(arguments: Sequence[str] | None = None, name: str = NAME) -> int:
    """Run one command, called ``name``; returns its exit code."""
    open_closed()
    print_anything()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    keep_memory()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # of a damaged image our own line says enough
    debug = any(argument in ("-debug", "--debug") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-debug", "--debug")]
    warnings.showwarning = _one_line
    try:
        code = _run(arguments, name)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        code = _explain(error, name)
    try:
        sys.stdout.flush()
    except OSError as error:
        drop(sys.stdout)
        # After the job a reader that had enough of it (| head) is no error.
        if code == FINE and not isinstance(error, BrokenPipeError):
            complain(f"{name}: standard output: {error.strerror}")
            code = FAILED
    return code


def _run(arguments: Sequence[str], name: str) -> int:
    try:
        options = build_parser(name).parse_args(arguments)
        if getattr(options, "threads", None):
            _limit_threads(options.threads)
        options.words = list(arguments)  # for other processes of the same command
        code: int = options.run(options)
        return code
    except SystemExit as exit:  # of argparse, which has said what there is to say
        return exit.code if isinstance(exit.code, int) else FAILED


def _limit_threads(count: int) -> None:
    """Torch reads their number once, as it is loaded; a process that has it already tells it."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def _explain(error: BaseException, name: str) -> int:
    """Say in one line why the job ended; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        # One Ctrl-C more could only put a traceback below the line.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if is_first():  # of several processes, which all are stopped
            complain(f"{name}: stopped{error}")  # with what was kept, where the job says so
        return STOPPED
    if isinstance(error, DarknetError):
        complain(f"{name}: {error}")
        return FAILED
    if isinstance(error, BrokenPipeError):
        return UNREAD
    if isinstance(error, OSError):
        complain(f"{name}: {error.filename or 'standard output, or a file'}: {error.strerror or error}")
        return FAILED
    complain(
        f"{name}: {type(error).__name__}: {' '.join(str(error).split())}; "
        "this should not happen: run again with -debug and report it"
    )
    return FAILED


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    complain(f"warning: {' '.join(str(message).split())}")
