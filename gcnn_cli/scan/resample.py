"""Volume -> Volume on a regular grid: cubic where nodules are searched for, and as a network takes it for patches.

Two steps make the result depend on the patient and not on the storage order of the file:

1. `orient`: permute and flip the array so that its axes run along +z, +y, +x of the patient
   as nearly as its own axes allow. Nothing is interpolated. A scan that was turned or
   mirrored together with its affine, by any of the 48 elements of Oh, becomes the same array
   again.
2. `resample`: linear interpolation onto voxels of given sides, centered on the volume so that a flip
   maps grid points to grid points. A scan finer than the new grid is smoothed first, as noise
   of the fine grid would be aliased into the coarse grid.
"""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from gcnn_cli.errors import InputError
from gcnn_cli.scan.lattice import Array, make_affine
from gcnn_cli.scan.separable import axis_map, map_axes
from gcnn_cli.scan.volume import Volume

AIR_HU = -1024.0
SEARCH_MM = 1.0  # spacing for lungs and candidates where a network's own voxels are no cubes
_HIGHEST_HU = 32767.0  # of int16; a float32 scan may hold more
_FWHM_PER_SIGMA = 2.3548
_FEWEST_SMOOTHED = 4  # voxels along an axis that ITK's recursive Gaussian takes


def orient(volume: Volume) -> Volume:
    """Return the same scan with array axes (z, y, x) nearest to the patient's +z, +y, +x in LPS."""
    order = _nearest_axes(volume.direction)
    hu = volume.hu.transpose(order)
    to_world = volume.to_world.copy()
    to_world[:, :3] = to_world[:, order]
    for axis, world_axis in enumerate((2, 1, 0)):
        if to_world[world_axis, axis] < 0:
            to_world[:3, 3] += to_world[:3, axis] * (hu.shape[axis] - 1)
            to_world[:3, axis] *= -1
            hu = np.flip(hu, axis)
    return Volume(hu, to_world, volume.source)


def search_spacing(spacing_mm: float | Sequence[float]) -> float:
    """Return the spacing in mm of the cubic grid for lungs and candidates: the given one if it is cubic, else 1 mm."""
    spacing = set(_axes_mm(spacing_mm).tolist())
    return spacing.pop() if len(spacing) == 1 else SEARCH_MM


def resample(volume: Volume, spacing_mm: float | Sequence[float]) -> Volume:
    """Return the oriented scan on voxels of the given side, or of one for each axis (z, y, x), in mm.

    HU are float32 and at least -1024.

    Raises InputError when the scan would shrink to less than one voxel along an axis, or has too few to be smoothed.
    """
    oriented = orient(volume)
    extent_mm = np.array(oriented.shape) * oriented.spacing_zyx
    spacing = _axes_mm(spacing_mm)
    shape = np.round(extent_mm / spacing).astype(int)
    sigmas_mm = _antialiasing_sigmas(oriented.spacing_zyx, spacing)
    if (shape < 1).any() or (np.array(oriented.shape)[sigmas_mm > 0] < _FEWEST_SMOOTHED).any():
        raise InputError(f"the scan measures {extent_mm.round(1).tolist()} mm (z, y, x): too small to resample")
    center = oriented.position_mm((np.array(oriented.shape) - 1) / 2)
    affine = make_affine(spacing, oriented.direction, np.zeros(3))
    affine[:3, 3] = center - affine[:3, :3] @ ((shape - 1) / 2)

    old_mm = oriented.spacing_zyx
    along_z, along_y, along_x = (
        axis_map(oriented.shape[axis], int(shape[axis]), old_mm[axis], spacing[axis], float(sigmas_mm[axis]))
        for axis in range(3)
    )
    return Volume(map_axes(oriented.hu, (AIR_HU, _HIGHEST_HU), (along_z, along_y, along_x)), affine, volume.source)


def resample_mask(mask: Volume, like: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Resample a mask (values above 0) to the lattice of another volume, nearest neighbor; False outside."""
    image = as_image(mask)
    image = sitk.Resample(image, as_image(like), sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    return np.asarray(sitk.GetArrayFromImage(image) > 0)


def _nearest_axes(direction: Array) -> list[int]:
    """Return the array axes that run most nearly along the patient's z, y and x."""
    remaining = [0, 1, 2]
    order = []
    for world_axis in (2, 1, 0):
        best = max(remaining, key=lambda axis: abs(direction[world_axis, axis]))
        order.append(best)
        remaining.remove(best)
    return order


def _axes_mm(spacing_mm: float | Sequence[float]) -> Array:
    return np.array(np.broadcast_to(np.asarray(spacing_mm, float), 3))


def _antialiasing_sigmas(spacing_zyx: Array, wanted_zyx: Array) -> Array:
    """Return the Gaussian sigma in mm per axis that lowers a grid's resolution to that of the coarser grid."""
    widening = np.maximum(wanted_zyx**2 - spacing_zyx**2, 0.0)
    sigmas = np.sqrt(widening) / _FWHM_PER_SIGMA
    # A kernel much narrower than a voxel averages nothing.
    return np.where(sigmas > 0.4 * spacing_zyx, sigmas, 0.0)


def as_image(volume: Volume) -> sitk.Image:
    """Return the volume as an ITK image, whose axes are (x, y, z) in LPS, like to_world's rows."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.hu))
    image.SetSpacing(volume.spacing_zyx[::-1].tolist())
    image.SetOrigin(volume.to_world[:3, 3].tolist())
    image.SetDirection(volume.direction[:, ::-1].ravel().tolist())
    return image
