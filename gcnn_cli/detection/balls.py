"""Dilation, erosion, opening and closing of a mask by a ball.

A ball is a stack of runs along x. Runs of each length are dilated once; shifted by whole rows and planes they are then
combined as bits, eight voxels in a byte. The result is that of distances to the mask, whose transform takes longer.

Beyond the image there is nothing to dilate, and erosion takes nothing away from there: cut edges stay sharp.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]


def dilated(mask: Mask, radius_vox: float) -> Mask:
    """Return every voxel whose center lies within the radius, whole or not, of one in the mask [D, H, W]."""
    runs = _runs(mask, int(radius_vox))
    result = np.zeros_like(runs[0])
    for dz in range(int(radius_vox) + 1):
        disc = np.zeros_like(result)
        for dy in range(int(np.sqrt(radius_vox**2 - dz**2)) + 1):
            _add_shifted(disc, runs[int(np.sqrt(radius_vox**2 - dz**2 - dy**2))], dy, axis=1)
        _add_shifted(result, disc, dz, axis=0)
    return np.unpackbits(result, axis=2, count=mask.shape[2]).view(bool)


def eroded(mask: Mask, radius_vox: float) -> Mask:
    """Return every voxel of the mask [D, H, W] without one outside it, but in the image, within the radius."""
    return ~dilated(~mask, radius_vox)


def opened(mask: Mask, radius_vox: float) -> Mask:
    """Return the union of the balls that fit into the mask [D, H, W], or into it and the outside of the image."""
    return dilated(eroded(mask, radius_vox), radius_vox)


def closed(mask: Mask, radius_vox: float) -> Mask:
    """Return what no ball outside the mask [D, H, W] reaches."""
    return eroded(dilated(mask, radius_vox), radius_vox)


def _runs(mask: Mask, reach: int) -> list[Bits]:
    """Return the mask dilated along x by 0, 1, ... `reach` voxels to both sides, as bits."""
    grown = mask.copy()
    runs = [np.packbits(grown, axis=2)]
    for step in range(1, reach + 1):
        _add_shifted(grown, mask, step, axis=2)
        runs.append(np.packbits(grown, axis=2))
    return runs


def _add_shifted(target: NDArray[np.generic], source: NDArray[np.generic], step: int, axis: int) -> None:
    """Join to the target the source shifted by so many places to both sides of an axis."""
    for into, out_of in _shifts(step):
        here = tuple(into if a == axis else slice(None) for a in range(3))
        there = tuple(out_of if a == axis else slice(None) for a in range(3))
        np.bitwise_or(target[here], source[there], out=target[here])


def _shifts(step: int) -> Iterator[tuple[slice, slice]]:
    if step == 0:
        yield slice(None), slice(None)
        return
    yield slice(step, None), slice(None, -step)
    yield slice(None, -step), slice(step, None)
