"""Lung segmentation: a mask of both lungs that keeps nodules attached to the wall.

On a grid of about 2 mm:

1. The body is the largest piece of tissue after an opening that removes table shells and tubes.
2. Lung is air (below -400 HU) with body tissue in front, behind and on at least one side.
   One side is enough because a field of view that cuts the chest opens the other. The air between
   table and back, the foam of the table, and the air between head and raised arms lack tissue in
   front or behind.
3. Pure air (below -930 HU after averaging) that reaches the border of the image is removed: it is
   the room, or the trachea in the top slice.
4. Pieces as large as a lung, or as a tenth of the largest, are kept unless they are mostly pure
   air (bowel gas).
5. Large pieces that are not lung by their surroundings, depth and texture are removed (`chest`).
6. A closing of 12 mm includes nodules at the wall, vessels and the hilum.

The grid is the oriented one of `scan.resample`, so its axes are the patient's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.balls import closed, dilated, eroded, opened
from gcnn_cli.detection.chest import PURE_GAS, ROOM_HU, why_not_lung
from gcnn_cli.detection.chest import Mask as Mask
from gcnn_cli.detection.pyramid import STEP, double, halve
from gcnn_cli.errors import InputError
from gcnn_cli.scan.volume import Volume


@dataclass(frozen=True)
class LungConfig:
    """Settings of the segmentation. Thresholds are in HU, lengths in mm, volumes in mL."""

    tissue_hu: float = -300.0
    air_hu: float = -400.0
    pure_air_hu: float = -930.0
    table_mm: float = 6.0
    closing_mm: float = 12.0
    min_volume_ml: float = 40.0
    min_share: float = 0.1
    max_gas_share: float = 0.6

    def __post_init__(self) -> None:
        if not self.pure_air_hu < self.air_hu <= self.tissue_hu:
            raise InputError(
                f"lungs: need pure_air_hu ({self.pure_air_hu}) < air_hu ({self.air_hu}) <= tissue_hu ({self.tissue_hu})"
            )


def segment_lungs(grid: Volume, config: LungConfig) -> Mask:
    """Return a mask [D, H, W] of both lungs on an isotropic, oriented grid, closed at the walls.

    Raises InputError when the scan shows no lung.
    """
    hu = halve(grid.hu)
    voxel_mm = float(grid.spacing_zyx[0]) * STEP
    body = _largest(_open(hu > config.tissue_hu, config.table_mm / 2, voxel_mm))
    air = (hu < config.air_hu) & _enclosed(body)
    air &= ~dilated(_room(hu < config.pure_air_hu), 1)
    lungs = _lung_pieces(air, hu, voxel_mm, config)
    return double(_close(lungs, config.closing_mm, voxel_mm), grid.shape)


def _enclosed(body: Mask) -> Mask:
    """Return the voxels with body tissue in front, behind and on one side in their axial slice."""
    front, left = (np.logical_or.accumulate(body, axis=axis) for axis in (1, 2))
    back, right = (np.flip(np.logical_or.accumulate(np.flip(body, axis), axis=axis), axis) for axis in (1, 2))
    return np.asarray(front & back & (left | right))


def _room(pure_air: Mask) -> Mask:
    """Return the pure air connected to the border of the image by passages wider than a bronchus."""
    labels, count = ndimage.label(eroded(pure_air, 1))
    outside = np.zeros(count + 1, bool)
    for axis in range(3):
        for side in (0, -1):
            outside[np.take(labels, side, axis)] = True
    outside[0] = False
    return np.asarray(outside[labels])


def _lung_pieces(air: Mask, hu: NDArray[np.float32], voxel_mm: float, config: LungConfig) -> Mask:
    labels, count = ndimage.label(air)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    gas = np.bincount(labels[hu < config.pure_air_hu], minlength=count + 1)
    voxels[0] = 0
    volumes_ml = voxels * voxel_mm**3 / 1000
    largest_ml = volumes_ml.max()
    volumes_ml[gas > config.max_gas_share * voxels] = 0
    reasons = _discard_others(volumes_ml, labels, hu, voxel_mm, config)
    if volumes_ml.max() < config.min_volume_ml:
        if largest_ml < config.min_volume_ml:
            reasons = [f"the largest piece of air inside the body holds {largest_ml:.0f} mL"]
        elif not reasons:
            reasons = [f"{largest_ml:.0f} mL of air inside the body {PURE_GAS}"]
        raise InputError(
            f"no lung found in the scan ({reasons[0]}); is it a chest CT? A mask can be given with --lung-mask"
        )
    kept = _kept(volumes_ml, config)
    return np.asarray(kept[labels])


def _kept(volumes_ml: NDArray[np.float64], config: LungConfig) -> Mask:
    kept = (volumes_ml >= config.min_share * volumes_ml.max()) | (volumes_ml >= 10 * config.min_volume_ml)
    kept[0] = False
    return np.asarray(kept)


def _discard_others(
    volumes_ml: NDArray[np.float64],
    labels: NDArray[np.int32],
    hu: NDArray[np.float32],
    voxel_mm: float,
    config: LungConfig,
) -> list[str]:
    """Set the volume of each large piece that is not lung to 0, in place, and return the reasons.

    Pieces too small to be a lung are not judged: they stay or go by their share of the largest.
    """
    open_air = _room(hu < ROOM_HU)
    reasons = []
    for n in np.argsort(-volumes_ml):
        if volumes_ml[n] < config.min_volume_ml or not _kept(volumes_ml, config)[n]:
            break
        if reason := why_not_lung(labels == n, hu, open_air, voxel_mm):
            reasons.append(f"{volumes_ml[n]:.0f} mL of air inside the body {reason}")
            volumes_ml[n] = 0
    return reasons


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def _open(mask: Mask, radius_mm: float, voxel_mm: float) -> Mask:
    """Open with a small ball. Outside the image counts as inside the mask, so cut edges stay sharp."""
    return opened(mask, radius_mm / voxel_mm)


def _close(mask: Mask, radius_mm: float, voxel_mm: float) -> Mask:
    """Close with a large ball, without shrinking at the image border.

    A box around the mask suffices: no voxel outside it is nearer to a place inside than the box's own rim.
    """
    box = bounding_box(mask, int(np.ceil(radius_mm / voxel_mm)) + 1)
    made = np.zeros_like(mask)
    made[box] = closed(mask[box], radius_mm / voxel_mm)
    return made


def bounding_box(mask: Mask, margin: int | Sequence[int]) -> tuple[slice, slice, slice]:
    """Return the slices around the true voxels of a nonempty mask, `margin` voxels wider where the array allows.

    margin: one number, or one for each axis
    """
    margins = np.broadcast_to(margin, 3).tolist()
    spans = []
    for axis, length in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append(slice(max(int(hit[0]) - margins[axis], 0), min(int(hit[-1]) + margins[axis] + 1, length)))
    return spans[0], spans[1], spans[2]
