"""The real Darknet as an oracle: Debian's libdarknet.so, driven by ctypes and a few accessors in C.

``load_oracle()`` compiles ``accessors.c`` once per content into a cache folder and returns the :class:`Oracle`.
Arrays are numpy float32; images are planes (channels, h, w). What Darknet prints is swallowed, or kept by
``oracle.capture()``. Darknet calls ``exit()`` on bad input, so hand it only good input.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

# By its whole path: this project has a command `darknet` too, which may stand first on the PATH.
PROGRAM = "/usr/bin/darknet"
LIBRARY = Path("/usr/lib/darknet/libdarknet.so")
HEADER = Path("/usr/lib/darknet/include/darknet.h")
ACCESSORS = Path(__file__).with_name("accessors.c")

# In the order of darknet.h's enums ACTIVATION and learning_rate_policy.
ACTIVATIONS = [
    *("logistic", "relu", "relie", "linear", "ramp", "tanh", "plse"),
    *("leaky", "elu", "loggy", "stair", "hardtan", "lhtan", "selu"),
]
POLICIES = ["constant", "step", "exp", "poly", "steps", "sig", "random"]
REGION_LINE = re.compile(
    r"Region Avg IOU: (\S+), Class: (\S+), Obj: (\S+), No Obj: (\S+), Avg Recall: (\S+),  count: (\d+)"
)


class OracleMissing(Exception):
    """libdarknet, its header or a C compiler is not installed."""


def _printed(file, start):
    return os.pread(file, os.fstat(file).st_size - start, start).decode("utf-8", "replace")


@dataclass
class Captured:
    """What was printed to stdout inside ``Oracle.capture()``, and to stderr; filled when the block ends."""

    text: str = ""
    errors: str = ""

    @property
    def lines(self):
        return self.text.splitlines()


@dataclass
class Boxes:
    """Detections in the order of the output map; ``order`` is the order in which do_nms_sort left them."""

    boxes: np.ndarray  # (B, 4) x, y, w, h
    objectness: np.ndarray  # (B,)
    prob: np.ndarray  # (B, classes)
    order: np.ndarray  # (B,) int32


@dataclass
class RegionResult:
    output: np.ndarray  # (batch, n*(coords+1+classes), h, w), activated
    delta: np.ndarray  # as forward_region_layer leaves it
    gradient: (
        np.ndarray
    )  # delta times the logistic's gradient on x, y, objectness: minus the loss's gradient in the raw map
    cost: float
    line: str
    figures: dict  # avg_iou, avg_class, obj, no_obj, avg_recall, count as printed; empty without training


@dataclass
class TrainStep:
    cost: float
    line: str  # the last "Region Avg IOU" line
    figures: dict


def region_figures(line):
    match = REGION_LINE.search(line)
    if not match:
        return {}
    names = ("avg_iou", "avg_class", "obj", "no_obj", "avg_recall")
    return {**{n: float(v) for n, v in zip(names, match.groups(), strict=False)}, "count": int(match[6])}


def _floats(array):
    return np.ascontiguousarray(array, dtype=np.float32)


def _pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def _ints(values):
    return None if values is None else np.ascontiguousarray(values, dtype=np.int32)


def _f(value):
    return ctypes.c_float(value)


def compile_accessors(source, library, header, *libraries):
    """The path of a C file's shared library, compiled once per content against a Darknet's header and library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    for needed in (library, header):
        if not needed.exists():
            raise OracleMissing(f"{needed} is missing")
    if not compiler:
        raise OracleMissing("no C compiler (gcc) on the PATH")
    about = library.stat()
    key = hashlib.sha256(
        source.read_bytes() + header.read_bytes() + f"{library} {about.st_size} {about.st_mtime_ns}".encode()
    ).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")
    folder = Path(base, "darknet-compat-oracle")
    built = folder / f"{source.stem}-{key}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch, "accessors.so")
            command = [compiler, "-O2", "-shared", "-fPIC", str(source), f"-I{header.parent}", "-o", str(fresh)]
            subprocess.run([*command, *libraries], check=True)
            os.replace(fresh, built)
    return built


@functools.lru_cache(maxsize=1)
def load_oracle():
    """The one Oracle of this process. Raises OracleMissing where Darknet or a compiler is not installed."""
    linked = f"-L{LIBRARY.parent}", "-ldarknet", f"-Wl,-rpath,{LIBRARY.parent}"
    return Oracle(compile_accessors(ACCESSORS, LIBRARY, HEADER, *linked), LIBRARY)


class Program:
    """What the drivers of both Darknets have in common: networks, activations, and what is printed."""

    ACTIVATIONS = ACTIVATIONS
    program: str  # of darknet_compat.program
    numerics: str  # of darknet_compat.layers.batchnorm: what the library runs

    def __init__(self, accessors, library):
        self.a = ctypes.CDLL(str(accessors))
        self.lib = ctypes.CDLL(str(library))
        self.libc = ctypes.CDLL(None)
        torch.set_flush_denormal(False)  # both libraries are built with -Ofast: loading one set it for this process
        self._redirected = False
        self._scratch = os.memfd_create("darknet-stdout")
        self._errors = os.memfd_create("darknet-stderr")
        for name in ("oracle_network_rate", "oracle_train"):
            getattr(self.a, name).restype = ctypes.c_float
        self.a.oracle_layer_tensor.restype = ctypes.c_long
        self.a.oracle_layer_type.restype = ctypes.c_char_p
        self.lib.load_network.restype = ctypes.c_void_p
        for name in ("rand_uniform", "rand_scale"):
            getattr(self.lib, name).restype = ctypes.c_float

    # --- what Darknet prints

    @contextmanager
    def capture(self):
        """Swallow stdout and stderr of everything inside, C's too; yields a Captured that holds stdout afterwards."""
        captured = Captured()
        files = self._scratch, self._errors
        if self._redirected:
            # An outer capture holds the text already: take our part of it.
            self.libc.fflush(None)
            starts = [os.lseek(file, 0, os.SEEK_CUR) for file in files]
            yield captured
            self.libc.fflush(None)
            captured.text, captured.errors = map(_printed, files, starts)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.libc.fflush(None)
        saved = os.dup(1), os.dup(2)
        for file in files:
            os.lseek(file, 0, os.SEEK_SET)
            os.ftruncate(file, 0)
        self._redirected = True
        try:
            os.dup2(files[0], 1)
            os.dup2(files[1], 2)
            yield captured
        finally:
            sys.stdout.flush()
            self.libc.fflush(None)
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
            self._redirected = False
            captured.text, captured.errors = map(_printed, files, (0, 0))

    quiet = capture

    # --- C's random numbers: call them in the order in which Darknet would, after the same srand

    def srand(self, seed):
        self.libc.srand(ctypes.c_uint(seed))

    def rand(self):
        return self.libc.rand()

    def rand_uniform(self, low, high):
        return self.lib.rand_uniform(_f(low), _f(high))

    def rand_scale(self, scale):
        return self.lib.rand_scale(_f(scale))

    # --- networks

    def load_network(self, cfg_path, weights_path=None, clear=0, folder=None):
        """load_network. ``folder``: the working directory from which the cfg's own paths (tree, map) are read."""
        for path in filter(None, (cfg_path, weights_path)):
            if not Path(path).is_file():
                raise FileNotFoundError(path)
        cfg = os.fsencode(os.path.abspath(cfg_path))
        weights = os.fsencode(os.path.abspath(weights_path)) if weights_path else None
        here = os.getcwd()
        with self.capture():
            try:
                os.chdir(folder or here)
                net = self.lib.load_network(ctypes.c_char_p(cfg), ctypes.c_char_p(weights), ctypes.c_int(clear))
            finally:
                os.chdir(here)
        return self.network(net)

    def network(self, handle):
        return OracleNetwork(self, handle)

    # --- arithmetic

    def activate(self, x, activation):
        """activate_array on a copy of x."""
        out = _floats(x).copy()
        self.lib.activate_array(_pointer(out), out.size, self.ACTIVATIONS.index(activation))
        return out

    def gradient(self, output, activation, delta=None):
        """gradient_array: delta (ones by default) times the activation's gradient, given the activation's *output*."""
        output = _floats(output)
        out = np.ones_like(output) if delta is None else _floats(delta).copy()
        self.lib.gradient_array(_pointer(output), output.size, self.ACTIVATIONS.index(activation), _pointer(out))
        return out

    def load_data_augment(self, paths, n, labels, sides, size, options, tree=None, last=0, mixup=0, seed=None):
        """load_data_augment -> images (n, 3, size, size), truth (n, len(labels)).

        ``options``: angle, aspect, hue, saturation, exposure. ``last``: pjreddie's center, AlexeyAB's label_smooth_eps.
        ``mixup``: his number for mixup, cutmix, mosaic (1 to 3), or either of the last (4).
        """
        names, words = ([os.fsencode(word) for word in some] for some in (paths, labels))
        arrays = ((ctypes.c_char_p * len(some))(*some) for some in (names, words))
        x = np.empty((n, 3, size, size), np.float32)
        truth = np.empty((n, len(words)), np.float32)
        if seed is not None:
            self.srand(seed)
        rest = (int(last),) if self.program == "pjreddie" else (_f(last), mixup)
        floats = map(_f, options)
        tree = None if tree is None else os.fsencode(tree)
        names, words = arrays
        with self.capture():
            self.a.oracle_load_classes(
                n,
                names,
                len(names),
                words,
                len(words),
                tree,
                *sides,
                size,
                *floats,
                *rest,
                _pointer(x),
                _pointer(truth),
            )
        return x, truth


class Oracle(Program):
    """Debian's libdarknet: networks, and its loose functions."""

    program, numerics = "pjreddie", "cpu"

    def __init__(self, accessors, library):
        super().__init__(accessors, library)
        for name in ("oracle_rate", "oracle_region_forward"):
            getattr(self.a, name).restype = ctypes.c_float
        for name in ("oracle_region_new", "oracle_load"):
            getattr(self.a, name).restype = ctypes.c_void_p
        self.lib.basecfg.restype = ctypes.c_void_p

    def rate(
        self,
        batch,
        policy="constant",
        learning_rate=0.001,
        burn_in=0,
        power=4,
        gamma=0,
        scale=1,
        step=1,
        max_batches=0,
        steps=(),
        scales=(),
    ):
        """get_current_rate at the update ``batch`` of a network with these options."""
        ints, floats = _ints(steps), _floats(scales)
        with self.capture():
            return self.a.oracle_rate(
                POLICIES.index(policy),
                ctypes.c_long(batch),
                _f(learning_rate),
                int(burn_in),
                _f(power),
                _f(gamma),
                _f(scale),
                int(step),
                int(max_batches),
                _pointer(ints),
                _pointer(floats),
                len(ints),
            )

    # --- arithmetic

    def softmax(self, x, n, batch, batch_offset, groups, group_offset, stride, temperature=1.0):
        """softmax_cpu with its own parameters; what it does not touch comes back as in x."""
        x = _floats(x)
        out = x.copy()
        self.lib.softmax_cpu(
            _pointer(x), n, batch, batch_offset, groups, group_offset, stride, _f(temperature), _pointer(out)
        )
        return out

    def reorg(self, x, stride, reverse=False):
        """The reorg layer's forward pass on x (batch, c, h, w): reorg_cpu with the input's w, h, c."""
        x = _floats(x)
        batch, c, h, w = x.shape
        out = np.empty_like(x)
        self.lib.reorg_cpu(_pointer(x), w, h, c, batch, stride, int(reverse), _pointer(out))
        if reverse:
            return out.reshape(batch, c // stride**2, h * stride, w * stride)
        return out.reshape(batch, c * stride**2, h // stride, w // stride)

    def iou(self, a, b):
        """box_iou of each pair of rows (x, y, w, h)."""
        a, b = np.broadcast_arrays(a, b)
        a, b = _floats(a), _floats(b)
        out = np.empty(a.shape[:-1], np.float32)
        self.a.oracle_box_iou(out.size, _pointer(a), _pointer(b), _pointer(out))
        return out

    def nms_sort(self, boxes, objectness, prob, nms):
        """do_nms_sort -> Boxes, rows in the order they were given."""
        boxes, objectness, prob = _floats(boxes).copy(), _floats(objectness).copy(), _floats(prob).copy()
        total, classes = prob.shape
        order = np.empty(total, np.int32)
        self.a.oracle_nms_sort(
            total, classes, _f(nms), _pointer(boxes), _pointer(objectness), _pointer(prob), _pointer(order)
        )
        return Boxes(boxes, objectness, prob, order)

    def image_id(self, path):
        """basecfg: what ``valid`` names an image by."""
        return ctypes.string_at(self.lib.basecfg(os.fsencode(path))).decode()

    def read_tree(self, path):
        """read_tree -> dict of int32 arrays: parent, child, group, leaf (per class), group_size, group_offset."""
        file = os.fsencode(path)
        groups = ctypes.c_int()
        n = self.a.oracle_tree(file, ctypes.byref(groups), None, None, None, None, None, None)
        names = ("parent", "child", "group", "leaf", "group_size", "group_offset")
        arrays = {name: np.empty(groups.value if "_" in name else n, np.int32) for name in names}
        self.a.oracle_tree(file, ctypes.byref(groups), *map(_pointer, arrays.values()))
        return arrays

    def region(self, batch, w, h, n, classes, anchors, coords=4, tree=None, map=None, **numbers):
        """make_region_layer; ``numbers`` are fields by name: softmax, rescore, bias_match, thresh, coord_scale, ..."""
        return OracleRegion(self, batch, w, h, n, classes, anchors, coords, tree, map, numbers)

    # --- images: planes (c, h, w) in, planes out

    def resize_image(self, planes, w, h):
        return self._sized(self.a.oracle_resize, planes, w, h)

    def letterbox_image(self, planes, w, h):
        return self._sized(self.a.oracle_letterbox, planes, w, h)

    def _sized(self, function, planes, w, h):
        planes = _floats(planes)
        out = np.empty((planes.shape[0], h, w), np.float32)
        function(planes.shape[2], planes.shape[1], planes.shape[0], _pointer(planes), w, h, _pointer(out))
        return out

    def place_image(self, planes, w, h, dx, dy, canvas):
        """place_image onto a copy of canvas (c, H, W); w, h, dx, dy are floats that C cuts to ints."""
        planes, canvas = _floats(planes), _floats(canvas).copy()
        self.a.oracle_place(
            planes.shape[2],
            planes.shape[1],
            planes.shape[0],
            _pointer(planes),
            _f(w),
            _f(h),
            _f(dx),
            _f(dy),
            canvas.shape[2],
            canvas.shape[1],
            _pointer(canvas),
        )
        return canvas

    def distort_image(self, planes, hue, saturation, exposure):
        out = _floats(planes).copy()
        self.a.oracle_distort(out.shape[2], out.shape[1], _pointer(out), _f(hue), _f(saturation), _f(exposure))
        return out

    def rgb_to_hsv(self, planes):
        out = _floats(planes).copy()
        self.a.oracle_rgb_to_hsv(out.shape[2], out.shape[1], _pointer(out))
        return out

    def hsv_to_rgb(self, planes):
        out = _floats(planes).copy()
        self.a.oracle_hsv_to_rgb(out.shape[2], out.shape[1], _pointer(out))
        return out

    def flip_image(self, planes):
        out = _floats(planes).copy()
        self.a.oracle_flip(out.shape[2], out.shape[1], out.shape[0], _pointer(out))
        return out

    def load_image_color(self, path):
        """load_image_color -> (3, h, w). Debian's build reads through OpenCV 4.6, which turns images by EXIF."""
        if not Path(path).is_file():
            raise FileNotFoundError(path)
        w, h = ctypes.c_int(), ctypes.c_int()
        data = self.a.oracle_load(os.fsencode(path), ctypes.byref(w), ctypes.byref(h))
        floats = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
        out = np.ctypeslib.as_array(floats, (3, h.value, w.value)).copy()
        self.a.oracle_free(ctypes.c_void_p(data))
        return out

    def save_image(self, planes, name):
        """save_image: JPEG of quality 80 at name + ".jpg"."""
        planes = _floats(planes)
        c, h, w = planes.shape
        self.a.oracle_save(w, h, c, _pointer(planes), os.fsencode(name))

    def correct_boxes(self, rows, dx, dy, sx, sy, flip):
        """correct_boxes on rows (class, x, y, w, h)."""
        out = _floats(rows).copy()
        self.a.oracle_correct_boxes(len(out), _pointer(out), _f(dx), _f(dy), _f(sx), _f(sy), int(flip))
        return out

    def load_data_detection(self, paths, n, w, h, boxes, classes, jitter, hue, saturation, exposure, seed=None):
        """load_data_detection -> images (n, 3, h, w), truth (n, boxes, 5). ``seed`` goes to srand first."""
        augmentation = jitter, hue, saturation, exposure
        return self._load_data(0, (boxes, 5), paths, n, w, h, boxes, classes, augmentation, seed)

    def load_data_region(self, paths, n, w, h, side, classes, jitter, hue, saturation, exposure, seed=None):
        """load_data_region -> images (n, 3, h, w), truth (n, side, side, 1 + classes + 4)."""
        augmentation = jitter, hue, saturation, exposure
        return self._load_data(1, (side, side, 5 + classes), paths, n, w, h, side, classes, augmentation, seed)

    def _load_data(self, region, shape, paths, n, w, h, boxes, classes, augmentation, seed):
        names = [os.fsencode(path) for path in paths]
        array = (ctypes.c_char_p * len(names))(*names)
        x = np.empty((n, 3, h, w), np.float32)
        truth = np.empty((n, *shape), np.float32)
        if seed is not None:
            self.srand(seed)
        floats = map(_f, augmentation)
        with self.capture():
            self.a.oracle_load_data(
                region, n, array, len(names), w, h, boxes, classes, *floats, _pointer(x), _pointer(truth)
            )
        return x, truth


def _number(function, handle, name, value=None):
    number = ctypes.c_double(0 if value is None else value)
    if function(*handle, name.encode(), ctypes.byref(number), int(value is not None)) < 0:
        raise AttributeError(f"Darknet has no number field {name}, or accessors.c does not know it")
    return number.value if value is None else None


class OracleLayer:
    """One layer: number fields as attributes (w, h, c, out_w, n, outputs, batch_normalize, ...), ``type`` a word."""

    def __init__(self, network, index):
        self.network = network
        self.index = index

    @property
    def type(self):
        return self.network.oracle.a.oracle_layer_type(self.network.handle, self.index).decode()

    @property
    def activation(self):
        return self.network.oracle.ACTIVATIONS[int(self.number("activation"))]

    def number(self, name, value=None):
        return _number(self.network.oracle.a.oracle_layer_number, (self.network.handle, self.index), name, value)

    def __getattr__(self, name):
        value = self.number(name)
        return int(value) if value.is_integer() else value


class OracleNetwork:
    """A network inside libdarknet. Freed with the object."""

    HEADS = ("region", "yolo", "detection")

    def __init__(self, oracle, handle):
        self.oracle = oracle
        self.handle = ctypes.c_void_p(handle)
        self.allocated = self.batch

    def __del__(self):
        if getattr(self, "handle", None):
            self.oracle.a.oracle_free_network(self.handle)
            self.handle = None

    def number(self, name, value=None):
        """Reads, or with a value sets, a number field of struct network."""
        return _number(self.oracle.a.oracle_network_number, (self.handle,), name, value)

    @property
    def batch(self):
        return int(self.number("batch"))

    @property
    def width(self):
        return int(self.number("w"))

    @property
    def height(self):
        return int(self.number("h"))

    @property
    def channels(self):
        return int(self.number("c"))

    @property
    def truths(self):
        """Numbers of truth per image."""
        return int(self.number("truths"))

    @property
    def seen(self):
        return int(self.number("seen"))

    @seen.setter
    def seen(self, value):
        self.number("seen", value)

    @property
    def layers(self):
        return [OracleLayer(self, i) for i in range(int(self.number("n")))]

    def set_batch(self, n):
        """set_batch_network; n may not exceed the batch/subdivisions of the cfg, for which Darknet allocated."""
        if n > self.allocated:
            raise ValueError(f"the cfg allocates batch/subdivisions = {self.allocated} images, not {n}")
        self.oracle.lib.set_batch_network(self.handle, n)

    def resize(self, w, h):
        with self.oracle.capture():
            self.oracle.lib.resize_network(self.handle, w, h)

    def predict(self, x):
        """network_predict on x (n, c, h, w) with n the current batch -> the last layer's output (n, outputs)."""
        x = self._input(x)
        with self.oracle.capture():
            self.oracle.a.oracle_predict(self.handle, _pointer(x))
        return self.layer_output(-1)

    def _input(self, x):
        x = _floats(x)
        expected = self.batch * int(self.number("inputs"))
        if x.size != expected or len(x) != self.batch:
            raise ValueError(f"Darknet reads {self.batch} images of {expected // self.batch} numbers, not {x.shape}")
        return x

    def _tensor(self, i, name):
        count = int(self.number("n"))
        data = ctypes.POINTER(ctypes.c_float)()
        length = self.oracle.a.oracle_layer_tensor(self.handle, i % count, name.encode(), ctypes.byref(data))
        if length < 0:
            raise AttributeError(f"no layer tensor is called {name}")
        return np.ctypeslib.as_array(data, (length,)) if length else None

    def layer_output(self, i):
        """Copy of layer i's output, (batch, outputs)."""
        return self._tensor(i, "output").reshape(self.batch, -1).copy()

    def layer_tensor(self, i, name, value=None):
        """Copy of a layer's tensor (flat), None where the layer has none; with ``value`` it is written instead.

        Names: output, delta, x, x_norm, weights, biases, scales, rolling_mean, rolling_variance, mean, variance,
        weight_updates, bias_updates, scale_updates, m, v, bias_m, bias_v, scale_m, scale_v, cost. A region layer's
        biases are its anchors.
        """
        tensor = self._tensor(i, name)
        if value is None:
            return None if tensor is None else tensor.copy()
        value = _floats(value).reshape(-1)
        if tensor is None or value.size != tensor.size:
            raise ValueError(f"layer {i} {name}: {0 if tensor is None else tensor.size} numbers, not {value.size}")
        tensor[:] = value
        return None

    def save_weights(self, path, cutoff=None):
        """save_weights, or save_weights_upto of the first ``cutoff`` layers."""
        layers = int(self.number("n")) if cutoff is None else cutoff
        with self.oracle.capture():
            self.oracle.a.oracle_save_weights(self.handle, ctypes.c_char_p(os.fsencode(path)), layers)

    def load_weights(self, path, start=0, cutoff=None):
        """load_weights, or load_weights_upto."""
        if not Path(path).is_file():
            raise FileNotFoundError(path)
        layers = int(self.number("n")) if cutoff is None else cutoff
        with self.oracle.capture():
            self.oracle.a.oracle_load_weights(self.handle, ctypes.c_char_p(os.fsencode(path)), start, layers)

    def current_rate(self):
        with self.oracle.capture():
            return self.oracle.a.oracle_network_rate(self.handle)

    def boxes(self, w, h, thresh=0.5, hier=0.5, relative=True, nms=0.0, map=None):
        """get_network_boxes on the last prediction, for an image of w x h, and do_nms_sort where nms > 0 -> Boxes.

        Darknet changes the output in place for trees and for batch 2: call it once per prediction.
        """
        result = self.empty_boxes()
        ints = _ints(map)
        arguments = (w, h, _f(thresh), _f(hier), _pointer(ints), int(relative), _f(nms), len(result.order))
        return self.filled_boxes(result, arguments)

    def empty_boxes(self):
        """Room for every box of the heads."""
        capacity = sum(layer.w * layer.h * layer.n for layer in self.layers if layer.type in self.HEADS)
        return Boxes(
            np.empty((capacity, 4), np.float32),
            np.empty(capacity, np.float32),
            np.empty((capacity, self.layers[-1].classes), np.float32),
            np.empty(capacity, np.int32),
        )

    def filled_boxes(self, result, arguments):
        arrays = (result.boxes, result.objectness, result.prob, result.order)
        total = self.oracle.a.oracle_boxes(self.handle, *arguments, *(_pointer(array) for array in arrays))
        if total < 0:
            raise ValueError(f"Darknet lists more boxes than its heads hold, {len(result.order)}")
        return Boxes(*(array[:total] for array in arrays))

    def train_step(self, x, truth, update=None):
        """train_network_datum, with the region backward pass that Debian's CPU build lacks.

        x (batch, c, h, w), truth (batch, truths / 5, 5) for a region net. ``seen`` grows by the batch first.
        ``update``: None when due (every ``subdivisions`` calls), True or False. Layer deltas stay readable afterwards.
        """
        x, truth = self._input(x), _floats(truth)
        expected = self.batch * self.truths
        if truth.size > expected:
            raise ValueError(f"Darknet reads {expected} truth numbers, not {truth.size}")
        if truth.size < expected:
            padded = np.zeros((self.batch, expected // self.batch), np.float32)
            padded[:, : truth.size // self.batch] = truth.reshape(self.batch, -1)
            truth = padded
        with self.oracle.capture() as printed:
            cost = self.oracle.a.oracle_train(
                self.handle, _pointer(x), _pointer(truth), -1 if update is None else int(update)
            )
        line = next((line for line in reversed(printed.lines) if line.startswith("Region Avg IOU")), "")
        return TrainStep(cost, line, region_figures(line))


class OracleRegion:
    """A region layer alone, fed with raw maps."""

    def __init__(self, oracle, batch, w, h, n, classes, anchors, coords, tree, map, numbers):
        anchors = _floats(anchors).reshape(-1)
        if anchors.size != 2 * n:
            raise ValueError(f"{n} boxes want {2 * n} anchor numbers, not {anchors.size}")
        self.oracle = oracle
        self.shape = (batch, n * (coords + 1 + classes), h, w)
        self.n, self.classes, self.coords = n, classes, coords
        files = [ctypes.c_char_p(os.fsencode(f)) if f else None for f in (tree, map)]
        with oracle.capture():
            handle = oracle.a.oracle_region_new(batch, w, h, n, classes, coords, _pointer(anchors), *files)
        self.handle = ctypes.c_void_p(handle)
        for name, value in numbers.items():
            self.number(name, value)

    def __del__(self):
        if getattr(self, "handle", None):
            self.oracle.a.oracle_region_free(self.handle)
            self.handle = None

    def number(self, name, value=None):
        return _number(self.oracle.a.oracle_region_number, (self.handle,), name, value)

    def forward(self, map, truth=None, seen=0):
        """forward_region_layer on the raw map (batch, n*(coords+1+classes), h, w) -> RegionResult.

        With truth (batch, T, coords+1) as in training; Darknet reads the first 30 rows at most, so T < 30 is padded.
        ``seen`` is the count that already includes this batch. Trees run per group as the GPU build does it.
        """
        map = _floats(map)
        if map.shape != self.shape:
            raise ValueError(f"map of {map.shape}, expected {self.shape}")
        train = truth is not None
        rows = np.zeros((self.shape[0], 30, self.coords + 1), np.float32) if truth is None else _floats(truth)
        if rows.shape[1] < 30:
            rows = np.pad(rows, ((0, 0), (0, 30 - rows.shape[1]), (0, 0)))
        output, delta, gradient = (np.empty(self.shape, np.float32) for _ in range(3))
        with self.oracle.capture() as printed:
            cost = self.oracle.a.oracle_region_forward(
                self.handle,
                _pointer(map),
                _pointer(rows),
                rows.shape[1] * rows.shape[2],
                ctypes.c_long(seen),
                int(train),
                _pointer(output),
                _pointer(delta),
                _pointer(gradient),
            )
        line = printed.text.strip()
        return RegionResult(output, delta, gradient, cost, line, region_figures(line))

    def boxes(self, w, h, netw, neth, thresh=0.5, hier=0.5, relative=True, nms=0.0, map=None):
        """get_region_detections of the last forward pass's first image -> Boxes. Once per forward pass (trees)."""
        total = self.shape[2] * self.shape[3] * self.n
        result = Boxes(
            np.empty((total, 4), np.float32),
            np.empty(total, np.float32),
            np.empty((total, self.classes), np.float32),
            np.empty(total, np.int32),
        )
        ints = _ints(map)
        arguments = (w, h, netw, neth, _f(thresh), _f(hier), _pointer(ints), int(relative), _f(nms))
        arrays = (result.boxes, result.objectness, result.prob, result.order)
        self.oracle.a.oracle_region_boxes(self.handle, *arguments, *(_pointer(array) for array in arrays))
        return result
