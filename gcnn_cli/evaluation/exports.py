"""Writing an evaluation: froc.json, froc.csv, froc.png, missed.csv, false_positives.csv, reliability.png."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gcnn_cli import __version__
from gcnn_cli.evaluation.calibration import CalibrationStudy
from gcnn_cli.evaluation.evaluation import Evaluation
from gcnn_cli.evaluation.froc import CONFIDENCE, RATES, Difference
from gcnn_cli.evaluation.matching import FALSE
from gcnn_cli.evaluation.plots import draw_froc, draw_reliability
from gcnn_cli.files import check_not_existing, csv_text, write_bytes

STRONGEST = 100  # false positives in false_positives.csv
MISSED_RATE = 1.0  # FPs/scan at which a nodule counts as missed in missed.csv


def evaluation_data(
    evaluation: Evaluation, sources: Mapping[str, Any], comparison: Difference | None = None
) -> dict[str, Any]:
    """Return the content of froc.json.

    sources: names and checksums of what was evaluated (`EvaluationInput.sources`)
    """
    config = evaluation.config
    data = {
        "schema": {"name": "gcnn-froc", "version": "1.1"},
        "tool": {"name": "gcnn", "version": __version__},
        "rule": {
            "name": config.name,
            "max_marks": config.rule.max_marks,
            "hit_radius_mm": config.rule.hit_radius_mm,
            "cpm": config.interpolation,
        },
        "sources": dict(sources),
        "counts": asdict(evaluation.counts),
        "cpm": evaluation.cpm,
        "cpm_interval": evaluation.cpm_interval,
        "operating_points": [
            {
                "fps_per_scan": point.rate,
                "sensitivity": point.sensitivity,
                "interval": point.interval,
                "threshold": point.threshold,
            }
            for point in evaluation.points
        ],
        "strata": [
            {
                "diameter_mm": [stratum.low_mm, None if math.isinf(stratum.high_mm) else stratum.high_mm],
                "nodules": stratum.nodules,
                "sensitivities": list(stratum.sensitivities),
                "cpm": stratum.cpm,
            }
            for stratum in evaluation.strata
        ],
        "bootstrap": {
            "resamples": config.resamples,
            "used": evaluation.resamples_used,
            "seed": config.seed,
            "confidence": CONFIDENCE,
            "unit": "scan",
        },
    }
    if comparison is not None:
        data["comparison"] = {
            "cpm_difference": comparison.cpm,
            "interval": comparison.interval,
            "p": comparison.p,
            "test": "paired bootstrap over scans, two-sided",
        }
    if evaluation.calibration is not None:
        data["calibration"] = _calibration_data(evaluation.calibration)
    return data


def file_names(*, calibrate: bool) -> tuple[str, ...]:
    """Return the names of the files that `write_evaluation` writes."""
    names = ("froc.json", "froc.csv", "froc.png", "missed.csv", "false_positives.csv")
    return (*names, "reliability.png") if calibrate else names


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    data: Mapping[str, Any],
    others: Sequence[tuple[str, Evaluation]] = (),
    *,
    name: str = "predictions",
    overwrite: bool,
) -> None:
    """Write every file of one evaluation. Raises UsageError for existing files, OutputError.

    data:   content of froc.json
    others: named evaluations to draw in the same plot
    name:   of this evaluation, in the plot
    """
    check_not_existing(
        [folder / n for n in file_names(calibrate=evaluation.calibration is not None)], overwrite=overwrite
    )
    contents = {
        "froc.csv": _curve_csv(evaluation).encode(),
        "froc.png": draw_froc([(name, evaluation), *others]),
        "missed.csv": _missed_csv(evaluation).encode(),
        "false_positives.csv": _false_positives_csv(evaluation).encode(),
    }
    if evaluation.calibration is not None:
        contents["reliability.png"] = draw_reliability(evaluation.calibration)
    # The JSON comes last: its presence means that the set is complete.
    contents["froc.json"] = (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    for file, content in contents.items():
        write_bytes(folder / file, content, overwrite=overwrite)


def _calibration_data(study: CalibrationStudy) -> dict[str, Any]:
    return {
        "expected_calibration_error": study.error,
        "after_platt_on_unseen_scans": _or_none(study.error_after),
        "platt": {"slope": study.platt.slope, "offset": study.platt.offset},
        "bins": [
            {
                "low": b.low,
                "high": b.high,
                "marks": b.marks,
                "mean_probability": _or_none(b.mean_probability),
                "positives": _or_none(b.positives),
            }
            for b in study.bins
        ],
    }


def _curve_csv(evaluation: Evaluation) -> str:
    """Return every point of the curve, from (0, 0) at an infinite threshold."""
    curve = evaluation.curve
    rows = zip(curve.fps_per_scan, curve.sensitivity, curve.threshold, strict=True)
    return csv_text(
        ("fps_per_scan", "sensitivity", "threshold"), ((f"{f:.9g}", f"{s:.9g}", f"{t:.9g}") for f, s, t in rows)
    )


def _missed_csv(evaluation: Evaluation) -> str:
    """Return the nodules that are not found at 1 FP/scan. The score of a nodule without any hit is empty."""
    matches = evaluation.matches
    threshold = evaluation.points[RATES.index(MISSED_RATE)].threshold
    missed = np.flatnonzero(matches.nodule_score < (np.inf if threshold is None else threshold))
    rows = (
        (
            matches.series[matches.nodule_scan[n]],
            *(f"{value:.4f}" for value in matches.nodules.position_mm[n]),
            f"{matches.nodules.value[n]:.4f}",
            f"{score:.9g}" if np.isfinite(score := matches.nodule_score[n]) else "",
        )
        for n in missed
    )
    return csv_text(("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "probability"), rows)


def _false_positives_csv(evaluation: Evaluation) -> str:
    """Return the strongest false positives, highest score first."""
    matches = evaluation.matches
    false = np.flatnonzero(matches.mark_fate == FALSE)
    strongest = false[np.argsort(-matches.predictions.value[false], kind="stable")][:STRONGEST]
    rows = (
        (
            matches.series[matches.mark_scan[n]],
            *(f"{value:.4f}" for value in matches.predictions.position_mm[n]),
            f"{matches.predictions.value[n]:.9g}",
        )
        for n in strongest
    )
    return csv_text(("seriesuid", "coordX", "coordY", "coordZ", "probability"), rows)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
