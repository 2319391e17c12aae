"""A saved JSON -> its report, for `gcnn convert`. Inconsistent files are refused.

Law: report_data(read_report(path)) is the data in the file.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gcnn_cli.detection.findings import ModelSummary, Nodule, Report, ScanSummary, Seed
from gcnn_cli.errors import GcnnError, InputError
from gcnn_cli.output.json_format import SCHEMA_NAME, SCHEMA_VERSION
from gcnn_cli.scan.images.image_file import suffix_of
from gcnn_cli.scan.lattice import checked_affine
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Source, Volume

_TOLERANCE_MM = 0.01


def read_report(path: Path) -> Report:
    """Read one report written by `gcnn detect`.

    Raises InputError when the file is not a report, has another schema version, or gives a nodule a
    voxel and a position that differ.
    """
    try:
        data = parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    except ValueError:  # damaged JSON, or text that is not UTF-8
        raise InputError("not a JSON file; give the .nodules.json that gcnn detect wrote", path=path) from None
    return parse_report(data, path)


def parse_json(text: str) -> Any:
    """Parse JSON strictly. NaN, infinite numbers, lone surrogates and endless nesting raise ValueError."""
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # a lone surrogate could be read, but not written again
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return data


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not a JSON number")
    return number


def parse_report(data: Any, path: Path) -> Report:
    """Return a report from the parsed JSON of `path`. Raises InputError as `read_report` does."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, dict) or schema.get("name") != SCHEMA_NAME:
        raise InputError("not a report of gcnn; give the .nodules.json that gcnn detect wrote", path=path)
    if schema.get("version") != SCHEMA_VERSION:
        raise InputError(
            f"report of schema version {schema.get('version')}; this gcnn reads {SCHEMA_VERSION}", path=path
        )
    try:
        return _report(data)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"damaged report: {' '.join(str(error).split())[:120]}", path=path) from None
    except GcnnError as error:
        raise InputError(f"damaged report: {error}", path=path) from None


def read_same_scan(report: Report, path: Path) -> tuple[Report, Volume]:
    """Read the scan of a report again, and add to the report what its file lacks: the UIDs of the slices.

    Raises InputError when the voxels or their geometry differ from the report's, otherwise as read_volume does.
    """
    of_series = not suffix_of(path)
    source = report.scan.source
    volume = read_volume(path, series=source.series_choice if of_series else None, allow_gaps=source.gaps_filled)
    if not source.sha256 or volume.source.sha256 != source.sha256:
        raise InputError(
            "not the scan of this result: the checksum of its voxels is"
            f" {volume.source.sha256[:12]}…, the result's {source.sha256[:12] or 'missing'}…",
            path=path,
        )
    scan = ScanSummary.of(volume)
    # A file of another name, or of another format, does not rename the series that tables know.
    named = replace(
        scan.source,
        series_uid=source.series_uid,
        study_uid=source.study_uid,
        frame_of_reference_uid=source.frame_of_reference_uid,
        warnings=source.warnings,
    )
    return replace(report, scan=replace(scan, source=named)), volume


def _report(data: dict[str, Any]) -> Report:
    if (data["frame"], data["units"]) != ("LPS", "mm"):
        raise ValueError(f"frame {data['frame']} and units {data['units']}, expected LPS and mm")
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
        lungs_ml=_number(data["lungs_ml"]) if "lungs_ml" in data else None,
    )


def _scan(data: dict[str, Any], warnings: tuple[str, ...], gaps_filled: bool) -> ScanSummary:
    """Return the scan and its geometry. The file lists i, j, k = x, y, z; the array is (z, y, x)."""
    width, height, depth = (int(n) for n in data["size"])
    spacing_zyx = _vector(data["spacing_mm"])[::-1]
    to_world = np.eye(4)
    to_world[:3, :3] = np.array([_vector(axis) for axis in data["axes"]])[::-1].T * spacing_zyx
    to_world[:3, 3] = _vector(data["origin_mm"])
    sizes = (width, height, depth)
    if min(*sizes, *spacing_zyx) <= 0 or max(sizes) >= 2**31 or abs(np.linalg.det(to_world)) < 1e-9:
        raise ValueError("size, spacing and axes do not form a grid")
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
        acquisition=int(data.get("acquisition", 0)),
    )
    rows = tuple(tuple(float(value) for value in row) for row in to_world)
    return ScanSummary(source, (depth, height, width), spacing_zyx, rows)


def _nodule(number: int, data: dict[str, Any], scan: ScanSummary) -> Nodule:
    position, index = _vector(data["position_mm"]), _vector(data["index"])[::-1]
    to_world = np.array(scan.to_world)
    if max(map(abs, index)) > 2**31:
        raise ValueError(f"nodule {number}: its voxel is outside any scan")
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
        seed=_seed(data["seed"]) if "seed" in data else None,
    )
    if abs(nodule.slice - 1 - np.clip(index[0], 0, scan.shape_zyx[0] - 1)) > 0.501:
        raise ValueError(f"nodule {number}: slice {nodule.slice} is not the nearest to its voxel")
    if nodule.diameter_mm <= 0 or nodule.volume_mm3 <= 0:
        raise ValueError(f"nodule {number}: diameter and volume must be greater than 0")
    return nodule


def _seed(data: dict[str, Any]) -> Seed:
    return Seed(_vector(data["position_mm"]), _number(data["diameter_mm"]))


def _vector(values: Any) -> tuple[float, float, float]:
    a, b, c = values
    return _number(a), _number(b), _number(c)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value
