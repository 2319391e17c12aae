"""Predictions from the JSON reports of `gcnn detect`: they name the weights and the cut, which a CSV does not."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.tables import Marks, make_marks, read_predictions
from gcnn_cli.output.json_format import SCHEMA_NAME

ENDING = ".nodules.json"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Marks and, from reports, what made them. sha256 of the weights and cut are None where unknown."""

    marks: Marks
    weights_sha256: str | None = None
    threshold: float | None = None


def read_any_predictions(path: Path) -> Predictions:
    """A CSV table, one JSON report, JSON Lines of reports, or a folder of `*.nodules.json`. Raises InputError."""
    if path.is_dir():
        files = sorted(path.rglob(f"*{ENDING}"))
        if not files:
            raise InputError(f"{path}: holds no {ENDING} files")
        return predictions_of([report for file in files for report in read_reports(file)], path)
    if path.suffix.lower() in (".json", ".jsonl"):
        return predictions_of(read_reports(path), path)
    return Predictions(read_predictions(path))


def read_reports(path: Path) -> list[dict[str, Any]]:
    """The reports of one file: one JSON document, or one on each line. Raises InputError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not JSON in UTF-8") from None
    try:
        reports = [json.loads(text)]
    except ValueError:
        try:
            reports = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise InputError(f"{path}: not JSON") from None
    for report in reports:
        if not isinstance(report, dict) or report.get("schema", {}).get("name") != SCHEMA_NAME:
            raise InputError(f"{path}: not a report of gcnn detect")
    if not reports:
        raise InputError(f"{path}: is empty")
    return reports


def predictions_of(reports: list[dict[str, Any]], path: Path) -> Predictions:
    """Marks of several reports, which `path` holds.

    Raises InputError for one scan reported twice, several weights, or what is no position and probability.
    """
    series = [str(report["input"]["seriesuid"]) for report in reports]
    twice = {name for name in series if series.count(name) > 1}
    if twice:
        raise InputError(f"{path}: series {min(twice)} is reported twice")
    weights = {str(report["weights"]["sha256"]) for report in reports}
    if len(weights) > 1:
        raise InputError(f"{path}: reports of {len(weights)} different weights; evaluate one at a time")
    try:
        rows = [
            _row(name, nodule) for name, report in zip(series, reports, strict=True) for nodule in report["nodules"]
        ]
        threshold = max((float(report["threshold"]) for report in reports), default=0.0)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: a nodule without position and probability") from None
    return Predictions(make_marks(rows), weights.pop() if weights else None, threshold)


def _row(series: str, nodule: dict[str, Any]) -> tuple[str, float, float, float, float]:
    x, y, z = (float(value) for value in nodule["position_mm"])
    probability = float(nodule["probability"])
    if not all(math.isfinite(value) for value in (x, y, z, probability)):
        raise ValueError
    return series, x, y, z, probability
