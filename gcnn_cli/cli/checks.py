"""Checks of options that need no torch, which takes seconds to load: a wrong option is answered at once.

The modules that use a value check it again, in the same words.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from gcnn_cli.errors import DeviceError, GcnnError, InputError, ModelError

# The groups in space; `gcnn_cli.symmetry` makes them, and loads torch.
GROUPS = ("trivial", "C4", "C4h", "D4", "D4h", "O", "Oh")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(name: str) -> None:
    """Raise DeviceError for a name that no device has."""
    if not _DEVICE.fullmatch(name):
        raise DeviceError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps")


def check_group(name: str | None, error: type[GcnnError] = ModelError) -> None:
    """Raise an error for an unknown group: by default the one that making the group raises."""
    if name is not None and name not in GROUPS:
        raise error(f"unknown group {name!r}: choose one of {', '.join(GROUPS)}")


def check_weights(model: str | None) -> None:
    """Raise ModelError unless the weights are shipped or a file."""
    from gcnn_cli.network.weight_files import locate_weights, models_folder

    if model is not None:
        locate_weights(model, models_folder())


def check_folders(paths: Iterable[Path | None]) -> None:
    """Raise InputError for the first path that is not a folder."""
    for path in paths:
        if path is not None and not path.is_dir():
            raise InputError("no such folder", path=path)


def check_files(paths: Iterable[Path | None]) -> None:
    """Raise InputError for the first path that does not exist."""
    for path in paths:
        if path is not None and not path.exists():
            raise InputError("no such file", path=path)


def check_recipe(path: Path | None) -> None:
    """Raise InputError for a recipe that is no file. One of the article's, by name, is found when it is read."""
    if path is not None and not str(path).startswith("winkels2018-"):
        check_files([path])
