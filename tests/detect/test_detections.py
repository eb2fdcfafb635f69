from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from darknet_compat import flow, load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.detect import detect_files
from darknet_compat.detect.detections import detect
from darknet_compat.detect.many import detect_many
from darknet_compat.engines import Engine
from darknet_compat.errors import CfgError, ImageError
from darknet_compat.network import Network
from darknet_compat.weights import save_weights
from tests.conftest import ROOT, SHAPES

PHOTOGRAPHS = ["dog", "horses", "person", "eagle", "giraffe", "kite"]
PROBABILITY, CORNER = 1e-4, 0.05  # allowed differences; corners in pixels


@pytest.fixture(scope="module")
def shapes():
    return load_network(*SHAPES, numerics="cpu")


def reference_detections(darknet, cfg, weights, path, thresh, nms=0.45):
    """What test_detector does with one image: boxes in pixels' corners and probabilities, in Darknet's order."""
    network = darknet.load_network(cfg, weights)
    network.set_batch(1)
    planes = darknet.load_image_color(path)
    network.predict(darknet.letterbox_image(planes, network.width, network.height)[None])
    height, width = planes.shape[1:]
    found = network.boxes(width, height, thresh, nms=nms)
    order = found.order[found.prob[found.order].any(1)]
    boxes = found.boxes[order] * np.array([width, height] * 2)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return corners, found.prob[order]


@pytest.mark.parametrize("thresh", [0.5, 0.2, 0.005])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_boxes_are_darknets(darknet, darknet_share, detector, name, thresh):
    cfg, weights = detector
    network = load_network(cfg, weights, numerics="cpu")
    path = str(darknet_share / f"data/{name}.jpg")
    (found,) = detect_files(network, [path], thresh=thresh)
    corners, prob = reference_detections(darknet, cfg, weights, path, thresh)
    assert found.prob.shape == prob.shape
    np.testing.assert_allclose(found.prob, prob, atol=PROBABILITY)
    np.testing.assert_allclose(found.corners(), corners, atol=CORNER)
    print(f"{cfg.stem} {name} {thresh}: {len(prob)} boxes, {np.abs(found.prob - prob).max(initial=0):.1g}, "
          f"{np.abs(found.corners() - corners).max(initial=0):.1g} pixels")  # fmt: skip


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_that_takes_no_rgb_is_refused_with_its_line(channels):
    sections = "[conv]\nfilters=6\n[region]\nnum=1\nclasses=1\n"
    cfg = parse_cfg(f"[net]\nwidth=32\nheight=32\nchannels={channels}\n{sections}", "grey.cfg")
    with pytest.raises(CfgError, match=rf"^grey\.cfg:4: channels={channels}: .*expected channels=3") as error:
        list(detect_files(load_network(cfg), [str(ROOT / "data/shapes-sample.jpg")]))
    assert "\n" not in str(error.value)


NOISE = """
[net]
width=64
height=32
channels=3
[convolutional]
filters=20
size=3
stride=4
pad=1
activation=linear
[region]
anchors=4,4, 6,3
classes=5
num=2
softmax=1
{tree}
"""


def noise(folder, tree=""):
    """A network and an image that give boxes of all probabilities, many of which overlap."""
    (folder / "net.cfg").write_text(NOISE.format(tree=tree))
    torch.manual_seed(1)
    network = load_network(folder / "net.cfg", numerics="cpu")
    with torch.no_grad():
        network.layers[0].weights.mul_(6)
    return network, torch.rand(1, 3, 32, 64) - 0.5


@pytest.mark.parametrize("options", [{}, {"nms": 0}, {"thresh": 0.3, "nms": 0.2, "relative": False}])
def test_what_detect_does_unasked_is_darknets(darknet, tmp_path, options):
    """Threshold .5, NMS .45, boxes relative to the image, as test_detector has them."""
    network, planes = noise(tmp_path)
    save_weights(network, tmp_path / "net.weights")
    theirs = darknet.load_network(tmp_path / "net.cfg", tmp_path / "net.weights")
    theirs.set_batch(1)
    theirs.predict(planes.numpy())
    expected = theirs.boxes(300, 100, **{"thresh": 0.5, "relative": True, "nms": 0.45, **options})
    order = expected.order if options.get("nms", 1) else np.arange(len(expected.prob))
    order = order[expected.prob[order].any(1)]
    (found,) = detect(network, planes, [(300, 100)], ["it"], **options)
    assert len(order) > 20
    np.testing.assert_allclose(found.prob, expected.prob[order], atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes[order], rtol=1e-5, atol=1e-5)
    centre, size = np.split(expected.boxes[order].astype(float), 2, 1)
    corners = np.concatenate([centre - size / 2, centre + size / 2], 1)
    if options.get("relative", True):
        corners *= 300, 100, 300, 100
    np.testing.assert_allclose(found.corners(), corners, rtol=1e-5, atol=1e-3)


def test_a_tree_is_gone_down_as_far_as_it_is_sure(tmp_path):
    """By .5 unasked; Darknet's own tree on a CPU is wrong, so that the head's tests compare with it and not these."""
    (tmp_path / "tree").write_text("a -1\nb -1\nc 0\nd 0\ne 1\n")
    network, planes = noise(tmp_path, f"tree={tmp_path / 'tree'}")
    unasked, half, sure = (
        detect(network, planes, [(64, 32)], ["it"], nms=0, **options)[0].prob
        for options in ({}, {"hier": 0.5}, {"hier": 0.9})
    )
    np.testing.assert_array_equal(unasked, half)
    assert (half != sure).any()


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (3, 2)])
def test_a_list_is_read_as_it_is_needed_and_threads_are_left_as_they_were(shapes, threads, batch):
    """One batch more than there are threads, of which there are two at least, is under way beside the one at hand."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    drawn = []

    def paths():
        for index in range(16):
            drawn.append(index)
            yield str(ROOT / "data/shapes-sample.jpg")

    try:
        found = detect_files(shapes, paths(), batch=batch)
        for number in range(16):
            next(found)
            assert len(drawn) == min(16, (number // batch + max(threads, 2) + 2) * batch)
        assert list(found) == []
        # A thread takes its number over from a value that those of the pool have set.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)


def test_where_nobody_wants_more_no_further_image_is_begun(shapes):
    """As after Ctrl-C: the second batch is in the midst of its images."""
    begun, reached, go_on = [], threading.Event(), threading.Event()

    def read(number):
        begun.append(number)
        if number == 6:
            reached.set()
            go_on.wait(10)
        return "", np.zeros((8, 8, 3), np.uint8)

    found = detect_many(shapes, range(40), read, batch=4)
    next(found)
    assert reached.wait(10)
    threading.Timer(0.2, go_on.set).start()
    found.close()
    assert 7 not in begun


def test_a_batch_gives_what_single_images_give(darknet_share, shapes):
    paths = [str(darknet_share / f"data/{name}.jpg") for name in PHOTOGRAPHS]
    singly = list(detect_files(shapes, paths, thresh=0.2))
    for threads in (1, 2):
        engine = Engine(shapes.predict, threads)
        together = list(detect_files(shapes, paths, batch=4, engine=engine, thresh=0.2))
        assert [found.path for found in together] == paths
        for one, many in zip(singly, together, strict=True):
            np.testing.assert_allclose(many.prob, one.prob, atol=1e-5)
            np.testing.assert_allclose(many.boxes, one.boxes, atol=1e-5)


def test_json_holds_pixels(darknet_share, shapes):
    names = [f"class{index}" for index in range(6)]
    (found,) = detect_files(shapes, [str(darknet_share / "data/dog.jpg")], thresh=0.5, classes=names)
    image = found.as_json()
    assert (image["width"], image["height"]) == (768, 576)
    rows = [row for row, prob in enumerate(found.prob) for _ in prob.nonzero()[0]]
    for row, detection in zip(rows, image["detections"], strict=True):
        left, top, right, bottom = found.corners()[row]
        assert detection["box"] == pytest.approx([left, top, right - left, bottom - top], abs=1e-2)
        assert detection["name"] == f"class{detection['class_id']}"
        assert detection["prob"] > 0.5


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_stretched_boxes_are_the_librarys(darknet, darknet_share, name):
    """As validate_detector_recall asks the library: resize_image, and boxes relative to the network's input."""
    cfg, weights = ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights"
    path = str(darknet_share / f"data/{name}.jpg")
    reference = darknet.load_network(cfg, weights)
    reference.set_batch(1)
    reference.predict(darknet.resize_image(darknet.load_image_color(path), reference.width, reference.height)[None])
    expected = reference.boxes(reference.width, reference.height, 0.005, nms=0.45)
    order = expected.order[expected.prob[expected.order].any(1)]
    network = load_network(cfg, weights, numerics="cpu")
    (stretched,) = detect_files(network, [path], thresh=0.005, letter_box=False)
    np.testing.assert_allclose(stretched.prob, expected.prob[order], atol=PROBABILITY)
    np.testing.assert_allclose(stretched.boxes, expected.boxes[order], atol=1e-4)


def test_an_unreadable_image_ends_it_after_those_before_or_is_passed_over(tmp_path):
    network = load_network(ROOT / "cfg/yolov2-shapes.cfg", ROOT / "weights/yolov2-shapes.weights")
    good = str(ROOT / "data/shapes-sample.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / name) for name in ("none.jpg", "text.jpg")]
    paths = [good, good, bad[0], good, good, bad[1], bad[1], good]
    (alone,) = detect_files(network, [good])
    for batch in (1, 4):
        before = []
        with pytest.raises(ImageError, match=r"none\.jpg"):
            before.extend(detect_files(network, paths, batch=batch))
        assert len(before) == 2
        errors = []
        everything = list(detect_files(network, paths, batch=batch, unreadable=errors.append))
        assert len(everything) == 5
        assert [str(error).split(":")[0] for error in errors] == [bad[0], bad[1], bad[1]]
        for found in (*before, *everything):
            assert found.path == good
            np.testing.assert_allclose(found.prob, alone.prob, atol=1e-5)
            np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-5)


def test_a_broken_image_is_named_and_no_thread_is_left(darknet_share, shapes, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    good = str(darknet_share / "data/dog.jpg")
    before = threading.active_count()
    found = detect_files(shapes, [good, str(tmp_path / "broken.jpg"), good], thresh=0.5)
    next(found)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        list(found)
    assert threading.active_count() == before


def test_valid2_averages_as_darknet_does(darknet, darknet_share, detector):
    """Darknet flips every plane of the mirrored output, but negates the first ``num`` planes of the map."""
    cfg, weights = detector
    network = load_network(cfg, weights, numerics="cpu")
    reference = darknet.load_network(cfg, weights)
    reference.set_batch(2)
    path = str(darknet_share / "data/dog.jpg")
    planes = darknet.load_image_color(path)
    fitted = darknet.letterbox_image(planes, network.width, network.height)
    reference.predict(np.stack([fitted, fitted[:, :, ::-1]]))
    expected = reference.boxes(planes.shape[2], planes.shape[1], 0.005, nms=0.45)
    order = expected.order[expected.prob[expected.order].any(1)]
    (found,) = detect_files(network, [path], thresh=0.005, mirrored=True)
    np.testing.assert_allclose(found.prob, expected.prob[order], atol=PROBABILITY)
    np.testing.assert_allclose(found.boxes, expected.boxes[order], atol=1e-4)


@pytest.mark.parametrize(
    ("device", "threads", "of_engine", "turns"),
    [("cpu", 4, None, 1), ("cpu", 4, 1, 4), ("cpu", 5, 2, 2), ("cpu", 2, 4, 1), ("meta", 4, None, 1)],
)
def test_as_many_batches_run_at_a_time_as_there_are_threads_for(monkeypatch, device, threads, of_engine, turns):
    """An engine of one thread on each; the network itself, which takes all, and a GPU one batch at a time."""
    asked = []
    monkeypatch.setattr(flow, "Semaphore", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    network = Network(read_cfg(ROOT / "cfg/yolov2-shapes.cfg"), device=device)
    assert not list(detect_files(network, [], engine=Engine(network.predict, of_engine) if of_engine else None))
    assert asked == [turns]
