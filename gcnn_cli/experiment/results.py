"""The results of an experiment on disk: the test set of each fold, and the logits of each training."""

import json
import time
from collections import Counter
from collections.abc import Iterable
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

    Raises InputError if the folder is not that of an experiment, a file is damaged or belongs to another test set, or
    the results come from different data or different recipes.
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
    _check_alike(folder, results)
    return tests, sorted(results, key=lambda r: (r["arm"], r["samples"], r["seed"]))


def _check_alike(folder: Path, results: list[dict[str, Any]]) -> None:
    """Raise InputError unless all results have one recipe and those of a fold the same data."""
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for result in results:
        for what, fold in (("recipe", 0), ("data", result["fold"])):
            other = first.setdefault((what, fold), result)
            if result.get(what) != other.get(what):
                pair = " and ".join(f"{r['arm']}-{r['samples']}-{r['seed']}" for r in (other, result))
                raise InputError(f"{folder}: {pair} come from different {what}: keep them in folders of their own")


def count_distinct(folds: Iterable[list[tuple[str, str, str]]]) -> int:
    """Count test samples, given as kind, series and patient: those of a scan that several folds test on count once."""
    most: Counter[tuple[str, str, str]] = Counter()
    for rows in folds:
        most |= Counter(rows)  # the larger count of each
    return most.total()


def describe_experiment(tests: dict[int, Test], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the tables are made of: the commands, the test samples by kind, the trainings and their hours."""
    rows = [[*zip(test["kind"], test["series"], test["patient"], strict=True)] for test in tests.values()]
    kinds = sorted({kind for fold in rows for kind, *_ in fold})
    scans = len({series for fold in rows for kind, series, _ in fold if kind == "candidate"})
    trainings = [r for r in results if r["pooled_over"] == "trivial"]
    return {
        "commands": list(dict.fromkeys(r["command"] for r in results if r.get("command"))),
        "test": {name: count_distinct([row for row in fold if row[0] == name] for fold in rows) for name in kinds},
        "test_scans": scans,
        "trainings": len(trainings),
        "training_hours": round(sum(r["seconds"] for r in trainings) / 3600, 1),
        "precision": dict(Counter(r["precision"] for r in trainings)),
        "written": time.strftime("%Y-%m-%d"),
    }


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
