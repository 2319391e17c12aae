"""MetaImage, NIfTI and NRRD -> Volume; the first and the last through SimpleITK, which works in LPS.

SimpleITK repairs or misnames several defects in silence; `metaimage` and `nrrd` look for them
first, and each is one line that names the file at fault. NIfTI is read in `nifti`.
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
from gcnn_cli.scan.grid import Grid
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256
from gcnn_cli.scan.metaimage import check_metaimage
from gcnn_cli.scan.nifti import read_nifti, read_nifti_grid
from gcnn_cli.scan.nrrd import check_nrrd
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
_READERS = {"metaimage": "MetaImageIO", "nrrd": "NrrdImageIO"}


def suffix_of(path: Path) -> str:
    """The supported suffix that the name ends with, or an empty string."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """The name without its image suffix; dots inside it stay, LUNA16's names are UIDs."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_image(path: Path) -> Volume:
    """Read one scan. Raises InputError or GeometryError with one line."""
    values, affine, kind, grid_warnings = _load(path)
    hu, value_warnings = checked_hu(values, str(path))
    spacing = np.round(np.linalg.norm(affine[:3, :3], axis=0), 4)
    return Volume(
        hu,
        affine,
        Source(
            path=str(path),
            kind=kind,
            series_uid=stem_of(path),
            sha256=content_sha256(hu, affine),
            warnings=grid_warnings + value_warnings,
            checks=(f"one regular grid, spacing {spacing.tolist()} mm (z, y, x)", "orthogonal axes"),
        ),
    )


def read_mask(path: Path) -> Volume:
    """Read a mask on any grid: 1 where the file's values are above 0, else 0. Raises as read_image."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not suffix_of(path):
        raise InputError(f"{path}: a mask is one of {' '.join(SUFFIXES)}")
    values, affine, kind, _ = _load(path)
    mask = (values > 0).astype(np.int16)
    return Volume(mask, affine, Source(str(path), kind, stem_of(path), sha256=content_sha256(mask, affine)))


def read_grid(path: Path) -> Grid:
    """Where the voxels of one scan lie, from its header: cheap, and no promise that the voxels can be read.

    Raises InputError or GeometryError as read_image does for what the header tells.
    """
    kind = KINDS[suffix_of(path)]
    try:
        if kind == "nifti":
            size, affine = read_nifti_grid(path)
            _check_shape(path, size[:4], math.prod(size[4:]))
        else:
            reader, _ = _open_by_itk(path, kind, unpack=False)
            size, affine = reader.GetSize(), _affine_of(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    _check_spacing(path, affine)
    columns, rows, slices = size[:3]
    return Grid((slices, rows, columns), affine)


def _load(path: Path) -> tuple[NDArray[Any], Array, str, tuple[str, ...]]:
    """Voxels as stored [D, H, W], affine, kind and warnings; everything but the values is checked."""
    kind = KINDS[suffix_of(path)]
    if kind == "nifti":
        values, affine, warnings = read_nifti(path)
        size = values.shape[::-1]
        _check_shape(path, size[:4], math.prod(size[4:]))  # the fifth axis is that of vectors
    else:
        values, affine, warnings = _read_by_itk(path, kind)
    _check_spacing(path, affine)
    return values.reshape(values.shape[-3:]), affine, kind, warnings


def _read_by_itk(path: Path, kind: str) -> tuple[NDArray[Any], Array, tuple[str, ...]]:
    reader, warnings = _open_by_itk(path, kind, unpack=True)
    with _quiet_itk():
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be read as {kind}: {_last_line(error)}") from None
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    return sitk.GetArrayFromImage(image), _affine_of(image), warnings


def _open_by_itk(path: Path, kind: str, *, unpack: bool) -> tuple[sitk.ImageFileReader, tuple[str, ...]]:
    """A reader that has read the header, and warnings; unpack as in check_metaimage."""
    warnings: tuple[str, ...] = ()
    try:
        if kind == "metaimage":
            check_metaimage(path, unpack=unpack)
        else:
            warnings = check_nrrd(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[kind])
    reader.SetFileName(str(path))
    with _quiet_itk():
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be read as {kind}: {_last_line(error)}") from None
    _check_shape(path, reader.GetSize(), reader.GetNumberOfComponents())
    return reader, warnings


def _check_spacing(path: Path, affine: Array) -> None:
    coarsest = float(np.linalg.norm(affine[:3, :3], axis=0).max())
    if coarsest > _MAX_SPACING_MM:
        raise GeometryError(
            f"{path}: voxels of {coarsest:.2f} mm are too coarse to measure nodules (at most {_MAX_SPACING_MM:g} mm)"
        )


def _check_shape(path: Path, size: tuple[int, ...], components: int) -> None:
    """size: voxels along x, y, z and, in some files, time."""
    if components != 1:
        raise InputError(f"{path}: a color or vector image ({components} values per voxel), not a CT")
    if math.prod(size[3:]) != 1:
        raise InputError(f"{path}: holds {math.prod(size[3:])} volumes; give one of them")
    if len(size) < 3 or min(size[:3]) < 2:
        shown = "x".join(map(str, size))
        raise InputError(f"{path}: a scan needs at least two slices, rows and columns, got {shown}")


def _affine_of(image: Any) -> Array:
    """Of an image or the reader of one, for its first three axes: the header of a single volume may have four."""
    axes = image.GetDimension()
    spacing = np.array(image.GetSpacing())[2::-1]
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, 2::-1]
    return make_affine(spacing, direction, np.array(image.GetOrigin())[:3])


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
