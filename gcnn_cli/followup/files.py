"""A follow-up as CSV, JSON and page. Positions are in LPS mm, each in its own scan's frame."""

import json
from pathlib import Path
from typing import Any

from gcnn_cli import NOTICE, __version__
from gcnn_cli.detection.findings import Nodule
from gcnn_cli.files import check_not_existing, csv_text, write_together
from gcnn_cli.followup.growth import Growth
from gcnn_cli.followup.inputs import FORMATS
from gcnn_cli.followup.matching import Pair
from gcnn_cli.followup.run import Exam, FollowUp

COLUMNS = (
    "number", "status", "prior_X", "prior_Y", "prior_Z", "prior_diameter_mm", "prior_volume_mm3", "prior_probability",
    "current_X", "current_Y", "current_Z", "current_diameter_mm", "current_volume_mm3", "current_probability",
    "distance_mm", "change_percent", "change_low", "change_high", "changed", "doubling_days", "doubling_fast",
    "doubling_slow", "faint",
)  # fmt: skip
SCHEMA = {"name": "gcnn-follow-up", "version": "1.0"}


def write_follow_up(made: FollowUp, paths: dict[str, Path], *, overwrite: bool) -> None:
    """Write all files. Raises UsageError for an existing one, OutputError."""
    from gcnn_cli.followup.page import follow_page  # loads jinja2

    check_not_existing(list(paths.values()), overwrite=overwrite)
    contents = {"csv": follow_csv(made).encode(), "html": follow_page(made), "json": follow_json(made).encode()}
    write_together({paths[fmt]: contents[fmt] for fmt in FORMATS}, overwrite=overwrite)


def follow_csv(made: FollowUp) -> str:
    """Return one line per nodule. The place of a nodule that is missing on one date is where it would lie."""
    return csv_text(COLUMNS, (_row(number, pair) for number, pair in enumerate(made.pairs, start=1)))


def follow_json(made: FollowUp) -> str:
    """Return everything as JSON text."""
    return json.dumps(follow_data(made), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def follow_data(made: FollowUp) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "gcnn", "version": __version__},
        "notice": NOTICE,
        "prior": _exam_data(made.prior),
        "current": _exam_data(made.current),
        "days": made.days,
        "alignment": {
            "current_to_prior": made.alignment.matrix.tolist(),
            "overlap": made.alignment.overlap,
            "affine": made.alignment.affine,
        },
        "frame": "LPS",
        "units": "mm",
        "nodules": [_pair_data(number, pair) for number, pair in enumerate(made.pairs, start=1)],
        "warnings": list(made.warnings),
    }


def _exam_data(exam: Exam) -> dict[str, Any]:
    report = exam.report
    return {
        "path": report.scan.source.path,
        "seriesuid": report.scan.source.series_uid,
        "sha256": report.scan.source.sha256,
        "spacing_mm": list(reversed(report.scan.spacing_zyx)),
        "weights": {"name": report.model.name, "sha256": report.model.sha256},
        "threshold": report.threshold,
    }


def _pair_data(number: int, pair: Pair) -> dict[str, Any]:
    return {
        "number": number,
        "status": str(pair.status),
        "prior": _nodule_data(pair.prior),
        "current": _nodule_data(pair.current),
        "place_mm": list(pair.place_mm) if pair.place_mm else None,
        "distance_mm": pair.distance_mm,
        "faint": pair.faint,
        "growth": _growth_data(pair.growth),
    }


def _nodule_data(nodule: Nodule | None) -> dict[str, Any] | None:
    if nodule is None:
        return None
    return {
        "position_mm": list(nodule.position_mm),
        "slice": nodule.slice,
        "sop_instance_uid": nodule.sop_instance_uid,
        "diameter_mm": nodule.diameter_mm,
        "volume_mm3": nodule.volume_mm3,
        "probability": nodule.probability,
    }


def _growth_data(growth: Growth | None) -> dict[str, Any] | None:
    if growth is None:
        return None
    interval = growth.doubling_interval
    return {
        "change_percent": growth.percent,
        "change_interval": list(growth.percent_interval),
        "changed": growth.is_change,
        "doubling_days": growth.doubling_days,
        "doubling_interval": list(interval) if interval else None,
    }


def _row(number: int, pair: Pair) -> list[object]:
    growth = pair.growth
    interval = (growth.doubling_interval if growth else None) or (None, None)
    change = (growth.percent, *growth.percent_interval) if growth else (None,) * 3
    return [
        number,
        pair.status,
        *_cells(pair.prior, pair.place_mm),
        *_cells(pair.current, pair.place_mm),
        _text(pair.distance_mm, 1),
        *(_text(value, 1) for value in change),
        "" if growth is None else str(growth.is_change).lower(),
        _text(growth.doubling_days if growth else None, 0),
        *(_text(bound, 0) for bound in interval),
        str(pair.faint).lower(),
    ]


def _cells(nodule: Nodule | None, place: tuple[float, float, float] | None) -> list[str]:
    if nodule is None:
        return [*(f"{v:.2f}" for v in place or ()), "", "", ""]
    return [
        *(f"{v:.2f}" for v in nodule.position_mm),
        f"{nodule.diameter_mm:.2f}",
        f"{nodule.volume_mm3:.1f}",
        f"{nodule.probability:.4f}",
    ]


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
