"""Darknet's update of the weights, in torch's optimisers.

Source: ``src/convolutional_layer.c, update_convolutional_layer``; ``src/convolutional_kernels.cu``,
``src/blas_kernels.cu, adam_update_gpu``; ``src/network.c, backward_network``.

Darknet sums gradients over the images of an update and divides by their number as it applies them. Its momentum buffer,
divided so, is torch's: v = momentum*v + gradient, weights -= rate*v.
"""

from __future__ import annotations

import torch
from torch import nn

from ..layers.base import ALEXEYAB
from ..layers.convolutional import Convolutional
from ..layers.net import ALEXEYAB_TRAINING
from ..network import Network

DECAYED = "weights"  # update_convolutional_layer: neither biases nor scales decay
# What the loaders of either do with images and truths.
OF_CLASSIFIERS = "mixup", "cutmix", "mosaic", "label_smooth_eps"
OF_DETECTORS = "mixup", "cutmix", "mosaic", "mosaic_bound", "blur", "gaussian_noise"


class Gradients:
    """All gradients of a network as views of one flat tensor, with ``extra`` numbers of the caller's behind them.

    One tensor is what several processes add up, in a few calls. Parameters that ``stopbackward`` cuts off have
    gradients of zero, so that the optimiser still moves them by decay and momentum, as Darknet does.
    """

    def __init__(self, network: Network, extra: int) -> None:
        freeze(network)
        parameters = list(network.parameters())
        total = sum(parameter.numel() for parameter in parameters)
        self.flat = torch.zeros(total + extra, device=parameters[0].device)
        self.sums, self.extra = self.flat[:total], self.flat[total:]
        offset = 0
        for parameter in parameters:
            # In the parameter's own memory format, for optimisers that take all tensors in one call.
            parameter.grad = self.flat.as_strided(parameter.size(), parameter.stride(), offset)
            offset += parameter.numel()

    def zero(self) -> None:
        self.flat.zero_()


def freeze(network: Network) -> None:
    """Cut off the layers up to the last one with ``stopbackward=1`` (``backward_network`` ends before it).

    In pjreddie's program their weights still decay, and their statistics move.

    Raises :class:`CfgError` where no layer is left to train, and for options whose training is not built.
    """
    for name in ALEXEYAB_TRAINING:
        option = network.cfg.net.find(name)
        if name in (OF_DETECTORS if network.detectors else OF_CLASSIFIERS):
            continue
        if option and network.program == ALEXEYAB and option.value != "0":
            raise network.cfg.net.error(
                f"training with {name} is not built here; expected no such line, to train without it", name
            )
    for layer in network.layers:
        if not layer.trained:
            raise layer.section.error(f"training with [{layer.type}] is not built here; expected no such section")
        for name in ("clip", "dont_update", "burnin_update", "train_only_bn", *layer.untrained):
            if getattr(layer.o, name):
                raise layer.section.error(f"training with {name} is not built here; expected no such line", name)
        if layer.o.onlyforward:
            raise layer.section.error(
                "training with onlyforward=1 is not built here: AlexeyAB's Darknet does not train the layer, "
                "pjreddie's does; expected no such line, or stopbackward=1, which trains no layer up to its own",
                "onlyforward",
            )
    stops = [layer.index for layer in network.layers if layer.o.stopbackward]
    last = max(stops, default=-1)
    for layer in network.layers[: last + 1]:
        layer.requires_grad_(False)
        # AlexeyAB's, as on a GPU (src/parser.c, parse_network_cfg_custom: train = 0; src/convolutional_kernels.cu,
        # forward_convolutional_layer_gpu): those before are as in detection, and the weights of the last one decay. On
        # a CPU his program crashes. What has no weights ([dropout]) works as ever.
        has_weights = next(layer.parameters(), None) is not None
        layer.frozen = network.program == ALEXEYAB and layer.index < last and has_weights
        layer.train(network.training)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        section = network.layers[last].section
        raise section.error("no layer with weights is left to train; expected one after the last stopbackward=1")


def make_optimizer(network: Network, scaled: bool = False) -> torch.optim.Optimizer:
    """The optimiser of the network's [net]; its rate is set before each update by :func:`set_rate`.

    ``scaled``: a :class:`torch.amp.GradScaler` takes its steps, and may leave one out.

    ``adam=1`` follows ``adam_update_gpu``, which decays biases and scales too. (Darknet without a GPU passes over it.)
    """
    net = network.net
    # Parameters by the learning_rate of their layer, and by whether they decay.
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for layer in (layer for layer in network.layers if not layer.frozen):
        for name, parameter in layer.named_parameters():
            groups.setdefault((layer.o.learning_rate, bool(net.adam) or name.split(".")[-1] == DECAYED), []).append(
                parameter
            )
    parameters = [
        {"params": tensors, "scale": scale, "weight_decay": net.decay if decayed else 0.0}
        for (scale, decayed), tensors in groups.items()
    ]
    # On a CPU one pass over the numbers takes a quarter of the time of torch's usual way. Where the scaler leaves out
    # the first step, torch 2.13 goes on from momentum in memory that nobody has filled.
    on_cpu = all(one.device.type == "cpu" for tensors in groups.values() for one in tensors)
    fused = True if on_cpu and not scaled else None
    if net.adam:
        adam = [{**group, "summed": net.eps} for group in parameters]
        return torch.optim.Adam(adam, lr=0.0, betas=(net.B1, net.B2), fused=fused)
    return torch.optim.SGD(parameters, lr=0.0, momentum=net.momentum, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float, images: int) -> None:
    """Set the rate of the next update, of so many ``images``; a layer's ``learning_rate`` scales it.

    Darknet's adam works on gradients that are summed over the update: so its ``eps`` is divided by the images here.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
        if "summed" in group:
            group["eps"] = group["summed"] / images


def change_images(optimizer: torch.optim.Optimizer, before: int, after: int) -> None:
    """What is left of earlier updates, for an update of ``after`` images where there were ``before``.

    Darknet keeps sums over images, which it divides by those of the update that applies them.
    """
    ratio = before / after
    for state in optimizer.state.values():
        for name, power in (("momentum_buffer", 1), ("exp_avg", 1), ("exp_avg_sq", 2)):
            if name in state:
                state[name].mul_(ratio**power)


@torch.no_grad()
def clip_weights(network: Network) -> None:
    """``clip`` in [net]: no weight of a convolution leaves -clip..clip (``constrain_gpu`` after each update).

    Darknet without a GPU passes over it.
    """
    clip = network.net.clip
    if clip:
        for layer in network.layers:
            if isinstance(layer, Convolutional):
                layer.weights.clamp_(-clip, clip)
