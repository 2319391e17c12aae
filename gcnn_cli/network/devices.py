"""Devices, their precision and memory, and the threads of this process."""

import os
import platform

import torch

from gcnn_cli.errors import DeviceError

_X86 = ("x86_64", "AMD64")
# Texts by which torch reports that memory ran out where it has no exception class for it: Linux, Windows, Metal.


def choose_device(name: str) -> torch.device:
    """Return the torch device for auto, cpu, cuda, cuda:N or mps. Only auto falls back. Raises DeviceError."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r} is not available: {torch.cuda.device_count()} CUDA devices found")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not available: torch reports no Metal device")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unsupported device {name!r}: use auto, cpu, cuda, cuda:N or mps")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return True if the device multiplies bfloat16 natively; emulation is slower than float32.

    torch calls bfloat16 supported on every x86 CPU with AVX-512. Where its BF16 instructions are missing, oneDNN takes
    1.7 times as long as in float32 for a training step and 2.7 times as long to score. Without AVX-512, or without
    oneDNN, training takes 30 to 50 times as long.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        onednn = torch.backends.mkldnn
        supported = onednn.is_available() and onednn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        native = platform.machine() not in _X86 or torch.cpu._is_avx512_bf16_supported()
        return bool(supported and native)
    return False


def autocast(device: torch.device, *, bfloat16: bool | None = None) -> torch.autocast:
    """Return a context in which networks compute in bfloat16, or in float32.

    bfloat16: default: where the device multiplies it natively
    """
    enabled = has_fast_bfloat16(device) if bfloat16 is None else bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def precision_name(device: torch.device) -> str:
    """Return "bfloat16" or "float32": the format in which networks compute on a device by default."""
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def cpu_cores() -> int:
    """Return the number of cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(number: int) -> None:
    """Set the number of threads of PyTorch and ITK in this process. Call before any computation."""
    torch.set_num_threads(number)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(number)
