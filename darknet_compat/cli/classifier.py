"""The verbs ``classifier ...``, and the short form ``classify``: parse and print."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .arguments import TypedImages, add_network, add_top, bar, load_classifier
from .several import add_gpus

if TYPE_CHECKING:
    from ..classify.classifier import DataClassifier
    from ..classify.predictions import Prediction
    from ..classify.validate import Judged

EXAMPLE = "cfg/imagenet1k.data cfg/darknet19.cfg darknet19.weights"
BATCH = 8
IMAGES = "image, folder, pattern, or .txt or .list file of paths"

VALID = {
    "valid": "how often the truth is the likeliest class, for the middle square of each image of the valid list",
    "valid10": "as valid, for ten crops of each image together",
    "validmulti": "as valid, for each image in several sizes and mirrored; the network is resized",
    "validfull": "as valid, for whole images; the network is resized to each",
    "validcrop": "as valid, for stretched images, in parts of 1000; any label in a path is its truth",
}


def add(verbs: Any) -> None:
    """Make ``classifier``, its verbs and ``classify`` known to the command line."""
    from . import train, video

    parser = verbs.add_parser("classifier", help="classify images, train and validate a classifier")
    classifier = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=type(parser))

    train.add_classifier(classifier)
    parser = _add(classifier, "predict", "the likeliest classes of images", " dog.jpg")
    _add_images(parser, "*")
    _add_predict(parser)

    for name, what in VALID.items():
        parser = _add(classifier, name, what, "")
        add_top(parser)
        parser.add_argument(
            "-labels", "--labels", choices=("path", "folder"), default="path",
            help="the class of an image: the first label that occurs in its path (default, as in Darknet), or the "
            "label that is the name of its folder",
        )  # fmt: skip
        parser.add_argument(
            "-out", "--out", metavar="FOLDER",
            help="folder for classes.csv and confusion.csv (the figures of each class, and which classes are "
            "confused), and for both as images",
        )  # fmt: skip
        parser.set_defaults(verb=name)
        add_gpus(parser, valid)

    for name, what in (
        ("label", "the name of the likeliest class, one line per image"),
        ("csv", "path and the numbers of the likeliest classes, one line per image"),
        ("test", "path and all outputs of the network, one line per image"),
    ):
        parser = _add(classifier, name, f"{what} (default: the list of test=)", "")
        _add_images(parser, "*")
        add_top(parser)
        parser.set_defaults(verb=name)
        add_gpus(parser, table)

    parser = _add(classifier, "fout", "path and the probability of every class, one line per image", " paths.list")
    parser.add_argument("file", metavar="FILE", help="list of paths, one per line; or an image, folder or pattern")
    _add_skip(parser)
    parser.set_defaults(verb="fout", top=None)
    add_gpus(parser, table)

    parser = _add(classifier, "try", "the output of one layer for an image", " dog.jpg 0")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("layer", metavar="LAYER", type=int, help="number of a layer, as `net` lists them")
    add_top(parser)
    parser.set_defaults(run=try_)

    video.add_classifier(classifier, EXAMPLE, BATCH)

    parser = verbs.add_parser(
        "classify",
        help="the five likeliest classes of ImageNet for images",
        description="`classifier predict` with cfg/imagenet1k.data, and the five likeliest classes.",
        epilog="example: %(prog)s cfg/darknet19.cfg darknet19.weights dog.jpg",
        allow_abbrev=False,
    )
    add_network(parser, data=False, batch=BATCH)
    _add_images(parser, "*")
    _add_predict(parser)
    parser.set_defaults(data=None, top=5)


def _add(verbs: Any, name: str, what: str, more: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=f"Print {what}." if not name.startswith("valid") else f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: %(prog)s {EXAMPLE}{more}",
        allow_abbrev=False,
    )
    add_network(parser, batch=BATCH)
    return parser


def _add_images(parser: argparse.ArgumentParser, number: str) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs=number, help=IMAGES)
    _add_skip(parser)


def _add_skip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-skip", "--skip", action="store_true",
        help="skip images that cannot be read, with a warning for each, and exit with 1 at the end",
    )  # fmt: skip


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description} Without an image, paths come from standard input, one per line."
    add_top(parser)
    parser.add_argument(
        "-json", "--json", metavar="FILE", help="the likeliest classes as JSON (many images: default predictions.json)"
    )
    add_gpus(parser, predict, typed=True)


def predict(options: argparse.Namespace) -> int:
    """``predict_classifier``; 1 where ``-skip`` passed over an image."""
    from ..image_files import find_images

    paths = find_images(options.images)
    one = len(paths) == 1
    classifier = load_classifier(options)
    from ..classify.images import classify_images

    top = options.top or classifier.top
    if not options.images:
        return _typed(options, classifier, top)
    lines = partial(_print_predicted, classifier=classifier, top=top)
    file = options.json or (None if one else "predictions.json")
    found = classify_images(
        classifier, options.images, top=top, json=file, skip=options.skip, progress=lines if one else bar
    )
    if not one:
        print(f"{len(found)} images: {file}")
    return _unread(len(found), len(paths))


def _print_predicted(
    found: Iterable[Prediction], total: int, classifier: DataClassifier, top: int
) -> Iterator[Prediction]:
    start = time.perf_counter()
    for prediction in found:
        _print_one(prediction, classifier, top, time.perf_counter() - start)
        yield prediction


def _print_one(prediction: Prediction, classifier: DataClassifier, top: int, seconds: float) -> None:
    program = classifier.network.program
    if program == "pjreddie":
        print(f"{prediction.path}: Predicted in {seconds:f} seconds.", file=sys.stderr)
    else:
        print(f"{prediction.path}: Predicted in {seconds * 1000:f} milli-seconds.")
    print("".join(f"{line}\n" for line in prediction.lines(top, program, classifier.tree)), end="")


def _typed(options: argparse.Namespace, classifier: DataClassifier, top: int) -> int:
    """Images whose paths come from standard input, as both programs take them: one by one."""
    from ..classify.images import classify_each

    typed = TypedImages(options.command)
    for prediction in classify_each(classifier, typed, top=top, json=options.json, refused=typed.refused):
        _print_one(prediction, classifier, top, typed.seconds)
    return int(typed.failed)


def valid(options: argparse.Namespace) -> int:
    """``validate_classifier_single`` and the others of its kind."""
    classifier = load_classifier(options)
    from ..classify.validate import validate_classifier

    if options.verb == "valid" and classifier.leaves is not None:
        print(f"Found {int(classifier.leaves.sum())} leaves.", file=sys.stderr)
    scores = validate_classifier(
        classifier, verb=options.verb, top=options.top, labels=options.labels, out=options.out, progress=_print_judged
    )
    for level, (images, right) in enumerate(scores.levels(), 1):
        print(f"level {level} of the tree: {100 * right / images:.2f} % of {images} images", file=sys.stderr)
    if options.out is not None:
        print(f"classes and confusions: {options.out}", file=sys.stderr)
    return 0


def _print_judged(found: Iterable[Judged], total: int) -> Iterator[Judged]:
    start = time.perf_counter()
    for judged in bar(found, total):
        print("".join(f"{line}\n" for line in judged.lines), end="")
        yield judged
    seconds = time.perf_counter() - start
    print(f"{total} images in {seconds:f} seconds, {total / seconds:.1f} images/s", file=sys.stderr)


def table(options: argparse.Namespace) -> int:
    """``label_classifier``, ``csv_classifier``, ``test_classifier``, ``file_output_classifier``."""
    classifier = load_classifier(options)
    from ..classify.images import classify_images, list_images

    images = list_images(options.file) if options.verb == "fout" else (options.images or None)
    names = classifier.names if options.verb == "label" else []
    top = options.top or classifier.top
    show = _timed if options.verb == "csv" else bar
    counted = 0

    def lines(found: Iterable[Prediction], total: int) -> Iterator[Prediction]:
        nonlocal counted
        counted = total
        for prediction in show(found, total):
            if options.verb == "label":
                print(names[int(prediction.top(1)[0])])
            elif options.verb == "csv":
                print("\t".join([prediction.path, *map(str, prediction.top(top))]))
            else:
                print("\t".join([prediction.path, *(f"{value:g}" for value in prediction.prob.tolist())]))
            yield prediction

    found = classify_images(classifier, images, verb=options.verb, skip=options.skip, progress=lines)
    return _unread(len(found), counted)


def _timed(found: Iterable[Prediction], total: int) -> Iterator[Prediction]:
    """The lines on standard error that the C program's csv has."""
    start = time.perf_counter()
    for number, prediction in enumerate(found, 1):
        now = time.perf_counter()
        print(f"{now - start:f} seconds, {number} images, {total} total", file=sys.stderr)
        start = now
        yield prediction


def _unread(read: int, total: int) -> int:
    if read < total:
        print(f"{total - read} of {total} images could not be read", file=sys.stderr)
    return int(read < total)


def try_(options: argparse.Namespace) -> int:
    """``try_classifier``."""
    classifier = load_classifier(options)
    from ..classify.images import try_image

    names = classifier.names
    start = time.perf_counter()
    tried = try_image(classifier, options.image, options.layer)
    seconds = time.perf_counter() - start
    print("".join("{:f} {:f} {:f}\n".format(*row) for row in tried.statistics.tolist()), end="")
    print("".join(f"{value:f}\n" for value in tried.output.tolist()), end="")
    print(f"{options.image}: Predicted in {seconds:f} seconds.")
    for index in tried.prediction.top(options.top or classifier.top):
        print(f"{names[index]}: {tried.prediction.prob[index]:f}")
    return 0
