"""[sam]: the layer before times an earlier map of the same shape. Source: AlexeyAB's ``src/sam_layer.c``."""

from __future__ import annotations

from .base import Shape, register
from .product import Product


@register("sam")
class Sam(Product):
    """Spatial attention: the product, then the activation."""

    def shape(self) -> Shape:
        before, earlier = self.inputs
        if before != earlier:
            raise self.section.error(
                f"maps of {before.w} x {before.h} x {before.c} and {earlier.w} x {earlier.h} x {earlier.c}; "
                "expected two of one shape",
                "from",
            )
        return before
