"""A saved JSON -> the report that it was made from, for `gcnn convert`. What does not fit together is refused.

Law: report_data(read_report(path)) is the data in the file.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gcnn_cli.detection.findings import ModelSummary, Nodule, Report, ScanSummary
from gcnn_cli.errors import GcnnError, InputError
from gcnn_cli.output.json_format import SCHEMA_NAME, SCHEMA_VERSION
from gcnn_cli.scan.images.image_file import suffix_of
from gcnn_cli.scan.lattice import checked_affine
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Source, Volume

_TOLERANCE_MM = 0.01


def read_report(path: Path) -> Report:
    """Read one report as `gcnn detect` writes it.

    Raises InputError when the file is no such report, is of another schema version, or places a
    nodule's voxel somewhere else than its position.
    """
    try:
        data = parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:  # damaged JSON and text that is not UTF-8
        raise InputError(f"{path}: not a JSON file; give the .nodules.json that gcnn detect wrote") from None
    return parse_report(data, path)


def parse_json(text: str) -> Any:
    """json.loads without its liberties: NaN, infinite numbers, halves of characters, endless nesting: ValueErrors."""
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # a lone surrogate could be read, but not written again
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return data


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return number


def parse_report(data: Any, path: Path) -> Report:
    """One report from its parsed JSON, which `path` held. Raises InputError as `read_report`."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, dict) or schema.get("name") != SCHEMA_NAME:
        raise InputError(f"{path}: not a report of gcnn; give the .nodules.json that gcnn detect wrote")
    if schema.get("version") != SCHEMA_VERSION:
        raise InputError(f"{path}: report of version {schema.get('version')}; this gcnn reads {SCHEMA_VERSION}")
    try:
        return _report(data)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: damaged report: {' '.join(str(error).split())[:120]}") from None
    except GcnnError as error:
        raise InputError(f"{path}: damaged report: {error}") from None


def read_same_scan(report: Report, path: Path) -> tuple[Report, Volume]:
    """The scan of a report, read again, and the report with what its file does not hold: the slices' UIDs.

    Raises InputError when the voxels or their place are not those that the report is about; else as read_volume.
    """
    of_series = report.scan.source.kind == "dicom" and not suffix_of(path)
    source = report.scan.source
    volume = read_volume(path, series=source.series_uid if of_series else None, allow_gaps=source.gaps_filled)
    if not source.sha256 or volume.source.sha256 != source.sha256:
        raise InputError(
            f"{path}: not the scan of this result: the checksum of its voxels is"
            f" {volume.source.sha256[:12]}…, the result's {source.sha256[:12] or 'missing'}…"
        )
    scan = ScanSummary.of(volume)
    scan = replace(scan, source=replace(scan.source, warnings=source.warnings))
    return replace(report, scan=scan), volume


def _report(data: dict[str, Any]) -> Report:
    if (data["frame"], data["units"]) != ("LPS", "mm"):
        raise ValueError(f"frame {data['frame']} and units {data['units']} instead of LPS and mm")
    scan = _scan(data["input"], tuple(map(str, data["warnings"])), dict(data["options"]).get("gaps_filled") is True)
    nodules = tuple(_nodule(number, entry, scan) for number, entry in enumerate(data["nodules"], start=1))
    weights = data["weights"]
    return Report(
        scan=scan,
        model=ModelSummary(_text(weights["name"]), _text(weights["sha256"]), _text(weights["group"])),
        nodules=nodules,
        threshold=_number(data["threshold"]),
        candidates=int(data["candidates"]),
        options=dict(data["options"]),
        device=_text(data["device"]),
        seconds=_number(data["seconds"]),
        warnings=scan.source.warnings,
    )


def _scan(data: dict[str, Any], warnings: tuple[str, ...], gaps_filled: bool) -> ScanSummary:
    """The scan's place in the patient; the file lists i, j, k = x, y, z, the array is (z, y, x)."""
    width, height, depth = (int(n) for n in data["size"])
    spacing_zyx = _vector(data["spacing_mm"])[::-1]
    to_world = np.eye(4)
    to_world[:3, :3] = np.array([_vector(axis) for axis in data["axes"]])[::-1].T * spacing_zyx
    to_world[:3, 3] = _vector(data["origin_mm"])
    sizes = (width, height, depth)
    if min(*sizes, *spacing_zyx) <= 0 or max(sizes) >= 2**31 or abs(np.linalg.det(to_world)) < 1e-9:
        raise ValueError("size, spacing and axes do not make a grid")
    to_world = checked_affine(to_world)
    source = Source(
        path=_text(data["path"]),
        kind=_text(data["kind"]),
        series_uid=_text(data["seriesuid"]),
        study_uid=_text(data["study_instance_uid"]),
        frame_of_reference_uid=_text(data["frame_of_reference_uid"]),
        sha256=_text(data["sha256"]),
        warnings=warnings,
        checks=tuple(map(str, data["geometry"])),
        gaps_filled=gaps_filled,
    )
    rows = tuple(tuple(float(value) for value in row) for row in to_world)
    return ScanSummary(source, (depth, height, width), spacing_zyx, rows)


def _nodule(number: int, data: dict[str, Any], scan: ScanSummary) -> Nodule:
    position, index = _vector(data["position_mm"]), _vector(data["index"])[::-1]
    to_world = np.array(scan.to_world)
    if max(map(abs, index)) > 2**31:
        raise ValueError(f"nodule {number}: its voxel is outside of any scan")
    away_mm = float(np.linalg.norm(to_world[:3, :3] @ index + to_world[:3, 3] - position))
    if away_mm > _TOLERANCE_MM:
        raise ValueError(f"nodule {number}: its position and its voxel are {away_mm:.2f} mm apart")
    nodule = Nodule(
        position_mm=position,
        index_zyx=index,
        probability=_number(data["probability"]),
        diameter_mm=_number(data["diameter_mm"]),
        volume_mm3=_number(data["volume_mm3"]),
        slice=int(data["slice"]),
        sop_instance_uid=_text(data["sop_instance_uid"]),
        fp_per_scan=_number(data["fp_per_scan"]) if "fp_per_scan" in data else None,
    )
    if abs(nodule.slice - 1 - np.clip(index[0], 0, scan.shape_zyx[0] - 1)) > 0.501:
        raise ValueError(f"nodule {number}: slice {nodule.slice} is not the nearest to its voxel")
    if nodule.diameter_mm <= 0 or nodule.volume_mm3 <= 0:
        raise ValueError(f"nodule {number}: a diameter and a volume are more than 0")
    return nodule


def _vector(values: Any) -> tuple[float, float, float]:
    a, b, c = values
    return _number(a), _number(b), _number(c)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value
