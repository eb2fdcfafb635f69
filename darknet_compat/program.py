"""Which of the two Darknets a network follows: pjreddie's program, or AlexeyAB's.

Both read the same .cfg and do different things with it. Where they differ, the difference stands in the layer's or the
job's own file; here is how a cfg says which of them is meant.
"""

from __future__ import annotations

from .cfg import Cfg, Option, Section
from .layers import TYPES
from .layers.activation import ALEXEYAB_ACTIVATIONS
from .layers.base import ALEXEYAB, PJREDDIE, PROGRAMS
from .layers.net import ALEXEYAB_OPTIONS, ALEXEYAB_POLICY, OPTIONS, PJREDDIE_OPTIONS

__all__ = ["ALEXEYAB", "PJREDDIE", "PROGRAMS", "VERSIONS", "read_program"]

VERSIONS = {PJREDDIE: (0, 2, 0), ALEXEYAB: (0, 2, 5)}  # major, minor, revision in save_weights_upto


def read_program(cfg: Cfg) -> tuple[str, Section | Option | None]:
    """The program that a cfg is written for, and the first section or option that says so.

    A section, an option or an activation that only AlexeyAB's program knows means his. Without one it is pjreddie's,
    and None says that nothing decided.
    """
    his = ALEXEYAB_OPTIONS.keys() - OPTIONS.keys() - PJREDDIE_OPTIONS.keys()
    for option in cfg.net.options:
        if option.name in his or (option.name, option.value) == ("policy", ALEXEYAB_POLICY):
            return ALEXEYAB, option
    for section in cfg.layers:
        kind = TYPES.get(section.type)
        if kind is None:
            continue
        if kind.only == ALEXEYAB:
            return ALEXEYAB, section
        his = kind.options_of(ALEXEYAB).keys() - kind.options_of(PJREDDIE).keys()
        for option in section.options:
            if option.name in his or (option.name == "activation" and option.value in ALEXEYAB_ACTIVATIONS):
                return ALEXEYAB, option
    return PJREDDIE, None
