"""The verbs ``rnn``: networks that foretell a text, letter by letter."""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .arguments import add_device, add_numerics, chosen_device, count, positive

if TYPE_CHECKING:
    from ..text.reader import Reader

TEXT, TEMPERATURE, LENGTH, SEED = "data/shakespeare.txt", 0.7, 1000, "\n\n"
# The flags that a command to go on repeats: name -> its default.
REPEATED = {"file": TEXT, "tokenized": False, "backup": "backup", "device": None, "numerics": "cudnn", "program": None,
            "snapshot": None, "tensorboard": False}  # fmt: skip


def add(verbs: Any) -> None:
    """Make ``rnn`` and its verbs known to the command line."""
    parser = verbs.add_parser("rnn", help="train networks on texts, and generate text")
    rnn = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))

    parser = _add(
        rnn, "train", "train a network to predict a text", "cfg/rnn.train.cfg -file data/shakespeare.txt",
        "Train CFG on a text, from WEIGHTS (which may end early) or from random weights. Snapshots go to a folder: "
        "NAME.backup, numbered .weights, NAME_final.weights, and with them NAME.log, NAME.csv and the chart NAME.png. "
        "Ctrl-C, SIGTERM and SIGHUP save, and print the command that continues.",
    )  # fmt: skip
    _flag(parser, "file", default=TEXT, metavar="FILE", help=f"the text (default {TEXT})")
    _flag(parser, "tokenized", action="store_true", help="FILE holds numbers of tokens, not letters")
    _flag(parser, "clear", action="store_true", help="count letters seen from 0, whatever WEIGHTS says")
    _flag(parser, "resume", action="store_true", help="continue from NAME.backup.state as if there had been no stop")
    _flag(parser, "backup", default="backup", metavar="FOLDER", help="folder for snapshots (default backup)")
    _flag(parser, "snapshot", type=positive, metavar="N",
          help="write NAME.backup every N batches (default 100; AlexeyAB's 10)")  # fmt: skip
    _flag(parser, "tensorboard", action="store_true",
          help="write the figures for TensorBoard too, into NAME.tensorboard")  # fmt: skip
    _srand(parser)
    parser.set_defaults(run=train)

    parser = _add(rnn, "generate", "continue a text from a few letters", "cfg/gru.cfg grumble.weights -len 500")
    _flag(parser, "seed", default=SEED, metavar="TEXT", help="text to continue (default: two line ends)")
    _writing(parser)
    parser.set_defaults(run=generate)

    parser = _add(rnn, "generatetactic", "continue standard input, up to a full stop at the end of a line",
                  "cfg/gru.cfg coq.weights < goal.txt")  # fmt: skip
    _writing(parser)
    parser.set_defaults(run=generate_tactic)

    for name, what in (
        ("valid", "how well the network predicts standard input: bits per letter and perplexity, a line per letter"),
        ("validtactic", "as valid, for the text between >> and a full stop at the end of a line"),
        ("vec", "the lines of standard input, and the first layer's output for each"),
    ):
        parser = _add(rnn, name, what, "cfg/gru.cfg shakespeare.weights < text.txt")
        _flag(parser, "seed", default=SEED, metavar="TEXT", help="text to read first (default: two line ends)")
        parser.set_defaults(run=vec if name == "vec" else valid, verb=name)


def _add(verbs: Any, name: str, what: str, example: str, description: str | None = None) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=description or f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: %(prog)s {example}",
        allow_abbrev=False,
    )
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="without it the network has random weights")
    add_device(parser, "where torch runs: cuda (default where there is one), cpu ...")
    add_numerics(parser)
    return parser


def _flag(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    parser.add_argument(f"-{name}", f"--{name}", **options)


def _srand(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "srand", type=count, metavar="N", help="seed of all random numbers (default: a new one)")


def _writing(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "len", type=count, default=LENGTH, metavar="N", help=f"letters to write (default {LENGTH})")
    _flag(parser, "temp", type=_temperature, default=TEMPERATURE, metavar="T",
          help=f"temperature: below 1, likely letters become likelier (default {TEMPERATURE})")  # fmt: skip
    _flag(parser, "tokens", metavar="FILE", help="names of the tokens, one per line, for tokenized texts")
    _srand(parser)


def _temperature(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not over 0")
    return value


def train(options: argparse.Namespace) -> int:
    """``train_char_rnn``; 128 + its number where a signal stopped it."""
    from ..train.text import train_text

    options.device = chosen_device(options)
    done = train_text(
        options.cfg, options.weights, text=options.file, tokenized=options.tokenized, backup=options.backup,
        clear=options.clear, resume=options.resume, device=options.device, numerics=options.numerics,
        program=options.program, seed=options.srand, snapshot=options.snapshot, tensorboard=options.tensorboard,
        command=lambda resume: shlex.join([options.command, *_arguments(options, resume)]),
    )  # fmt: skip
    return 128 + done.signal if done.signal else 0


def _arguments(options: argparse.Namespace, resume: bool) -> list[str]:
    """The command's words, as given or to go on with."""
    words = ["rnn", "train", options.cfg]
    if resume:
        words.append("-resume")
    else:
        words += [options.weights] if options.weights else []
        words += ["-clear"] if options.clear else []
        words += [] if options.srand is None else ["-srand", str(options.srand)]
    for name, default in REPEATED.items():
        value = getattr(options, name)
        if value != default:
            words += [f"-{name}"] if value is True else [f"-{name}", str(value)]
    return words


def _load(options: argparse.Namespace) -> Reader:
    from ..text.reader import load_reader

    reader = load_reader(
        options.cfg, options.weights, temperature=getattr(options, "temp", None), device=chosen_device(options),
        numerics=options.numerics, program=options.program,
    )  # fmt: skip
    if options.weights:
        print(reader.network.report, file=sys.stderr)
    return reader


def generate(options: argparse.Namespace) -> int:
    """``test_char_rnn``."""
    from ..text.write import generate

    reader = _load(options)
    draw = random.Random(options.srand).random
    return _print(options, reader, generate(reader, os.fsencode(options.seed), options.len, draw))


def generate_tactic(options: argparse.Namespace) -> int:
    """``test_tactic_rnn``."""
    from ..text.write import generate_tactic

    reader = _load(options)
    draw = random.Random(options.srand).random
    return _print(options, reader, generate_tactic(reader, _letters(), options.len, draw))


def _print(options: argparse.Namespace, reader: Reader, symbols: Iterator[int]) -> int:
    """Symbol by symbol, at once where somebody watches."""
    from ..text.corpus import read_tokens

    tokens = read_tokens(options.tokens, reader.symbols) if options.tokens else None
    out, watched = sys.stdout.buffer, sys.stdout.isatty()
    for symbol in symbols:
        out.write(tokens[symbol] + b" " if tokens else bytes((symbol % 256,)))
        if watched:
            out.flush()
    out.write(b"\n")
    return 0


def valid(options: argparse.Namespace) -> int:
    """``valid_char_rnn``, ``valid_tactic_rnn``."""
    from ..text.validate import validate_tactics, validate_text

    reader, seed = _load(options), os.fsencode(options.seed)
    if options.verb == "validtactic":
        for judged in validate_tactics(reader, _letters(), seed):
            print(judged.tactic_line())
    else:
        for judged in validate_text(reader, _letters(), seed):
            print(judged.line(reader.network.program))
    return 0


def vec(options: argparse.Namespace) -> int:
    """``vec_char_rnn``."""
    from ..text.validate import line_vectors

    reader = _load(options)
    with open(0, "rb", closefd=False) as file:
        lines = (line.removesuffix(b"\n") for line in file)
        for line, values in line_vectors(reader, lines, os.fsencode(options.seed)):
            sys.stdout.buffer.write(line + "".join(f",{value:g}" for value in values.tolist()).encode() + b"\n")
    return 0


def _letters() -> Iterator[int]:
    """Those of standard input."""
    with open(0, "rb", closefd=False) as file:
        for block in iter(lambda: file.read1(2**16), b""):
            yield from block
