"""The page of a quickstart run: complete, self-contained, and in a real browser nothing reaches out of it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from darknet_compat.errors import DataError
from tests.conftest import ROOT
from tests.tools.run import one_line, run_tool


def load_tool():
    spec = importlib.util.spec_from_file_location("quickstart_page", ROOT / "tools" / "quickstart_page.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["quickstart_page"] = module
    spec.loader.exec_module(module)
    return module


make_page = load_tool().make_page
CLASSES = ("disc", "ring", "a class with a long name & <tags>")
IMAGES = ("data.png", "anchors.png", "chart.png", "curves.png", "bars.png", "worst.png")


def scores(mean, ap):
    one = {"truths": 210, "difficult": 12, "detections": 12345}
    return {"mAP": mean, "metric": "voc07", "iou": 0.5, "classes": {name: {"ap": ap, **one} for name in CLASSES}}


@pytest.fixture
def whole_run(tmp_path):
    """A folder in which nothing is missing, with lines far wider than a page."""
    folder = tmp_path / "run é"
    (folder / "pairs").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in IMAGES:
        cv2.imencode(".png", random.integers(0, 255, (60, 1600, 3), np.uint8))[1].tofile(folder / name)
    for number in range(5):
        for what in ("truth", "found"):
            image = random.integers(0, 255, (150, 120 + 40 * number, 3), np.uint8)
            cv2.imencode(".jpg", image)[1].tofile(folder / "pairs" / f"{number}-{what}.jpg")
    (folder / "network.txt").write_text("   0 conv     16  3 x 3 / 1   " * 9 + "\n")
    (folder / "train.txt").write_text("Region Avg IOU: 0.8, Class: 0.9 <&>\n")
    (folder / "scores.json").write_text(json.dumps(scores(0.9123, 0.9)))
    (folder / "darknet.json").write_text(json.dumps(scores(0.9121, 0.8998)))
    commands = [
        {"section": "data", "command": "python tools/make_shapes.py data/made/shapes", "seconds": 11.4},
        {"section": "training", "command": "darknet-compat detector train " + "a" * 300 + " b.cfg", "seconds": 209.9},
        {"section": "scores", "command": "darknet-compat voc_eval"},
    ]
    (folder / "commands.json").write_text(json.dumps(commands))
    return folder


class Addresses(HTMLParser):
    """Every address that a page loads from, and the tags that stay open."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        assert tag not in ("script", "link", "iframe")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_everything_is_shown(whole_run):
    page = make_page(whole_run).read_text(encoding="utf-8")
    parser = Addresses()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.found) == len(IMAGES) + 10
    assert all(address.startswith("data:image/") for address in parser.found)
    assert "url(" not in page
    assert "@import" not in page
    assert "Left out" not in page
    assert "<td>a class with a long name &amp; &lt;tags&gt;</td>" in page
    assert "Class: 0.9 &lt;&amp;&gt;" in page
    for figure in ("0.9123", "0.9121", "+0.0002", "3:29 min", "3:41 min", "11.4 s"):
        assert figure in page, figure
    assert "<td>37,035</td>" in page


def test_empty_run(tmp_path):
    page = make_page(tmp_path).read_text(encoding="utf-8")
    absent = re.findall(r"Left out: there is no (\S+) in this run", page)
    assert absent == ["data.png", "anchors.png", "network.txt", "chart.png", "train.txt", "scores.json", "curves.png",
                      "bars.png", "pairs/", "worst.png"]  # fmt: skip
    assert "darknet-compat new cells" in page


def test_without_the_c_program(whole_run):
    (whole_run / "darknet.json").unlink()
    page = make_page(whole_run).read_text(encoding="utf-8")
    assert "apt-get install darknet" in page
    assert "difference" not in page


def test_class_without_a_score(whole_run):
    value = scores(None, 0.5)
    value["classes"]["disc"]["ap"] = None
    (whole_run / "scores.json").write_text(json.dumps(value))
    assert "<td>disc</td><td>–</td>" in make_page(whole_run).read_text(encoding="utf-8")


def test_errors(whole_run, tmp_path):
    assert "no such folder" in one_line(run_tool("quickstart_page", tmp_path / "none"))
    (whole_run / "scores.json").write_text("[]")
    with pytest.raises(DataError, match=r"scores.json: expected mAP and classes"):
        make_page(whole_run)
    (whole_run / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"scores.json: no JSON"):
        make_page(whole_run)
    assert not (whole_run / "index.html").exists()


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return path


MEASURE = """<script>addEventListener("load", () => {
  const beyond = [...document.body.querySelectorAll("*")].filter(
    (one) => !one.closest(".scroll > *") && one.getBoundingClientRect().right > innerWidth + 0.5);
  parent.postMessage({
    inner: innerWidth, scroll: document.documentElement.scrollWidth, beyond: beyond.map((one) => one.outerHTML),
    broken: [...document.images].filter((one) => !one.naturalWidth).length, images: document.images.length,
    boxes: document.querySelectorAll(".scroll").length}, "*"); })</script></body>"""
# A window is at least 500 pixels wide, a frame in it can be narrower.
FRAME = """<body><iframe style="border: 0; width: {width}px; height: 900px"></iframe><script>
  addEventListener("message", (event) => {{ document.body.textContent = JSON.stringify(event.data) }});
  document.querySelector("iframe").src = "index.html"</script></body>"""


@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(whole_run, chromium, width, tmp_path):
    """Nothing is wider than the window, outside of the boxes that scroll by themselves; every image shows."""
    page = make_page(whole_run)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", MEASURE), encoding="utf-8")
    frame = whole_run / "frame.html"
    frame.write_text(FRAME.format(width=width))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    result = subprocess.run(
        [chromium, *flags, "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    measured = json.loads(unescape(re.search(r"<body>(.*)</body>", result.stdout, re.DOTALL)[1]))
    assert measured["inner"] == width
    assert measured["beyond"] == []
    assert measured["scroll"] <= width
    assert (measured["broken"], measured["images"]) == (0, len(IMAGES) + 10)
    assert measured["boxes"] >= 6
