"""Reports as JSON, described by `report.schema.json` beside this file.

Positions are (x, y, z) in LPS mm. `index` is the fractional voxel (i, j, k) = (x, y, z) of the scan as it
was read, counted from 0. `slice` is counted from 1 in the order of the array.
"""

import json
from importlib import resources
from typing import Any

from gcnn_cli import NOTICE, __version__
from gcnn_cli.detection.findings import Nodule, Report, Seed

SCHEMA_NAME = "gcnn-report"
SCHEMA_VERSION = "1.0"


def report_data(report: Report) -> dict[str, Any]:
    """Return the report as plain data, as in the file."""
    source = report.scan.source
    columns = list(zip(*(row[:3] for row in report.scan.to_world[:3]), strict=True))
    direction = [
        [value / spacing for value in column] for column, spacing in zip(columns, report.scan.spacing_zyx, strict=True)
    ]
    return {
        "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
        "tool": {"name": "gcnn", "version": __version__},
        "notice": NOTICE,
        "weights": {
            "name": report.model.name,
            "sha256": report.model.sha256,
            "group": report.model.group,
        },
        "input": {
            "path": source.path,
            "kind": source.kind,
            "seriesuid": source.series_uid,
            **({"acquisition": source.acquisition} if source.acquisition else {}),
            "study_instance_uid": source.study_uid,
            "frame_of_reference_uid": source.frame_of_reference_uid,
            "size": list(reversed(report.scan.shape_zyx)),
            "spacing_mm": list(reversed(report.scan.spacing_zyx)),
            "origin_mm": [row[3] for row in report.scan.to_world[:3]],
            "axes": list(reversed(direction)),
            "sha256": source.sha256,
            "geometry": list(source.checks),
        },
        "options": report.options,
        "frame": "LPS",
        "units": "mm",
        "threshold": report.threshold,
        "candidates": report.candidates,
        **({} if report.lungs_ml is None else {"lungs_ml": report.lungs_ml}),
        "nodules": [_nodule_data(number, nodule) for number, nodule in enumerate(report.nodules, start=1)],
        "warnings": list(report.warnings),
        "seconds": round(report.seconds, 2),
        "device": report.device,
    }


def report_json(report: Report, *, indent: int | None = 2) -> str:
    """Return the report as JSON text that ends in a line break."""
    return json.dumps(report_data(report), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def report_schema() -> dict[str, Any]:
    """Return the published JSON Schema of a report."""
    text = resources.files("gcnn_cli.output").joinpath("report.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _nodule_data(number: int, nodule: Nodule) -> dict[str, Any]:
    """Return a nodule without rounding, since other formats are made from this one and round themselves."""
    return {
        "nodule": number,
        "position_mm": list(nodule.position_mm),
        "index": list(reversed(nodule.index_zyx)),
        "slice": nodule.slice,
        "sop_instance_uid": nodule.sop_instance_uid,
        "diameter_mm": nodule.diameter_mm,
        "volume_mm3": nodule.volume_mm3,
        "probability": nodule.probability,
        **({} if nodule.fp_per_scan is None else {"fp_per_scan": nodule.fp_per_scan}),
        **({} if nodule.seed is None else {"seed": _seed_data(nodule.seed)}),
    }


def _seed_data(seed: Seed) -> dict[str, Any]:
    return {"position_mm": list(seed.position_mm), "diameter_mm": seed.diameter_mm}
