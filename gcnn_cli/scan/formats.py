"""MetaImage, NIfTI and NRRD -> Volume, through SimpleITK, which works in LPS for all of them.

SimpleITK repairs or misnames several defects in silence; they are looked for here first, and each
is one line that names the file at fault.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.headers import HEADER_CHECKS
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256
from gcnn_cli.scan.volume import Array, Source, Volume, make_affine

KINDS = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".mhd": "metaimage",
    ".mha": "metaimage",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
}
SUFFIXES = tuple(KINDS)

_MAX_SPACING_MM = 6.0
_READERS = {"nifti": "NiftiImageIO", "metaimage": "MetaImageIO", "nrrd": "NrrdImageIO"}


def suffix_of(path: Path) -> str:
    """The supported suffix that the name ends with, or an empty string."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """The name without its image suffix; dots inside it stay, LUNA16's names are UIDs."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_image(path: Path) -> Volume:
    """Read one scan. Raises InputError or GeometryError with one line."""
    values, affine, kind = _load(path)
    hu, warnings = checked_hu(values, str(path))
    spacing = np.round(np.linalg.norm(affine[:3, :3], axis=0), 4)
    return Volume(
        hu,
        affine,
        Source(
            path=str(path),
            kind=kind,
            series_uid=stem_of(path),
            sha256=content_sha256(hu, affine),
            warnings=warnings,
            checks=(f"one regular grid, spacing {spacing.tolist()} mm (z, y, x)", "orthogonal axes"),
        ),
    )


def read_mask(path: Path) -> Volume:
    """Read a mask on any grid: 1 where the file's values are above 0, else 0. Raises as read_image."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not suffix_of(path):
        raise InputError(f"{path}: a mask is one of {' '.join(SUFFIXES)}")
    values, affine, kind = _load(path)
    return Volume((values > 0).astype(np.int16), affine, Source(str(path), kind, stem_of(path)))


def _load(path: Path) -> tuple[NDArray[Any], Array, str]:
    """Voxels as stored [D, H, W], affine and kind of a file; everything but the values is checked."""
    kind = KINDS[suffix_of(path)]
    if kind in HEADER_CHECKS:
        HEADER_CHECKS[kind](path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[kind])
    reader.SetFileName(str(path))
    with _quiet_itk():
        try:
            reader.ReadImageInformation()
            _check_header(path, reader)
            image = reader.Execute()
        except RuntimeError as error:
            reason = _last_line(error)
            kind_of_error = GeometryError if "orthonormal" in reason else InputError
            raise kind_of_error(f"{path}: cannot be read as {kind}: {reason}") from None
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    return sitk.GetArrayFromImage(image), _affine_of(path, image, kind), kind


def _check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(
            f"{path}: a color or vector image ({reader.GetNumberOfComponents()} values per voxel), not a CT"
        )
    if len(size) == 4 and size[3] != 1:
        raise InputError(f"{path}: four-dimensional ({size[3]} volumes); give one volume")
    if len(size) < 3 or min(size[:3]) < 2:
        raise InputError(f"{path}: a scan needs at least two slices, rows and columns, got {'x'.join(map(str, size))}")


def _affine_of(path: Path, image: sitk.Image, kind: str) -> Array:
    spacing = np.array(image.GetSpacing())[::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)[:, ::-1]
    if kind == "nifti":
        _check_nifti_transform(path, image)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GeometryError(f"{path}: voxel spacing must be positive, got {spacing.tolist()} mm (z, y, x)")
    if spacing.max() > _MAX_SPACING_MM:
        raise GeometryError(
            f"{path}: voxels of {spacing.max():.2f} mm are too coarse to measure nodules (at most {_MAX_SPACING_MM} mm)"
        )
    return make_affine(spacing, direction, np.array(image.GetOrigin()))


def _check_nifti_transform(path: Path, image: sitk.Image) -> None:
    """ITK makes a sheared sform orthogonal in silence; compare with what the file says."""

    def rows(name: str) -> NDArray[np.float64]:
        return np.array([float(v) for v in image.GetMetaData(name).split()])

    if not all(image.HasMetaDataKey(f"srow_{axis}") for axis in "xyz") or image.GetMetaData("sform_code") == "0":
        return
    sform = np.stack([rows(f"srow_{axis}") for axis in "xyz"])[:, :3]
    lengths = np.linalg.norm(sform, axis=0)
    if (lengths <= 0).any():
        return
    cosines = (sform / lengths).T @ (sform / lengths) - np.eye(3)
    if np.abs(cosines).max() > 1e-3:
        angle = 90 - math.degrees(math.acos(min(1.0, float(np.abs(cosines).max()))))
        raise GeometryError(f"{path}: the NIfTI sform is sheared by {angle:.1f} degrees; positions would be wrong")


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """No C++ warnings on stderr: what they say is checked here and said in one line."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _last_line(error: RuntimeError) -> str:
    """What ITK says, without its source file, object address and line breaks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("): ", 1)[-1] if lines else "unknown reason"
