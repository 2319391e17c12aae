"""Center and size of a nodule, from its own voxels.

The nodule at a candidate is the region brighter than halfway between lung and its own core that is
connected with the core and lies inside the lungs. An opening with a share of its own radius cuts off
the vessels it sits on. Partial volume counts: a voxel halfway between lung and core is half a voxel
of nodule, so volume and center are finer than the grid.

    w = (HU - lung) / (core - lung) in [0, 1]    volume = sum w    center = sum w x / sum w

The center of mass is that of the nodule only if the region is the nodule. In thick slices a vessel or the wall is no
thinner than a small nodule and stays in the region, whose center then lies outside the nodule. A candidate lies near
the middle of what it marks. A center of mass far from the candidate is therefore replaced by the candidate's position.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.findings import Candidate, Seed
from gcnn_cli.detection.lungs import Mask
from gcnn_cli.detection.patches import cut_patch
from gcnn_cli.scan.volume import Volume

Image = NDArray[np.float32]

_DEFAULT_LUNG_HU = -850.0
_MIN_CONTRAST_HU = 80.0
_NECK = 0.45  # anything thinner than this share of the nodule's radius is a vessel
_CENTRAL = 1 / 4  # share of the measured radius within which the center of mass must lie from the candidate


@dataclass(frozen=True)
class Measurement:
    """Center in LPS mm (x, y, z), volume in mm^3 and the diameter of the ball of that volume in mm.

    seed: the candidate's place and size, from which the same voxels are found again
    """

    position_mm: tuple[float, float, float]
    volume_mm3: float
    diameter_mm: float
    seed: Seed | None = None


@dataclass(frozen=True, eq=False)
class Region:
    """The voxels of a nodule on the detection grid.

    start:  voxel (z, y, x) of the grid at which `weight` begins; may lie outside the grid
    weight: float64 [D, H, W] in [0, 1], the share of each voxel that is nodule
    """

    start: NDArray[np.intp]
    weight: NDArray[np.float64]

    def volume_mm3(self, grid: Volume) -> float:
        """Return the volume of the shares."""
        return float(self.weight.sum()) * float(grid.spacing_zyx[0]) ** 3


def measure_nodule(grid: Volume, lungs: Mask, candidate: Candidate) -> Measurement:
    """Measure the nodule at a candidate. Where nothing stands out, return the candidate's own position and size."""
    seed = Seed(candidate.position_mm, candidate.diameter_mm)
    region = measured_region(grid, lungs, seed)
    if region is None:
        diameter = candidate.diameter_mm
        return Measurement(candidate.position_mm, float(np.pi / 6 * diameter**3), diameter, seed)
    volume = region.volume_mm3(grid)
    center = np.array(ndimage.center_of_mass(region.weight)) + region.start.astype(float)
    x, y, z = (float(value) for value in grid.position_mm(center))
    diameter = float((6 * volume / np.pi) ** (1 / 3))
    moved_mm = float(np.linalg.norm(np.subtract((x, y, z), candidate.position_mm)))
    position = (x, y, z) if moved_mm <= _CENTRAL * diameter / 2 else candidate.position_mm
    return Measurement(position, volume, diameter, seed)


def measured_region(grid: Volume, lungs: Mask, seed: Seed) -> Region | None:
    """Return the voxels that `measure_nodule` measures; None where nothing stands out."""
    voxel_mm = float(grid.spacing_zyx[0])
    index = grid.index_zyx(np.array(seed.position_mm))
    half = int(np.ceil(0.9 * seed.diameter_mm / voxel_mm)) + 4
    side = 2 * half + 1
    hu = np.asarray(cut_patch(grid.hu, index, side), np.float32)
    inside = cut_patch(lungs, index, side, beyond=False)
    middle = np.floor(index + 0.5).astype(np.intp)  # the middle voxel of cut_patch
    weight = _weight(hu, inside, seed.diameter_mm / voxel_mm, half + index - middle)
    return None if weight is None else Region(middle - half, weight)


def _weight(hu: Image, inside: Mask, diameter_vox: float, center: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the share of each voxel that is nodule, [D, H, W] in [0, 1]; None where no core stands out."""
    smooth = ndimage.gaussian_filter(np.where(inside, hu, _DEFAULT_LUNG_HU), 0.6)
    grid = np.indices(hu.shape).transpose(1, 2, 3, 0)
    distance = np.linalg.norm(grid - center, axis=3)
    parenchyma = hu[inside & (hu < -600) & (distance > diameter_vox / 2)]
    lung = float(np.median(parenchyma)) if parenchyma.size > 20 else _DEFAULT_LUNG_HU
    near = distance <= max(1.5, diameter_vox / 4)
    seed = np.unravel_index(np.argmax(np.where(near & inside, smooth, -np.inf)), hu.shape)
    core_region = (np.linalg.norm(grid - np.array(seed), axis=3) <= max(1.0, diameter_vox / 5)) & inside
    if not core_region.any():
        return None
    core = float(np.median(smooth[core_region]))
    if core - lung < _MIN_CONTRAST_HU:
        return None
    dense = (smooth > (core + lung) / 2) & inside & (distance <= 0.9 * diameter_vox + 2)
    nodule = _without_necks(dense, seed)
    if nodule is None:
        return None
    rim = ndimage.binary_dilation(nodule, iterations=1) & inside & (~dense | nodule)
    weight = np.clip((hu - lung) / (core - lung), 0, 1)
    return np.where(rim, weight, 0.0)


def _without_necks(dense: Mask, seed: tuple[np.intp, ...]) -> Mask | None:
    """Return the part of the dense region around the seed, cut where it gets much thinner."""
    depth = ndimage.distance_transform_edt(dense)
    if depth[seed] <= 0:
        return None
    radius = _NECK * float(depth[tuple(slice(max(int(s) - 2, 0), int(s) + 3) for s in seed)].max())
    if radius < 1:
        labels, _ = ndimage.label(dense)
        return np.asarray(labels == labels[seed])
    labels, _ = ndimage.label(depth > radius)
    if labels[seed] == 0:  # the seed is off center: take the nearest thick part
        nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        label = labels[tuple(nearest[:, seed[0], seed[1], seed[2]])]
    else:
        label = labels[seed]
    if label == 0:
        return None
    return np.asarray((ndimage.distance_transform_edt(labels != label) <= radius) & dense)
