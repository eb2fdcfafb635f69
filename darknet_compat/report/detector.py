"""The report of a detector's training: its data, its scores on the valid list, and what it finds in some images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cfg import read_data
from ..check import Findings, check
from ..check import draw as draw_findings
from ..detect.detector import load_detector
from ..detect.images import detect_images
from ..detect.validate import validate
from ..evaluate.plots import draw_all
from ..evaluate.voc import Metric, as_json
from ..evaluate.voc_eval import Scored, voc_eval
from ..files import whole_file
from ..image_files import make_folder
from ..labels import image_ids
from ..progress import Progress
from ..stock import find_stock
from . import page
from .drawings import draw_anchors, draw_samples, draw_small, spread, truth_of
from .page import Section
from .runs import SCORED, Run
from .steps import Steps

METRICS = {"voc07": "11 points of recall", "area": "area under the curve"}
MOST_NAMES = 100  # in a legend
OWN = ("results", "eval", "backup")  # options of the .data file that are the report's own


class DetectorReport:
    """Does what the commands of its page do, and leaves their files in ``out``."""

    def __init__(
        self,
        run: Run,
        out: Path,
        weights: Path,
        *,
        steps: Steps,
        progress: Progress[Any],
        devkit: str | None = None,
        year: str = "2007",
        image_set: str = "test",
        metric: Metric = "voc07",
        thresh: float | None = None,
        images: int = 8,
        batch: int = 8,
        device: str | None = None,
        beside: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.run, self.out, self.weights, self.steps, self.progress = run, out, weights, steps, progress
        self.truth: dict[str, Any] = {"devkit": devkit, "year": year, "image_set": image_set, "metric": metric}
        self.thresh, self.images, self.batch, self.device, self.beside = thresh, images, batch, device, beside
        self.data, self.cfg = out / f"{run.name}.data", out / f"{run.name}.cfg"

    def parts(self) -> tuple[list[Section], list[Section], list[tuple[str, str]]]:
        """Those of the page before and behind the training's, and the figures that count."""
        self._write_data()
        record = self.run.record
        self.detector = load_detector(
            self.data, self.cfg, self.weights, device=self.device, numerics=record.numerics, program=record.program,
            batch=self.batch, verbs=record.family,
        )  # fmt: skip
        head = self.detector.network.detector
        if self.truth["devkit"] is None and getattr(head, "map", None) is not None:
            raise head.section.error(
                "labels count classes by this file, and names= by the network's; expected a devkit to score against, "
                "whose annotations name the classes", "map",
            )  # fmt: skip
        before, after = [self._data()], [self._scores(), self._detections()]
        mean = self.scores["mAP"]
        tiles = [(page.number(mean), f"mAP, {METRICS[self.scores['metric']]}")]
        tiles += [(page.number(other["mAP"]), f"mAP, {name}") for name, other in self.beside.items()]
        return before, after, tiles

    def _write_data(self) -> None:
        """The .data file of the training, with folders of the report's own."""
        given = read_data(find_stock(self.run.record.data))
        lines = [f"{option.name}={option.value}" for option in given.options if option.name not in OWN]
        with whole_file(self.data, "w") as file:
            file.writelines(f"{line}\n" for line in [*lines, f"results={self.out / 'results'}"])

    def _words(self) -> list[object]:
        """How the network is named in a command, and what it follows."""
        record = self.run.record
        words: list[object] = [self.data, self.cfg, self.weights, "-program", record.program]
        return [*words, *(["-numerics", record.numerics] if record.numerics != "cudnn" else [])]

    def _data(self) -> Section:
        picture = self.out / "data.png"
        with self.steps.typed("data", "check", self.data, "-cfg", self.cfg, "-show", picture):
            found = check(self.data, self.cfg, progress=self.progress)
            draw_findings(found, picture)
        train = found.parts[0]
        draw_samples(train, len(found.names), self.out / "samples.png")
        drawn = draw_anchors(train, self.detector.network, self.out / "anchors.png")
        problems = "\n".join(map(str, found.problems)) or "nothing is wrong"
        return Section(
            "The data",
            "What the lists hold, as the network sees it.",
            [
                *page.commands(self.steps, "data"),
                _counts(found),
                page.text(problems, "What is wrong with the data", wrapped=True),
                page.image(picture, "Objects of each class, their sizes at the network's input, their places."),
                page.image(self.out / "samples.png", "Some of the images that are trained on, with their labels."),
                page.legend(found.names) if len(found.names) <= MOST_NAMES else "",
                page.image(self.out / "anchors.png", "Their boxes by width and height, and the cfg's anchors.")
                if drawn
                else "",
            ],
        )

    def _scores(self) -> Section:
        results, file, plots = self.out / "results", self.out / SCORED, self.out / "plots"
        family = self.run.record.family
        with self.steps.typed("scores", family, "valid", *self._words(), "-batch", self.batch):
            validate(self.detector, progress=self.progress)
        words: list[object] = ["-results", results]
        if self.truth["devkit"] is None:
            words += ["-data", self.data, "-program", self.run.record.program]
        else:
            words += ["-devkit", self.truth["devkit"], "-year", self.truth["year"]]
            words += ["-image-set", self.truth["image_set"], "-names", self.detector.names_file]
        words += ["-metric", self.truth["metric"], "-json", file, "-plots", plots]
        with self.steps.typed("scores", "voc_eval", *words):
            self.scored = self._score(results)
            self.scores: dict[str, Any] = as_json(self.scored.scores)
            with whole_file(file, "w") as written:
                json.dump(self.scores, written, indent=2)
                written.write("\n")
            draw_all(self.scored.scores, self.scored.truths, self.scored.detections, plots, lambda line: None)
        return Section(
            "Scores",
            "Of the images in the valid list, from Darknet's result files.",
            [
                *page.commands(self.steps, "scores"),
                page.score_table(self.scores, self.beside),
                page.image(plots / "precision_recall.png", "Precision over recall, by class."),
                page.image(plots / "ap.png", "AP by class."),
            ],
        )

    def _score(self, results: Path) -> Scored:
        if self.truth["devkit"] is None:
            return voc_eval(results, data=self.data, metric=self.truth["metric"], program=self.run.record.program)
        return voc_eval(results, names=self.detector.names_file, **self.truth)

    def _detections(self) -> Section:
        """Images twice: with the truth that was scored, and with what ``detector test`` finds."""
        truths, folder = self.scored.truths, self.out / "pairs"
        listed = self.detector.valid_images()
        index = {image: place for place, image in enumerate(truths.images)}
        there = set(truths.image.tolist())
        known = [
            (path, index[image]) for path, image in zip(listed, image_ids(listed, ""), strict=True) if image in index
        ]
        known = [(path, image) for path, image in known if image in there]
        chosen = [known[place] for place in spread(len(known), self.images)]
        shown = []
        if chosen:
            some, file = self.out / "some.txt", self.out / "found.json"
            with whole_file(some, "w") as written:
                written.writelines(f"{path}\n" for path, _ in chosen)
            thresh = [] if self.thresh is None else ["-thresh", self.thresh]
            words = [*self._words(), some, *thresh, "-json", file]
            with self.steps.typed("detections", self.run.record.family, "test", *words):
                found = detect_images(self.detector, [str(some)], thresh=self.thresh, json=file)
            make_folder(folder)
            for number, ((path, image), detections) in enumerate(zip(chosen, found, strict=True)):
                pair = folder / f"{number}-truth.jpg", folder / f"{number}-found.jpg"
                draw_small(truth_of(truths, image, path), pair[0])
                draw_small(detections, pair[1])
                shown.append((path, *pair))
        return Section(
            "Detections",
            "Left the truth, right what the network found.",
            [
                *page.commands(self.steps, "detections"),
                page.pairs(shown),
                page.image(self.out / "plots" / "contact_sheet.png", "The worst false positives and misses."),
            ],
        )


def _counts(found: Findings) -> str:
    """Images and objects of each list, as `check` counts them."""
    counts = [part.counts(len(found.names)).tolist() for part in found.parts]
    rows = [
        ["images", *(page.count(len(part.images)) for part in found.parts)],
        ["without objects", *(page.count(part.empty) for part in found.parts)],
        *([name, *(page.count(count[place]) for count in counts)] for place, name in enumerate(found.names)),
    ]
    return page.table(["", *(part.name for part in found.parts)], rows, "Objects of each class", last=False)
