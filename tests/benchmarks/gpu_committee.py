"""Training of a committee end to end, by the commands that a user gives."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import seconds


def train_committee(
    data: Path, recipe: Path, folds: int, device: torch.device, steps: int | None
) -> list[dict[str, Any]]:
    """Seconds of each `gcnn train --fold` and of `gcnn combine`. Scans are preprocessed once, within the first fold.

    Everything is written into a temporary folder. Exits with a command's own message if it fails.
    """
    if folds < 2:
        sys.exit(f"error: {recipe}: a committee needs a recipe with folds in [split]")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        common = ["--data", data, "--cache", work / "cache", "--device", device, "--quiet"]
        networks = [work / f"fold{fold}.safetensors" for fold in range(1, folds + 1)]
        shortened = [] if steps is None else ["--steps", steps]
        commands: dict[str, list[object]] = {
            f"train --fold {fold}": ["train", *common, "--config", recipe, "--fold", fold, *shortened, "--out", network]
            for fold, network in enumerate(networks, start=1)
        }
        commands["combine"] = ["combine", *networks, *common, "--out", work / "committee.safetensors"]
        rows = [{"command": name, "seconds": seconds(lambda c=command: _run(c))} for name, command in commands.items()]
    return [*rows, {"command": "all", "seconds": sum(row["seconds"] for row in rows)}]


def _run(command: list[object]) -> None:
    done = subprocess.run([sys.executable, "-m", "gcnn_cli", *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
