"""``-fast``: how many programs torch.compile makes, and that they give what the layers and losses give one by one."""

from __future__ import annotations

import contextlib
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg, read_cfg
from darknet_compat.errors import CfgError, TrainingError
from darknet_compat.network import Network
from darknet_compat.train import fast as module
from darknet_compat.train.batch import Batch
from darknet_compat.train.fast import compiled, speed_up
from darknet_compat.train.loop import Sizes
from darknet_compat.train.schedule import CLASSIFICATION, DETECTION
from darknet_compat.train.step import Trainer, strict
from tests.conftest import ROOT
from tests.layers.head_cases import text as head_text
from tests.train import classes, nets
from tests.waits import ON

CFGS = sorted(path.stem for path in (ROOT / "cfg").glob("*.cfg"))


def quick_and_slow(quick, *slow):
    """The slow ones take more than ten seconds each to trace."""
    return [*quick, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


class Compiler:
    """In the place of torch.compile's code generator: what it is given runs as it is, and is counted.

    With ``graphs`` the outputs of a program lie where those of its last call lay, as those of a CUDA graph do.
    """

    def __init__(self, graphs=False):
        self.graphs = graphs
        self.forward = self.backward = 0
        self.options = []

    def compile(self, function, **options):
        self.options.append(options)
        backend = aot_autograd(fw_compiler=self._forward, bw_compiler=self._backward)
        more = {name: value for name, value in options.items() if name != "options"}  # which are the generator's
        return torch_compile(function, backend=backend, **more)

    def _forward(self, module, inputs):
        self.forward += 1
        return self._made(module)

    def _backward(self, module, inputs):
        self.backward += 1
        return self._made(module)

    def _made(self, module):
        kept = []

        def run(*inputs):
            outputs = list(module.forward(*inputs))
            if not self.graphs:
                return outputs
            new = [torch.empty_like(one) if isinstance(one, torch.Tensor) else one for one in outputs]
            kept[:] = kept or new
            for place, one in zip(kept, outputs, strict=True):
                if isinstance(one, torch.Tensor):
                    place.copy_(one.detach())
            return list(kept)

        return make_boxed_func(run)


torch_compile = torch.compile


@pytest.fixture
def compiler(monkeypatch):
    torch._dynamo.reset()
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made.compile)
    yield made
    torch._dynamo.reset()


def options(graph=False, sizes=False):
    """Of torch.compile."""
    return {
        "fullgraph": True,
        "options": {"triton.cudagraphs": graph, "force_layout_optimization": sizes},
    }


def fast(trainer):
    """As on a GPU."""
    trainer.losses = compiled(trainer.network, trainer._losses)
    return trainer


@pytest.fixture
def meta(monkeypatch):
    """The meta device has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def on_meta(cfg, random, program=None):
    """A network in training whose images change their size, or do not."""
    network = Network(cfg, device=ON, program=program).to(ON)
    vars(network.net).update(max_batches=99, random=random)
    for head in network.detectors:
        head.o.random = random
    return network


def stock(name, random):
    return on_meta(read_cfg(ROOT / f"cfg/{name}.cfg"), random)


def run(trainer, size, count):
    """Run and differentiate a mini-batch of that size."""
    network = trainer.network
    network.resize(*size)
    head = network.heads[0]
    truth = torch.empty(count, *((30, 5) if head.finds_boxes else (head.input.outputs,)), device=ON)
    network.seen += count
    loss, logged = trainer.losses(torch.empty(count, *network.input, device=ON), truth, network.seen)
    assert logged.shape == (1 + sum(len(head.Figures._fields) for head in network.heads),)
    loss.backward()


def one_program_for(trainer, sizes, compiler, count=2):
    """Twice over all sizes; the second time nothing may be compiled."""
    for size in sizes:
        run(trainer, size, count)
    assert (compiler.forward, compiler.backward) == (1, 1)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in sizes:
            run(trainer, size, count)
    assert (compiler.forward, compiler.backward) == (1, 1)
    assert compiler.options == [options(sizes=True)]


# A convolution and a head.
OF_HEADS = {
    "region": head_text("softmax=1", mask="", section="region"),
    "yolo": head_text("truth_thresh=.7"),
    "yolo of alexeyab": head_text("iou_loss=ciou\niou_thresh=.2"),
    "Gaussian_yolo": head_text("iou_loss=ciou", planes=9, section="Gaussian_yolo"),
}


def of_head(name):
    program = "pjreddie" if name in ("region", "yolo") else "alexeyab"
    cfg = parse_cfg(OF_HEADS[name].replace("[net]", "[net]\nlearning_rate=.001\npolicy=constant"))
    return on_meta(cfg, 1.0, program=program)


SLOW_HEADS = "yolo of alexeyab", "Gaussian_yolo"


@pytest.mark.parametrize("name", quick_and_slow(("region",), "yolo", *SLOW_HEADS))
def test_ten_sizes_are_one_program(compiler, meta, name):
    """Which torch.compile would make eight of, and then none."""
    one_program_for(fast(Trainer(of_head(name))), [(side, side) for side in range(10, 20)], compiler)


def test_a_classifiers_sizes_are_one_program(compiler, meta):
    trainer = fast(Trainer(on_meta(parse_cfg(classes.classifier()), 1.0)))
    one_program_for(trainer, [(side, side) for side in CLASSIFICATION.sizes], compiler)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["yolov2-voc", "yolov2-tiny-voc", "yolov3", "yolov3-spp", "yolov3-tiny", "yolov4", "yolov4-csp", "yolov4-tiny",
     "yolov7-tiny", "resnet18-yolov2-voc"],
)  # fmt: skip
def test_the_sizes_of_a_stock_network_are_one_program(compiler, meta, name):
    trainer = fast(Trainer(stock(name, 1.0)))
    assert Sizes(trainer).drawn
    one_program_for(trainer, [(side, side) for side in DETECTION.sizes], compiler)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler (g++)")
def test_sizes_are_one_program_for_torchs_own_code_generator_too():
    """Of the CPU, which has the same rule for a convolution's gradient."""
    text = (
        "[net]\nbatch=2\nwidth=8\nheight=8\nchannels=3\nlearning_rate=.1\npolicy=constant\nmax_batches=9\n"
        "[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
        "[convolutional]\nfilters=3\nsize=3\npad=1\nactivation=linear\n[avgpool]\n[softmax]\n"
    )
    torch._dynamo.reset()
    found = []
    for compiles in (False, True):
        torch.manual_seed(1)
        network = load_network(parse_cfg(text)).to(memory_format=torch.channels_last)
        network.net.random = 1
        trainer = Trainer(network)
        losses = compiled(network, trainer._losses) if compiles else trainer._losses
        torch._dynamo.utils.counters.clear()
        for side in (8, 12, 20):
            network.resize(side, side)
            images = torch.rand(2, 3, side, side).contiguous(memory_format=torch.channels_last)
            loss, _ = losses(images, torch.eye(3)[[2, 0]], 0)
            loss.backward()
            found.append([loss.item(), *(parameter.grad.norm().item() for parameter in network.parameters())])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(torch.tensor(found[3:]), torch.tensor(found[:3]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["region", *SLOW_HEADS])
def test_other_sides_and_counts_are_the_same_program(compiler, meta, name):
    """AlexeyAB's program: images that are not square, and with dynamic_minibatch more of the small ones. The first has
    as many images as there are classes, and as many columns as filters."""
    network = of_head(name)
    trainer = fast(Trainer(network))
    filters = network.layers[0].o.filters
    for size, count in (((filters, 12), 3), ((10, 16), 2), ((13, 13), 7), ((18, 14), 4)):
        run(trainer, size, count)
    assert (compiler.forward, compiler.backward) == (1, 1)


@pytest.mark.parametrize("name", quick_and_slow(["yolov2-tiny-voc"], *sorted({*CFGS} - {"yolov2-tiny-voc"})))
def test_one_size_is_one_program_and_a_cuda_graph(compiler, meta, name):
    network = stock(name, 0)
    trainer = fast(Trainer(network))
    recurrent = name.startswith("char-")
    # A recurrent layer has no state before its first call.
    programs = 2 if recurrent else 1
    for _ in range(3):
        run(trainer, (network.width, network.height), 2 * network.net.time_steps)
    assert (compiler.forward, compiler.backward) == (programs, programs)
    assert compiler.options == [options(graph=not recurrent)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_compiled_on_a_gpu_alone_and_images_lie_channels_last(monkeypatch, device):
    network = SimpleNamespace(device=torch.device(device), to=lambda **_: None)
    given, programs = [], []
    monkeypatch.setattr(module, "compiled", lambda *both: programs.append(both) or both[1])

    def losses(*batch):
        given.extend(batch)

    batch = torch.rand(2, 3, 4, 5), torch.rand(2, 1), 7
    try:
        speed_up(network, losses)(*batch)
    finally:
        strict()
    assert programs == [(network, losses)] * (device == "cuda")
    assert given[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given[0], batch[0])
    assert tuple(given[1:]) == batch[1:]


def test_a_cuda_graph_begins_anew_with_each_call(monkeypatch):
    """torch is told so: what the last call gave may be written over."""
    order = []

    def compile(function, **_):
        return lambda *batch: order.append("run") or function(*batch)

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: order.append("begin"))
    (update,) = nets.batches(7, 1, count=2)
    fast(Trainer(load_network(parse_cfg(nets.of_heads("region"))))).update(update)
    assert order == ["begin", "run"] * 2


# --- what it gives


def both(text, batches, sizes=None, **options):
    """Updates and tensors of a network, one by one and compiled."""
    found = []
    for compiles in (False, True):
        torch.manual_seed(1)
        trainer = Trainer(load_network(parse_cfg(text)), **options)
        if compiles:
            fast(trainer)
        updates = []
        for number, batch in enumerate(batches):
            if sizes:
                trainer.network.resize(*sizes[number])
            updates.append(trainer.update(batch))
        found.append((updates, trainer.network.state_dict()))
    return found


def assert_alike(found, tensors=1e-6, figures=1e-5):
    (updates, state), (ours, our_state) = found
    for name, tensor in state.items():
        assert (our_state[name] - tensor).norm() <= tensors * tensor.norm(), name
    for one, other in zip(updates, ours, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=figures)
        for heads, other_heads in zip(one.figures, other.figures, strict=True):
            for head, other_head in zip(heads, other_heads, strict=True):
                assert type(head) is type(other_head)
                assert other_head == pytest.approx(head, rel=figures, nan_ok=True)


QUICK = "region", "region of alexeyab", "yolo", "detection"


@pytest.mark.parametrize("name", quick_and_slow(QUICK, *(name for name in nets.HEADS if name not in QUICK)))
def test_it_trains_as_without(compiler, name):
    """With a CUDA graph's outputs, which the next call writes over: of three updates of two mini-batches each."""
    compiler.graphs = True
    text = nets.of_heads(name, drawn=False)
    assert_alike(both(text, nets.batches(7, 3, count=2)))
    assert compiler.forward == 1


def test_a_classifier_trains_as_without(compiler):
    compiler.graphs = True
    assert_alike(both(classes.classifier(), classes.batches(7, 3)))


def test_a_recurrent_layer_trains_as_without(compiler):
    """Its state goes on from call to call. It has none before the first, so that there are two programs."""
    text = (
        "[net]\nbatch=2\nsubdivisions=2\ntime_steps=4\nwidth=1\nheight=1\nchannels=12\nlearning_rate=.1\n"
        "policy=constant\nmax_batches=9\n[rnn]\noutput=7\nactivation=tanh\n[connected]\noutput=5\n[softmax]\n"
    )
    torch.manual_seed(2)
    made = [[Batch(torch.rand(4, 12, 1, 1), torch.eye(5)[[0, 1, 4, 2]]) for _ in range(2)] for _ in range(3)]
    assert_alike(both(text, made))
    assert compiler.forward == 2
    assert compiler.options == [options()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["region", "yolo of alexeyab"])
def test_many_sizes_train_as_without(compiler, name):
    sizes = [(32, 32), (64, 96), (96, 64), (32, 32), (128, 128)]
    batches = [
        [batch._replace(images=batch.images[:, :, :h, :w]) for batch in update]
        for (w, h), update in zip(sizes, nets.batches(7, len(sizes), count=2, size=128), strict=True)
    ]
    assert_alike(both(nets.of_heads(name, random=1), batches, sizes))
    assert compiler.forward == 1


@pytest.mark.parametrize("name", quick_and_slow(("region",), "yolo of alexeyab"))
def test_half_precision_trains_as_without(compiler, name):
    compiler.graphs = True
    assert_alike(both(nets.of_heads(name), nets.batches(7, 3, count=2), amp="bf16"), 1e-2, 1e-2)


def test_the_count_of_images_is_a_variable(compiler):
    """Up to 12800 of them boxes without a truth learn their anchors (region_layer.c)."""
    ((batch, *_),) = nets.batches(7, 1, count=2)
    trainer = fast(Trainer(load_network(parse_cfg(nets.of_heads("region")))))
    costs = []
    for seen in (0, 100_000):
        expected, _ = trainer._losses(batch.images, batch.truth, seen)
        found, _ = trainer.losses(batch.images, batch.truth, seen)
        costs.append(expected.item())
        assert found.item() == pytest.approx(costs[-1], rel=1e-6)
    assert compiler.forward == 1
    assert costs[0] > 1.0001 * costs[1]


def test_each_gradient_is_told_once_per_mini_batch(compiler):
    """Which several processes wait for, to sum it (distributed.py)."""
    trainer = Trainer(load_network(parse_cfg(nets.of_heads("region"))))
    told = []
    for name, parameter in trainer.network.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: told.append(name))
    fast(trainer)
    (update,) = nets.batches(7, 1, count=2)
    trainer.update(update)
    assert sorted(told) == sorted(2 * [name for name, _ in trainer.network.named_parameters()])


# --- what goes wrong


def test_a_network_that_cannot_be_one_program_is_one_line(compiler):
    """[crop] draws numbers on the host."""
    (batch,) = nets.batches(7, 1, count=2)
    trainer = fast(Trainer(load_network(parse_cfg(nets.of_heads("detection")))))
    with pytest.raises(TrainingError, match=r"^-fast: torch\.compile cannot compile the network: .*; train without"):
        trainer.update(batch)


def test_what_is_wrong_with_the_network_is_said_as_ever(compiler):
    (batch,) = nets.batches(7, 1, subdivisions=1, count=1, size=8)
    trainer = fast(Trainer(load_network(parse_cfg(nets.small("batch=1\nsubdivisions=1")))))
    with pytest.raises(CfgError, match="one value per channel in training"):
        trainer.update(batch)


def test_the_true_gradient_is_refused_at_once(compiler):
    trainer = Trainer(load_network(parse_cfg(nets.of_heads("yolo of alexeyab"))), gradient="true")
    with pytest.raises(TrainingError, match="-fast and -gradient true exclude each other"):
        fast(trainer)


def test_a_ninth_training_in_one_process_is_compiled_too(compiler, meta):
    """Of one code torch.compile makes eight programs, and then none."""
    text = "[net]\nwidth=4\nheight=4\nchannels=3\nlearning_rate=.1\npolicy=constant\n[softmax]\n"
    for number in range(9):
        run(fast(Trainer(on_meta(parse_cfg(text.replace("[soft", "[connected]\noutput=2\n[soft")), 0))), (4, 4), 2)
        assert compiler.forward == number + 1
