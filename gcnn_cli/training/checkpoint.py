"""The state of a run on disk, from which a killed run continues to the weights of an uninterrupted one.

It is one file, written under a temporary name and renamed, and read without unpickling anything but tensors and
plain values. It names the run that it belongs to; another run refuses it.
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
    """A checkpoint file and the fingerprint of its run."""

    path: Path
    run: str

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file with a new state of tensors and plain values."""
        temporary = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        torch.save({"run": self.run, **state}, temporary)
        temporary.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """Return the last state, or None if there is no file.

        Raises UsageError for the checkpoint of another run, InputError for a damaged one.
        """
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            run = state["run"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
            raise InputError(f"{self.path}: damaged; remove it to start over") from None
        if run != self.run:
            raise UsageError(
                f"{self.path} belongs to another run: data, recipe, seed, precision (bfloat16, float32) or number of"
                " processes differ"
            )
        return state


def fingerprint(*parts: Any) -> str:
    """Return a short hash of everything that a run depends on."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
