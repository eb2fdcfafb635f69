"""The verbs ``classifier`` against both C programs' own, line by line, and what wrong input says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from darknet_compat import load_classifier, load_network, validate_classifier
from darknet_compat.errors import CfgError, DarknetError, DataError, ExportError, ImageError, ResultsError
from darknet_compat.images import load_image, resize_image
from darknet_compat.weights import save_weights
from tests.cli.test_main import run
from tests.compare import network_of
from tests.conftest import ROOT

CLASSES, TOP = 12, 3
TEXT = f"""[net]
batch=1
width=224
height=224
channels=3
[conv]
batch_normalize=1
filters=6
size=7
stride=4
pad=1
activation=leaky
[conv]
filters=8
size=3
stride=2
pad=1
activation=leaky
[conv]
filters={CLASSES}
size=1
activation=linear
[avgpool]
[softmax]
{{softmax}}
[cost]
"""
# A part of each, none of them square; PNG, as the two programs decode JPEGs differently.
PHOTOGRAPHS = {"dog": (150, 97), "eagle": (181, 120), "giraffe": (90, 131), "scream": (101, 160)}
WORDS = [f"word{index}" for index in range(CLASSES)]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TREE = "".join(f"{name} {above}\n" for name, above in zip(WORDS, [-1] * 3 + [0] * 4 + [2] * 3 + [4] * 2, strict=True))


@pytest.fixture
def photographs(tmp_path, darknet_share):
    (tmp_path / "images").mkdir()
    paths = []
    for name, size in PHOTOGRAPHS.items():
        paths.append(tmp_path / f"images/{name}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(cv2.imread(str(darknet_share / f"data/{name}.jpg")), size))
    return paths


@pytest.fixture
def network(tmp_path, photographs):
    """A function that makes a network whose classes lie so near together that an image's geometry decides."""

    def make(softmax="", size=224, bare=False):
        text = TEXT.format(softmax=softmax).replace("=224", f"={size}")
        made, *files = network_of(text.split("[softmax]")[0] if bare else text, tmp_path)
        inputs = np.empty((len(photographs), 3, size, size), np.float32)
        for slot, path in zip(inputs, photographs, strict=True):
            resize_image(load_image(path), slot)
        with torch.no_grad():
            mean = made.outputs(torch.from_numpy(inputs))[2].mean((0, 2, 3))
            made.layers[2].biases -= mean
            made.layers[2].weights *= 12
            made.layers[2].biases *= 12
        save_weights(made, files[1])
        return files

    return make


@pytest.fixture
def data(tmp_path):
    """A function that writes tmp_path/my.data over a list of images."""

    def write(paths, **keys):
        (tmp_path / "paths.list").write_text("".join(f"{path}\n" for path in paths))
        (tmp_path / "my.labels").write_text("".join(f"{word}x\n" for word in WORDS))
        (tmp_path / "my.names").write_text("".join(f"the {word}\n" for word in WORDS))
        everything = {"classes": CLASSES, "labels": "my.labels", "names": "my.names", "valid": "paths.list",
                      "test": "paths.list", "top": TOP, **keys}  # fmt: skip
        (tmp_path / "my.data").write_text("".join(f"{key}={value}\n" for key, value in everything.items()))
        return "my.data"

    return write


@pytest.fixture
def copies(photographs, tmp_path):
    """Each photograph under the name of every class: the running figures then say which classes are the likeliest."""
    (tmp_path / "copies").mkdir()
    paths = [tmp_path / f"copies/{photograph.stem}_{word}x.png" for photograph in photographs for word in WORDS]
    for path in paths:
        path.symlink_to(photographs[list(PHOTOGRAPHS).index(path.stem.split("_")[0])])
    return paths


@pytest.fixture
def crops(photographs, tmp_path):
    """A function that makes tiny parts of the photographs, each under the name of a class that it may well be.

    So few pixels are worth many of the network's: half a pixel more or less decides.
    """

    def make(files):
        rng, network, paths = np.random.default_rng(3), load_network(*files), []
        (tmp_path / "crops").mkdir()
        for index in range(50):
            photograph = cv2.imread(str(photographs[index % 4]))
            (height, width), (top, left) = rng.integers(5, 13, 2), rng.integers(0, 70, 2)
            part = photograph[top : top + height, left : left + width]
            planes = np.empty((1, 3, 224, 224), np.float32)
            resize_image(part[:, :, ::-1].copy(), planes[0])
            with torch.inference_mode():
                label = int(network(torch.from_numpy(planes)).argmax())
            paths.append(tmp_path / f"crops/{index}_word{label}x.png")
            cv2.imwrite(str(paths[-1]), part)
        return paths

    return make


def theirs(program, *words):
    """The lines of the C program's standard output and error.

    Its ``test`` ends while a thread still loads, and now and then that thread brings it down.
    """
    for _ in range(5):
        done = subprocess.run(
            [str(program), "classifier", *map(str, words)], capture_output=True, text=True, timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def check(ours, expected, tolerance):
    """The same text, and the same numbers but for the last digit."""
    assert len(ours) == len(expected) > 0
    for one, other in zip(ours, expected, strict=True):
        assert NUMBER.sub("#", one) == NUMBER.sub("#", other)
        numbers = [[float(number) for number in NUMBER.findall(line)] for line in (one, other)]
        np.testing.assert_allclose(*numbers, rtol=1e-4, atol=tolerance, err_msg=f"{one}\n{other}")


BOTH = pytest.mark.parametrize("program", ["pjreddie", "alexeyab"], indirect=True)


def follow(program):
    """The flags with which a verb follows it to the digit."""
    return "-numerics", "cpu", "-program", "pjreddie" if str(program).startswith("/usr") else "alexeyab"


@BOTH
def test_predict_prints_the_c_programs_lines(program, verb, data, network, photographs, capsys):
    file, files = data(photographs), network()
    for path in photographs:
        lines, errors = theirs(program, "predict", file, *files, path)
        assert verb("classifier", "predict", file, *files, path, *follow(program)) == 0
        out, err = capsys.readouterr()
        if "pjreddie" in follow(program):
            check(out.splitlines(), lines, 0.0101)
            assert f"{path}: Predicted in " in err
            assert any(line.startswith(f"{path}: Predicted in ") for line in errors)
        else:
            first, *rest = out.splitlines()
            assert re.fullmatch(rf"{re.escape(str(path))}: Predicted in [\d.]+ milli-seconds\.", first)
            check(rest, lines[-TOP:], 2e-5)
            assert lines[-TOP - 1].startswith(f"{path}: Predicted in ")
    assert not Path("predictions.json").exists(), "of one image only -json writes a file"


@BOTH
def test_paths_that_are_typed(program, typed, data, network, photographs):
    """As the C programs read them: an answer for each, between prompts; but for one that is no image."""
    file, files = data(photographs), network()
    text = f"{photographs[0]}\n{photographs[1]}"
    words = "classifier", "predict", file, *files, "-t", 4
    done = subprocess.run([str(program), *map(str, words)], input=text, capture_output=True, text=True)
    code, out, error = typed(text, *words, *follow(program))
    assert code == 0
    assert all(float(seconds) > 0 for seconds in re.findall(r"Predicted in ([\d.]+)", out + error))
    expected = done.stdout[done.stdout.index("Enter Image Path: ") :].replace("224 224\n", "")
    check(*(re.sub(r"(?<=Predicted in )[\d.]+", "0", said).splitlines() for said in (out, expected)), 0.0101)
    code, out, error = typed(f"none.png\n\n{photographs[1]}\n", *words, "-json", "all.json", *follow(program))
    assert code == 1
    assert "darknet-compat: none.png: " in error
    assert out.count("%: the word" if "pjreddie" in follow(program) else "the word") == 4
    (one,) = json.loads(Path("all.json").read_text())
    assert (one["image"], len(one["classes"])) == (str(photographs[1]), 4)


@pytest.mark.parametrize("flag", ["-t", "-top"])
def test_as_many_classes_as_are_asked_for(pjreddie, verb, data, network, photographs, capsys, flag):
    file, files = data(photographs), network()
    lines, _ = theirs(pjreddie, "predict", file, *files, photographs[0], "-t", 7)
    assert verb("classifier", "predict", file, *files, photographs[0], flag, 7, *follow(pjreddie)) == 0
    check(capsys.readouterr().out.splitlines(), lines, 0.0101)
    assert len(lines) == 7


@BOTH
@pytest.mark.parametrize("name", ["valid", "valid10", "validmulti", "validfull"])
def test_valid_prints_the_c_programs_lines(program, verb, data, network, copies, photographs, crops, capsys, name):
    # AlexeyAB's resize_network refuses [softmax].
    bare = name in ("validmulti", "validfull") and "alexeyab" in follow(program)
    files = network(bare=bare)
    file = data([*copies, photographs[0], *crops(files)])
    lines, _ = theirs(program, name, file, *files)
    lines = [line for line in lines if ": top 1: " in line or line.startswith("/")]
    with pytest.warns(UserWarning, match="1 of 99 paths holds none"):
        assert verb("classifier", name, file, *files, *follow(program)) == 0
    check(capsys.readouterr().out.splitlines(), lines, 1.1e-6)
    assert len(lines) == 99 * (2 if name == "valid" and "pjreddie" in follow(program) else 1)


@BOTH
def test_validcrop_prints_the_c_programs_lines(program, verb, data, network, copies, capsys):
    """Two parts of a thousand and one images each; the last image belongs to none."""
    file, files = data((copies * 42)[-2003:]), network(size=64)
    lines, _ = theirs(program, "validcrop", file, *files)
    lines = [line for line in lines if ": top 1: " in line]
    assert verb("classifier", "validcrop", file, *files, *follow(program)) == 0
    seconds = re.compile(r"[\d.]+ seconds")
    ours = [seconds.sub("", line) for line in capsys.readouterr().out.splitlines()]
    check(ours, [seconds.sub("", line) for line in lines], 1.1e-6)
    assert len(lines) == 2


def test_validcrop_takes_any_label_of_a_path(verb, data, network, photographs, tmp_path, capsys):
    """And less than a thousand images, which the C program divides by zero for."""
    path = tmp_path / ("_".join(f"{word}x" for word in WORDS) + ".png")
    shutil.copy(photographs[0], path)
    file, files = data([path]), network()
    with pytest.warns(UserWarning, match="holds the labels 'word0x' and 'word1x'"):
        assert verb("classifier", "validcrop", file, *files) == 0
    assert capsys.readouterr().out.startswith(f"1: top 1: 1.000000, top {TOP}: 1.000000, ")


@BOTH
def test_label_prints_the_c_programs_lines(program, verb, data, network, crops, capsys):
    files = network()
    file = data(crops(files))
    lines, _ = theirs(program, "label", file, *files)
    assert verb("classifier", "label", file, *files, *follow(program)) == 0
    assert capsys.readouterr().out.splitlines() == lines[-50:]


@BOTH
def test_test_prints_the_c_programs_lines(program, verb, data, network, photographs, capsys):
    """And one more: the C program never comes to the last batch."""
    file, files = data(photographs), network()
    lines, _ = theirs(program, "test", file, *files)
    assert verb("classifier", "test", file, *files, *follow(program)) == 0
    ours = capsys.readouterr().out.splitlines()
    check(ours[:-1], [line for line in lines if line.startswith("/")], 1e-8)
    assert ours[-1].startswith(f"{photographs[-1]}\t")
    assert len(ours) == len(photographs)


def test_csv_and_fout_print_the_c_programs_lines(pjreddie, verb, data, network, photographs, capsys):
    file, files = data(photographs), network()
    assert verb("classifier", "csv", file, *files, *follow(pjreddie)) == 0
    out, err = capsys.readouterr()
    lines, errors = theirs(pjreddie, "csv", file, *files)
    assert out.splitlines() == lines
    told = [[line.split(" ", 1)[1] for line in text if " total" in line] for text in (err.splitlines(), errors)]
    assert told[0] == told[1] == [f"seconds, {number} images, 4 total" for number in range(1, 5)]
    assert verb("classifier", "fout", file, *files, "paths.list", *follow(pjreddie)) == 0
    check(capsys.readouterr().out.splitlines(), theirs(pjreddie, "fout", file, *files, "paths.list")[0], 1e-8)


@BOTH
@pytest.mark.parametrize("layer", [0, 1, 4])
def test_try_prints_the_c_programs_lines(program, verb, data, network, photographs, capsys, layer):
    file, files = data(photographs), network()
    lines, _ = theirs(program, "try", file, *files, photographs[0], layer)
    start = next(index for index, line in enumerate(lines) if re.fullmatch(r"-?[\d.]+( -?[\d.]+ -?[\d.]+)?", line))
    seconds = re.compile(r"[\d.]+ seconds")
    assert verb("classifier", "try", file, *files, photographs[0], layer, *follow(program)) == 0
    ours = [seconds.sub("", line) for line in capsys.readouterr().out.splitlines()]
    check(ours, [seconds.sub("", line) for line in lines[start:]], 2e-5)
    assert len(ours) > TOP + (3 if layer == 0 else 0)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "my.tree").write_text(TREE)
    (tmp_path / "my.leaves").write_text("word3\nword8\nnobody\nword1\n")
    return "tree=my.tree"


@BOTH
@pytest.mark.parametrize("leaves", [{}, {"leaves": "my.leaves"}])
def test_trees(program, verb, data, network, photographs, copies, tree, capsys, monkeypatch, tmp_path, leaves):
    """Along a tree: valid's probabilities of leaves, those of leaves=; predict's with and without inner classes."""
    monkeypatch.chdir(tmp_path)
    file, files = data(copies, **leaves), network(tree)
    lines, errors = theirs(program, "valid", file, *files)
    assert verb("classifier", "valid", file, *files, *follow(program)) == 0
    out, err = capsys.readouterr()
    check(out.splitlines(), [line for line in lines if ": top 1: " in line or line.startswith("/")], 1.1e-6)
    assert ("Found 3 leaves." in err) == ("Found 3 leaves." in errors) == bool(leaves)
    levels = re.findall(r"^level (\d) of the tree: (\d+\.\d\d) % of \d+ images$", err, re.M)
    assert [number for number, _ in levels] == ["1", "2", "3"]
    assert 1 < float(levels[0][1]) <= 100
    lines, _ = theirs(program, "predict", file, *files, photographs[0], "-t", 9)
    assert verb("classifier", "predict", file, *files, photographs[0], "-t", 9, *follow(program)) == 0
    check(capsys.readouterr().out.splitlines()[-9:], lines[-9:], 0.0101 if "pjreddie" in follow(program) else 2e-5)


@pytest.mark.parametrize("name", ["valid10", "validmulti", "validfull"])
def test_trees_of_the_other_verbs(pjreddie, verb, data, network, copies, tree, capsys, monkeypatch, tmp_path, name):
    """validmulti multiplies along the tree for the plain image alone; none of them looks at leaves=."""
    monkeypatch.chdir(tmp_path)
    file, files = data(copies, leaves="my.leaves"), network(tree)
    lines, _ = theirs(pjreddie, name, file, *files)
    assert verb("classifier", name, file, *files, *follow(pjreddie)) == 0
    out, err = capsys.readouterr()
    check(out.splitlines(), lines, 1.1e-6)
    assert "leaves" not in err
    assert "level 2 of the tree: " in err


@pytest.mark.parametrize("last", ["", "tree=other.tree"])
def test_the_tree_is_that_of_the_last_softmax(
    pjreddie, verb, data, network, copies, tree, capsys, monkeypatch, tmp_path, last
):
    """parse_network_cfg: ``net->hierarchy = l.softmax_tree`` at each of them, be it one without a tree."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.tree").write_text("".join(f"{word} {number // 4 - 1}\n" for number, word in enumerate(WORDS)))
    more = f"{tree}\n[connected]\noutput={CLASSES}\nactivation=linear\n[softmax]\n{last}"
    file, files = data(copies), network(more)
    lines, _ = theirs(pjreddie, "valid10", file, *files)
    assert verb("classifier", "valid10", file, *files, *follow(pjreddie)) == 0
    check(capsys.readouterr().out.splitlines(), lines, 1.1e-6)


def test_a_tree_of_other_classes_than_the_networks_is_one_line(
    verb, data, network, photographs, tree, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    file, files = data(photographs, classes=5), network(f"{tree}\n[connected]\noutput=5\nactivation=linear")
    with pytest.raises(CfgError, match=r"tree=my\.tree: my\.tree has 12 classes; expected 5$"):
        verb("classifier", "valid", file, *files)


def test_leaves_that_are_none_of_the_trees_are_one_line(verb, data, network, photographs, tree, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"leaves=my\.names: no line of my\.names is a name in the tree"):
        verb("classifier", "valid", data(photographs, leaves="my.names"), *network(tree))


def test_validcrop_tells_of_no_level_of_a_tree(verb, data, network, photographs, tree, capsys, monkeypatch, tmp_path):
    """As it scores what the network gives, the probability of a class where its parent is given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "word1x").mkdir()
    shown = shutil.copy(photographs[0], tmp_path / "word1x/dog.png")
    assert verb("classifier", "validcrop", data([shown]), *network(tree)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1: top 1: ")
    assert "of the tree" not in err


@pytest.mark.parametrize("name", ["csv", "fout", "label"])
def test_trees_of_the_lists(pjreddie, verb, data, network, photographs, tree, capsys, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    file, files = data(photographs), network(tree)
    more = ["paths.list"] if name == "fout" else []
    lines, _ = theirs(pjreddie, name, file, *files, *more)
    assert verb("classifier", name, file, *files, *more, *follow(pjreddie)) == 0
    check(capsys.readouterr().out.splitlines(), lines, 1e-8)


@pytest.mark.parametrize("program", ["pjreddie", "alexeyab"])
def test_a_tree_where_paths_are_typed_and_in_test(
    program, verb, typed, data, network, photographs, tree, capfd, monkeypatch, tmp_path
):
    """Typed paths are predicted as named ones; `test` prints what the network gives, classes of a parent sum to 1."""
    monkeypatch.chdir(tmp_path)
    words, flags = [data(photographs), *network(tree)], ["-program", program]
    assert verb("classifier", "predict", *words, photographs[0], *flags, "-t", 9) == 0
    expected = capfd.readouterr().out.splitlines()[-9:]
    code, out, _ = typed(f"{photographs[0]}\n", "classifier", "predict", *words, *flags, "-t", 9)
    assert code == 0
    assert out.replace("Enter Image Path: ", "").splitlines()[-9:] == expected
    assert verb("classifier", "test", *words, *flags) == 0
    rows = np.array([line.split("\t")[1:] for line in capfd.readouterr().out.splitlines()], float)
    for group in (slice(0, 3), slice(3, 7), slice(7, 10), slice(10, 12)):
        np.testing.assert_allclose(rows[:, group].sum(1), 1, atol=1e-4)


@pytest.fixture
def tiny(shared, darknet_share, tmp_path):
    """Darknet's own classifier of ImageNet, for one image at a time; with names and labels of Debian's."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text((shared / "tiny-imagenet/tiny.cfg").read_text().replace("batch=128", "batch=1"))
    (tmp_path / "photographs").mkdir()
    paths = []
    # malamute, kite (a bird), sorrel
    for name, label in ("dog", "n02110063"), ("eagle", "n01608432"), ("horses", "n02389026"), ("person", ""):
        paths.append(tmp_path / f"photographs/{label}{name}.jpg")
        shutil.copy(darknet_share / f"data/{name}.jpg", paths[-1])
    (tmp_path / "paths.list").write_text("".join(f"{path}\n" for path in paths))
    text = (darknet_share / "cfg/imagenet1k.data").read_text()
    text = re.sub(r"(?m)^(train|valid) .*$", "", text) + "\nvalid=paths.list\ntest=paths.list\n"
    (tmp_path / "imagenet.data").write_text(text)
    return "imagenet.data", cfg, shared / "tiny-imagenet/tiny.weights"


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["valid", *(pytest.param(name, marks=pytest.mark.slow) for name in ("valid10", "validmulti", "validfull")), "label",
     "csv", "test", "fout"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*no label is in the path")
def test_a_real_classifiers_lines_are_the_c_programs(pjreddie, tiny, verb, capsys, name):
    more = ["paths.list"] if name == "fout" else []
    lines, _ = theirs(pjreddie, name, *tiny, *more)
    assert verb("classifier", name, *tiny, *more, *follow(pjreddie)) == 0
    ours = capsys.readouterr().out.splitlines()
    check(ours[: len(lines)], lines, 1e-6)
    assert len(ours) - len(lines) == (name == "test")


@pytest.mark.real_data
def test_a_real_classifiers_predictions_are_the_c_programs(pjreddie, tiny, verb, capsys, tmp_path):
    for path in sorted((tmp_path / "photographs").iterdir()):
        lines, _ = theirs(pjreddie, "predict", *tiny, path)
        assert verb("classifier", "predict", *tiny, path, *follow(pjreddie)) == 0
        check(capsys.readouterr().out.splitlines(), lines, 0.0101)
        short = subprocess.run(
            [pjreddie, "classify", *map(str, tiny[1:]), path], capture_output=True, text=True, check=True
        )
        assert verb("classify", *tiny[1:], path, *follow(pjreddie)) == 0
        check(capsys.readouterr().out.splitlines(), short.stdout.splitlines(), 0.0101)


def test_many_images_go_into_one_json(verb, data, network, photographs, capsys, tmp_path):
    file, files = data(photographs), network()
    assert verb("classifier", "predict", file, *files, "images", "paths.list", "-batch", 3) == 0
    assert capsys.readouterr().out == "8 images: predictions.json\n"
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert [Path(image["image"]).stem for image in found] == [*PHOTOGRAPHS] * 2
    for one, other in zip(found[:4], found[4:], strict=True):
        assert [part["class_id"] for part in one["classes"]] == [part["class_id"] for part in other["classes"]]
        assert len(one["classes"]) == TOP
        assert [part["name"] for part in one["classes"]] == [f"the word{part['class_id']}" for part in one["classes"]]
    assert (found[2]["width"], found[2]["height"]) == PHOTOGRAPHS["giraffe"]
    for asked, listed in ((2, 2), (50, CLASSES)):
        assert verb("classifier", "predict", file, *files, "images", "-t", asked, "-json", "few.json") == 0
        few = json.loads((tmp_path / "few.json").read_text())
        assert [len(image["classes"]) for image in few] == [listed] * 4


def test_without_images_the_list_is_that_of_test(verb, data, network, photographs, tmp_path, capsys):
    """Which need not be there for other verbs; nor need names be that no line shows."""
    file, files = data(photographs, test="some.list", names="none.names"), network()
    (tmp_path / "some.list").write_text(f"{photographs[2]}\n")
    (tmp_path / "paths").write_text(f"{photographs[1]}\n{photographs[3]}\n")
    for name, more, shown in (
        ("csv", [], [2]),
        ("test", [], [2]),
        ("fout", ["paths"], [1, 3]),  # whatever a list is called
        ("fout", [photographs[0]], [0]),
        ("fout", ["images/g*.png"], [2]),
    ):
        assert verb("classifier", name, file, *files, *more) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [Path(line.split("\t")[0]).name for line in lines] == [photographs[place].name for place in shown]
    with pytest.raises(DataError, match=r"none\.names"):
        verb("classifier", "label", file, *files)


def test_images_of_ones_own_instead_of_the_list(verb, data, network, photographs, capsys):
    file, files = data(photographs), network()
    assert verb("classifier", "csv", file, *files, "images/*.png", "-top", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [f"images/{name}.png" for name in PHOTOGRAPHS]
    assert {len(line.split("\t")) for line in lines} == {3}


def test_an_unreadable_image(verb, data, network, photographs, capsys, tmp_path):
    file, files = data(photographs), network()
    (tmp_path / "images/cut.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"cut\.png: 8 bytes.*or add -skip.*found in 0 images|cut\.png") as error:
        verb("classifier", "predict", file, *files, "images")
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match=r"cut\.png.*skipped"):
        assert verb("classifier", "predict", file, *files, "images", "-skip") == 1
    out, err = capsys.readouterr()
    assert out == "4 images: predictions.json\n"
    assert "1 of 5 images could not be read" in err
    with pytest.warns(UserWarning, match=r"cut\.png.*skipped"):
        assert verb("classifier", "csv", file, *files, "images", "-skip") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert "1 of 5 images could not be read" in err


def test_folders_are_classes_where_that_is_asked_for(verb, data, network, photographs, tmp_path, capsys):
    for place, photograph in enumerate(photographs):
        (tmp_path / f"set/word{place}x").mkdir(parents=True)
        shutil.copy(photograph, tmp_path / f"set/word{place}x/word5x.png")
    file, files = data(sorted((tmp_path / "set").glob("*/*.png"))), network()
    assert verb("classifier", "valid", file, *files, "-labels", "folder") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[1] for line in lines[::2]] == ["0", "1", "2", "3"]
    assert f", top {TOP}: " in lines[-1]
    assert verb("classifier", "valid", file, *files, "-labels", "folder", "-t", 5) == 0
    assert ", top 5: " in capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "set/word0x").rename(tmp_path / "set/word0")
    data(sorted((tmp_path / "set").glob("*/*.png")))
    with pytest.raises(DataError, match="its folder is called 'word0', which is none of the 12 labels"):
        verb("classifier", "valid", file, *files, "-labels", "folder")


def test_tables_and_images_of_the_classes(verb, data, network, copies, tmp_path, capsys):
    file, files = data(copies), network()
    assert verb("classifier", "valid", file, *files, "-out", "scores") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    scores = validate_classifier(load_classifier(file, *files))
    assert last == f"47: top 1: {scores.top1:.6f}, top {TOP}: {scores.topk:.6f}"
    rows = (tmp_path / "scores/classes.csv").read_text().splitlines()
    assert rows[0] == f"class_id,name,images,top 1,top {TOP},taken for,images taken for it"
    assert [row.split(",")[:3] for row in rows[1:]] == [[str(i), f"the {word}", "4"] for i, word in enumerate(WORDS)]
    cells = np.array([row.split(",")[1:] for row in (tmp_path / "scores/confusion.csv").read_text().splitlines()[1:]])
    assert (cells.astype(int) == scores.confusion()).all()
    for name in ("classes", "confusion"):
        assert cv2.imread(str(tmp_path / f"scores/{name}.png")).shape[1] > 500


def test_a_list_without_a_label_is_an_error(verb, data, network, photographs):
    file, files = data(photographs), network()
    with pytest.raises(DataError, match=r"^paths\.list: none of its 4 paths has a label in it; expected the labels="):
        verb("classifier", "valid", file, *files)


def test_a_network_is_resized_with_torch_alone_and_has_its_size_again(data, network, photographs, copies, monkeypatch,
                                                                     tmp_path):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    file, files = data(copies[:2]), network()
    classifier = load_classifier(file, *files)
    validate_classifier(classifier, verb="validfull")
    assert (classifier.network.width, classifier.network.height) == (224, 224)
    for words in ({"engine": "onnxruntime"}, {"precision": "bf16"}):
        with pytest.raises(ExportError, match="in the size of each image; expected -engine torch"):
            validate_classifier(load_classifier(file, *files, **words), verb="validfull")


@pytest.mark.parametrize(
    ("text", "keys", "error", "message"),
    [
        (TEXT, {"classes": 3}, DataError, "my.data:1: classes=3: 3 classes; expected classes=12, as "),
        (TEXT, {"leaves": "my.names"}, DataError, "my.data:7: leaves=my.names: the network has no tree; expected"),
        (TEXT, {"labels": "none.txt"}, DataError, "none.txt: "),
        (TEXT, {"labels": "short"}, DataError, "my.data:2: labels=short: 2 lines in short; expected 12"),
        (TEXT.replace("channels=3", "channels=1"), {}, CfgError, "expected channels=3"),
        (
            TEXT.replace("[avgpool]\n[softmax]", "[region]\nclasses=1\nnum=2\ncoords=4\n[route]\nlayers=-2"), {},
            CfgError, "the network finds boxes in [region]; expected `detector`",
        ),
    ],
)  # fmt: skip
def test_wrong_networks_and_data_are_one_line(verb, data, tmp_path, copies, text, keys, error, message):
    _, *files = network_of(text.format(softmax=""), tmp_path)
    (tmp_path / "short").write_text("a\nb\n")
    with pytest.raises(error, match=re.escape(message)) as raised:
        verb("classifier", "valid", data(copies, **keys), *files)
    assert isinstance(raised.value, DarknetError)
    assert "\n" not in str(raised.value)


def test_try_takes_its_own_size_and_a_layer_that_is_there(verb, data, tmp_path, photographs):
    _, *files = network_of(TEXT.format(softmax="").replace("width=224", "width=192"), tmp_path)
    with pytest.raises(CfgError, match="makes an input of 224 x 224; expected width=224"):
        verb("classifier", "try", data(photographs), *files, photographs[0], 0)
    _, *files = network_of(TEXT.format(softmax=""), tmp_path)
    for layer in (6, 70):
        with pytest.raises(CfgError, match=f"no layer {layer}; expected 0 to 5"):
            verb("classifier", "try", data(photographs), *files, photographs[0], layer)
    _, *files = network_of(TEXT.format(softmax="").replace("channels=3", "channels=1"), tmp_path)
    with pytest.raises(CfgError, match="expected channels=3"):
        verb("classifier", "try", data(photographs), *files, photographs[0], 0)


def test_where_to_write_is_looked_at_first(verb, data, network, photographs):
    file, files = data(photographs), network()
    for flags, message in (
        (("-json", "images"), "images: a folder; expected a file's name"),
        (("-json", "my.data"), "my.data: the command reads this file too, and would overwrite it"),
        (("-json", "images/dog.png"), "images/dog.png: the command reads this file too"),
    ):
        with pytest.raises(ResultsError, match=re.escape(message)):
            verb("classifier", "predict", file, *files, "images", *flags)
    shutil.copy("paths.list", "my.list")
    with pytest.raises(ResultsError, match=r"my\.list: the command reads this file too"):
        verb("classifier", "predict", file, *files, "my.list", "-json", "my.list")
    with pytest.raises(ResultsError, match="expected a folder to write to"):
        verb("classifier", "valid", file, *files, "-out", "my.data")


@pytest.mark.parametrize("written", ["my.data", "my.names", "my.labels", "paths.list", "net.cfg", "net.weights"])
def test_nothing_that_is_read_is_written_over(verb, typed, data, network, photographs, tmp_path, written):
    """Also where the paths of the images are typed."""
    file, files = data(photographs), network()
    before = (tmp_path / written).read_bytes()
    words = "classifier", "predict", file, *(path.name for path in files)
    with pytest.raises(ResultsError, match=rf"^{written}: the command reads this file too"):
        verb(*words, "images", "-json", written)
    with pytest.raises(ResultsError, match=rf"^{written}: the command reads this file too"):
        typed(f"{photographs[0]}\n", *words, "-json", written)
    assert (tmp_path / written).read_bytes() == before


def test_a_typed_image_is_not_written_over(typed, data, network, photographs):
    before = photographs[0].read_bytes()
    words = "classifier", "predict", data(photographs), *network(), "-json", "images/dog.png"
    code, out, error = typed(f"{photographs[0]}\n", *words)
    assert (code, out.count("the word")) == (1, 0)
    assert "images/dog.png: the command reads this file too" in error
    assert photographs[0].read_bytes() == before


def test_errors_are_one_line_each(data, network, photographs, tmp_path):
    file, files = data(photographs), network()
    for words in (
        ("predict", file, *files, "none.png"),
        ("predict", "none.data", *files, "images"),
        ("label", file, files[0], "none.weights"),
        ("fout", file, *files, "none.list"),
        ("valid", file, *files, "-labels", "folder"),
    ):
        result = run("classifier", *words, cwd=tmp_path)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("darknet-compat: ")
        assert "Traceback" not in result.stderr


def test_without_imagenets_names_the_short_form_says_what_is_missing(verb, monkeypatch, tmp_path):
    monkeypatch.setattr("darknet_compat.stock.DEBIAN", tmp_path / "none")
    with pytest.raises(DataError, match=r"^cfg/imagenet1k\.data: no such file, nor in Debian's package"):
        verb("classify", ROOT / "cfg/tiny.cfg", "none.weights", ROOT / "data/shapes-sample.jpg")
