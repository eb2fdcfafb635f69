"""Tiles: they cover an image, and what is found in them is one list without parts of objects and without doubles."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from darknet_compat import Detector
from darknet_compat.cli import main
from darknet_compat.detect import Detections, detect_files, many
from darknet_compat.detect.tiles import NEAR, Tile, join, tiles_of
from darknet_compat.engines import Engine
from tests.conftest import ROOT, SHAPES

NAMES = str(ROOT / "data/shapes.names")


@pytest.mark.parametrize(
    ("size", "tiles"), [((1000, 1000), 2), ((1280, 720), 3), ((7, 5), 2), ((641, 479), 4), ((100, 3), 3)]
)
def test_they_cover_the_image_and_overlap_by_a_fifth(size, tiles):
    width, height = size
    *parts, whole = tiles_of(width, height, tiles)
    assert whole == Tile(0, 0, width, height)
    assert len(parts) == tiles**2
    assert len({(part.right - part.left, part.bottom - part.top) for part in parts}) == 1
    for axis, side in ((0, width), (1, height)):
        cuts = sorted({(part[axis], part[axis + 2]) for part in parts})
        assert (cuts[0][0], cuts[-1][1]) == (0, side)
        for (_, end), (start, other) in itertools.pairwise(cuts):
            assert end - start >= 0.2 * (other - start) - 1.5
            if other - start > 20:  # of a few pixels a fifth cannot be had
                assert end - start <= 0.2 * (other - start) + 2.5


def found(tile, *boxes):
    """What was found in a tile; boxes are corners in the whole image and a probability, all of one class."""
    corners = np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4)
    centres = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    centres[:, :2] -= (tile.left, tile.top)
    prob = np.array([[box[4], 0] for box in boxes], np.float32).reshape(-1, 2)
    return Detections("a.png", tile.right - tile.left, tile.bottom - tile.top, centres, prob, False, ["a", "b"])


@pytest.fixture(scope="module")
def detector():
    return Detector(*SHAPES, NAMES, device="cpu", thresh=0.3, batch=2)


TILES = [Tile(0, 0, 60, 100), Tile(40, 0, 100, 100), Tile(0, 0, 100, 100)]


@pytest.mark.parametrize(
    ("left", "right", "kept"),
    [
        (10, 30, True), (0, 20, True),  # at the image's own edge
        (45, 60, False), (45, 60 - 60 * NEAR - 0.1, True), (45, 60 - 60 * NEAR + 0.1, False),
    ],
)  # fmt: skip
def test_a_box_that_ends_at_a_cut_is_left_out(detector, left, right, kept):
    parts = [found(TILES[0], (left, 20, right, 50, 0.9)), found(TILES[1]), found(TILES[2])]
    joined = join(parts, TILES, detector.network, 0.45, False)
    assert len(joined.boxes) == kept
    assert (joined.width, joined.height, joined.path, joined.classes) == (100, 100, "a.png", ["a", "b"])
    mirrored = [found(TILES[0]), found(TILES[1], (100 - right, 20, 100 - left, 50, 0.9)), found(TILES[2])]
    assert len(join(mirrored, TILES, detector.network, 0.45, False).boxes) == kept


@pytest.mark.parametrize(("bottom", "kept"), [(60, False), (60 - 60 * NEAR - 0.1, True), (60 - 60 * NEAR + 0.1, False)])
def test_a_cut_from_left_to_right_is_one_too(detector, bottom, kept):
    """How near is near is a part of the tile's own height."""
    tiles = [Tile(0, 0, 100, 60), Tile(0, 40, 100, 100), Tile(0, 0, 100, 100)]
    parts = [found(tiles[0], (0, 20, 100, bottom, 0.9)), found(tiles[1]), found(tiles[2])]
    assert len(join(parts, tiles, detector.network, 0.45, False).boxes) == kept
    mirrored = [found(tiles[0]), found(tiles[1], (0, 100 - bottom, 100, 80, 0.9)), found(tiles[2])]
    assert len(join(mirrored, tiles, detector.network, 0.45, False).boxes) == kept


def test_of_an_object_that_several_see_one_box_is_left(detector):
    parts = [found(TILES[0], (42, 20, 58, 50, 0.7)), found(TILES[1], (42, 20, 57, 50, 0.9)),
             found(TILES[2], (42, 21, 58, 50, 0.8), (5, 5, 95, 95, 0.6))]  # fmt: skip
    joined = join(parts, TILES, detector.network, 0.45, False)
    assert joined.scores.tolist() == pytest.approx([0.9, 0.6])
    assert len(joined.boxes) == 2
    parts[2].prob[1] = (0.95, 0)
    assert join(parts, TILES, detector.network, 0.45, False).scores.tolist() == pytest.approx([0.95, 0.9])
    parts[2].prob[1] = (0.6, 0)
    assert np.allclose(joined.xyxy, [[42, 20, 57, 50], [5, 5, 95, 95]])
    relative = join(parts, TILES, detector.network, 0.45, True)
    assert np.allclose(relative.boxes * 100, joined.boxes)
    assert relative.relative
    assert len(join(parts, TILES, detector.network, 0, False).boxes) == 4
    assert len(join([found(tile) for tile in TILES], TILES, detector.network, 0.45, False).boxes) == 0


def test_a_class_of_one_suppresses_none_of_another(detector):
    parts = [found(TILES[0], (10, 20, 30, 50, 0.7)), found(TILES[1]), found(TILES[2], (10, 20, 30, 50, 0.9))]
    parts[0].prob[:] = parts[0].prob[:, ::-1]
    assert len(join(parts, TILES, detector.network, 0.45, False).boxes) == 2
    parts[2].prob[:] = parts[2].prob[:, ::-1]
    assert join(parts, TILES, detector.network, 0.45, False).scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("kind", "beta", "kept"),
    [("default", 0.6, 1), ("greedynms", 0.6, 2), ("diounms", 0.6, 2), ("diounms", 3.0, 1), ("cornersnms", 0.6, 1)],
)
def test_boxes_are_suppressed_as_the_last_head_says(kind, beta, kept):
    """Of 20 x 30 and 6 aside: IOU 14 / 26 = .538; the distance's part is 36 / (26**2 + 30**2) = .0228, to the beta."""
    head = SimpleNamespace(nms_kind=kind, beta_nms=beta)
    parts = [found(TILES[0], (10, 20, 30, 50, 0.7)), found(TILES[1]), found(TILES[2], (16, 20, 36, 50, 0.9))]
    assert 14 / 26 - 0.0228**0.6 < 0.45 < 14 / 26 - 0.0228**3
    assert len(join(parts, TILES, SimpleNamespace(detector=head), 0.45, False).boxes) == kept


def test_the_tiles_of_an_image_fill_batches_and_keep_all_their_boxes(detector, mosaic, monkeypatch):
    """A box that a cut leaves out must not have suppressed another before."""
    asked, given = [], []
    detect = many.detect
    monkeypatch.setattr(many, "detect", lambda *words, **options: asked.append(options) or detect(*words, **options))
    engine = Engine(lambda images: given.append(len(images)) or detector.network.predict(images), 1)
    options = {"batch": 4, "engine": engine, "tiles": 3, "thresh": 0.3, "classes": NAMES}
    (pixels,) = detect_files(detector.network, [str(mosaic)], relative=False, **options)
    assert given == [4, 4, 2]
    assert {(one["nms"], one["relative"]) for one in asked} == {(0, False)}
    (relative,) = detect_files(detector.network, [str(mosaic)], **options)
    assert np.allclose(relative.boxes * np.array([pixels.width, pixels.height] * 2), pixels.boxes, atol=1e-3)
    (less,) = detect_files(detector.network, [str(mosaic)], nms=0.1, **options)
    (usual,) = detect_files(detector.network, [str(mosaic)], nms=0.45, **options)
    assert len(less.boxes) < len(usual.boxes) == len(pixels.boxes)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """The sample image nine times on one: its objects are a third as large for the network."""
    image = cv2.imread(str(ROOT / "data/shapes-sample.jpg"))
    path = tmp_path_factory.mktemp("mosaic") / "nine.png"
    cv2.imwrite(str(path), np.tile(image, (3, 3, 1)))
    return path


@pytest.mark.parametrize("letter_box", [True, False])
def test_the_list_is_that_of_the_tiles_one_by_one(detector, mosaic, letter_box):
    detector = Detector(detector.network, names=NAMES, thresh=0.3, batch=2, letter_box=letter_box)
    tiled = Detector(detector.network, names=NAMES, thresh=0.3, batch=2, tiles=3, letter_box=letter_box)
    image = cv2.imread(str(mosaic))
    parts = tiles_of(image.shape[1], image.shape[0], 3)
    alone = []
    for part in parts:
        crop = np.ascontiguousarray(image[part.top : part.bottom, part.left : part.right])
        alone.append(detector(crop, nms=0))
    expected = join(alone, parts, detector.network, detector.nms, True)
    given = tiled(str(mosaic))
    assert np.allclose(given.boxes, expected.boxes, atol=1e-5)
    assert np.allclose(given.prob, expected.prob, atol=1e-5)
    assert np.array_equal(given.pixels, image[..., ::-1])
    (listed,) = tiled.detect([str(mosaic)], thresh=0.3, nms=detector.nms)
    assert np.array_equal(listed.boxes, given.boxes)


def test_small_objects_are_found(detector, mosaic):
    """In the sample image three objects; of the 27 the network sees few, but for its tiles."""
    tiled = Detector(detector.network, names=NAMES, thresh=0.5, tiles=3)
    assert len(detector(str(ROOT / "data/shapes-sample.jpg"), thresh=0.5).scores) == 3
    few, many = (one(str(mosaic), thresh=0.5).names for one in (detector, tiled))
    assert len(few) <= 9
    assert len(many) >= 18


def test_tiles_are_a_whole_number(detector):
    for value in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match="tiles is"):
            Detector(detector.network, tiles=value)


@pytest.mark.parametrize("verb", ["test", "valid", "map"])
def test_the_verbs_have_a_flag(mosaic, tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valid.txt").write_text(f"{mosaic}\n")
    mosaic.with_suffix(".txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "a.data").write_text(f"classes=6\nvalid=valid.txt\nnames={NAMES}\nresults=results\n")
    said = []
    for flags in ([], ["-tiles", "1"], ["-tiles", "3"]):
        more = [str(mosaic)] if verb == "test" else []
        assert main(["detector", verb, "a.data", *map(str, SHAPES), *more, *flags, "-device", "cpu"]) == 0
        printed = capsys.readouterr().out
        lines = sorted((tmp_path / "results").glob("*")) if verb == "valid" else []
        said.append("".join(path.read_text() for path in lines) or printed.split("seconds.")[-1])
    assert said[0] == said[1]
    assert said[0] != said[2]
    assert main(["detector", verb, "a.data", *map(str, SHAPES), *more, "-tiles", "0"]) == 2
