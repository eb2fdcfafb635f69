"""Where a computation on a GPU would wait, seen without one: on torch's meta device, which has shapes and no numbers.

A host waits for its GPU where it reads a number back, where an operation's output has a shape that numbers decide, and
where it copies a constant to it that does not lie in pinned memory.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import darknet_compat

PACKAGE = Path(darknet_compat.__file__).parent
aten = torch.ops.aten
ON = "meta"


def site() -> str:
    """The innermost function of the package that is running: file:function."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE).as_posix()}:{frame.name}"
    return "outside"


class _Operations(TorchDispatchMode):
    """Counts waits, and hands out numbers and shapes where there are none."""

    def __init__(self, found: Counter[tuple[str, str]], number: int) -> None:
        super().__init__()
        self.found, self.number = found, number

    def wait(self, kind: str) -> None:
        self.found[kind, site()] += 1

    def without_mask(self, index: Tensor | None) -> list[Tensor | None]:
        """An index of numbers as it is; for a mask those of half of its places."""
        if index is None or index.dtype != torch.bool:
            return [index]
        self.wait("shape")
        return [index.new_empty(max(index.numel() // 2, 1), dtype=torch.long)] * index.dim()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if tensor.device.type == ON]
        here = [tensor for tensor in tensors if tensor.device.type == "cpu" and tensor.dim()]
        if function is aten._to_copy.default:
            to = torch.device(kwargs.get("device") or tensors[0].device).type
            if there and to == "cpu":
                self.wait("reads")
                return torch.full(tensors[0].shape, self.number, dtype=kwargs.get("dtype") or tensors[0].dtype)
            if not there and to == ON and not kwargs.get("non_blocking"):
                self.wait("copies")
            return function(*args, **kwargs)
        if not there:
            return function(*args, **kwargs)
        if function is aten.copy_.default and here:
            if args[0] is here[0]:
                self.wait("reads")
                return args[0].fill_(self.number)
            if not (len(args) > 2 and args[2]):
                self.wait("copies")
            return args[0]
        if here:
            self.wait("mixes devices")
        if function is aten._local_scalar_dense.default:
            self.wait("reads")
            return torch.full((), self.number, dtype=there[0].dtype).item()
        if function is aten.equal.default:
            self.wait("reads")
            return True
        if function is aten.nonzero.default:
            self.wait("shape")
            return args[0].new_empty((max(args[0].numel() // 2, 1), args[0].dim()), dtype=torch.long)
        if function is aten.unique_dim.default:
            self.wait("shape")
            counts = args[0].new_empty(args[0].shape[args[1]], dtype=torch.long)
            return torch.empty_like(args[0]), counts, counts.clone()
        if function in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            indices = [one for index in args[1] for one in self.without_mask(index)]
            return function(args[0], indices, *args[2:], **kwargs)
        return function(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Counts constants that are made on the host, which the meta device makes without a copy."""

    def __init__(self, found: Counter[tuple[str, str]]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        device = kwargs.get("device") or (args[0].device if name == "new_tensor" else "cpu")
        data = args[1] if name == "new_tensor" else args[0] if args else None
        made = name in ("tensor", "as_tensor", "new_tensor") and torch.device(device).type == ON
        if made and not (isinstance(data, Tensor) and data.device.type == ON):
            self.found["copies", site()] += 1
        return function(*args, **kwargs)


@contextlib.contextmanager
def waits(number: int = 0) -> Iterator[Counter[tuple[str, str]]]:
    """(what, file:function) of each wait for the meta device, with how often: it "reads" numbers, needs a "shape" that
    numbers decide, "copies" from the host, or "mixes devices", which a GPU does not do. What is read is ``number``."""
    found: Counter[tuple[str, str]] = Counter()
    with pytest.MonkeyPatch.context() as patch, _Functions(found), _Operations(found, number):
        patch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # the meta device has none
        # In inference mode operations would come before they are taken apart.
        patch.setattr(torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode))
        yield found
