"""A CT scan as one frozen value: Hounsfield units and where each voxel lies in the patient.

Arrays are indexed (z, y, x) = [D, H, W]; positions are (x, y, z) in LPS millimetres, the
frame of DICOM, ITK and LUNA16 (x to the patient's left, y to the back, z to the head).
`to_world` is the only bridge between the two.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import GeometryError, InputError

Array = NDArray[np.float64]

_ORTHOGONALITY_TOLERANCE = 1e-3
# Outside of these a header was damaged: the finest CT has voxels of 0.1 mm, and tables move by meters.
_MIN_SPACING_MM = 0.01
FARTHEST_MM = 1e5
# Above, nodules can be neither found nor measured.
MAX_SPACING_MM = 6.0


@dataclass(frozen=True)
class Source:
    """Where a volume came from, for reports: identities, never names of patients."""

    path: str
    kind: str  # "dicom", "metaimage", "nifti", "nrrd", "array"
    series_uid: str  # SeriesInstanceUID for DICOM, the file's stem otherwise
    study_uid: str = ""
    frame_of_reference_uid: str = ""
    sha256: str = ""  # of the pixel values, the shape and the affine: the same for every format
    slice_uids: tuple[
        str, ...
    ] = ()  # SOPInstanceUID of each slice, in array order: of the nearest where gaps were filled
    warnings: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()  # geometry checks that passed, in words
    gaps_filled: bool = False  # slices were interpolated between those of the files


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan, checked when it is made.

    hu:       int16 or float32 [D, H, W], Hounsfield units, read-only
    to_world: float64 [4, 4], voxel (z, y, x, 1) -> (x, y, z, 1) in LPS mm; voxel centres

    Raises InputError for values that cannot be a CT, GeometryError for an affine whose
    axes are not orthogonal or have no length.
    """

    hu: NDArray[Any]
    to_world: Array
    source: Source = field(default_factory=lambda: Source("", "array", "array"))

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or 0 in self.hu.shape:
            raise InputError(f"expected a three-dimensional scan, got shape {self.hu.shape}")
        if self.hu.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise InputError(f"expected int16 or float32 voxels, got {self.hu.dtype}")
        if self.hu.dtype == np.float32 and not np.isfinite(self.hu).all():
            raise InputError("the scan holds NaN or infinite values")
        object.__setattr__(self, "to_world", checked_affine(self.to_world))
        for array in (self.hu, self.to_world):
            array.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        depth, height, width = self.hu.shape
        return depth, height, width

    @cached_property
    def spacing_zyx(self) -> Array:
        """Distance in mm between voxel centres along (z, y, x)."""
        return np.asarray(np.linalg.norm(self.to_world[:3, :3], axis=0), np.float64)

    @cached_property
    def direction(self) -> Array:
        """[3, 3]: unit vectors in LPS as columns, one for each of the array axes (z, y, x)."""
        return np.asarray(self.to_world[:3, :3] / self.spacing_zyx, np.float64)

    @cached_property
    def to_index(self) -> Array:
        """[4, 4]: (x, y, z, 1) in LPS mm -> voxel (z, y, x, 1)."""
        return np.asarray(np.linalg.inv(self.to_world), np.float64)

    def position_mm(self, index_zyx: Array) -> Array:
        """Voxel indices [..., 3] as (z, y, x) -> positions [..., 3] as (x, y, z), LPS mm."""
        return np.asarray(np.asarray(index_zyx, float) @ self.to_world[:3, :3].T + self.to_world[:3, 3])

    def index_zyx(self, position_mm: Array) -> Array:
        """Positions [..., 3] as (x, y, z), LPS mm -> fractional voxel indices as (z, y, x)."""
        return np.asarray(np.asarray(position_mm, float) @ self.to_index[:3, :3].T + self.to_index[:3, 3])


def make_affine(spacing_zyx: Array, direction: Array, origin_mm: Array) -> Array:
    """Affine [4, 4] from spacing (z, y, x), direction columns (z, y, x) and origin (x, y, z)."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(direction, float) * np.asarray(spacing_zyx, float)
    affine[:3, 3] = origin_mm
    return affine


def checked_affine(affine: Array) -> Array:
    """A copy [4, 4]. Raises GeometryError unless its axes are orthogonal and its lengths a scanner's."""
    affine = np.array(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise GeometryError("the voxel-to-patient transform is not a finite 4 x 4 matrix")
    if np.abs(affine).max() > FARTHEST_MM:
        raise GeometryError(f"the scan lies {np.abs(affine).max():.3g} mm from the origin: no scanner reaches there")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths <= 0).any():
        raise GeometryError(f"voxel spacing must be positive, got {lengths.tolist()} (z, y, x) mm")
    if lengths.min() < _MIN_SPACING_MM:
        raise GeometryError(f"voxels of {lengths.min():.3g} mm are no CT's (at least {_MIN_SPACING_MM:g} mm)")
    axes = affine[:3, :3] / lengths
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew > _ORTHOGONALITY_TOLERANCE:
        raise GeometryError(
            f"the scan's axes are not orthogonal (cosine {skew:.4f} between two of them): sheared or tilted"
        )
    return affine
