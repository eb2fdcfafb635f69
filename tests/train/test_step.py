"""Whole updates against libdarknet's train_network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darknet_compat import load_network, read_cfg
from darknet_compat.cfg import parse_cfg
from darknet_compat.errors import CfgError, CfgWarning, LostProcessError, TrainingError
from darknet_compat.processes import Processes
from darknet_compat.train.step import Trainer, network_cost, strict
from darknet_compat.weights import save_weights
from tests.train.nets import batches, dropping, small


class Pair:
    """One cfg and the same start values here and in libdarknet; ``train`` feeds both the same batches."""

    def __init__(self, darknet, folder, cfg, seed=3):
        (folder / "small.cfg").write_text(cfg)
        torch.manual_seed(seed)
        self.ours = load_network(read_cfg(folder / "small.cfg"), numerics="cpu")
        save_weights(self.ours, folder / "start.weights")
        self.theirs = darknet.load_network(folder / "small.cfg", folder / "start.weights")
        self.trainer = Trainer(self.ours)
        self.costs = []

    def train(self, updates):
        for update in updates:
            theirs = [self.theirs.train_step(b.images.numpy(), b.truth.numpy()).cost for b in update]
            ours = self.trainer.update(update)
            self.costs.append(([float(f.cost) for [f] in ours.figures], theirs, ours))

    def tensors(self):
        for layer in self.ours.layers:
            for name, tensor in layer.numbers():
                theirs = self.theirs.layer_tensor(layer.index, name).reshape(tensor.shape)
                yield f"{layer.index} {name}", tensor.detach().numpy(), theirs

    def worst(self):
        """The greatest distance of a tensor from libdarknet's, in parts of its norm."""
        distances = {
            name: np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12)
            for name, ours, theirs in self.tensors()
        }
        # Not max() of the distances as they are, which may pass over NaN.
        return max((float(np.nan_to_num(distance, nan=np.inf)), name) for name, distance in distances.items())


def test_another_precision_is_refused():
    """torch would take its own choice for a name that it is not given."""
    with pytest.raises(ValueError, match="amp is 'fp8'; expected one of bf16, fp16, or None"):
        Trainer(load_network(parse_cfg(small())), amp="fp8")


def test_what_compressed_gradients_are_sent_as():
    assert Trainer(load_network(parse_cfg(small())), compress="bf16").sums.compress is torch.bfloat16
    assert Trainer(load_network(parse_cfg(small()))).sums.compress is None
    with pytest.raises(ValueError, match="compress is 'fp16'; expected one of bf16, or None"):
        Trainer(load_network(parse_cfg(small())), compress="fp16")


def test_what_cannot_be_trained_is_refused_with_its_line():
    """Of a network without a loss the last section's; of a schedule without a rate the option's."""
    head = "[net]\nwidth=4\nheight=4\nchannels=3\nbatch=2\nmax_batches=9\n"
    for text, line in (("[conv]\n[maxpool]\n[conv]\n[maxpool]\n", 10), ("[conv]\n", 7)):
        with pytest.raises(CfgError, match=rf"^<text>:{line}: .*no layer of the network has a loss; expected a head"):
            Trainer(load_network(parse_cfg(head + text)))
    with pytest.raises(CfgError, match="no policy is called `never`"):
        Trainer(load_network(parse_cfg(small("policy=never"))))


def test_the_cost_of_several_heads_is_their_mean():
    assert network_cost([SimpleNamespace(cost=cost) for cost in (1.0, 3.0, 8.0)]) == 4


def test_50_updates_are_darknets(darknet, tmp_path):
    """From nothing: warm-up, a step of the rate, momentum, decay, two subdivisions, the prior."""
    pair = Pair(darknet, tmp_path, small())
    pair.train(batches(1, 50))
    for ours, theirs, _ in pair.costs:
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert pair.ours.seen == pair.theirs.seen == 400
    assert pair.worst()[0] < 1e-3, pair.worst()
    assert pair.costs[-1][2].rate == pytest.approx(pair.theirs.current_rate(), rel=1e-6)
    assert np.mean(pair.costs[-1][1]) < 0.7 * np.mean(pair.costs[0][1]), "the nets learnt nothing, so prove nothing"
    costs = np.array([(ours, theirs) for ours, theirs, _ in pair.costs])
    cost = (np.abs(costs[:, 0] - costs[:, 1]) / costs[:, 1]).max()
    print("worst tensor {:.2g} ({}), ".format(*pair.worst()) + f"worst cost {cost:.2g}")


def test_the_prior_ends_when_darknets_does(darknet, tmp_path):
    pair = Pair(darknet, tmp_path, small("burn_in=0"))
    pair.ours.seen = pair.theirs.seen = 12800 - 5 * 8 - 4  # so that it ends inside an update
    # Darknet updates where seen is a multiple of the batch; with this start it is to be told when.
    for update in batches(2, 10):
        theirs = [
            pair.theirs.train_step(b.images.numpy(), b.truth.numpy(), update=last).cost
            for b, last in zip(update, (False, True), strict=True)
        ]
        assert [float(f.cost) for [f] in pair.trainer.update(update).figures] == pytest.approx(theirs, rel=1e-3)
    assert pair.worst()[0] < 1e-3, pair.worst()


@pytest.mark.parametrize(
    "options",
    [
        dict(first="learning_rate=0", second="learning_rate=2.5"),
        dict(second="stopbackward=1"),
        dict(net="momentum=0.5\ndecay=0.02\nburn_in=0"),
        dict(net="batch=9\nsubdivisions=2\nburn_in=0"),
        dict(net="batch=4\nsubdivisions=2\ntime_steps=2\nburn_in=0"),
    ],
    ids=["learning_rate per layer", "stopbackward", "momentum and decay", "batch not divided", "time_steps"],
)
def test_options_of_the_update_are_darknets(darknet, tmp_path, options):
    pair = Pair(darknet, tmp_path, small(**options))
    pair.train(batches(4, 6))
    assert pair.worst()[0] < 1e-4, pair.worst()
    assert pair.ours.seen == pair.theirs.seen == 48


def test_layers_that_stopbackward_cuts_off_decay_and_gather_statistics(darknet, tmp_path):
    pair = Pair(darknet, tmp_path, small("decay=0.1\nburn_in=0", second="stopbackward=1"))
    before = [parameter.detach().clone() for parameter in pair.ours.layers[2].parameters()]
    pair.train(batches(5, 4))
    weights, biases = before[:2]
    assert pair.ours.layers[2].weights.norm() < weights.norm()
    assert torch.nn.functional.cosine_similarity(pair.ours.layers[2].weights.flatten(), weights.flatten(), 0) > 0.9999
    assert torch.equal(pair.ours.layers[2].biases, biases)
    assert pair.ours.layers[0].rolling_variance.min() > 0
    assert pair.worst()[0] < 1e-4, pair.worst()


def test_stopbackward_on_the_last_layer_is_refused():
    cfg = small().replace("[region]", "[region]\nstopbackward=1")
    with pytest.raises(CfgError, match="no layer with weights is left to train"):
        Trainer(load_network(parse_cfg(cfg)))


def trained(updates, amp=None, fast=False, **options):
    torch.manual_seed(1)
    trainer = Trainer(load_network(parse_cfg(small(**options))), amp=amp, fast=fast)
    done = [trainer.update(update) for update in updates]
    return trainer, done


def test_average_loss_and_batch_number_are_train_detectors():
    trainer, done = trained(batches(6, 3))
    assert [update.batch for update in done] == [1, 2, 3]
    assert trainer.updates == 3
    average = -1.0
    for update in done:
        assert update.loss == pytest.approx(sum(float(f.cost) for [f] in update.figures) / 8)
        if average < 0:
            average = update.loss
        average = average * 0.9 + update.loss * 0.1
        assert update.avg == pytest.approx(average)


def test_an_update_is_due_after_its_subdivisions_whatever_was_seen_before():
    """Darknet updates where seen is a multiple of the batch, and so drifts after a start at another number."""
    torch.manual_seed(1)
    trainer = Trainer(load_network(parse_cfg(small("burn_in=0"))))
    trainer.network.seen = 5
    for update, seen in zip(batches(6, 3), (13, 21, 29), strict=True):
        before = trainer.network.layers[0].weights.detach().clone()
        assert trainer.update(update).seen == seen
        assert not torch.equal(trainer.network.layers[0].weights, before)
    with pytest.raises(ValueError, match="1 batches; expected one for each of 2 subdivisions"):
        trainer.update(batches(6, 1)[0][:1])


def test_every_update_clips():
    trainer, _ = trained(batches(6, 1), net="burn_in=0\nclip=0.01")
    assert max(float(layer.weights.detach().abs().max()) for layer in trainer.network.layers if layer.numbers()) <= 0.01


def test_policy_random_draws_anew_and_can_be_repeated():
    rates = [[update.rate for update in trained(batches(6, 4), net="policy=random\nburn_in=0")[1]] for _ in range(2)]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 4
    other = Trainer(load_network(parse_cfg(small("policy=random\nburn_in=0"))), seed=0)
    assert [other.update(update).rate for update in batches(6, 4)] == rates[0], "0 is the seed where none is given"


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_amp_trains_with_the_loss_in_float32(amp):
    _, exact = trained(batches(7, 3))
    trainer, done = trained(batches(7, 3), amp=amp)
    assert [update.loss for update in done] == pytest.approx([update.loss for update in exact], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in trainer.network.state_dict().values())


@pytest.mark.slow
def test_fast_changes_the_last_digits_only():
    _, exact = trained(batches(7, 3))
    for amp in (None, "bf16"):
        _, done = trained(batches(7, 3), amp=amp, fast=True)
        tolerance = 0.05 if amp else 1e-4
        assert [update.loss for update in done] == pytest.approx([update.loss for update in exact], rel=tolerance)
    strict()


def test_a_loss_that_is_not_finite_names_images_and_layer_and_spares_the_weights():
    trainer, _ = trained(batches(8, 1))
    update = batches(9, 1)[0]
    update[1] = update[1]._replace(paths=tuple(f"{i}.jpg" for i in range(8)))
    before = {name: tensor.clone() for name, tensor in trainer.network.named_parameters()}
    with torch.no_grad():
        trainer.network.layers[4].weights[3, 2, 1, 1] = torch.inf
        before["layers.4.weights"][3, 2, 1, 1] = torch.inf
    update[0].images.zero_()
    with pytest.raises(TrainingError) as caught:
        trainer.update(update)
    message = str(caught.value)
    assert message.startswith(
        "update 2: the loss of layer 11 [region] is not finite; layer 4 [convolutional] is the first whose output"
    )
    assert "\n" not in message
    for name, tensor in trainer.network.named_parameters():
        assert torch.equal(tensor, before[name]), name


def test_a_image_that_is_not_finite_is_named():
    trainer, _ = trained(batches(8, 1))
    update = batches(9, 1)[0]
    update[1] = update[1]._replace(paths=tuple(f"{i}.jpg" for i in range(4)))
    update[1].images[2, 0, 3, 3] = torch.nan
    with pytest.raises(TrainingError, match=r"layer 0 .* the images were 0.jpg, 1.jpg, 2.jpg, 3.jpg"):
        trainer.update(update)


def test_what_is_not_finite_is_found_in_memory_that_is_used_again():
    trainer, _ = trained(batches(8, 1))
    first, second = batches(9, 1)[0]
    first.images[2, 0, 3, 3] = torch.nan

    def loaded():
        yield first
        first.images.zero_()
        yield second

    with pytest.raises(TrainingError, match=r"layer 0 \[convolutional\] is the first"):
        trainer.update(loaded())


def test_the_loss_of_another_process_that_is_not_finite():
    class Beside(Processes):
        def all_reduce(self, tensor):
            if len(tensor) == 2:
                tensor[0] += torch.nan
            return lambda: None

    trainer = Trainer(load_network(parse_cfg(small())), Beside(torch.device("cpu"), 0, 2))
    with pytest.raises(TrainingError, match=r"^update 2: the loss of another process is not finite$"):
        trainer.update(batches(9, 1)[0])


@pytest.mark.parametrize("world", [1, 2])
def test_gradients_whose_sum_is_not_finite(world):
    trainer = Trainer(load_network(parse_cfg(small())), Beside(torch.device("cpu"), 0, world))
    biases = trainer.network.layers[2].biases
    biases.register_hook(lambda gradient: torch.full_like(gradient, torch.finfo().max / 4))
    before = biases.detach().clone()
    with pytest.raises(TrainingError, match=r"^update \d: each loss and gradient is finite, but not their sum;"):
        trainer.update(batches(9, 1)[0])
    assert torch.equal(biases, before)


def test_a_truth_that_is_not_finite_is_no_layers_fault():
    trainer, _ = trained(batches(8, 1))
    update = batches(9, 1)[0]
    update[1].truth[0, 0] = torch.tensor([0.5, 0.5, torch.nan, 0.5, 1])
    with pytest.raises(
        TrainingError,
        match=r"loss of layer 11 \[region\] is not finite; every .* so the truth or the head's own sums are not",
    ):
        trainer.update(update)


class Beside(Processes):
    """Of two processes the one that is here. The other gives up so many updates, and its batches are all zeros."""

    gives_up = 0

    def all_reduce(self, tensor):
        if len(tensor) == 2:
            tensor[1] += type(self).gives_up
        return lambda: None


def test_an_update_that_is_broken_off_or_given_up_leaves_nothing_behind(monkeypatch):
    trainer, straight = (
        Trainer(load_network(parse_cfg(small())), Beside(torch.device("cpu"), 0, 2), seed=4) for _ in range(2)
    )
    straight.network.load_state_dict(trainer.network.state_dict())
    first, second = batches(3, 2)

    def breaking():
        yield second[0]
        raise KeyboardInterrupt

    for one in (trainer, straight):
        assert one.update(first).batch == 2
    with pytest.raises(KeyboardInterrupt):
        trainer.update(breaking())
    trainer.give_up()
    assert trainer.gradients.extra.tolist() == [0, 1]
    monkeypatch.setattr(Beside, "gives_up", 1)
    assert trainer.update(second) is None
    monkeypatch.undo()
    for _ in range(2):
        assert (trainer.network.seen, trainer.images, trainer.avg) == (
            straight.network.seen,
            straight.images,
            straight.avg,
        )
        for (name, ours), theirs in zip(
            trainer.network.state_dict().items(), straight.network.state_dict().values(), strict=True
        ):
            assert torch.equal(ours, theirs), name
        assert trainer.update(second).loss == straight.update(second).loss


def test_an_update_that_is_broken_off_leaves_the_state_of_recurrent_layers():
    """Of the first update, too, before which there is none."""
    text = small().partition("[region]")
    recurrent = "[rnn]\noutput=7\nactivation=tanh\n[region]\nanchors=1,1\nnum=1\nclasses=2\n"
    trainer = Trainer(load_network(parse_cfg(text[0] + recurrent)))
    layer = trainer.network.layers[-2]

    def breaking(update):
        yield update[0]
        raise KeyboardInterrupt

    first, second = batches(2, 2)
    with pytest.raises(KeyboardInterrupt):
        trainer.update(breaking(first))
    assert not layer.state.any()
    trainer.update(first)
    before = layer.state.clone()
    assert before.any()
    with pytest.raises(KeyboardInterrupt):
        trainer.update(breaking(second))
    assert torch.equal(layer.state, before)


def test_an_update_that_a_lost_process_ends_leaves_nothing_behind():
    class Left(Processes):
        def all_reduce(self, tensor):
            raise LostProcessError("another process of this training has ended")

    trainer = Trainer(load_network(parse_cfg(small())), Left(torch.device("cpu"), 0, 2))
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    with pytest.raises(LostProcessError):
        trainer.update(batches(3, 1)[0])
    assert (trainer.network.seen, trainer.images, trainer.updates) == (0, 0, 0)
    for name, tensor in trainer.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trainer.give_up()  # nobody is there to hear it


def test_two_processes_train_at_twice_the_rate_on_twice_the_images():
    """train_networks: learning_rate times the number of GPUs; the loss is the cost by all images."""
    update = batches(3, 1)[0]
    done = []
    for world in (1, 2):
        torch.manual_seed(1)
        trainer = Trainer(load_network(parse_cfg(small("burn_in=0"))), Beside(torch.device("cpu"), 0, world))
        done.append(trainer.update(update))
        assert (trainer.images, done[-1].seen, done[-1].batch) == (8 * world, 8 * world, world)
    assert [one.rate for one in done] == pytest.approx([0.002, 0.004])
    assert done[1].loss == pytest.approx(done[0].loss / 2)


def test_the_eps_of_adam_is_divided_by_the_images_of_an_update():
    """Darknet's adam works on sums over these (optimizer.py, set_rate)."""
    trainer = Trainer(load_network(parse_cfg(small("adam=1\neps=.002"))))
    update = batches(3, 1)[0]
    trainer.update(update)
    assert {group["eps"] for group in trainer.optimizer.param_groups} == {
        0.002 / sum(len(one.images) for one in update)
    }


# fp16 is slow on a CPU: a single mini-batch of two.
QUICK, QUICK_BATCHES = "batch=2\nsubdivisions=1", {"subdivisions": 1, "count": 2}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("amp", "number"), [(None, 1), ("bf16", 1), ("fp16", 17)])
def test_a_gradient_that_is_not_finite_names_its_layer_and_spares_the_weights(amp, number, bad):
    """fp16 scales the loss by 2^16 at first, and halves that in every update that it spoils, down to 1."""
    trainer, _ = trained([], amp=amp, net=QUICK)
    layer = trainer.network.layers[2]
    layer.scales.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(1), bad))
    before = {name: tensor.clone() for name, tensor in trainer.network.named_parameters()}
    update = batches(9, 1, **QUICK_BATCHES)[0]
    for _ in range(number - 1):
        trainer.update(update)
    with pytest.raises(TrainingError) as caught:
        trainer.update(update)
    message = str(caught.value)
    assert message.startswith(f"update {number}: the gradient of the scales of layer 2 [convolutional] is not finite")
    assert ("-amp fp16 no longer scales the loss up" in message) == (amp == "fp16")
    for name, tensor in trainer.network.named_parameters():
        assert torch.equal(tensor, before[name]), name


def test_a_scale_that_is_too_large_for_fp16_is_found_and_left():
    trainer, _ = trained([], amp="fp16", net=QUICK)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    asked = []
    get_scale = trainer.scaler.get_scale
    trainer.scaler.get_scale = lambda: asked.append(get_scale()) or asked[-1]
    before = trainer.network.layers[0].weights.clone()
    left_out = 0
    for update in batches(7, 16, **QUICK_BATCHES):
        trainer.update(update)
        left_out += torch.equal(trainer.network.layers[0].weights, before)
    assert asked == [2.0 ** (24 - i) for i in range(left_out)], "asked where an update is left out, and only there"
    assert 3 < left_out < 13
    assert trainer.scaler.get_scale() > 1


def test_each_process_draws_its_own_dropout_and_can_draw_it_again():
    update = batches(6, 1, **QUICK_BATCHES)[0]

    def drawing():
        for batch in update:
            torch.rand(1)
            yield batch

    def losses(rank=0, seed=0, take=lambda: update):
        """Of updates that change no weight: what differs is what was dropped."""
        torch.manual_seed(1)
        network = load_network(parse_cfg(dropping(f"{QUICK}\nlearning_rate=0")))
        trainer = Trainer(network, Processes(torch.device("cpu"), rank), seed=seed)
        return [trainer.update(take()).loss for _ in range(3)]

    assert len(set(losses())) == 3
    assert losses() == losses() == losses(take=drawing)
    assert not set(losses()) & {*losses(rank=1), *losses(seed=1)}


def test_each_mini_batch_draws_its_own_dropout():
    torch.manual_seed(1)
    trainer = Trainer(load_network(parse_cfg(dropping("batch=4\nsubdivisions=2"))))
    mini_batch = batches(6, 1, subdivisions=1, count=2)[0]
    [one], [other] = trainer.update(mini_batch * 2).figures
    assert one.cost != other.cost


def test_strict_sets_every_switch():
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = True, True, False, True
    strict()
    assert (cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark) == (False, False, True, False)


def test_fast_sets_every_switch_and_compiles_nothing_on_a_cpu(monkeypatch):
    def compile(*_):
        pytest.fail("compiled")

    monkeypatch.setattr(torch, "compile", compile)
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    strict()
    network = load_network(parse_cfg(small()))
    try:
        Trainer(network, fast=True)
        assert (cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark) == (True, True, False, True)
    finally:
        strict()
    assert network.layers[2].weights.is_contiguous(memory_format=torch.channels_last)
    assert not network.layers[2].weights.is_contiguous()


def test_nothing_is_fast_unless_asked_for():
    strict()
    network = load_network(parse_cfg(small()))
    trainer = Trainer(network)
    assert trainer.losses == trainer._losses
    assert network.layers[2].weights.is_contiguous()
    assert not torch.backends.cudnn.benchmark


def test_onlyforward_is_refused_where_it_would_train_something_else():
    cfg = parse_cfg(small(second="onlyforward=1"))
    with pytest.warns(CfgWarning, match=r"onlyforward=1: onlyforward has no effect on detection"):
        network = load_network(cfg)
    with pytest.raises(CfgError, match="onlyforward=1 is not built"):
        Trainer(network)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (small(net="contrastive=1"), "contrastive=1: training with contrastive is not built here"),
        (
            small(net="flip=1", second="train_only_bn=1"),
            "train_only_bn=1: training with train_only_bn is not built here",
        ),
    ],
)
def test_what_alexeyabs_program_trains_by_is_refused_where_it_is_not_built(text, message):
    network = load_network(parse_cfg(text))
    with pytest.raises(CfgError, match=message):
        Trainer(network)
    Trainer(load_network(parse_cfg(small(net="contrastive=0"))))
