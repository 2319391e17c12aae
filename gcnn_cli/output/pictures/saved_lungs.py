"""Lungs for the pictures of a saved report, whose file holds no mask.

They are found on the grid on which detection found them, so that `gcnn convert` makes the same pictures.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.scan.images.image_file import read_mask
from gcnn_cli.scan.resample import resample, resample_mask
from gcnn_cli.scan.volume import Volume

_DEFAULT_SPACING_MM = 1.0
_FINEST_MM, _COARSEST_MM = 0.3, 5.0  # a report can state any number; a finer grid would only fill the memory


def with_lungs(report: Report, volume: Volume, mask_path: Path | None = None) -> Report:
    """Return the report with the lungs of its scan, none where the scan shows no lung.

    mask_path: the lung mask of a report that was made with one. Raises UsageError where it is missing or unexpected,
    InputError where it is another mask.
    """
    wanted = report.options.get("lung_mask") or ""
    if wanted and mask_path is None:
        raise UsageError("this result was made within a lung mask; give that mask with --lung-mask")
    if mask_path is not None and not wanted:
        raise UsageError("this result was made without a lung mask; leave out --lung-mask")
    grid = resample(volume, _spacing_of(report))
    if mask_path is not None:
        given = read_mask(mask_path)
        if given.source.sha256 != wanted:
            raise InputError("not the lung mask of this result: its checksum differs", path=mask_path)
        lungs = resample_mask(given, grid)
    else:
        try:
            lungs = segment_lungs(grid, LungConfig())
        except InputError:
            return report
    return replace(report, lungs=Volume(lungs.astype(np.int16), grid.to_world))


def _spacing_of(report: Report) -> float:
    """Return the spacing in mm of the detection grid; where the report states none, that of the shipped weights."""
    stated = report.options.get("grid_mm", report.options.get("spacing_mm"))
    if isinstance(stated, (int, float)) and math.isfinite(stated) and _FINEST_MM <= stated <= _COARSEST_MM:
        return float(stated)
    return _DEFAULT_SPACING_MM
