"""A page: complete, self-contained, and in a real browser nothing reaches out of it."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from darknet_compat.detect.draw import class_colour
from darknet_compat.report import page
from darknet_compat.report.page import Section
from darknet_compat.report.steps import Steps

CLASSES = ("disc", "ring", "a class with a long name & <tags>")
PAIRS = 5


def scores(mean, ap):
    one = {"truths": 210, "difficult": 12, "detections": 12345}
    return {"mAP": mean, "metric": "voc07", "iou": 0.5, "classes": {name: {"ap": ap, **one} for name in CLASSES}}


@pytest.fixture
def whole_page(tmp_path):
    """A page of everything that there is, with lines far wider than it."""
    folder = tmp_path / "run é"
    folder.mkdir()
    random = np.random.default_rng(0)
    cv2.imencode(".png", random.integers(0, 255, (60, 1600, 3), np.uint8))[1].tofile(folder / "wide.png")
    pairs = []
    for number in range(PAIRS):
        files = [folder / f"{number}-{what}.jpg" for what in ("truth", "found")]
        for file in files:
            image = random.integers(0, 255, (150, 120 + 40 * number, 3), np.uint8)
            cv2.imencode(".jpg", image)[1].tofile(file)
        pairs.append((f"<{number}>", *files))
    steps = Steps()
    steps.add("one", "darknet-compat detector train " + "a" * 300 + " b.cfg", 209.9)
    steps.add("two", "another", 11.4)
    page.write_page(
        folder / "index.html", "A <title>", "words & words", [("0.9123", "mAP <of>"), ("3:29 min", "training")],
        [
            Section("First <part>", "Its & words.", [
                *page.commands(steps, "one"), page.image(folder / "wide.png", "wide <&>"),
                page.image(folder / "none.png", "gone"), page.text("  0 conv  " * 30 + "<&>", "lines"),
            ]),
            Section("Second", "", [
                page.score_table(scores(0.9123, 0.9), {"C <program>": scores(0.9121, 0.8998)}), page.pairs(pairs),
                page.text("warning: " + "b" * 400, "wrapped", wrapped=True), page.note("a <note>"),
            ]),
        ],
    )  # fmt: skip
    return folder / "index.html"


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


def test_everything_is_shown(whole_page):
    text = whole_page.read_text(encoding="utf-8")
    parser = Addresses()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.found) == 1 + 2 * PAIRS
    assert all(address.startswith("data:image/") for address in parser.found)
    assert "url(" not in text
    assert "@import" not in text
    for shown in ("<td>a class with a long name &amp; &lt;tags&gt;</td>", "AP, C &lt;program&gt;", "A &lt;title&gt;",
                  "words &amp; words", "mAP &lt;of&gt;", "1. First &lt;part&gt;", "2. Second", "Its &amp; words.",
                  "wide &lt;&amp;&gt;", "&lt;3&gt;, truth", "a &lt;note&gt;", "there is no none.png",
                  "<small># 3:29 min</small>", "0.9123", "0.9121", "+0.0002", "<td>37,035</td>", "<td>630</td>",
                  '<i style="width:90.0%">'):  # fmt: skip
        assert shown in text, shown
    assert "another" not in text  # of a part that is not shown
    assert not re.search(r"<(title|part|of|tags|note|program|\d)>(?!A )", text.split("<body>")[1])


def test_a_legend_has_the_colours_of_the_drawings():
    text = page.legend(["disc", "<ring>"])
    assert text.count("<i style=") == 2
    red, green, blue = class_colour(1, 2)
    assert f'<i style="background:rgb({red},{green},{blue})"></i>&lt;ring&gt;</span>' in text


def test_a_class_without_a_score():
    value = scores(None, 0.5)
    value["classes"]["disc"]["ap"] = None
    table = page.score_table(value, {"other": scores(0.5, 0.25)})
    assert "<td>disc</td><td>–</td>" in table
    assert "<td>0.2500</td><td>–</td>" in table  # with nothing to compare with
    assert "<td>0.2500</td><td>+0.2500</td>" in table
    assert "difference" not in page.score_table(value, {})
    for one in value["classes"].values():
        del one["difficult"]  # as of a file that another program wrote
    value["classes"]["ring"]["truths"] = None
    table = page.score_table(value, {})
    assert "<td>420</td><td>0</td><td>37,035</td>" in table


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1:00 min"), (3599, "59:59 min"), (3600, "1:00 h"), (7260, "2:01 h")],
)
def test_a_time(seconds, shown):
    assert page.clock(seconds) == shown


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
def test_in_a_browser(whole_page, chromium, width, tmp_path):
    """Nothing is wider than the window, outside of the boxes that scroll by themselves; every image shows."""
    whole_page.write_text(whole_page.read_text(encoding="utf-8").replace("</body>", MEASURE), encoding="utf-8")
    frame = whole_page.with_name("frame.html")
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
    assert (measured["broken"], measured["images"]) == (0, 1 + 2 * PAIRS)
    assert measured["boxes"] == 4
