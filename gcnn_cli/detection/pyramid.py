"""Half the resolution of a grid, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 2  # fine voxels along each side of a coarse one


def halve(image: NDArray[Any]) -> NDArray[np.float32]:
    """Average blocks of 2 x 2 x 2 voxels, the last ones completed by repeating the border.

    Coarse voxel n covers fine voxels 2n and 2n + 1: its center lies at fine index 2n + 0.5.
    """
    depth, height, width = (-(-length // STEP) for length in image.shape)
    halved = np.empty((depth, height, width), np.float32)
    for n, plane in enumerate(halved):  # two planes at a time: they stay in the processor's cache
        first, last = image[STEP * n], image[min(STEP * n + 1, len(image) - 1)]
        rows = _pairs(np.add(first, last, dtype=np.float32))
        plane[:] = _pairs(rows.T).T
    halved /= STEP**3
    return halved


def _pairs(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sums of rows 2n and 2n + 1; a last single row counts twice."""
    sums = plane[::STEP].copy()
    paired = len(plane) // STEP
    sums[:paired] += plane[1::STEP]
    sums[paired:] *= 2
    return sums


def double(mask: NDArray[np.bool_], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return a coarse mask on the fine grid of the given shape."""
    for axis in range(3):
        mask = np.repeat(mask, STEP, axis=axis)
    return mask[tuple(slice(length) for length in shape)]
