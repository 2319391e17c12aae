"""What a Python program holds -> Volume: a path, a SimpleITK image, or an array with its spacing and origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gcnn_cli.errors import GeometryError, InputError, UsageError
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256
from gcnn_cli.scan.lattice import MAX_SPACING_MM, Array, make_affine
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Source, Volume

Scan = str | Path | Volume | sitk.Image | NDArray[Any]

_ALONG_LPS = np.eye(3)[:, ::-1]  # columns: the array's z, y, x along the patient's


def as_volume(
    scan: Scan,
    *,
    spacing_zyx: Sequence[float] | None = None,
    origin_mm: Sequence[float] | None = None,
    name: str | None = None,
    series: str | None = None,
    allow_gaps: bool = False,
) -> Volume:
    """Return a scan as a Volume.

    scan:        path of any supported format, Volume, SimpleITK image of HU, or array [D, H, W] of HU whose axes
                 (z, y, x) run along +z, +y, +x in LPS
    spacing_zyx: (z, y, x), mm between voxel centers; of an array only, which needs it
    origin_mm:   (x, y, z), LPS mm of the first voxel's center; of an array only (default: 0, 0, 0)
    name:        seriesuid of an image or array in results (default: "array")
    series, allow_gaps: of a path only, as in `read_volume`

    Raises UsageError for an argument that does not fit the kind of scan, otherwise as `read_volume` does.
    """
    is_path = isinstance(scan, (str, Path))
    if not isinstance(scan, np.ndarray) and (spacing_zyx is not None or origin_mm is not None):
        raise UsageError("spacing_zyx and origin_mm go with an array; a file, an image or a volume has its own")
    if not is_path and (series is not None or allow_gaps):
        raise UsageError("series and allow_gaps go with a path: they choose and repair DICOM files")
    if isinstance(scan, (str, Path, Volume)) and name is not None:
        raise UsageError("name goes with an image or an array; a file and a volume have their own")
    if isinstance(scan, (str, Path)):
        return read_volume(Path(scan), series=series, allow_gaps=allow_gaps)
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, sitk.Image):
        return _of_image(scan, name or "array")
    if isinstance(scan, np.ndarray):
        if spacing_zyx is None:
            raise UsageError("an array needs spacing_zyx: nothing can be measured without it")
        spacing = _three(spacing_zyx, "spacing_zyx")
        return _made(
            scan,
            make_affine(spacing, _ALONG_LPS, _three((0, 0, 0) if origin_mm is None else origin_mm, "origin_mm")),
            name,
        )
    raise UsageError(f"a scan is a path, a Volume, a SimpleITK image or an array, not {type(scan).__name__}")


def _of_image(image: sitk.Image, name: str) -> Volume:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"expected a three-dimensional image of one value per voxel, got {image.GetDimension()} dimensions"
            f" and {image.GetNumberOfComponentsPerPixel()} values"
        )
    direction = np.array(image.GetDirection()).reshape(3, 3)[:, ::-1]
    affine = make_affine(np.array(image.GetSpacing()[::-1]), direction, np.array(image.GetOrigin()))
    return _made(sitk.GetArrayFromImage(image), affine, name)


def _made(values: NDArray[Any], to_world: Array, name: str | None) -> Volume:
    """Return the volume of checked HU. Raises InputError, or GeometryError for an unsound lattice."""
    if values.ndim != 3 or min(values.shape) < 2:
        raise InputError(f"a scan needs at least two slices, rows and columns, got shape {values.shape}")
    hu, warnings = checked_hu(values, name or "array")
    made = Volume(hu, to_world)
    if (coarsest := float(made.spacing_zyx.max())) > MAX_SPACING_MM:
        raise GeometryError(
            f"voxels of {coarsest:.2f} mm are too coarse to measure nodules (at most {MAX_SPACING_MM:g} mm)"
        )
    source = Source("", "array", name or "array", sha256=content_sha256(hu, to_world), warnings=warnings)
    return Volume(hu, to_world, source)


def _three(values: Sequence[float], what: str) -> Array:
    made = np.asarray(values, float)
    if made.shape != (3,):
        raise UsageError(f"{what} must be three numbers, got {list(values)}")
    return made
