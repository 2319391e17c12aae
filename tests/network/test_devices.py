"""Devices by name, and the precision that each of them computes in."""

import pytest
import torch

from gcnn_cli.errors import DeviceError
from gcnn_cli.network.devices import autocast, choose_device, has_fast_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cuda:x", "meta"])
def test_an_unavailable_device_is_an_error(name):
    with pytest.raises(DeviceError):
        choose_device(name)


def test_auto_and_cpu_are_always_available():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(("bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_computes_in_the_precision_asked_for(bfloat16, dtype):
    a = torch.ones(2, 2)
    with autocast(CPU, bfloat16=bfloat16):
        assert (a @ a).dtype == dtype


def test_autocast_takes_bfloat16_only_where_it_is_fast(monkeypatch):
    a = torch.ones(2, 2)
    with autocast(CPU):
        assert ((a @ a).dtype == torch.bfloat16) == has_fast_bfloat16(CPU)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None), autocast(CPU):  # emulated, 30 to 50 times slower
        assert not has_fast_bfloat16(CPU)
        assert (a @ a).dtype == torch.float32
    with monkeypatch.context() as patched:  # AVX-512 without BF16, which torch calls supported
        patched.setattr("platform.machine", lambda: "x86_64")
        patched.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        assert not has_fast_bfloat16(CPU)
    monkeypatch.setattr("gcnn_cli.network.devices.has_fast_bfloat16", lambda device: False)
    with autocast(CPU):
        assert (a @ a).dtype == torch.float32
