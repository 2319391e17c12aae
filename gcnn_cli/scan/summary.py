"""What a path holds, as rows: for `gcnn info`, without raising on an unsound geometry."""

import zipfile
from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.archives import unpacked
from gcnn_cli.scan.dicom.series import Series, fillable_hint, find_series
from gcnn_cli.scan.images.image_file import suffix_of
from gcnn_cli.scan.reading import read_volume


def summarize(path: Path, *, allow_gaps: bool = False) -> list[dict[str, Any]]:
    """One row for each series of a DICOM folder or zip, one for a file. Raises InputError as reading does.

    allow_gaps: judge as reading does with it
    """
    if path.is_dir():
        return _series_rows(path, path, allow_gaps)
    if path.is_file() and not suffix_of(path) and zipfile.is_zipfile(path):
        with unpacked(path) as folder:
            return _series_rows(folder, path, allow_gaps)
    if path.name.upper() == "DICOMDIR":
        return _series_rows(path.parent, path, allow_gaps)
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


def _series_rows(folder: Path, shown: Path, allow_gaps: bool) -> list[dict[str, Any]]:
    found = find_series(folder)
    if not found:
        raise InputError(f"{shown}: no DICOM series in this folder; give an image file by its own name")
    return [_series_row(number, series, allow_gaps) for number, series in enumerate(found, start=1)]


def _series_row(number: int, series: Series, allow_gaps: bool) -> dict[str, Any]:
    geometry = f"not used: {series.unusable}"
    size: list[int] = []
    warnings: tuple[str, ...] = ()
    if not series.unusable:
        verdict = series.judge(allow_gaps=allow_gaps)
        refusal = f"refused: {verdict.problem}{fillable_hint(verdict)}"
        geometry = refusal if verdict.problem else "sound: " + "; ".join(verdict.checks)
        plane = series.slices[0].plane
        depth = len(series.slices) if verdict.problem else len(series.in_array_order(verdict))
        size = [plane.columns, plane.rows, depth]
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
