"""crop_augment.py against both programs' load_data_augment, fed with the same random numbers of C."""

from __future__ import annotations

from random import Random

import cv2
import numpy as np
import pytest

from darknet_compat import images
from darknet_compat.cfg import parse_cfg
from darknet_compat.classify.labels import match_labels
from darknet_compat.errors import TrainingError
from darknet_compat.images import load_image
from darknet_compat.layers.net import read_net
from darknet_compat.train.crop_augment import (
    MIXINGS,
    CropAugmentation,
    augment_crop,
    crop_augmentation,
    draw_crop,
    draw_mix,
    fill_classes,
    fill_hierarchy,
    mix_in,
    whole,
)
from darknet_compat.train.data import ClassTrainingSet, load_batches
from darknet_compat.tree import read_tree
from tests.train.test_augment import CRandom, assert_same_images

PLAIN = {"angle": 0.0, "aspect": 1.0, "hue": 0.0, "saturation": 1.0, "exposure": 1.0}
ALONE = [{"angle": 25.0}, {"aspect": 0.6}, {"hue": 0.2}, {"saturation": 0.5}, {"exposure": 1.6}]
ALL = {"angle": 7.0, "aspect": 0.75, "hue": 0.1, "saturation": 0.75, "exposure": 0.75}
LABELS = ["dog", "person", "noise", "wide", "tall", "tiny", "nowhere"]
TREE = "all -1\ndog 0\nperson 0\nnoise -1\nwide 3\ntall 3\ntiny 1\nnowhere 1\n"


@pytest.fixture(scope="module")
def paths(tmp_path_factory, darknet_share):
    """A photograph, and noise of both aspects; some smaller than any crop, one a single row of pixels."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(4)
    made = {"noise_wide": (90, 300), "noise_tall": (240, 110), "noise_tiny": (12, 15), "wide_noise": (1, 40)}
    drawn = {name: rng.integers(0, 256, (*shape, 3), np.uint8) for name, shape in made.items()}
    drawn["dog"] = cv2.imread(str(darknet_share / "data/dog.jpg"))
    for name, image in drawn.items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
    return [str(folder / f"{name}.png") for name in drawn]


@pytest.fixture(params=["darknet", "alexeyab_darknet"])
def either(request):
    return request.getfixturevalue(request.param)


def replay(darknet, paths, n, size, options, seed):
    """What load_data_augment would make of this seed, by our own functions; and the paths it chose."""
    darknet.srand(seed)
    return load(CRandom(darknet), paths, n, size, options)


def load(random, paths, n, size, options):
    chosen = [paths[random.randrange(len(paths))] for _ in range(n)]
    x = np.empty((n, 3, size, size), np.float32)
    for slot, path in zip(x, chosen, strict=True):
        image = load_image(path)
        augment_crop(image, draw_crop(random, image.shape[1::-1], size, options), slot)
    return x, chosen


def compare(darknet, paths, size, sides, options, n=10, seed=1, center=False):
    settings = {**PLAIN, **options}
    theirs, _ = darknet.load_data_augment(paths, n, LABELS, sides, size, settings.values(), last=int(center), seed=seed)
    ours = CropAugmentation(sides[0] / size, sides[1] / size, **settings, center=center, program=darknet.program)
    mine, _ = replay(darknet, paths, n, size, ours, seed)
    assert np.ptp(theirs) > 0.5
    assert_same_images(mine, theirs)


@pytest.mark.parametrize("options", [{}, *ALONE], ids=str)
def test_each_option_alone(either, paths, options):
    compare(either, paths, 64, (64, 128), options)


@pytest.mark.parametrize(("size", "sides"), [(96, (48, 168)), (65, (65, 65)), (224, (100, 448)), (33, (7, 12))])
@pytest.mark.parametrize("seed", [1, 2])
def test_all_options_at_once(either, paths, size, sides, seed):
    compare(either, paths, size, sides, ALL, seed=seed)


@pytest.mark.parametrize("exact", [False, True])
def test_with_any_opencv(darknet, paths, monkeypatch, exact):
    """Before 5.0 its remap rounds the neighbours' shares to 1/32, and is passed over."""
    if exact and not images._remap_is_exact():
        pytest.skip("needs OpenCV 5 (its remap is not exact here): pip install opencv-python-headless>=5")
    monkeypatch.setattr(images, "_remap_is_exact", lambda: exact)
    compare(darknet, paths, 96, (48, 168), ALL)


@pytest.mark.parametrize("seed", range(4))
def test_remap_reads_what_look_ups_read(seed):
    if not images._remap_is_exact():
        pytest.skip("needs OpenCV 5 (its remap is not exact here): pip install opencv-python-headless>=5")
    rng, random = np.random.default_rng(seed), Random(seed)
    for size in rng.integers(1, 200, 20).tolist():
        image = rng.integers(0, 256, (*rng.integers(1, 300, 2), 3), np.uint8)
        draws = draw_crop(random, image.shape[1::-1], size, CropAugmentation(0.5, 2, 40, 0.6))
        places = images._rotated(image.shape[1::-1], draws.rotation, draws.flip)
        np.testing.assert_allclose(images._remap(image, *places), images._look_up(image, *places), atol=1e-4)


def test_an_image_too_long_for_remap():
    draws = draw_crop(Random(1), (40000, 2), 8, CropAugmentation())
    slot = np.empty((3, 8, 8), np.float32)
    augment_crop(np.full((2, 40000, 3), 255, np.uint8), draws, slot)
    assert slot.max() == 1


def test_the_middle_square(darknet, paths):
    compare(darknet, [path for path in paths if "wide_noise" not in path], 64, (64, 128), {"hue": 0.1}, center=True)


def test_an_image_smaller_than_the_crop_is_shifted_by_one_program_alone():
    """A negative range is swapped; AlexeyAB's is none."""
    for program, still in (("pjreddie", False), ("alexeyab", True)):
        draws = draw_crop(Random(0), (40, 30), 64, CropAugmentation(0.25, 0.25, program=program))
        assert (not draws.rotation.dx and not draws.rotation.dy) is still


def net_of(text, program="pjreddie"):
    return read_net(parse_cfg(f"[net]\nchannels=3\n{text}\n[softmax]\n").sections[0], program)[0]


def test_alexnets_256_comes_out_as_255(darknet):
    text = "width=227\nheight=227\nmax_crop=256"
    options = crop_augmentation(net_of(text), "pjreddie")
    assert options.sides(227) == (227, 255)
    assert crop_augmentation(net_of(text, "alexeyab"), "alexeyab").sides(227) == (227, 256)
    assert options.sides(448) == (448, 505)


def test_what_the_cfg_does_not_say():
    options = crop_augmentation(net_of("width=32\nheight=32"), "pjreddie")
    assert options == CropAugmentation()
    assert options.sides(32) == (32, 64)
    ratios = crop_augmentation(net_of("width=32\nheight=32\nmin_ratio=.5\nmax_ratio=3"), "pjreddie")
    assert ratios.sides(32) == (16, 96)
    assert not crop_augmentation(net_of("width=32\nheight=32\nflip=0", "alexeyab"), "alexeyab").flip


@pytest.mark.parametrize("line", ["min_crop=0", "max_crop=-4", "aspect=0", "saturation=-1", "exposure=0"])
def test_bad_settings_are_one_line(line):
    with pytest.raises(TrainingError, match="expected"):
        crop_augmentation(net_of(f"width=32\nheight=32\n{line}"), "pjreddie")


def test_an_image_one_pixel_wide_has_a_scale():
    draws = draw_crop(Random(0), (1, 9), 8, CropAugmentation(aspect=0.2))
    slot = np.empty((3, 8, 8), np.float32)
    augment_crop(np.full((9, 1, 3), 200, np.uint8), draws, slot)
    assert np.isfinite(slot).all()


@pytest.mark.parametrize("with_tree", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_truth(either, paths, tmp_path, with_tree, smooth):
    """Paths with one label, two and none; a tree with groups of which nothing is known."""
    if smooth and either.program == "pjreddie":
        smooth = 0.0
    tree, labels = tmp_path / "tree", ["in no path", *LABELS] if with_tree else LABELS
    tree.write_text(TREE)
    theirs = either.load_data_augment(
        paths, 20, labels, (16, 16), 16, PLAIN.values(), tree if with_tree else None, smooth, seed=5
    )[1]
    options = CropAugmentation(1, 1, program=either.program)
    chosen = replay(either, paths, 20, 16, options, 5)[1]
    found = match_labels(chosen, labels)
    mine = np.empty_like(theirs)
    for i, row in enumerate(mine):
        fill_classes(row, found[i], smooth)
        if with_tree:
            fill_hierarchy(row, read_tree(tree))
    np.testing.assert_allclose(mine, theirs, atol=1e-7)
    assert len({tuple(row) for row in mine}) >= 4
    assert (mine == -1234).any() == (with_tree and not smooth)


def replay_mixed(darknet, paths, n, size, options, smooth, seed):
    """The same with images that are mixed, as he mixes them: all of a load, or none; and the truths."""
    random = CRandom(darknet)
    darknet.srand(seed)
    loads = [load(random, paths, n, size, options)]
    if random.randrange(2):
        loads += [load(random, paths, n, size, options) for _ in range(options.most_mixed - 1)]
    truths = np.zeros((len(loads), n, len(LABELS)), np.float32)
    for rows, (_, chosen) in zip(truths, loads, strict=True):
        for row, classes in zip(rows, match_labels(chosen, LABELS), strict=True):
            fill_classes(row, classes, smooth)
    x, truth = loads[0][0], truths[0]
    for i in range(n if len(loads) > 1 else 0):
        patches = draw_mix(random, size, options.mixing)
        truth[i] *= patches[0].share
        for patch, (others, _), rows in zip(patches[1:], loads[1:], truths[1:], strict=False):
            mix_in(x[i], others[i], patch)
            truth[i] += patch.share * rows[i]
    return x, truth, len(loads)


@pytest.mark.parametrize("mixing", MIXINGS[1:])
@pytest.mark.parametrize("size", [64, 47])
def test_mixed_images_are_alexeyabs(alexeyab_darknet, paths, mixing, size):
    options = CropAugmentation(0.5, 1.5, **ALL, mixing=mixing, program="alexeyab")
    settings = paths, 6, LABELS, options.sides(size), size, ALL.values()
    number, mixed = MIXINGS.index(mixing), []
    for seed in range(8):
        theirs = alexeyab_darknet.load_data_augment(*settings, last=0.1, mixup=number, seed=seed)
        *mine, loads = replay_mixed(alexeyab_darknet, paths, 6, size, options, 0.1, seed)
        assert_same_images(mine[0], theirs[0])
        np.testing.assert_allclose(mine[1], theirs[1], atol=1e-7)
        mixed.append(loads > 1)
    assert 2 <= sum(mixed) <= 6


@pytest.mark.parametrize("mixing", MIXINGS[1:])
def test_patches_are_in_the_image_and_shares_add_up(mixing):
    random, kinds = Random(2), set()
    for size in (1, 2, 7, 224):
        for _ in range(200):
            patches = draw_mix(random, size, mixing)
            kinds.add(len(patches))
            shown = np.full((3, size, size), -1, np.float32)
            for number, patch in enumerate(patches):
                assert 0 <= patch.left <= patch.right <= size
                assert 0 <= patch.top <= patch.bottom <= size
                mix_in(shown, np.full_like(shown, number), patch)
            assert patches[0] == whole(size, patches[0].share)
            assert sum(patch.share for patch in patches) == pytest.approx(1)
            for number, patch in enumerate(patches):
                seen = (shown[0] == number).mean() if mixing != "mixup" else 0.5
                assert seen == pytest.approx(patch.share, abs=1e-6)
    assert kinds == {"mixup": {2}, "cutmix": {2}, "mosaic": {4}, "cutmix or mosaic": {2, 4}}[mixing]


def test_half_of_the_images_are_mixed(paths):
    """Each draws for itself, and its others from all; the truth of the others is in its own."""
    options = CropAugmentation(1, 1, mixing="mixup", program="alexeyab")
    found = match_labels(paths, LABELS)
    data = ClassTrainingSet(found, len(LABELS), options, smooth=0.1, cache=True)
    plain = ClassTrainingSet(found, len(LABELS), options._replace(mixing=""), smooth=0.1, cache=True)
    slot, truth, alone = np.empty((3, 8, 8), np.float32), np.empty(7, np.float32), np.empty(7, np.float32)
    others, same = set(), 0
    for sample in range(400):
        assert data.fill(sample, slot, truth) == plain.fill(sample, slot, alone)
        if (truth == alone).all():
            same += 1
        else:
            others.add(tuple(np.round(2 * truth - alone, 3)))
    assert 0.5 < same / 400 < 0.7  # half, and those whose other shows the same classes
    assert len(others) == 4  # of five images two show the same


@pytest.mark.parametrize("mixing", MIXINGS[1:])
def test_the_truth_is_what_is_seen(tmp_path, mixing):
    """Of flat images: each class has as large a share of the truth as of the pixels, or of their sum."""
    levels = {"dog": 0, "person": 51, "noise": 102, "wide": 204}
    for name, level in levels.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 40, 3), level, np.uint8))
    options = CropAugmentation(center=True, mixing=mixing, program="alexeyab")
    found = match_labels([str(tmp_path / f"{name}.png") for name in levels], list(levels))
    data = ClassTrainingSet(found, 4, options, cache=True)
    slot, truth, mixed = np.empty((3, 30, 30), np.float32), np.empty(4, np.float32), set()
    for sample in range(80):
        data.fill(sample, slot, truth)
        if mixing == "mixup":
            np.testing.assert_allclose(slot, (truth * list(levels.values())).sum() / 255, atol=1e-6)
        else:
            shares = [np.isclose(slot, level / 255, atol=1e-4).mean() for level in levels.values()]
            np.testing.assert_allclose(truth, shares, atol=1e-6)
        mixed.add((truth > 0).sum())
    assert mixed == ({1, 2} if mixing in ("mixup", "cutmix") else {1, 2, 3, 4})


def test_a_tree_is_not_mixed(alexeyab_darknet, paths, tmp_path):
    """His marks of groups of which nothing is known are then no marks any more."""
    (tmp_path / "tree").write_text(TREE)
    labels = ["in no path", *LABELS]
    truths = [
        alexeyab_darknet.load_data_augment(
            paths, 8, labels, (16, 16), 16, PLAIN.values(), tmp_path / "tree", mixup=1, seed=seed
        )[1]
        for seed in range(4)
    ]
    assert any(((truth < -1) & (truth > -1234)).any() for truth in truths)
    options = CropAugmentation(mixing="cutmix", program="alexeyab")
    with pytest.raises(TrainingError, match=r"cutmix with a tree of classes: .* remove one of the two"):
        ClassTrainingSet(match_labels(paths, labels), 8, options, read_tree(tmp_path / "tree"))


@pytest.mark.parametrize(
    ("lines", "mixing"),
    [
        ("", ""),
        ("mixup=1", "mixup"),
        ("mixup=1\ncutmix=1", "cutmix"),
        ("mosaic=1\nmixup=1", "mosaic"),
        ("mosaic=1\ncutmix=1", "cutmix or mosaic"),
        ("mixup=3", "mosaic"),
    ],
)
def test_what_mixes_images(lines, mixing):
    text = f"width=32\nheight=32\n{lines}"
    assert crop_augmentation(net_of(text, "alexeyab"), "alexeyab").mixing == mixing


@pytest.mark.parametrize("line", ["mixup=5", "mixup=-1"])
def test_a_mixture_that_is_none_is_one_line(line):
    with pytest.raises(TrainingError, match=f"mixup is {line[6:]}; expected 0, or 1"):
        crop_augmentation(net_of(f"width=32\nheight=32\n{line}", "alexeyab"), "alexeyab")


def test_batches_are_the_same_for_any_number_of_workers(paths):
    found = match_labels(paths, LABELS)
    options = CropAugmentation(**ALL)

    def batches(workers, first=0):
        data = ClassTrainingSet(found, len(LABELS), options, seed=3)
        made = load_batches(data, 4, lambda _: (32, 32), (32, 32), first=first, stop=3, workers=workers)
        return [(batch.images.clone(), batch.truth.clone(), batch.paths) for batch in made]

    alone, two, later = batches(0), batches(2), batches(0, first=4)
    for mine, theirs in [*zip(alone, two, strict=True), *zip(alone[1:], later, strict=False)]:
        assert mine[2] == theirs[2]
        assert (mine[0] == theirs[0]).all()
        assert (mine[1] == theirs[1]).all()
    pixels, truth, names = alone[0]
    assert pixels.shape == (4, 3, 32, 32)
    for row, name in zip(truth, names, strict=True):
        assert row.nonzero().ravel().tolist() == found[paths.index(name)].tolist()


def test_every_epoch_shows_every_image_once(paths):
    data = ClassTrainingSet(match_labels(paths, LABELS), len(LABELS), CropAugmentation(), replacement=False, cache=True)
    slot, truth = np.empty((3, 16, 16), np.float32), np.empty(len(LABELS), np.float32)
    assert sorted(data.fill(sample, slot, truth) for sample in range(5, 10)) == sorted(paths)


def test_an_input_that_is_not_square(paths):
    data = ClassTrainingSet(match_labels(paths, LABELS), len(LABELS), CropAugmentation())
    with pytest.raises(TrainingError, match="16 x 24; a classifier is trained on squares"):
        next(load_batches(data, 1, lambda _: (16, 24), (16, 24)))
