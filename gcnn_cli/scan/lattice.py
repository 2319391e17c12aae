"""The lattice of a scan's voxels: their places in the patient, without their values.

Arrays are indexed (z, y, x) = [D, H, W]; positions are (x, y, z) in LPS millimeters, the
frame of DICOM, ITK and LUNA16 (x to the patient's left, y to the back, z to the head).
`to_world` is the only bridge between the two.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import GeometryError

Array = NDArray[np.float64]

# Beyond these a header is damaged: the finest CT has voxels of 0.1 mm, and tables move by meters.
_MIN_SPACING_MM = 0.01
FARTHEST_MM = 1e5
# Nodules can be neither found nor measured on a coarser lattice.
MAX_SPACING_MM = 6.0
_ORTHOGONALITY_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Lattice:
    """A regular lattice of voxels, checked at construction.

    shape:    voxels along (z, y, x)
    to_world: float64 [4, 4], voxel (z, y, x, 1) -> (x, y, z, 1) in LPS mm; voxel centers; read-only

    Raises GeometryError as `checked_affine`.
    """

    shape: tuple[int, int, int]
    to_world: Array

    def __post_init__(self) -> None:
        to_world = checked_affine(self.to_world)
        to_world.flags.writeable = False
        object.__setattr__(self, "to_world", to_world)

    @cached_property
    def spacing_zyx(self) -> Array:
        """Distance in mm between voxel centers along (z, y, x)."""
        return np.asarray(np.linalg.norm(self.to_world[:3, :3], axis=0), np.float64)

    @cached_property
    def direction(self) -> Array:
        """Unit vectors in LPS as the columns of a [3, 3] matrix, one for each array axis (z, y, x)."""
        return np.asarray(self.to_world[:3, :3] / self.spacing_zyx, np.float64)

    @cached_property
    def to_index(self) -> Array:
        """Inverse of `to_world` [4, 4]: (x, y, z, 1) in LPS mm -> voxel (z, y, x, 1)."""
        return np.asarray(np.linalg.inv(self.to_world), np.float64)

    def position_mm(self, index_zyx: Array) -> Array:
        """Return the positions [..., 3] as (x, y, z), LPS mm, of voxel indices [..., 3] as (z, y, x)."""
        return np.asarray(np.asarray(index_zyx, float) @ self.to_world[:3, :3].T + self.to_world[:3, 3])

    def index_zyx(self, position_mm: Array) -> Array:
        """Return the fractional voxel indices [..., 3] as (z, y, x) of positions [..., 3] as (x, y, z), LPS mm."""
        return np.asarray(np.asarray(position_mm, float) @ self.to_index[:3, :3].T + self.to_index[:3, 3])

    def holds(self, position_mm: Array) -> NDArray[np.bool_]:
        """Return for positions [..., 3] as (x, y, z), LPS mm, a bool [...]: True inside a voxel."""
        index = self.index_zyx(position_mm)
        inside = (index >= -0.5) & (index <= np.array(self.shape) - 0.5)
        return np.asarray(inside.all(axis=-1), bool)

    def cropped(self, box: tuple[slice, slice, slice]) -> "Lattice":
        """Return the lattice of `array[box]`. The slices must have bounds within the array and no step."""
        to_world = self.to_world.copy()
        to_world[:3, 3] = self.position_mm(np.array([span.start for span in box]))
        depth, height, width = (span.stop - span.start for span in box)
        return Lattice((depth, height, width), to_world)


def make_affine(spacing_zyx: Array, direction: Array, origin_mm: Array) -> Array:
    """Return the affine [4, 4] of a spacing (z, y, x), direction columns (z, y, x) and an origin (x, y, z)."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(direction, float) * np.asarray(spacing_zyx, float)
    affine[:3, 3] = origin_mm
    return affine


def checked_affine(affine: Array) -> Array:
    """Return a copy [4, 4]. Raises GeometryError unless its axes are orthogonal and its lengths a scanner's."""
    affine = np.array(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise GeometryError("the voxel-to-patient transform is not a finite 4 x 4 matrix")
    if np.abs(affine).max() > FARTHEST_MM:
        raise GeometryError(f"the scan lies {np.abs(affine).max():.3g} mm from the origin: no scanner reaches there")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths <= 0).any():
        raise GeometryError(f"voxel spacing must be positive, got {lengths.tolist()} (z, y, x) mm")
    if lengths.min() < _MIN_SPACING_MM:
        raise GeometryError(f"voxels of {lengths.min():.3g} mm are finer than any CT (at least {_MIN_SPACING_MM:g} mm)")
    axes = affine[:3, :3] / lengths
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew > _ORTHOGONALITY_TOLERANCE:
        raise GeometryError(
            f"the scan's axes are not orthogonal (cosine {skew:.4f} between two of them): sheared or tilted"
        )
    return affine
