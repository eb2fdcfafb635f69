"""AlexeyAB's Darknet as a second oracle: his libdarknet.so, driven as Debian's is in ``tests.oracle``.

Both libraries export the same names. Each is loaded by its own path and with local symbols, so neither sees the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.oracle import Boxes, OracleMissing, OracleNetwork, Program, _f, _floats, _ints, _pointer, compile_accessors

ROOT = Path(__file__).resolve().parent.parent.parent
# In the order of his darknet.h's enums NMS_KIND and IOU_LOSS.
NMS_KINDS = ["default", "greedynms", "diounms", "cornersnms"]
IOU_LOSSES = ["iou", "giou", "mse", "diou", "ciou"]
MIXED = {"": 0, "mixup": 1, "mosaic": 3}
# How lines of [yolo], of [Gaussian_yolo] and of the boxes begin.
LINES = ("v3 (", "Region ", " total_bbox")


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Of the processes that run tests one builds, and the others wait for it."""
    import fcntl  # which Windows lacks, where nothing is built

    with open(Path(tempfile.gettempdir(), f"darknet-compat-build-{os.getuid()}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.lru_cache
def find_alexeyab() -> Path:
    """The folder of his program, built: libdarknet.so, darknet, cfg/, include/. Raises OracleMissing."""
    named = os.environ.get("DARKNET_COMPAT_ALEXEYAB")
    if named:
        return Path(named)
    script = ROOT.parent / "shared" / "alexeyab" / "build.sh"
    if not script.is_file():
        raise OracleMissing("DARKNET_COMPAT_ALEXEYAB=FOLDER, a build of it with LIBSO=1")
    with _one_process():
        done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OracleMissing(f"{script} failed: {done.stderr.strip()[-200:]}")
    return Path(done.stdout.strip())


@functools.lru_cache
def load_alexeyab(folder: Path) -> AlexeyAB:
    """The one driver of his library in ``folder``. Raises OracleMissing where a compiler is not installed."""
    library = folder / "libdarknet.so"
    # Linked by its path: a bare -ldarknet would be the name of Debian's library, and find that one where it is loaded.
    built = compile_accessors(
        Path(__file__).with_name("alexeyab.c"), library, folder / "include/darknet.h", str(library)
    )
    return AlexeyAB(built, library)


def build_with_opencv(folder: Path) -> Path:
    """A second build of what is in ``folder``, with OpenCV, beside it; made once, in two minutes.

    Raises OracleMissing where there are no sources, no compiler or no headers of OpenCV.
    """
    if not shutil.which("pkg-config") or subprocess.run(["pkg-config", "--exists", "opencv4"], check=False).returncode:
        raise OracleMissing("no headers of OpenCV")
    return _build(folder, "opencv", "OPENCV=1", "OPENMP=0", "AVX=0")


def build_fast(folder: Path) -> Path:
    """Another with what makes it fast on a processor: AVX, and OpenMP's threads."""
    return _build(folder, "fast", "OPENCV=0", "OPENMP=1", "AVX=1")


def _build(folder: Path, name: str, *options: str) -> Path:
    with _one_process():
        made = folder.with_name(f"{folder.name}-{name}")
        if not (made / "built").exists():
            _build_into(made, folder, options)
    return made


def _build_into(made: Path, folder: Path, options: tuple[str, ...]) -> None:
    if not (folder / "src/network.c").is_file():
        raise OracleMissing(f"{folder} has no sources")
    if not shutil.which("g++"):
        raise OracleMissing("no g++")
    scratch = made.with_name(f"{made.name}.{os.getpid()}")
    shutil.copytree(folder, scratch, ignore=shutil.ignore_patterns("obj", "built", "*.so", "darknet"))
    (scratch / "obj").mkdir()
    done = subprocess.run(
        ["make", "-C", scratch, "LIBSO=1", "GPU=0", *options, "libdarknet.so", "darknet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(scratch)
        raise OracleMissing(f"it does not compile: {done.stderr.strip()[-200:]}")
    (scratch / "built").touch()
    os.replace(scratch, made)


class AlexeyAB(Program):
    """His libdarknet: networks, and NMS in all kinds.

    He divides by the number of layers that see a map of more than 1 x 1 (``avg_outputs``): a network needs one.
    """

    # blas.c, normalize_cpu has eps 1e-5 in the root, as the GPU's of both programs.
    program, numerics = "alexeyab", "gpu"
    # In the order of his darknet.h's enum ACTIVATION.
    ACTIVATIONS = [
        *("logistic", "relu", "relu6", "relie", "linear", "ramp", "tanh", "plse", "revleaky", "leaky", "elu", "loggy"),
        *("stair", "hardtan", "lhtan", "selu", "gelu", "swish", "mish", "hard_mish", "normalize_channels"),
        *("normalize_channels_softmax", "normalize_channels_softmax_maxval"),
    ]

    def __init__(self, accessors, library):
        super().__init__(accessors, library)
        ctypes.c_int.in_dll(
            self.lib, "gpu_index"
        ).value = -1  # as main() of a build without GPU; else bits are inverted

    def network(self, handle):
        return AlexeyABNetwork(self, handle)

    def nms_sort(self, boxes, objectness, prob, nms, kind="default", beta=0.6):
        """do_nms_sort, or diounms_sort of a ``kind`` (NMS_KINDS) -> Boxes, rows in the order they were given."""
        boxes, objectness, prob = _floats(boxes).copy(), _floats(objectness).copy(), _floats(prob).copy()
        total, classes = prob.shape
        order = np.empty(total, np.int32)
        arrays = (boxes, objectness, prob, order)
        number = NMS_KINDS.index(kind)
        self.a.oracle_nms_sort(total, classes, _f(nms), number, _f(beta), *(_pointer(array) for array in arrays))
        return Boxes(*arrays)

    def label_path(self, image):
        """replace_image_to_label."""
        path = ctypes.create_string_buffer(8192)
        with self.capture():
            self.lib.replace_image_to_label(os.fsencode(image), path)
        return os.fsdecode(path.value)

    def load_data_detection(self, paths, size, boxes, classes, options, seed):
        """load_data_detection of one sample -> image (3, h, w), truth (boxes, 5). ``options``: AlexeyabAugmentation."""
        names = [os.fsencode(path) for path in paths]
        x, truth = np.empty((3, *size[::-1]), np.float32), np.empty((boxes, 5), np.float32)
        o = options
        self.srand(seed)
        with self.capture():
            self.a.oracle_load_detection(
                (ctypes.c_char_p * len(names))(*names), len(names), *size, boxes, classes, int(o.flip),
                o.gaussian_noise, o.blur, MIXED[o.mixing], _f(o.jitter), _f(o.resize), _f(o.hue), _f(o.saturation),
                _f(o.exposure), int(o.letter_box), int(o.mosaic_bound), _pointer(x), _pointer(truth),
            )  # fmt: skip
        return x, truth


class Printed(NamedTuple):
    """What his ``detector train`` printed."""

    updates: list[tuple[int, float, float, float]]
    """Number, loss, running average and rate of each update."""
    lines: list[str]
    """Those of the heads, and of the boxes that truths trained, in their order."""


def train(folder: Path, *words: str | Path) -> Printed:
    """Run his program, of the build in ``folder``: ``detector train`` DATA CFG WEIGHTS, counted from 0.

    Its exit code is not looked at: where a map is NaN his [maxpool] writes outside of its memory, and the program may
    be aborted at its end.
    """
    command = [folder / "darknet", "detector", "train", *words, "-dont_show", "-clear"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(words[0]).parent)
    updates = re.findall(r"^ (\d+): (\S+), (\S+) avg loss, (\S+) rate, \S+ seconds, \d+ images", done.stdout, re.M)
    return Printed(
        [(int(number), *map(float, rest)) for number, *rest in updates],
        [line for line in done.stderr.splitlines() if line.startswith(LINES)],
    )


class AlexeyABNetwork(OracleNetwork):
    """A network inside his library, as load_network makes it: batch norm is not fused until ``fuse()``."""

    HEADS = ("region", "yolo", "detection", "Gaussian_yolo")

    @property
    def truths(self):
        # His parser leaves that of the network 0, and that of layers whose truth is as long as their output.
        last = self.layers[-1]
        return last.inputs if last.type == "cost" else last.truths or last.outputs

    def resize(self, w, h):
        super().resize(w, h)
        self.number("inputs", self.channels * h * w)  # his resize_network leaves the old number

    def resize_dynamic(self, w, h, batch):
        """As dynamic_minibatch=1 has it in train_detector: another number of images, and then resize_network.

        His realloc leaves in a delta what was in the memory, which he clears by multiplying it by 0: here it is 0, and
        not perhaps NaN.
        """
        self.oracle.lib.set_batch_network(self.handle, batch)
        self.resize(w, h)
        for index, layer in enumerate(self.layers):
            self.layer_tensor(index, "delta", np.zeros(batch * layer.outputs, np.float32))

    def fuse(self):
        """fuse_conv_batchnorm, which his verbs test, valid, map and demo run."""
        with self.oracle.capture():
            self.oracle.a.oracle_fuse(self.handle)

    def boxes(
        self, w, h, thresh=0.5, hier=0.5, relative=True, nms=0.0, kind="default", beta=0.6, letter=False, map=None
    ):
        """get_network_boxes on the last prediction, for an image of w x h, and the NMS of ``kind`` where nms > 0."""
        result = self.empty_boxes()
        ints = _ints(map)
        arguments = (w, h, _f(thresh), _f(hier), _pointer(ints), int(relative), int(letter), _f(nms))
        arguments += (NMS_KINDS.index(kind), _f(beta), len(result.order))
        return self.filled_boxes(result, arguments)
