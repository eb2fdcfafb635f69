"""A verb in several processes, one for each GPU: those of ``-gpus``, or those that ``torchrun`` started.

The first one prints and writes; the others bring it what they make of their shares of the images.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from ..errors import DarknetError, LostProcessError, ToldError
from ..output import complain
from .arguments import chosen_device, gpu_numbers

if TYPE_CHECKING:
    from ..processes import Processes

Verb = Callable[[argparse.Namespace], int]


def add_gpus(parser: argparse.ArgumentParser, run: Verb, typed: bool = False) -> None:
    """Let the verb of a parser, which ``run`` does, share its images among processes.

    ``typed``: where the command names no image, their paths come from standard input.
    """
    parser.add_argument(
        "-gpus", "--gpus", type=gpu_numbers, metavar="0,1", help="GPUs to share the images among, one process each"
    )
    parser.set_defaults(run=lambda options: _in_processes(parser, options, run, typed))


def _in_processes(parser: argparse.ArgumentParser, options: argparse.Namespace, run: Verb, typed: bool) -> int:
    if options.gpus and options.device:
        parser.error("-gpus and -device exclude each other")
    several = len(options.gpus or []) > 1
    if typed and not options.images and (several or "RANK" in os.environ):
        parser.error("paths from standard input come one by one; expected IMAGE with several processes, or one process")
    if "RANK" not in os.environ:
        if several:
            return _launch(options)
        if options.gpus:
            options.device = f"cuda:{options.gpus[0]}"
        return run(options)
    from ..engines import engine_name
    from ..processes import LAUNCHER, await_launcher, join, leave

    usual = None if engine_name(options.engine, options.precision) == "torch" else "cpu"
    processes = options.processes = join(usual if options.gpus else chosen_device(options) or usual)
    for number in LAUNCHER:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    try:
        if processes.first:
            return run(options)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            return _run_share(options, processes, run)
    except LostProcessError as error:
        await_launcher()
        _end(1, f"{options.command}: {error}" if processes.first else None)
    except KeyboardInterrupt as error:
        _end(130, f"{options.command}: stopped{error}" if processes.first else None)
    except SystemExit as exit:  # by a signal
        _end(exit.code if isinstance(exit.code, int) else 1)
    finally:
        leave()


def _launch(options: argparse.Namespace) -> int:
    from ..processes import launch

    more = "; -resume goes on" if "resume" in options else ""
    return launch(options.gpus, options.words, lambda what: complain(f"{options.command}: {what}{more}"))


def _run_share(options: argparse.Namespace, processes: Processes, run: Verb) -> int:
    """The verb in a process that is not the first one."""
    from ..processes import ShareDone, await_launcher

    def fail(error: DarknetError) -> NoReturn:
        raise error

    try:
        with contextlib.suppress(ShareDone):
            try:
                run(options)
            except (LostProcessError, ToldError):
                raise
            except DarknetError as error:
                # Of something that is not as the first process has it, which asks for images and gets the error.
                list(processes.in_turn(fail(error) for _ in range(1)))
        return 0
    except ToldError:
        await_launcher()
        return 1


def _end(code: int, line: str | None = None) -> NoReturn:
    """End this process, whose job is tidied up, without a word to the others: some may not be there to hear it, and
    torch would wait for them, or print something of its own."""
    if line:
        complain(line)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _stop(number: int, frame: object) -> NoReturn:
    """The first signal ends the process; what it has begun is taken away then, and no other may break that off.

    Ctrl-C comes from the terminal and once more from the launcher.
    """
    from ..processes import LAUNCHER

    for each in LAUNCHER:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
