"""[net]: the image's size, and how training goes. Source: ``src/parser.c, parse_net_options``.

It makes no layer; it only says what all layers and the training share.
"""

from __future__ import annotations

from types import SimpleNamespace

from ..cfg import Section
from .base import PJREDDIE, Shape

# Both programs read these.
OPTIONS: dict[str, object] = {
    "batch": 1,
    "learning_rate": 0.001,
    "momentum": 0.9,
    "decay": 0.0001,
    "subdivisions": 1,
    "time_steps": 1,
    "adam": 0,
    "B1": 0.9,
    "B2": 0.999,
    "height": 0,
    "width": 0,
    "channels": 0,
    "inputs": int,
    "max_crop": int,
    "min_crop": int,
    "angle": 0.0,
    "aspect": 1.0,
    "saturation": 1.0,
    "exposure": 1.0,
    "hue": 0.0,
    "policy": "constant",
    "burn_in": 0,
    "power": 4.0,
    "step": 1,
    "scale": 1.0,
    "steps": [int],
    "scales": [float],
    "gamma": 1.0,
    "max_batches": 0,
}
# What follows is read by one of them, or with another default.
PJREDDIE_OPTIONS: dict[str, object] = {
    "notruth": 0,
    "random": 0,
    "eps": 0.0000001,
    "max_ratio": float,
    "min_ratio": float,
    "center": 0,
    "clip": 0.0,
}
# Training by these is not built here, and is refused, but for what loaders of images do (train/optimizer.py).
ALEXEYAB_TRAINING: dict[str, object] = {
    "mosaic": 0,
    "cutmix": 0,
    "mixup": 0,
    "mosaic_bound": 0,
    "blur": 0,
    "gaussian_noise": 0,
    "label_smooth_eps": 0.0,
    "contrastive": 0,
    "contrastive_jit_flip": 0,
    "contrastive_color": 0,
    "unsupervised": 0,
    "track": 0,
    "augment_speed": 2,
    "sequential_subdivisions": int,
    "seq_scales": [float],
    "equidistant_point": 0,
    "badlabels_rejection_percentage": 0.0,
    "num_sigmas_reject_badlabels": 0.0,
    "weights_reject_freq": 0,
    "adversarial_lr": 0.0,
    "attention": 0,
}
ALEXEYAB_OPTIONS: dict[str, object] = {
    "eps": 0.000001,
    "flip": 1,
    "letter_box": 0,
    "learning_rate_min": 0.00001,
    "sgdr_cycle": int,
    "sgdr_mult": 2,
    "ema_alpha": 0.0,
    "resize_step": 32.0,
    "dynamic_minibatch": 0,
    **ALEXEYAB_TRAINING,
    # These change no number of a network that works: memory, speed and the screen.
    "loss_scale": 1.0,
    "try_fix_nan": 0,
    "optimized_memory": 0,
    "workspace_size_limit_MB": 1024.0,
    "use_cuda_graph": 0,
    "max_chart_loss": 20.0,
    "show_receptive_field": 0.0,
}
ALEXEYAB_POLICY = "sgdr"  # the one that pjreddie's program lacks


def read_net(section: Section, program: str = PJREDDIE) -> tuple[SimpleNamespace, Shape]:
    """The options of [net] as a program reads them, and the shape of the network's input.

    ``mini_batch`` is images per forward pass of training: batch / subdivisions, times ``time_steps``.
    """
    mine, others = {**OPTIONS, **PJREDDIE_OPTIONS}, {**OPTIONS, **ALEXEYAB_OPTIONS}
    if program == PJREDDIE:
        o = section.read(mine, unread=others)
        o.letter_box = 1  # it always letterboxes
    else:
        o = section.read(others, unread=mine)
    o.program = program
    for name in ("batch", "subdivisions", "time_steps"):
        if getattr(o, name) < 1:
            raise section.error(f"{name} is {getattr(o, name)}; expected 1 or more", name)
    for name in ("height", "width", "channels"):
        if getattr(o, name) < 0:
            raise section.error(f"{name} is {getattr(o, name)}; expected 1 or more", name)
    o.mini_batch = o.batch // o.subdivisions * o.time_steps
    if o.height and o.width and o.channels:
        return o, Shape(o.channels, o.height, o.width)
    if o.inputs and o.inputs > 0:
        o.width = o.height = 1
        return o, Shape(o.inputs, 1, 1)
    raise section.error("[net] gives no input size; expected width, height and channels, or inputs")
