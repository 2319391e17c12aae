"""Where a run stands, on disk: a killed run goes on from it to the same weights as an unbroken one.

One file, written to a temporary name and renamed, read without unpickling anything but tensors and plain
values. It names the run it belongs to; another run does not go on from it.
"""

import hashlib
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gcnn_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class Checkpoint:
    """A file, and the run that may use it."""

    path: Path
    run: str  # fingerprint

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by a new state of tensors and plain values."""
        temporary = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        torch.save({"run": self.run, **state}, temporary)
        temporary.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """The last state, None without a file. Raises UsageError for another run's, InputError for a damaged one."""
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            run = state["run"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
            raise InputError(f"{self.path}: damaged; remove it to start over") from None
        if run != self.run:
            raise UsageError(f"{self.path} is of another run: the data, the recipe or the seed differ")
        return state


def fingerprint(*parts: Any) -> str:
    """What a run depends on, as one short text."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
