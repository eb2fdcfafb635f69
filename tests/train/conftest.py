from __future__ import annotations

import signal

import pytest

from darknet_compat.train import data


@pytest.fixture
def handlers():
    """As they were after a test that leaves signals ignored."""
    before = {number: signal.getsignal(number) for number in data.STOPPING}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)
