"""One file per section type; importing this package makes all of them known."""

from importlib import import_module
from pkgutil import iter_modules

from .base import TYPES, Layer, Place, Shape, layer_type, register

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["TYPES", "Layer", "Place", "Shape", "layer_type", "register"]
