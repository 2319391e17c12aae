"""The measured voxels of a report's nodules, on the lattice of its scan.

They are found again from each nodule's seed on the detection grid, and must have the volume that the report states. A
voxel of the scan belongs to a nodule if the share of nodule, interpolated at the voxel's center, is one half or more.
Of two nodules that claim a voxel the one with the larger share has it. A nodule too small to fill half of any voxel
has the one at its center.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.findings import Nodule, Report
from gcnn_cli.detection.lungs import Mask
from gcnn_cli.detection.measure import Region, measured_region
from gcnn_cli.errors import InputError
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume

_SAME = 1e-3  # relative: the same voxels give the same volume but for rounding
_HALF = 0.5

Labels = NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class _Share:
    """The share of nodule in a box of the scan's voxels."""

    box: tuple[slice, slice, slice]
    share: NDArray[np.float64]


def nodule_labels(report: Report, volume: Volume) -> Labels:
    """Return a label map uint16 [D, H, W] on the scan's lattice: the number of the nodule, 0 elsewhere.

    report: with its lungs; volume: its scan

    Raises InputError for a report without lungs or seeds, or whose volumes are not those of the voxels found here.
    """
    labels = np.zeros(volume.shape, np.uint16)
    if not report.nodules:
        return labels
    if report.lungs is None:
        raise InputError("the scan shows no lung in which to find the nodules' voxels", path=volume.source.path)
    if len(report.nodules) > np.iinfo(np.uint16).max:
        raise InputError(f"{len(report.nodules)} nodules are too many for one label map")
    grid = resample(volume, float(report.lungs.spacing_zyx[0]))
    if grid.shape != report.lungs.shape:
        raise InputError("the lungs of this result are those of another scan", path=volume.source.path)
    strongest = np.zeros(volume.shape, np.float32)
    for number, made in enumerate(_shares(report, grid, report.lungs.hu > 0, volume), start=1):
        view, best = labels[made.box], strongest[made.box]
        mine = (made.share >= _HALF) & (made.share > best)
        view[mine], best[mine] = number, made.share[mine]
    for number in set(range(1, len(report.nodules) + 1)) - set(np.unique(labels).tolist()):
        index = np.round(report.nodules[number - 1].index_zyx).astype(int)
        labels[tuple(np.clip(index, 0, np.array(volume.shape) - 1))] = number
    return labels


def _shares(report: Report, grid: Volume, lungs: Mask, volume: Volume) -> Iterator[_Share]:
    for number, nodule in enumerate(report.nodules, start=1):
        yield _share(_region(number, nodule, grid, lungs, volume), grid, volume)


def _region(number: int, nodule: Nodule, grid: Volume, lungs: Mask, volume: Volume) -> Region:
    """Return the voxels of one nodule: those that were measured, or the ball that was reported in their place."""
    if nodule.seed is None:
        raise InputError(
            f"nodule {number}: the result does not say where its measurement began; run gcnn detect again",
            path=volume.source.path,
        )
    region = measured_region(grid, lungs, nodule.seed) or _ball(nodule, grid)
    found = region.volume_mm3(grid)
    if not math.isclose(found, nodule.volume_mm3, rel_tol=_SAME):
        raise InputError(
            f"nodule {number}: its voxels measure {found:.1f} mm3 here and {nodule.volume_mm3:.1f} mm3 in the result,"
            " which another version or mask has made; run gcnn detect again",
            path=volume.source.path,
        )
    return region


def _ball(nodule: Nodule, grid: Volume) -> Region:
    """Return the ball of the nodule's volume; its shares are scaled to have that volume exactly."""
    voxel_mm = float(grid.spacing_zyx[0])
    radius = nodule.diameter_mm / 2 / voxel_mm
    index = grid.index_zyx(np.array(nodule.position_mm))
    start = np.floor(index - radius - 1).astype(np.intp)
    side = math.ceil(2 * radius) + 4
    places = np.indices((side,) * 3).transpose(1, 2, 3, 0) + start - index
    weight = np.clip(radius + 0.5 - np.linalg.norm(places, axis=3), 0, 1)
    return Region(start, weight * (nodule.volume_mm3 / voxel_mm**3 / weight.sum()))


def _share(region: Region, grid: Volume, volume: Volume) -> _Share:
    """Interpolate the region's weight at the scan's voxels around it."""
    corners = np.array(np.meshgrid(*([0, n] for n in region.weight.shape), indexing="ij")).reshape(3, -1).T
    index = volume.index_zyx(grid.position_mm(corners - 0.5 + region.start))
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, np.array(volume.shape) - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, low + 1, volume.shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    places = np.indices(tuple(high - low)).transpose(1, 2, 3, 0) + low
    at = grid.index_zyx(volume.position_mm(places)) - region.start
    share = ndimage.map_coordinates(region.weight, at.transpose(3, 0, 1, 2), order=1, mode="constant")
    return _Share(box, np.asarray(share))
