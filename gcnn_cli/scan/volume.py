"""A CT scan as one frozen value: Hounsfield units, their lattice in the patient and their source."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.scan.lattice import Array, Lattice, make_affine

__all__ = ["Array", "Source", "Volume", "make_affine"]  # a volume and its parts


@dataclass(frozen=True)
class Source:
    """Origin of a volume, for reports: identities, never names of patients.

    path:        as the user named it
    kind:        "dicom", "metaimage", "nifti", "nrrd" or "array"
    series_uid:  SeriesInstanceUID for DICOM, the file's stem otherwise
    sha256:      of the voxels, the shape and the affine: the same for every format
    slice_uids:  SOPInstanceUID of each slice, in array order; of the nearest slice where a gap was filled
    checks:      geometry checks that passed, in words
    gaps_filled: some slices were interpolated between those of the files
    acquisition: number, from 1, of the acquisition among several of one DICOM series; 0 for a whole series
    """

    path: str
    kind: str
    series_uid: str
    study_uid: str = ""
    frame_of_reference_uid: str = ""
    sha256: str = ""
    slice_uids: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    gaps_filled: bool = False
    acquisition: int = 0

    @property
    def series_choice(self) -> str:
        """Return the value of --series that chooses this series, or this acquisition of it."""
        return f"{self.series_uid}#{self.acquisition}" if self.acquisition else self.series_uid


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan, checked at construction.

    hu:       int16 or float32 [D, H, W], Hounsfield units; a read-only view of the array that was given
    to_world: float64 [4, 4], voxel (z, y, x, 1) -> (x, y, z, 1) in LPS mm; voxel centers; a read-only copy
    lattice:  shape and to_world as one value

    Raises InputError for values that cannot be a CT, GeometryError for an affine that cannot be a scanner's.
    """

    hu: NDArray[Any]
    to_world: Array
    source: Source = field(default_factory=lambda: Source("", "array", "array"))
    lattice: Lattice = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or 0 in self.hu.shape:
            raise InputError(f"expected a three-dimensional scan, got shape {self.hu.shape}")
        if self.hu.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise InputError(f"expected int16 or float32 voxels, got {self.hu.dtype}")
        if self.hu.dtype == np.float32 and not np.isfinite(self.hu).all():
            raise InputError("the scan holds NaN or infinite values")
        hu = self.hu.view()  # the caller's own array stays writable
        hu.flags.writeable = False
        depth, height, width = hu.shape
        lattice = Lattice((depth, height, width), self.to_world)
        for name, value in (("hu", hu), ("to_world", lattice.to_world), ("lattice", lattice)):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return self.lattice.shape

    @property
    def spacing_zyx(self) -> Array:
        """Distance in mm between voxel centers along (z, y, x)."""
        return self.lattice.spacing_zyx

    @property
    def direction(self) -> Array:
        """Unit vectors in LPS as the columns of a [3, 3] matrix, one for each array axis (z, y, x)."""
        return self.lattice.direction

    def position_mm(self, index_zyx: Array) -> Array:
        """Return the positions [..., 3] as (x, y, z), LPS mm, of voxel indices [..., 3] as (z, y, x)."""
        return self.lattice.position_mm(index_zyx)

    def index_zyx(self, position_mm: Array) -> Array:
        """Return the fractional voxel indices [..., 3] as (z, y, x) of positions [..., 3] as (x, y, z), LPS mm."""
        return self.lattice.index_zyx(position_mm)
