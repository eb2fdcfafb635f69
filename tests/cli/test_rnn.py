"""The verbs ``rnn`` against both C programs' own, line by line, and what wrong input says."""

from __future__ import annotations

import math
import os
import re
import subprocess
from types import SimpleNamespace

import pytest

from darknet_compat.errors import CfgError, DataError
from darknet_compat.weights import save_weights
from tests.compare import network_of
from tests.text_cases import ALEXEYAB, SECTIONS, SONNETS, seed_c, sharpen, text_cfg

TEXT = SONNETS.read_bytes()


@pytest.fixture
def stdin(tmp_path):
    """A function that lets standard input hold these bytes."""
    kept = os.dup(0)

    def hold(text):
        path = tmp_path / "stdin"
        path.write_bytes(text)
        file = os.open(path, os.O_RDONLY)
        os.dup2(file, 0)
        os.close(file)

    yield hold
    os.dup2(kept, 0)
    os.close(kept)


@pytest.fixture(params=[*(("pjreddie", name) for name in SECTIONS), *(("alexeyab", name) for name in ALEXEYAB)],
                ids="-".join)  # fmt: skip
def case(request, tmp_path):
    """A C program, its library, and cfg and weights of a network for it."""
    name, section = request.param
    if name == "pjreddie":
        program, library, text = "pjreddie", "darknet", text_cfg(SECTIONS[section])
        program = request.getfixturevalue(program)
    else:
        program, library, text = request.getfixturevalue("alexeyab") / "darknet", "alexeyab_darknet", ALEXEYAB[section]
        text = text_cfg(text)
    library = request.getfixturevalue(library)
    network, cfg, weights = network_of(text, tmp_path, program=library.program)
    sharpen(network)
    save_weights(network, weights)
    flags = ["-device", "cpu", "-numerics", "cpu", "-program", library.program]
    return SimpleNamespace(program=program, library=library, cfg=cfg, weights=weights, flags=flags)


def theirs(case, *words, text=b"") -> bytes:
    """What the C program prints on standard output."""
    command = [case.program, "rnn", words[0], case.cfg, case.weights, *words[1:]]
    done = subprocess.run(command, input=text, capture_output=True, cwd=case.cfg.parent)
    assert done.returncode == 0, done.stderr.decode()[-300:]
    return re.sub(rb"\A.* trained: [^\n]*\n", b"", done.stdout, flags=re.S)  # AlexeyAB's says this of the weights


def ours(case, verb, capfdbinary, *words) -> bytes:
    capfdbinary.readouterr()
    assert verb("rnn", words[0], case.cfg, case.weights, *words[1:], *case.flags) == 0
    return capfdbinary.readouterr().out


def c_numbers(case, seed, monkeypatch) -> None:
    """Let the verbs draw what the C program draws after srand(seed)."""
    seed_c(case.library, seed, case.cfg, case.weights)
    drawn = SimpleNamespace(random=lambda: case.library.rand_uniform(0, 1))
    monkeypatch.setattr("darknet_compat.cli.rnn.random.Random", lambda seed: drawn)


@pytest.mark.parametrize("words", [("-temp", ".7"), ("-seed", "O", "-temp", "1.3", "-len", "40")], ids=len)
def test_generate_writes_the_same_text(case, words, verb, capfdbinary, monkeypatch):
    words = ("generate", "-srand", "7", *(words if "-len" in words else (*words, "-len", "200")))
    expected = theirs(case, *words)
    c_numbers(case, 7, monkeypatch)
    assert ours(case, verb, capfdbinary, *words) == expected


def test_valid_prints_the_same_lines(case, verb, capfdbinary, stdin):
    text = TEXT[:400]
    stdin(text)
    found = ours(case, verb, capfdbinary, "valid")
    expected = theirs(case, "valid", text=text)
    assert len(found.splitlines()) == len(text) - 1
    assert found.splitlines()[0].startswith(b"1 BPC: " if case.library.program == "pjreddie" else b"1 Perplexity: ")
    close(found, expected)


def close(found: bytes, expected: bytes) -> None:
    """The same words, and the same numbers to 5 digits; of a large perplexity, those of its bits."""
    found, expected = ([line.split() for line in text.splitlines()] for text in (found, expected))
    assert [len(line) for line in found] == [len(line) for line in expected]
    for one, other in zip(found, expected, strict=True):
        for word, wanted in zip(one, other, strict=True):
            if word != wanted and float(wanted) > 1000:
                assert math.log(float(word)) == pytest.approx(math.log(float(wanted)), rel=3e-6)
            elif word != wanted:
                assert float(word) == pytest.approx(float(wanted), rel=2e-5, abs=2e-4)


def test_valid_from_a_seed_of_ones_own(case, verb, capfdbinary, stdin):
    stdin(TEXT[:30])
    words = ("valid", "-seed", "And ")
    close(ours(case, verb, capfdbinary, *words), theirs(case, *words, text=TEXT[:30]))


TACTICS = b"goal one. >> intros; simpl.\nnext >> auto.\n rest"


def test_tactics(case, verb, capfdbinary, stdin, monkeypatch):
    stdin(TACTICS)
    found = ours(case, verb, capfdbinary, "validtactic")
    expected = theirs(case, "validtactic", text=TACTICS)
    assert found.count(b"\n") == len(" intros; simpl.") + len(" auto.")
    close(found, expected)
    stdin(TACTICS)
    words = "generatetactic", "-srand", "3", "-len", "60"
    c_numbers(case, 3, monkeypatch)
    found = ours(case, verb, capfdbinary, *words)
    assert found == theirs(case, *words, text=TACTICS)


def test_vec(case, verb, capfdbinary, stdin):
    """One line: a C program without a GPU goes on from it into the next."""
    line = b"  Rough winds do\tshake\n"
    stdin(line)
    found = ours(case, verb, capfdbinary, "vec").replace(b",", b" ")
    expected = theirs(case, "vec", text=line).replace(b",", b" ")
    assert found.startswith(b"Roughwindsdoshake ")
    close(found, expected)


@pytest.fixture
def small(tmp_path):
    """cfg and weights of a network over letters."""
    _, cfg, weights = network_of(text_cfg(SECTIONS["gru"]), tmp_path)
    return cfg, weights


def test_a_file_of_tokens_says_what_they_are_called(small, tmp_path, verb, capfdbinary):
    words = [f"w{index}" for index in range(128)]
    words[5] = "<NEWLINE>"
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("\n".join(words) + "\n")
    flags = "-seed", "\5A", "-len", "3", "-srand", "1", "-tokens", tokens, "-device", "cpu"
    assert verb("rnn", "generate", *small, *flags) == 0
    found = capfdbinary.readouterr().out
    assert re.fullmatch(rb"\n w65( w\d+|\n ){3}.*", found, re.DOTALL), found
    tokens.write_text("one\n")
    with pytest.raises(DataError, match=r"tokens.txt: 1 lines; expected 128, one for each symbol of the network"):
        verb("rnn", "generate", *small, *flags)


def test_the_same_seed_writes_the_same_text(small, verb, capfdbinary):
    texts = []
    for seed in (1, 1, 2):
        verb("rnn", "generate", *small, "-srand", seed, "-len", "30", "-device", "cpu")
        texts.append(capfdbinary.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-temp", "0"], "argument -temp/--temp: 0 is not over 0"),
        (["-len", "-1"], "argument -len/--len: -1 is under 0"),
    ],
)
def test_wrong_words_are_said_in_a_line(small, verb, capsys, words, said):
    with pytest.raises(SystemExit):
        verb("rnn", "generate", *small, *words)
    assert said in capsys.readouterr().err


def test_a_letter_that_the_network_does_not_take(small, verb):
    with pytest.raises(DataError, match="the symbol 195; expected 0 to 127, which is what the network takes"):
        verb("rnn", "generate", *small, "-seed", "\xe9", "-device", "cpu")


def test_a_byte_of_255_is_refused_as_darknet_does(small, verb, stdin):
    stdin(b"ab\xff")
    with pytest.raises(DataError, match="offset 2 of the text: the byte 255; expected at most 254"):
        verb("rnn", "valid", *small, "-device", "cpu")


def test_what_a_network_takes_it_must_give(small, verb):
    cfg, _ = small
    cfg.write_text(cfg.read_text().replace("output=128", "output=127"))
    with pytest.raises(CfgError, match="the network takes 128 values and gives 127"):
        verb("rnn", "generate", cfg, "-device", "cpu")


def test_train_as_a_person_calls_it(tmp_path, small, verb, capsys):
    """The lines, the files, and how a finished one goes on."""
    cfg, _ = small
    cfg.write_text(text_cfg(SECTIONS["gru"], batch=2, steps=3, net="max_batches=4\nlearning_rate=.1"))
    flags = "-file", SONNETS, "-device", "cpu"
    assert verb("rnn", "train", cfg, *flags, "-srand", "5", "-snapshot", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net"
    assert lines[2] == f"{len(TEXT)} letters; 2 streams, 3 steps each; seed 5; cpu"
    assert [line.split(":")[0] for line in lines[3:] if ":" in line] == ["1", "2", "3", "4"]
    made = sorted(path.name for path in (tmp_path / "backup").iterdir())
    assert made == [
        "net.backup",
        "net.backup.state",
        "net.csv",
        "net.log",
        "net.png",
        "net.run.json",
        "net_final.weights",
    ]
    assert verb("rnn", "train", cfg, *flags, "-resume") == 0
    assert "nothing is left to train: max_batches=4; raise it to train on" in capsys.readouterr().out


def test_every_flag_reaches_the_training(verb, monkeypatch):
    given = []
    monkeypatch.setattr(
        "darknet_compat.train.text.train_text",
        lambda *files, **options: given.append((files, options)) or SimpleNamespace(signal=None),
    )
    flags = {"file": "my.txt", "backup": "b", "device": "cpu", "numerics": "gpu", "program": "alexeyab",
             "srand": 3, "snapshot": 7, "tokenized": True, "clear": True, "resume": False,
             "tensorboard": True}  # fmt: skip
    words = [word for name, value in flags.items() if value for word in (f"-{name}", value) if word is not True]
    assert verb("rnn", "train", "a.cfg", "a.weights", *words) == 0
    assert verb("rnn", "train", "a.cfg", "-resume") == 0
    names = {"text": "file", "seed": "srand"}
    keys = ("text", "tokenized", "backup", "clear", "resume", "device", "numerics", "program", "seed", "snapshot",
            "tensorboard")  # fmt: skip
    (files, options), (_, plain) = given
    assert files == ("a.cfg", "a.weights")
    assert [options[key] for key in keys] == [flags[names.get(key, key)] for key in keys]
    plain_values = ["data/shakespeare.txt", False, "backup", False, True, None, "cudnn", None, None, None, False]
    assert [plain[key] for key in keys] == plain_values


def test_what_is_written_without_a_word(small):
    """test_char_rnn: 1,000 letters at .7, behind two ends of lines."""
    from darknet_compat.cli import build_parser

    options = build_parser().parse_args(["rnn", "generate", "a.cfg"])
    assert (options.len, options.temp, options.seed, options.tokens, options.srand) == (1000, 0.7, "\n\n", None, None)


def test_the_command_to_go_on(small):
    from darknet_compat.cli import build_parser
    from darknet_compat.cli.rnn import _arguments

    words = ["rnn", "train", "a.cfg", "-file", "my text", "-tokenized", "-backup", "b", "-device", "cpu",
             "-numerics", "gpu", "-program", "alexeyab", "-snapshot", "7", "-tensorboard"]  # fmt: skip
    options = build_parser().parse_args([*words, "-clear", "-srand", "3"])
    assert _arguments(options, True) == ["rnn", "train", "a.cfg", "-resume", *words[3:]]
    assert _arguments(options, False) == ["rnn", "train", "a.cfg", "-clear", "-srand", "3", *words[3:]]
