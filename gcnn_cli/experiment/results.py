"""The results of an experiment on disk: the test set of each fold, and the logits of each training."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gcnn_cli.errors import InputError
from gcnn_cli.files import write_bytes

Test = dict[str, Any]


def test_path(folder: Path, fold: int) -> Path:
    """Return the path of the description of a fold's test set."""
    return folder / (f"test-{fold}.json" if fold else "test.json")


def read_results(folder: Path) -> tuple[dict[int, Test], list[dict[str, Any]]]:
    """Read the test set of each fold and every finished result, sorted by arm, samples and seed.

    Raises InputError if the folder is not that of an experiment, or a file is damaged or belongs to another test set.
    """
    paths = sorted([*folder.glob("test.json"), *folder.glob("test-*.json")])
    if not paths:
        raise InputError(f"{folder}: not the folder of an experiment: it holds no test.json or test-1.json")
    tests = {int(path.stem.partition("-")[2] or 0): read_json(path) for path in paths}
    results = [read_json(path) for path in sorted((folder / "runs").glob("*.json"))]
    for result in results:
        test = tests.get(result.setdefault("fold", 0))
        logits = [result["logits"], *result.get("budgets", {}).values()]
        if not test or not all(len(x) == len(test["label"]) and np.isfinite(x).all() for x in logits):
            name = f"{result['arm']}-{result['samples']}-{result['seed']}"
            raise InputError(f"{folder}: {name} does not belong to this test set")
    return tests, sorted(results, key=lambda r: (r["arm"], r["samples"], r["seed"]))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a value as one line of JSON, replacing the file."""
    write_bytes(path, (json.dumps(data) + "\n").encode(), overwrite=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object. Raises InputError for a missing or damaged file."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        data = None
    if not isinstance(data, dict):
        raise InputError(f"{path}: missing or damaged")
    return data
