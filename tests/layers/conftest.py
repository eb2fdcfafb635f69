from __future__ import annotations

import pytest


@pytest.fixture(params=["darknet", "alexeyab_darknet"], ids=["pjreddie", "alexeyab"])
def library(request):
    """The driver of either program's library."""
    return request.getfixturevalue(request.param)
