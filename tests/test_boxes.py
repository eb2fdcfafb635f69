from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

import darknet_compat.boxes
from darknet_compat.boxes import NMS_KINDS, centres, corners, diou, iou, nms_sort, unletterbox


def random_boxes(rng, *shape):
    """Boxes in a few crowds, some equal to another, some without area."""
    middle = rng.random((*shape[:-1], 4, 2))
    which = rng.integers(0, 4, shape)
    xy = np.take_along_axis(middle, which[..., None], -2) + rng.normal(size=(*shape, 2)) * 0.05
    boxes = np.concatenate([xy, np.exp(rng.normal(size=(*shape, 2)) * 0.4) * 0.2], -1).astype(np.float32)
    boxes[..., 1::7, :] = boxes[..., :1, :]
    boxes[..., 3::11, 2] = 0
    return boxes


def test_iou_is_darknets_to_the_bit(darknet):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 20, 500), random_boxes(rng, 20, 500)
    a[:5] = rng.random((5, 500, 4))
    b[:5] = rng.random((5, 500, 4))
    b[5] = a[5]
    found = iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_array_equal(found.view(np.int32), darknet.iou(a, b).view(np.int32))
    assert (found > 0).sum() > 1000
    assert iou(torch.zeros(3, 1, 4), torch.zeros(5, 4)).shape == (3, 5)


def random_detections(rng, n, classes):
    boxes = random_boxes(rng, n)
    objectness = rng.random(n)
    objectness[rng.random(n) < rng.choice([0, 0.2, 0.9, 1])] = 0
    prob = rng.dirichlet(np.full(classes, 0.3), n) * objectness[:, None]
    # Ties within a class, and over several.
    steps = rng.choice([2, 4, 1000])
    prob = np.round(prob * steps) / steps
    prob[prob < 0.005] = 0
    return boxes, objectness.astype(np.float32), prob.astype(np.float32)


@pytest.mark.parametrize("seed", range(10))
def test_nms_is_darknets(darknet, seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        n, classes, batch = int(rng.integers(1, 120)), int(rng.integers(1, 8)), int(rng.integers(1, 4))
        thresh = float(rng.choice([0.05, 0.3, 0.45, 0.7]))
        images = [random_detections(rng, n, classes) for _ in range(batch)]
        given = [torch.from_numpy(np.stack(part)) for part in zip(*images, strict=True)]
        before = given[2].clone()
        prob, order = nms_sort(*given, thresh)
        assert torch.equal(given[2], before)
        for i, image in enumerate(images):
            expected = darknet.nms_sort(*image, thresh)
            np.testing.assert_array_equal(prob[i].numpy(), expected.prob)
            taking_part = int((image[1] != 0).sum())
            np.testing.assert_array_equal(order[i, :taking_part].numpy(), expected.order[:taking_part])
            assert sorted(order[i].tolist()) == list(range(n))


def test_nms_of_a_whole_map_is_darknets(darknet):
    rng = np.random.default_rng(3)
    boxes, objectness, prob = random_detections(rng, 845, 20)
    found, order = nms_sort(*(torch.from_numpy(a)[None] for a in (boxes, objectness, prob)), 0.45)
    expected = darknet.nms_sort(boxes, objectness, prob, 0.45)
    np.testing.assert_array_equal(found[0].numpy(), expected.prob)
    taking_part = int((objectness != 0).sum())
    np.testing.assert_array_equal(order[0, :taking_part].numpy(), expected.order[:taking_part])


def test_boxes_without_objectness_take_no_part(darknet):
    boxes, objectness, prob = random_detections(np.random.default_rng(1), 50, 3)
    objectness[::3] = 0
    prob[::3] = 0.9
    found, _ = nms_sort(*(torch.from_numpy(a)[None] for a in (boxes, objectness, prob)), 0.3)
    np.testing.assert_array_equal(found[0].numpy(), darknet.nms_sort(boxes, objectness, prob, 0.3).prob)
    assert bool((found[0, ::3] == torch.tensor(0.9)).all())


def test_boxes_of_one_image_do_not_fall_by_those_without_objectness_beside_a_fuller_one(darknet):
    rng = np.random.default_rng(2)
    images = [random_detections(rng, 50, 3) for _ in range(2)]
    for i, (_, objectness, prob) in enumerate(images):
        objectness[:], prob[:] = 0.9, np.maximum(prob, 0.1)
        if i:
            objectness[::3], prob[::3] = 0, 0.95
    found, _ = nms_sort(*(torch.from_numpy(np.stack(part)) for part in zip(*images, strict=True)), 0.1)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(found[i].numpy(), darknet.nms_sort(*image, 0.1).prob)


def test_a_box_falls_only_over_the_threshold(darknet):
    """An IOU of exactly a half."""
    boxes = np.float32([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.25]])
    objectness, prob = np.float32([0.9, 0.8]), np.float32([[0.9], [0.8]])
    for thresh, kept in ((0.5, 2), (0.49, 1)):
        found, _ = nms_sort(*(torch.from_numpy(a)[None] for a in (boxes, objectness, prob)), thresh)
        np.testing.assert_array_equal(found[0].numpy(), darknet.nms_sort(boxes, objectness, prob, thresh).prob)
        assert int((found > 0).sum()) == kept


class Box(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in "xywh"]


@pytest.fixture(scope="module")
def his(alexeyab):
    """AlexeyAB's src/box.c."""
    library = ctypes.CDLL(str(alexeyab / "libdarknet.so"))
    for name in ("box_diou", "box_diounms"):
        getattr(library, name).restype = ctypes.c_float
    return library


def plain_sort(boxes, objectness, prob, thresh, kind, beta):
    """diounms_sort in plain loops, its IOUs by ours."""
    prob, order = prob.copy(), list(range(len(prob)))
    first, last = 0, len(order) - 1
    while first <= last:
        if objectness[order[first]] == 0:
            order[first], order[last] = order[last], order[first]
            last -= 1
        else:
            first += 1
    order, rest = order[:first], order[first:]
    a, b = torch.from_numpy(boxes)[:, None], torch.from_numpy(boxes)
    beta = {"greedynms": 0.6, "diounms": float(np.float32(beta))}.get(kind)
    over = ((iou(a, b) if beta is None else diou(a, b, beta)) > thresh).numpy()
    for k in range(prob.shape[1]):
        order.sort(key=lambda i, k=k: -prob[i, k])
        for place, i in enumerate(order):
            if prob[i, k]:
                for j in order[place + 1 :]:
                    if over[i, j]:
                        prob[j, k] = 0
    return prob, order + rest


def test_diou_is_alexeyabs(his):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 400), random_boxes(rng, 400)
    a[:100], b[100:130] = rng.random((100, 4)), a[100:130]
    a[:5], b[:5] = b[:5], a[:5]
    a[5, 2:] = b[5, 2:] = 0  # one point
    b[5, :2] = a[5, :2]
    for beta in (0.6, 0.3, 1.0):
        beta = float(np.float32(beta))
        found = diou(torch.from_numpy(a), torch.from_numpy(b), beta).numpy()
        expected = [his.box_diounms(Box(*x), Box(*y), ctypes.c_float(beta)) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(
        diou(torch.from_numpy(a), torch.from_numpy(b), 0.6),
        [his.box_diou(Box(*x), Box(*y)) for x, y in zip(a, b, strict=True)], atol=1e-6,
    )  # fmt: skip


def check_nms(reference, seed, kind):
    """Batches of random detections against a reference; returns how many kinds of result differ from plain IOU's."""
    rng, other = np.random.default_rng(seed), 0
    for _ in range(10):
        n, classes, batch = int(rng.integers(1, 80)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
        thresh, beta = float(rng.choice([0.05, 0.3, 0.45, 0.6])), float(rng.choice([0.3, 0.6, 1]))
        images = [random_detections(rng, n, classes) for _ in range(batch)]
        given = [torch.from_numpy(np.stack(part)) for part in zip(*images, strict=True)]
        prob, order = nms_sort(*given, thresh, kind, beta)
        other += not torch.equal(prob, nms_sort(*given, thresh)[0])
        for i, image in enumerate(images):
            expected, expected_order = reference(*image, thresh, kind, beta)
            np.testing.assert_array_equal(prob[i].numpy(), expected)
            taking_part = int((image[1] != 0).sum())
            assert order[i, :taking_part].tolist() == expected_order[:taking_part]
    return other


@pytest.mark.parametrize("kind", NMS_KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_nms_of_every_kind_is_alexeyabs(alexeyab_darknet, seed, kind):
    def his(*given):
        found = alexeyab_darknet.nms_sort(*given)
        return found.prob, found.order.tolist()

    other = check_nms(his, seed, kind)
    assert (other > 0) == (kind in ("greedynms", "diounms"))


@pytest.mark.parametrize("kind", NMS_KINDS)
def test_nms_of_every_kind_is_that_of_the_plain_loops(kind):
    check_nms(plain_sort, 7, kind)


def test_many_boxes_are_compared_a_part_at_a_time(monkeypatch):
    """Tens of thousands of boxes, as an untrained network gives, take no more memory at a time than a part of them."""
    rng = np.random.default_rng(5)
    given = [torch.from_numpy(np.stack(part)) for part in zip(*(random_detections(rng, 90, 7) for _ in range(2)),
                                                              strict=True)]  # fmt: skip
    for kind in NMS_KINDS:
        whole = nms_sort(*given, 0.3, kind)
        for most in (1, 400, 5000):
            monkeypatch.setattr(darknet_compat.boxes, "MOST_VALUES", most)
            for part, expected in zip(nms_sort(*given, 0.3, kind), whole, strict=True):
                assert torch.equal(part, expected)
        monkeypatch.undo()


def test_corners_and_centres():
    boxes = torch.tensor([[[0.5, 0.25, 0.5, 0.25]]])
    assert corners(boxes).tolist() == [[[0.25, 0.125, 0.75, 0.375]]]
    assert centres(corners(boxes)).tolist() == boxes.tolist()


@pytest.mark.parametrize("relative", [True, False])
def test_unletterbox_is_darknets(darknet, relative):
    """Boxes of a net whose map says nothing but the anchors: what comes out is the mapping alone."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        w, h = (int(v) for v in rng.integers(1, 700, 2))
        columns, rows = (int(v) for v in rng.integers(1, 20, 2))
        net = (columns * 32, rows * 32)
        anchors = [1, 2, columns, rows]
        region = darknet.region(1, columns, rows, 2, 1, anchors)
        region.forward(np.zeros(region.shape, np.float32))
        expected = region.boxes(w, h, *net, relative=relative).boxes
        y, x = np.divmod(np.tile(np.arange(rows * columns), 2), columns)
        size = np.repeat(np.float32(anchors).reshape(2, 2), rows * columns, 0) / np.float32([columns, rows])
        given = np.column_stack(
            [np.float32(x + 0.5) / np.float32(columns), np.float32(y + 0.5) / np.float32(rows), size]
        )
        found = unletterbox(torch.from_numpy(given.astype(np.float32))[None], [(w, h)], net, relative=relative)
        if min(w, h) * max(net) // max(w, h) > 0:
            np.testing.assert_allclose(found[0].numpy(), expected, rtol=3e-7, atol=3e-7 * (1 if relative else w + h))


def test_unletterbox_of_several_images_and_of_stretched_ones():
    boxes = torch.rand(2, 5, 4)
    sizes = [(500, 375), (30, 90)]
    together = unletterbox(boxes, sizes, (416, 416))
    for i, size in enumerate(sizes):
        alone = unletterbox(boxes[i : i + 1], [size], (416, 416), relative=True, letter_box=True)
        assert torch.equal(together[i], alone[0])
    assert torch.equal(unletterbox(boxes, sizes, (416, 288), letter_box=False), boxes)
    pixels = unletterbox(boxes, sizes, (416, 288), letter_box=False, relative=False)
    torch.testing.assert_close(pixels, boxes * torch.tensor([[[500, 375] * 2], [[30, 90] * 2]]))
    assert unletterbox(boxes[:1], [(5000, 1)], (416, 416)).isfinite().all()


def test_an_image_of_any_shape_keeps_a_row_and_a_column():
    """Where Darknet's letterbox would make an image of no height, and divide by it."""
    one = torch.tensor([[[0.5, 0.5, 0.5, 0.5]]])
    for size, expected in (((5000, 1), [0.5, 0.5, 0.5, 144]), ((1, 5000), [0.5, 0.5, 208, 0.5])):
        assert unletterbox(one, [size], (416, 288))[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
