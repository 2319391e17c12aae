"""What a path holds, as rows: for `gcnn info`, without raising on an unsound geometry."""

import zipfile
from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom import Series, find_series
from gcnn_cli.scan.formats import suffix_of
from gcnn_cli.scan.reading import read_volume, unpacked


def summarize(path: Path) -> list[dict[str, Any]]:
    """One row for each series of a DICOM folder or zip, one for a file. Raises InputError as reading does."""
    if path.is_dir():
        return _series_rows(path, path)
    if path.is_file() and not suffix_of(path) and zipfile.is_zipfile(path):
        with unpacked(path) as folder:
            return _series_rows(folder, path)
    if path.name.upper() == "DICOMDIR":
        return _series_rows(path.parent, path)
    volume = read_volume(path)
    return [
        {
            "number": "#1",
            "seriesuid": volume.source.series_uid,
            "kind": volume.source.kind,
            "size": [int(n) for n in reversed(volume.shape)],
            "spacing_mm": [round(float(s), 4) for s in reversed(volume.spacing_zyx)],
            "hu": [float(volume.hu.min()), float(volume.hu.max())],
            "geometry": "sound: " + "; ".join(volume.source.checks),
            "warnings": "; ".join(volume.source.warnings),
        }
    ]


def _series_rows(folder: Path, shown: Path) -> list[dict[str, Any]]:
    found = find_series(folder)
    if not found:
        raise InputError(f"{shown}: no DICOM series in this folder; give an image file by its own name")
    return [_series_row(number, series) for number, series in enumerate(found, start=1)]


def _series_row(number: int, series: Series) -> dict[str, Any]:
    geometry = f"not used: {series.unusable}"
    size: list[int] = []
    warnings: tuple[str, ...] = ()
    if not series.unusable:
        verdict = series.verdict
        geometry = f"refused: {verdict.problem}" if verdict.problem else "sound: " + "; ".join(verdict.checks)
        plane = series.slices[0].plane
        size = [plane.columns, plane.rows, len(verdict.order) or len(series.slices)]
        warnings = verdict.warnings
    return {
        "number": f"#{number}",
        "seriesuid": series.uid,
        "kind": f"dicom {series.modality}",
        "description": series.description,
        "files": series.files,
        "size": size,
        "geometry": geometry,
        "warnings": "; ".join(warnings),
    }
