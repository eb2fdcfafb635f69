"""What a fuzzer asks of every reader: success, or one of our errors in one line, in bounded time and memory."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from darknet_compat.errors import DarknetError
from tests.hostile import forget_peak, memory, no_longer_than

SECONDS, MIB = 5, 200  # CPU seconds
WAIT = 60  # seconds, on a machine with much else to do

Result = TypeVar("Result")


def outcome(read: Callable[[], Result]) -> Result | None:
    """The result of ``read``; None where it was refused as it should be. Anything else is a failure."""
    forget_peak()
    before, start = memory("VmRSS"), time.process_time()
    result = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with no_longer_than(WAIT):
                result = read()
        except DarknetError as error:
            message = str(error)
            assert message.isprintable(), repr(message)
            assert len(message) < 1000
    assert time.process_time() - start < SECONDS
    assert memory("VmHWM") - before < MIB
    return result
