"""What the recurrent sections share: state, training through time, the table, fusing."""

from __future__ import annotations

import signal
import subprocess

import numpy as np
import pytest
import torch

from darknet_compat import load_network
from darknet_compat.cfg import parse_cfg
from darknet_compat.layers.recurrent import Recurrent
from darknet_compat.network import Network
from darknet_compat.train.optimizer import make_optimizer
from tests.compare import network_of, randomise
from tests.layers.recurrent_oracle import STREAMS, plain_steps, rows, text_of

SECTIONS = {
    "rnn": "[rnn]\noutput=6\nhidden=6\nactivation=tanh",
    "gru": "[gru]\noutput=6",
    "lstm": "[lstm]\noutput=6",
    "crnn": "[crnn]\noutput_filters=4\nhidden_filters=6\nactivation=tanh",
}
PARTS = {"rnn": 3, "gru": 6, "lstm": 8, "crnn": 3}


def made(text: str, **kwargs) -> Network:
    return randomise(Network(parse_cfg(text), **kwargs))


@pytest.fixture(params=SECTIONS)
def section(request) -> str:
    return SECTIONS[request.param]


def test_the_state_is_each_streams_own_and_starts_anew_where_asked(section):
    network = made(text_of(section))
    first, second = torch.from_numpy(rows(0, 2, network)), torch.from_numpy(rows(1, 2, network))
    with torch.no_grad():
        fresh = network(first)
        network(second)
        assert not torch.allclose(network(first), fresh, atol=1e-4)
        network.reset_state()
        torch.testing.assert_close(network(first), fresh)
        network(second)
        network.reset_state(1)
        again = network(first)
        torch.testing.assert_close(again[1], fresh[1])
        assert not torch.allclose(again[0], fresh[0], atol=1e-4)
        # Another number of streams is another run.
        torch.testing.assert_close(network(first[:1]), fresh[:1])


def test_the_state_is_in_no_file(section, tmp_path):
    network, cfg, weights = network_of(text_of(section), tmp_path)
    names = list(network.state_dict())
    with torch.inference_mode():
        network(torch.from_numpy(rows(0, 2, network)))
    assert list(network.state_dict()) == names
    count = sum(tensor.numel() for tensor in network.state_dict().values())
    assert weights.stat().st_size == 20 + 4 * count
    x = torch.from_numpy(rows(0, 2, network))
    with torch.inference_mode():
        assert torch.equal(load_network(cfg, weights, numerics="cpu")(x), made(text_of(section), numerics="cpu")(x))


@pytest.mark.parametrize("name", ["rnn", "rnn.train", "gru", "lstm.train", "crnn.train"])
def test_what_alexeyabs_program_cannot_build_runs(alexeyab, name):
    """His stock cfgs. parse_network_cfg divides by the number of layers with a map, and these have none."""
    cfg = alexeyab / f"cfg/{name}.cfg"
    if name == "gru":
        done = subprocess.run([alexeyab / "darknet", "rnn", "generate", cfg], capture_output=True, cwd=alexeyab)
        assert done.returncode == -signal.SIGFPE
    network = made(cfg.read_text(), program="alexeyab")
    with torch.inference_mode():
        assert network(torch.eye(256)[:3, :, None, None]).shape == (3, 256, 1, 1)


def test_rows_are_whole_steps(section):
    with pytest.raises(ValueError, match="a batch of 4 rows; expected a multiple of time_steps=3"):
        made(text_of(section, steps=3)).train()(torch.rand(4, 2, 4, 4))


def test_a_gradient_goes_through_all_steps_and_no_further(section):
    network = made(text_of(section, steps=3)).train()
    x = torch.rand(6, 2, 4, 4, requires_grad=True)
    with torch.inference_mode():
        network.eval()(x[::3])  # a state from inference does not stop training
    network.train()
    out = network(x)
    out[4].square().sum().backward()  # the last step of the first stream
    reached = x.grad.flatten(1).abs().amax(1) > 0
    assert reached.tolist() == [True, False, True, False, True, False]
    out = network(x)  # from the state of the call before, whose graph is gone
    out.square().sum().backward()


PLAIN = {
    "rnn": ("rnn", "output=3\nactivation=tanh", {}),
    "rnn-shortcut": ("rnn", "output=3\nactivation=tanh\nshortcut=1", {"shortcut": True}),
    "gru": ("gru", "output=3", {}),
    "gru-tanh": ("gru", "output=3\ntanh=1", {"tanh": True}),
    "lstm": ("lstm", "output=3", {}),
    "crnn": ("crnn", "output_filters=2\nhidden_filters=2\nactivation=tanh\nshortcut=1", {"shortcut": True}),
}


@pytest.mark.parametrize(
    ("name", "normalize"),
    [*((name, False) for name in PLAIN), ("rnn", True), ("gru", True), ("lstm", True), ("crnn", True)],
)
def test_gradients_are_autograds_of_plain_loops(name, normalize):
    """Of every number and every input, by three steps of four streams; the second of two calls goes on from a state."""
    kind, options, forms = PLAIN[name]
    text = f"[net]\nbatch=4\ntime_steps=3\nwidth=3\nheight=3\nchannels=2\n[{kind}]\n{options}"
    network = made(f"{text}\nbatch_normalize={int(normalize)}\n").train()
    layer = network.layers[0]
    weights = {key: tensor.detach().double().requires_grad_() for key, tensor in layer.named_parameters()}
    state = [[torch.zeros((), dtype=torch.float64)] * layer.state_shape().outputs for _ in range(4)]
    for call in range(2):
        x = torch.from_numpy(rows(call, 12, network)).requires_grad_()
        flat = x.detach().double().flatten(1).requires_grad_()
        steps = [[list(flat[4 * t + b]) for b in range(4)] for t in range(3)]
        if kind == "crnn":
            state = [[number * 0 for number in row] for row in state]
        expected, state = plain_steps(kind, weights, steps, state, normalize=normalize, **forms)
        state = [[number.detach() for number in row] for row in state]
        plain = torch.stack([torch.stack(row) for step in expected for row in step])
        found = network(x).flatten(1)
        torch.testing.assert_close(found.double(), plain, rtol=1e-5, atol=1e-5)

        delta = torch.from_numpy(np.random.default_rng(call).normal(size=plain.shape))
        for parameter in (*layer.parameters(), *weights.values()):
            parameter.grad = None
        (found * delta.float()).sum().backward()
        (plain * delta).sum().backward()
        pairs = [("x", x.grad.flatten(1), flat.grad)]
        pairs += [(key, tensor.grad, weights[key].grad) for key, tensor in layer.named_parameters()]
        for key, ours, theirs in pairs:
            assert theirs.abs().max() > 1e-3, key
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()), msg=key)


def test_training_goes_on_from_the_last_state():
    """The GPU's way for [rnn], [gru] and here [lstm]; every mini-batch of a [crnn] starts from zeros."""
    for name, section in SECTIONS.items():
        network, x = made(text_of(section, steps=2)), torch.rand(8, 2, 4, 4)
        with torch.no_grad():
            whole = torch.cat([network(part) for part in x.split(2)])
            network.reset_state()
            network.train()
            first, second = (network(part) for part in x.split(4))
            assert torch.equal(first, whole[:4])
            assert torch.equal(second, whole[4:]) == (name != "crnn")
            network.eval()
            if name == "crnn":
                assert torch.equal(network(x[:2]), whole[:2])
                assert bool(network.layers[1].state.any())
                assert torch.equal(network.train()(x[:4]), whole[:4]), "whatever inference has left"


TRUTH = np.random.default_rng(5).normal(size=(3 * STREAMS, 4)).astype(np.float32)


def backward(network: Network, x: np.ndarray) -> None:
    """The gradients behind delta = truth - output, by which a [cost] trains, but for their sign."""
    output = network.train()(torch.from_numpy(x)).flatten(1)
    (-(torch.from_numpy(TRUTH[: len(x)]) - output.detach()) * output).sum().backward()


@pytest.mark.parametrize(("name", "steps"), [("rnn", 3), ("crnn", 1)])
def test_an_update_is_alexeyabs(alexeyab_darknet, tmp_path, name, steps):
    """All weights after one update through the steps.

    With linear activations, as his CPU hands the input's sub-layer a delta that has passed the state's activation. A
    [crnn] by one step, as his convolutions overwrite what the next step has passed back (col2im_cpu_ext).
    """
    section = {
        "rnn": "[rnn]\noutput=6\nhidden=5\nactivation=linear",
        "crnn": "[crnn]\noutput=4\nhidden=6\npad=1\nactivation=linear",
    }[name]
    head = "momentum=0\ndecay=.01\nlearning_rate=.5\npolicy=constant"
    text = text_of(section, steps=steps, net=head).replace("[softmax]", "[cost]\ntype=sse")
    network, cfg, weights = network_of(text, tmp_path, 0, "gpu", "alexeyab")
    reference = alexeyab_darknet.load_network(cfg, weights)
    x = rows(0, steps * STREAMS, network)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    reference.train_step(x, TRUTH[: len(x)], update=True)
    reference.save_weights(tmp_path / "moved.weights")
    moved = load_network(cfg, tmp_path / "moved.weights", numerics="gpu", program="alexeyab").state_dict()

    optimizer = make_optimizer(network)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    backward(network, x)
    for parameter in network.parameters():
        parameter.grad /= len(x)
    optimizer.step()
    for key, tensor in network.state_dict().items():
        assert (tensor - before[key]).abs().max() > 1e-4, key
        torch.testing.assert_close(tensor, moved[key], rtol=1e-3, atol=1e-4, msg=key)


def test_what_a_crnn_passes_back_through_its_steps_is_pjreddies(darknet, tmp_path):
    """The gradient of the layer before it; linear, as the order of his backward pass is AlexeyAB's."""
    section = "[crnn]\noutput_filters=4\nhidden_filters=6\nactivation=linear"
    network, cfg, weights = network_of(text_of(section, steps=3).replace("[softmax]", "[cost]"), tmp_path)
    reference = darknet.load_network(cfg, weights)
    x = rows(0, 3 * STREAMS, network)
    reference.train_step(x, TRUTH, update=False)
    backward(network, x)
    gradient = network.layers[0].weights.grad.flatten()
    np.testing.assert_allclose(-gradient, reference.layer_tensor(0, "weight_updates"), rtol=1e-3, atol=1e-3)


def test_the_convolutions_of_pjreddies_crnn_never_learn(darknet, tmp_path):
    """make_convolutional_layer leaves their learning_rate_scale at 0; that of a section comes from its options."""
    text = text_of(SECTIONS["crnn"], steps=2, net="learning_rate=.5").replace("[softmax]", "[cost]")
    network, cfg, weights = network_of(text, tmp_path)
    reference = darknet.load_network(cfg, weights)
    reference.train_step(rows(0, 4, network), np.ones((4, 4), np.float32), update=True)
    reference.save_weights(tmp_path / "moved.weights")
    moved = load_network(cfg, tmp_path / "moved.weights").state_dict()
    same = {key for key, tensor in network.state_dict().items() if torch.equal(tensor, moved[key])}
    assert same == {key for key in moved if key.startswith("layers.1.")}


def test_batch_norm_in_training_is_per_step(darknet, tmp_path):
    """Outputs and running values of pjreddie's [gru], whose forward pass in training is sound on a CPU."""
    text = text_of("[gru]\noutput=6\nbatch_normalize=1", steps=3).replace("[softmax]", "[cost]")
    text = text.replace(f"batch={STREAMS}", "batch=4")
    network, cfg, weights = network_of(text, tmp_path)
    reference = darknet.load_network(cfg, weights)
    x = rows(0, 12, network)
    reference.train_step(x, np.zeros((12, 4), np.float32), update=False)
    found = network.train()(torch.from_numpy(x)).detach().flatten(1)
    np.testing.assert_allclose(found, reference.layer_output(2), rtol=1e-3, atol=1e-4)
    reference.save_weights(tmp_path / "moved.weights")
    moved = load_network(cfg, tmp_path / "moved.weights").state_dict()
    for key, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, moved[key], rtol=1e-4, atol=1e-6, msg=key)


def test_fused_sub_layers_give_the_same_values(section):
    network = made(text_of(section + "\nbatch_normalize=1"))
    fused = network.fuse()
    assert not any("scales" in key for key in fused.state_dict())
    with torch.inference_mode():
        for seed in range(5):
            x = torch.from_numpy(rows(seed, 2, network))
            torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-6)


def test_start_values_reach_every_sub_layer(section):
    network = Network(parse_cfg(text_of(section + "\nbatch_normalize=1"))).start()
    layer = network.layers[1]
    assert isinstance(layer, Recurrent)
    for key, tensor in layer.state_dict().items():
        expected = {"weights": None, "biases": 0, "scales": 1}.get(key.split(".")[1], 0)
        if expected is None:
            assert 0.1 < float(tensor.std()) < 1, key
        else:
            assert bool((tensor == expected).all()), key


def test_sub_layers_have_rows_of_their_own(section):
    network = Network(parse_cfg(text_of(section)))
    name = network.layers[1].type
    lines = network.table().splitlines()
    at = next(index for index, line in enumerate(lines) if line.lstrip().startswith("1 "))
    assert lines[at][6:].startswith(f"{name.upper()} Layer: ")
    assert f"{sum(tensor.numel() for _, tensor in network.layers[1].numbers()):,}" in lines[at]
    parts = lines[at + 1 : at + 1 + PARTS[name]]
    assert all(line.startswith("\t\tconv" if name == "crnn" else "\t\tconnected") for line in parts)
    assert lines[at + 1 + PARTS[name]].lstrip().startswith("2 ")
