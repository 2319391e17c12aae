"""The origin of weights, as their file states it.

Weights are given away, and a file name can hold a person's name. By default the header holds counts alone. The
names of series and patients stay in `data.json` in the run's folder, which is not given away.

With `name_data` the header holds the names too, and `gcnn evaluate` can warn anyone who evaluates on data that the
weights were trained on. Hashes in their place would not protect anyone: a list of names can be hashed and compared.
"""

import json
import math
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gcnn_cli import __version__
from gcnn_cli.errors import InputError
from gcnn_cli.files import write_bytes
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.samples.prepare import Prepared
from gcnn_cli.training.loop import Progress
from gcnn_cli.training.operating_points import OperatingStudy
from gcnn_cli.training.recipe import Recipe
from gcnn_cli.training.run_files import run_folder

NAMES = "data.json"
NAME_KEYS = {"labelled_series", "training_series", "training_patients", "held_out_patients"}


def write_data_names(prepared: Prepared, folder: Path, sha256: str) -> None:
    """Write the names of series and patients to `data.json` in a run's folder, with the sha256 of its weights."""
    write_names(_data_names(prepared), folder, sha256)


def write_names(names: Mapping[str, list[str]], folder: Path, sha256: str) -> None:
    """Write names of series and patients to `data.json` in a run's folder, with the sha256 of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"weights_sha256": sha256, **names}
    write_bytes(folder / NAMES, (json.dumps(content, indent=1) + "\n").encode(), overwrite=True)


def read_data_names(folder: Path, sha256: str) -> dict[str, Any]:
    """Read `data.json` from a run's folder. Return an empty dict if there is none for the weights of this sha256.

    Raises InputError for a damaged file.
    """
    path = folder / NAMES
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path}: damaged; remove it") from None
    return content if content.get("weights_sha256") == sha256 else {}


def names_of(model: TrainedModel, weights: Path) -> dict[str, list[str]]:
    """Return the names of the data that weights were trained on: their header's, or those in their run's folder.

    Raises InputError where neither has them.
    """
    found = (
        model.provenance if model.provenance.keys() >= NAME_KEYS else read_data_names(run_folder(weights), model.sha256)
    )
    if not found.keys() >= NAME_KEYS:
        raise InputError(
            f"{weights}: nothing says which patients these weights were trained on;"
            f" keep {run_folder(weights).name}/{NAMES} beside them, or train with --name-data"
        )
    return {name: list(map(str, found[name])) for name in sorted(NAME_KEYS)}


def _data_names(prepared: Prepared) -> dict[str, list[str]]:
    return {
        "labelled_series": list(prepared.labelled_series),
        "training_series": list(prepared.training_series),
        "training_patients": list(prepared.training_patients),
        "held_out_patients": list(prepared.held_out_patients),
    }


def provenance_of(
    recipe: Recipe,
    prepared: Prepared,
    kinds: Counter[str],
    validations: list[Progress],
    study: OperatingStudy,
    precision: str,
    *,
    name_data: bool,
) -> dict[str, Any]:
    """Return the provenance of a weights file: versions, recipe, data, validation and basis of the calibration.

    kinds:       number of training samples of each kind
    validations: of each network as it is written
    """
    names = _data_names(prepared)
    measured = [asdict(line) for line in validations]
    unfitted = "the parent's" if recipe.init.parent else f"none: no {study.missing}"
    described = json.loads(json.dumps(asdict(recipe)))
    if not name_data:
        described["split"]["hold_out"] = len(recipe.split.hold_out)
    return {
        "tool": f"gcnn {__version__}",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "precision": precision,
        "recipe": described,
        **(names if name_data else {}),
        "counts": {name: len(values) for name, values in names.items()},
        "samples": dict(kinds),
        "candidate_weights": prepared.candidate_weights,
        "validation": measured[0] if len(measured) == 1 else measured,
        "operating_points": {
            "scans": study.scans,
            "all_held_out": study.held_out,
            "candidates": "those that detection scores",
            "prior": study.prior,
            "calibration": unfitted if study.missing else "fitted",
            "expected_calibration_error": None if math.isnan(study.expected_error) else study.expected_error,
        },
    }
