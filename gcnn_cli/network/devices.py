"""Devices, their precision, and the threads of this process."""

import os

import torch

from gcnn_cli.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """A torch device from auto, cpu, cuda, cuda:N or mps. Only auto falls back. Raises DeviceError."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices found")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not here: torch reports no Metal device")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unsupported device {name!r}: use auto, cpu, cuda, cuda:N or mps")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively; emulated it would only be slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def cpu_cores() -> int:
    """Cores that this process may use, which on a shared machine are not all that it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(number: int) -> None:
    """Compute on so many threads in this process, which has not computed yet: PyTorch's, and ITK's."""
    torch.set_num_threads(number)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(number)
