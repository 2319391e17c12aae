"""Results of earlier runs that `--resume` may keep: those from the same scan, weights, options and version of gcnn."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn_cli import __version__
from gcnn_cli.cohort.request import Request
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.pipeline import report_options
from gcnn_cli.errors import UsageError
from gcnn_cli.scan.volume import Volume

_NAMES = {
    "average_over": "--average-over",
    "lung_mask": "lung mask",
    "pipeline": "form of the detection",
    "candidate_weights": "candidate weights",
}
_ABSENT = object()


@dataclass(frozen=True)
class EarlierResult:
    """The files that an earlier run left of a scan.

    json:      its report, the last file of a set to be written
    complete:  whether every requested file is there
    made_from: name -> value of everything that decided the result; empty where the report is damaged
    """

    json: Path
    complete: bool
    made_from: Mapping[str, Any]
    series_uid: str = ""
    nodules: int = 0
    lungs_ml: float | None = None


def read_earlier(paths: Mapping[str, Path]) -> EarlierResult | None:
    """Read the report of an earlier run. paths: requested file of each format. None where there is no report."""
    path = paths["json"]
    if not path.is_file():
        return None
    complete = all(path.is_file() for path in paths.values())
    try:
        data = json.loads(path.read_text("utf-8"))
        made_from = _flat(
            {
                "scan": data["input"]["sha256"],
                "weights": data["weights"]["sha256"],
                "threshold": data["threshold"],
                "version of gcnn": data["tool"]["version"],
                **data["options"],
            }
        )
        lungs_ml = float(data["lungs_ml"]) if "lungs_ml" in data else None
        return EarlierResult(path, complete, made_from, str(data["input"]["seriesuid"]), len(data["nodules"]), lungs_ml)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return EarlierResult(path, complete, {})


def is_same(
    earlier: EarlierResult, volume: Volume, lung_mask: Volume | None, detector: Detector, request: Request
) -> bool:
    """Return whether detection would make the earlier result again.

    Everything that decides a result is compared, including the version of gcnn and its PIPELINE number. The device is
    not: one cohort may run on several kinds, whose results differ in the last digits.

    Raises UsageError naming what differs, unless overwriting was requested.
    """
    options = report_options(detector, volume, lung_mask)
    wanted = _flat(
        {
            "scan": volume.source.sha256,
            "weights": detector.model.sha256,
            "threshold": request.threshold,
            "version of gcnn": __version__,
            **json.loads(json.dumps(options)),
        }
    )
    found = earlier.made_from
    names = [*wanted, *sorted(found.keys() - wanted)]
    differing = [name for name in names if wanted.get(name, _ABSENT) != found.get(name, _ABSENT)]
    if differing and not request.overwrite:
        listed = ", ".join(_NAMES.get(name, name) for name in differing)
        reason = f"was made with another {listed}" if found else "is damaged"
        raise UsageError(f"{earlier.json} exists and {reason}; give --overwrite to replace it or another --out")
    return not differing


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names: {"proposals": {"kept": 3}} -> {"proposals.kept": 3}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
