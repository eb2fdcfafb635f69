"""One update of a network: forward, loss, backward for each subdivision, then the optimiser.

Source: ``src/network.c, train_network, train_network_datum, update_network``. It takes batches as they are given, from
files or from memory; the whole training around it is in ``loop.py``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..device import numbers_like
from ..errors import LostProcessError, TrainingError
from ..layers.head import Head
from ..layers.recurrent import Recurrent
from ..network import Network
from ..processes import Processes
from .distributed import Sums
from .ema import Ema
from .fast import Losses, speed_up
from .optimizer import Gradients, change_images, clip_weights, make_optimizer, set_rate
from .schedule import batch_number, check_schedule, current_rate, draw, images_per_update

if TYPE_CHECKING:
    # Loading images needs OpenCV; training on what is in memory does not.
    from .batch import Batch

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
COMPRESS = {"bf16": torch.bfloat16}  # fp16 would need the loss scaled
AVERAGE = 0.9  # train_detector: avg_loss*.9 + loss*.1


@dataclass(frozen=True)
class Update:
    """What one update gave."""

    batch: int
    """Its number, as Darknet prints it: images seen / images per update."""
    seen: int
    loss: float
    """The cost per image, as train_network returns it."""
    avg: float
    rate: float
    figures: list[list[Any]]
    """Of each subdivision, those of each head (its ``Figures``), on the host."""


class Trainer:
    """A network in training, and all that goes on from one update to the next.

    ``amp`` ("bf16", "fp16") runs the layers before the head at half precision; the loss stays in float32. ``fast`` is
    what :func:`.fast.speed_up` says. ``gradient`` "true" trains by the derivatives of AlexeyAB's IOU losses, where his
    program and "darknet" have deltas of their own. ``seed`` is for what an update draws itself (``policy=random``,
    [dropout]): torch's random numbers start anew from the seed, the process and the mini-batch, so that a resumed
    training draws the same. ``compress`` ("bf16"): several processes send each other their gradients as such numbers,
    which are half as many bytes.

    Raises :class:`CfgError` where the cfg cannot be trained.
    """

    def __init__(
        self,
        network: Network,
        processes: Processes | None = None,
        *,
        amp: str | None = None,
        fast: bool = False,
        gradient: Literal["darknet", "true"] = "darknet",
        seed: int = 0,
        compress: str | None = None,
    ) -> None:
        if amp not in (None, *AMP):
            raise ValueError(f"amp is {amp!r}; expected one of {', '.join(AMP)}, or None")
        if compress not in (None, *COMPRESS):
            raise ValueError(f"compress is {compress!r}; expected one of {', '.join(COMPRESS)}, or None")
        self.network = network
        self.net = network.net
        check_schedule(self.net, network.cfg.net)
        if not network.heads:
            raise network.layers[-1].section.error(
                "no layer of the network has a loss; expected a head, such as [region] or [softmax]"
            )
        for head in network.heads:
            if type(head).loss is Head.loss:
                raise head.section.error(
                    f"the loss of [{head.type}] is not built here yet: the network detects, and cannot be trained"
                )
            head.gradient = gradient
        if gradient == "true" and not any(head.has_own_delta for head in network.heads):
            raise network.heads[-1].section.error(
                "-gradient true is for heads with an IOU loss of AlexeyAB's Darknet (iou_loss=ciou ...), and this "
                "network has none"
            )
        self.processes = processes or Processes(network.device)
        self.device = self.processes.device
        self.amp = amp
        self.seed = seed
        network.train().to(self.device)
        self.losses: Losses = speed_up(network, self._losses) if fast else self._losses
        # Behind the gradients: this update's cost, and how many processes give it up.
        self.gradients = Gradients(network, extra=2)
        sent = COMPRESS[compress] if compress else None
        self.sums = Sums(self.processes, list(network.parameters()), self.gradients.flat, sent)
        self.optimizer = make_optimizer(network, scaled=amp == "fp16")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp == "fp16")
        alpha = getattr(self.net, "ema_alpha", 0.0)  # AlexeyAB's [net] alone has it
        self.ema = Ema(network, alpha, self.net.max_batches) if alpha else None
        self.updates = 0
        self.images = 0
        """Images drawn for this training by all processes; ``network.seen`` may have started higher."""
        self.shown = 0
        """Images of the last update."""
        self.avg: float | None = None

    @property
    def batch(self) -> int:
        """``get_current_batch``: the number of the last update."""
        return batch_number(self.net, self.network.seen)

    @property
    def images_per_update(self) -> int:
        """Of all processes together, and as the schedule counts: ``dynamic_minibatch`` makes them more."""
        return images_per_update(self.net) * self.processes.world

    def update(self, batches: Iterable[Batch]) -> Update | None:
        """Train on ``subdivisions`` mini-batches, taken one by one, and update the weights.

        With several processes each brings its own batches, and None comes where one of them gave the update up
        (:meth:`give_up`). The host waits for the device once, before the optimiser; with ``amp`` "fp16" torch's scaler
        waits once more.

        Whatever exception ``batches`` or a signal's handler raises while they are taken, and where None comes, the
        trainer is as before the update, and can be saved.

        Raises :class:`TrainingError` where the cost or a gradient is not finite; the weights are then still those
        before the update. With ``amp`` "fp16" an update whose gradient is not finite is left out, and the next one's
        loss is scaled less; it is an error once the loss is no longer scaled up.
        """
        # All that a mini-batch changes but the gradients; the weights change in the optimiser's step alone.
        before = self.network.seen, {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        self.gradients.zero()
        taken: list[Batch] = []
        logged: list[Tensor] = []
        try:
            for batch in batches:
                # A copy: the loader may use a batch's memory again, and a loss that is not finite is looked into below.
                images = batch.images.to(self.device, copy=True, non_blocking=True)
                truth = batch.truth.to(self.device, copy=True, non_blocking=True)
                taken.append(batch._replace(images=images, truth=truth))
                # Here, since whatever loads the batches may have drawn torch's random numbers too.
                what = f"process {self.processes.rank} mini-batch {len(logged)}"
                torch.manual_seed(draw(self.seed, what, self.updates).getrandbits(63))
                if len(taken) == self.net.subdivisions:
                    self.sums.begin()
                logged.append(self._datum(taken[-1]))
        except BaseException:
            self._go_back(*before)
            raise
        if len(taken) != self.net.subdivisions:
            raise ValueError(f"{len(taken)} batches; expected one for each of {self.net.subdivisions} subdivisions")
        cost = torch.stack(logged)[:, 0].sum()
        self.gradients.extra.copy_(torch.stack([cost, torch.zeros_like(cost)]))
        try:
            self.sums.finish()
        except LostProcessError:
            self._go_back(*before)
            raise

        number = self.batch
        rate = current_rate(self.net, number, draw(self.seed, "rate", self.updates).random()) * self.processes.world
        # The one point where the host waits: all figures at once.
        last = [*self.gradients.extra, self.gradients.sums.sum()]
        values = torch.cat([*logged, torch.stack(last).double()]).cpu().tolist()
        cost, given_up, total = values[-3:]
        if given_up:
            self._go_back(*before)
            return None
        numbers = iter(values)
        figures = [self._figures(numbers) for _ in logged]
        if not math.isfinite(cost) or not (math.isfinite(total) or self._scaled_up()):
            raise TrainingError(self._diagnose(number, taken, figures))

        shown = self._images(taken[0])
        if self.updates and shown != self.shown:
            change_images(self.optimizer, self.shown, shown)
        self.shown = shown
        set_rate(self.optimizer, rate, shown)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        clip_weights(self.network)
        if self.ema:
            self.ema.update(number)
        self.updates += 1
        self.images += shown * self.processes.world
        loss = cost / (shown * self.processes.world)
        self.avg = loss if self.avg is None else AVERAGE * self.avg + (1 - AVERAGE) * loss
        return Update(number, self.network.seen, loss, self.avg, rate, figures)

    def give_up(self) -> None:
        """Take part in the sum that the other processes wait for with nothing but the word that no update comes of it.

        For a process that broke off its own mini-batches; it then goes on with none.
        """
        self.gradients.extra.copy_(numbers_like(self.gradients.extra, 0.0, 1.0))
        with contextlib.suppress(LostProcessError):
            self.sums.finish()

    def _recurrent(self) -> list[Recurrent]:
        """The layers that go on from one update to the next where they stood."""
        return [layer for layer in self.network.layers if isinstance(layer, Recurrent)]

    def _go_back(self, seen: int, buffers: dict[str, Tensor]) -> None:
        self.network.seen = seen
        self.network.reset_state()  # a state that this update was the first to have started from zeros
        for name, value in buffers.items():
            self.network.get_buffer(name).copy_(value)

    def _images(self, batch: Batch) -> int:
        """Those of an update of such mini-batches."""
        count: int = len(batch.images) * self.net.subdivisions
        return count

    def _datum(self, batch: Batch) -> Tensor:
        """``train_network_datum``, without the update; what :meth:`_losses` says is logged."""
        # Updates count alike, also those of more images by dynamic_minibatch, or resuming would not find its batch.
        self.network.seen += self.net.mini_batch * self.processes.world
        loss, logged = self.losses(batch.images, batch.truth, self.network.seen)
        self.scaler.scale(loss / (self._images(batch) * self.processes.world)).backward()
        return logged

    def _losses(self, images: Tensor, truth: Tensor, seen: int | Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a mini-batch; and float64 (k,) what is logged: its cost, and the figures of each head."""
        with self._autocast():
            maps = self.network.raw_maps(images)
        found = [head.loss(raw, truth, seen) for head, raw in zip(self.network.heads, maps, strict=True)]
        loss: Any = sum(one.loss for one in found)  # a tensor: there is a head
        figures = [one.figures for one in found]
        logged = [network_cost(figures), *chain.from_iterable(figures)]
        return loss, torch.stack([value.detach().double() for value in logged])

    def _figures(self, numbers: Iterator[float]) -> list[Any]:
        """The figures of each head, of the next numbers that :meth:`_losses` gave to be logged."""
        next(numbers)
        kinds: list[Any] = [head.Figures for head in self.network.heads]
        return [kind(*islice(numbers, len(kind._fields))) for kind in kinds]

    def _scaled_up(self) -> bool:
        """May the scale of the loss be why a gradient is not finite? Waits for the device, so ask only then.

        A scale too large for fp16 halves in every update that it spoils. At 1 the gradients are what they are: a NaN
        or an infinity is then no work of the scale, and a smaller one would spoil updates for ever.
        """
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, AMP[self.amp] if self.amp else None, enabled=self.amp is not None)

    def _diagnose(self, number: int, batches: Sequence[Batch], figures: Sequence[Sequence[Any]]) -> str:
        """Which batch, which heads and which layer first are not finite; the layers are run again for it."""
        bad = next((i for i, heads in enumerate(figures) if not math.isfinite(network_cost(heads))), None)
        if bad is None:
            return f"update {number}: {self._bad_gradient()}"
        heads = [
            f"layer {head.index} [{head.type}]"
            for head, one in zip(self.network.heads, figures[bad], strict=True)
            if not math.isfinite(one.cost)
        ]
        where = "every layer's output is finite, so the truth or the head's own sums are not"
        with torch.no_grad(), self._autocast():
            for layer, output in zip(self.network.layers, self.network.outputs(batches[bad].images), strict=True):
                if not output.isfinite().all():
                    where = f"layer {layer.index} [{layer.type}] is the first whose output is not finite"
                    break
        paths = batches[bad].paths
        named = f"; the images were {', '.join(paths)}" if paths else ""
        return (
            f"update {number}: the loss of {' and '.join(heads)} is not finite; {where}{named}; "
            "a lower learning_rate may help"
        )

    def _bad_gradient(self) -> str:
        for layer in reversed(self.network.layers):
            for name, parameter in layer.named_parameters():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    scaled = ", though -amp fp16 no longer scales the loss up" if self.scaler.is_enabled() else ""
                    return f"the gradient of the {name} of layer {layer.index} [{layer.type}] is not finite{scaled}"
        if self.processes.world > 1 and not self.gradients.extra[0].isfinite():
            return "the loss of another process is not finite"
        return "each loss and gradient is finite, but not their sum; a lower learning_rate may help"

    def state(self) -> dict[str, Any]:
        """All that goes on into the next update, for ``torch.save``."""
        return {
            "network": self.network.state_dict(),
            "streams": {layer.index: layer.state for layer in self._recurrent() if layer.state is not None},
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "means": self.ema.means if self.ema else [],
            "seen": self.network.seen,
            "updates": self.updates,
            "images": self.images,
            "shown": self.shown,
            "avg": self.avg,
            "seed": self.seed,
            "world": self.processes.world,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where :meth:`state` was taken, to the last bit on the same device."""
        self.network.load_state_dict(state["network"])
        for layer in self._recurrent():
            stream = state["streams"].get(layer.index)
            layer.state = None if stream is None else stream.to(self.device)
        # The groups' rates and decays are the cfg's, which may have been changed on purpose.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.means = [mean.to(self.device) for mean in state["means"]]
        self.network.seen = state["seen"]
        self.updates, self.images, self.shown = state["updates"], state["images"], state["shown"]
        self.avg = state["avg"]
        self.seed = state["seed"]


def network_cost(figures: Sequence[Any]) -> Any:
    """The cost of a mini-batch, of the figures of all heads: their mean (``src/network.c, calc_network_cost``)."""
    return sum(one.cost for one in figures) / len(figures)


def strict() -> None:
    """Float32 as it is written, and the same bits in every run: no TF32, no algorithms that add in any order."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
