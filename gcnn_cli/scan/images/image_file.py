"""MetaImage, NIfTI and NRRD -> Volume. Each format's module reads its header, `stored` the voxels."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256
from gcnn_cli.scan.images.metaimage import metaimage_header
from gcnn_cli.scan.images.nifti import nifti_header
from gcnn_cli.scan.images.nrrd import nrrd_header
from gcnn_cli.scan.images.stored import StoredImage
from gcnn_cli.scan.lattice import MAX_SPACING_MM, Lattice, checked_affine
from gcnn_cli.scan.volume import Source, Volume

KINDS = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".hdr": "nifti",
    ".mhd": "metaimage",
    ".mha": "metaimage",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
}
SUFFIXES = tuple(KINDS)

_HEADERS = {"nifti": nifti_header, "metaimage": metaimage_header, "nrrd": nrrd_header}


def suffix_of(path: Path) -> str:
    """Return the supported suffix of a name, or an empty string."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """Return the name without its image suffix. Dots inside it stay, as LUNA16's names are UIDs."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_image(path: Path) -> Volume:
    """Read one scan. Raises InputError, or GeometryError for an unsound lattice."""
    values, stored = _load(path)
    hu, value_warnings = checked_hu(values, str(path))
    spacing = np.round(np.linalg.norm(stored.to_world[:3, :3], axis=0), 4)
    return Volume(
        hu,
        stored.to_world,
        Source(
            path=str(path),
            kind=KINDS[suffix_of(path)],
            series_uid=stem_of(path),
            sha256=content_sha256(hu, stored.to_world),
            warnings=stored.warnings + value_warnings,
            checks=(f"one regular grid, spacing {spacing.tolist()} mm (z, y, x)", "orthogonal axes"),
        ),
    )


def read_mask(path: Path) -> Volume:
    """Read a mask on any lattice: 1 where the file's values are above 0, else 0. Raises as `read_image`."""
    if not path.is_file():
        raise InputError("no such file", path=path)
    if not suffix_of(path):
        raise InputError(f"a mask must be one of {' '.join(SUFFIXES)}", path=path)
    values, stored = _load(path)
    mask = (values > 0).astype(np.int16)
    source = Source(
        path=str(path),
        kind=KINDS[suffix_of(path)],
        series_uid=stem_of(path),
        sha256=content_sha256(mask, stored.to_world),
        warnings=stored.warnings,
    )
    return Volume(mask, stored.to_world, source)


def read_lattice(path: Path) -> Lattice:
    """Read the lattice of one scan from its header. This is cheap, and its voxels may still prove damaged.

    Raises InputError or GeometryError for the header, as `read_image`.
    """
    stored = _open(path)
    columns, rows, slices = stored.size[:3]
    return Lattice((slices, rows, columns), stored.to_world)


def voxel_files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold the voxels of one scan, by its header. Raises as `read_lattice`."""
    stored = _open(path)
    return stored.parts or (stored.data,)


def _load(path: Path) -> tuple[NDArray[Any], StoredImage]:
    """Read the voxels as stored [D, H, W] and the header. All but the values is checked."""
    stored = _open(path)
    try:
        values = stored.read()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    return values.reshape(values.shape[-3:]), stored


def _open(path: Path) -> StoredImage:
    """Read a header, and check its lattice and the declared size."""
    try:
        stored = _HEADERS[KINDS[suffix_of(path)]](path)
        stored.check_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    coarsest = float(np.linalg.norm(stored.to_world[:3, :3], axis=0).max())
    if coarsest > MAX_SPACING_MM:
        raise GeometryError(
            f"voxels of {coarsest:.2f} mm are too coarse to measure nodules (at most {MAX_SPACING_MM:g} mm)", path=path
        )
    try:
        checked_affine(stored.to_world)
    except GeometryError as error:
        raise GeometryError(f"{error}", path=path) from None
    return stored
