from __future__ import annotations

import pytest
import torch

from darknet_compat.device import find_device
from darknet_compat.errors import DeviceError


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes torch say that the machine has so many GPUs."""

    def set_gpus(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return set_gpus


def test_by_default_the_first_gpu_or_the_cpu(gpus):
    gpus(0)
    assert find_device(None) == torch.device("cpu")
    gpus(2)
    assert find_device(None) == torch.device("cuda")  # torch's name for the first, or for a launched process's own
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "foo", "", "meta", "cpu:1"])
def test_what_the_machine_lacks_is_named_with_what_it_has(gpus, name):
    gpus(0)
    with pytest.raises(DeviceError, match=f"^-device {name}: torch finds no such device here; expected cpu$"):
        find_device(name)


def test_mps_where_it_is_asked_for(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("mps") == torch.device("mps")
    assert find_device(None) == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"expected cpu or mps$"):
        find_device("cuda")


def test_a_gpu_too_many(gpus):
    gpus(2)
    with pytest.raises(DeviceError, match=r"^-device cuda:2: .* expected cpu or cuda:0 or cuda:1$"):
        find_device("cuda:2")
