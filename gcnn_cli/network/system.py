"""Description of this machine: libraries, devices and threads."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from gcnn_cli import __version__
from gcnn_cli.network.devices import choose_device, has_fast_bfloat16

_LIBRARIES = (
    "torch", "numpy", "scipy", "scikit-image", "SimpleITK", "pydicom", "safetensors", "matplotlib", "Jinja2",
    "typer", "rich", "highdicom", "pylibjpeg", "dask",
)  # fmt: skip


def describe_system() -> list[dict[str, Any]]:
    """Return rows of a property and its value, in a fixed order, without importing the libraries."""
    rows = {"gcnn": __version__, "Python": platform.python_version(), "system": platform.platform()}
    rows |= {name: _version(name) for name in _LIBRARIES}
    rows["CPU cores"] = str(os.cpu_count())
    rows["threads"] = str(torch.get_num_threads())
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    for device in devices:
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
        rows[f"device {device}"] = f"{_name(device)}, scores in {precision}"
    rows["--device auto"] = str(choose_device("auto"))
    return [{"what": what, "value": value} for what, value in rows.items()]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return "Metal" if device.type == "mps" else torch.backends.cpu.get_cpu_capability()
