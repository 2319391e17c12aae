"""Contents of a path, as rows for `gcnn info`. An unsound geometry is described and raises nothing."""

from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom.series import Series, fillable_hint, find_series, no_series, numbered
from gcnn_cli.scan.folders import dicom_folder
from gcnn_cli.scan.images.image_file import read_image
from gcnn_cli.scan.packed_images import packed_images
from gcnn_cli.scan.reading import read_errors
from gcnn_cli.scan.volume import Volume


def describe_scan(path: Path, *, allow_gaps: bool = False) -> list[dict[str, Any]]:
    """Return one row for each DICOM series of a folder, archive or DICOMDIR, and one for each image.

    allow_gaps: judge a DICOM series as reading does with it

    Raises as `read_volume`, but not for a series that cannot be used.
    """
    with read_errors(path), dicom_folder(path) as folder:
        if folder is None:
            return [_image_row(1, read_image(path))]
        found = find_series(folder)
        if not found and (images := packed_images(path, folder)):
            return [_image_row(number, read_image(image)) for number, image in enumerate(images, start=1)]
        if not found:
            raise no_series(folder)
        return [_series_row(number, series, allow_gaps) for number, series in numbered(found)]


def _image_row(number: int, volume: Volume) -> dict[str, Any]:
    return {
        "number": f"#{number}",
        "seriesuid": volume.source.series_uid,
        "kind": volume.source.kind,
        "size": [int(n) for n in reversed(volume.shape)],
        "spacing_mm": [round(float(s), 4) for s in reversed(volume.spacing_zyx)],
        "hu": [float(volume.hu.min()), float(volume.hu.max())],
        "geometry": "sound: " + "; ".join(volume.source.checks),
        "warnings": "; ".join(volume.source.warnings),
    }


def _series_row(number: str, series: Series, allow_gaps: bool) -> dict[str, Any]:
    geometry = f"not used: {series.unusable}"
    size: list[int] = []
    warnings: tuple[str, ...] = ()
    verdict = None
    if not series.unusable:
        try:
            verdict = series.judge(allow_gaps=allow_gaps)
        except InputError as error:  # of two slices at one place, one cannot be read
            geometry = f"refused: {error}"
    if verdict:
        refusal = f"refused: {verdict.problem}{fillable_hint(verdict)}"
        geometry = refusal if verdict.problem else "sound: " + "; ".join(verdict.checks)
        plane = series.slices[0].plane
        depth = len(series.slices) if verdict.problem else len(series.in_array_order(verdict))
        size = [plane.columns, plane.rows, depth]
        warnings = verdict.warnings
    return {
        "number": number,
        "seriesuid": series.uid,
        "kind": f"dicom {series.modality}",
        "description": series.description,
        "files": series.files,
        "size": size,
        "geometry": geometry,
        "warnings": "; ".join(warnings),
    }
