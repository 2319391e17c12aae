"""The rim that chunks lack, removed from other cubes equally often.

A chunk is as wide as a patch and sometimes lower. Beyond it its border is repeated (`chunks`). If a repeated border
were more frequent around nodules than elsewhere, a network would learn it. Complete cubes of both classes are
therefore narrowed to the size of a chunk and continued in the same way, as often as each class needs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Cube = NDArray[np.float32]

# Of LUNA16's scans in chunks of 32 x 48 x 48 voxels: heights and widths in mm, tenth to ninetieth percentile.
_HEIGHTS_MM = (22.0, 80.0)
_WIDTHS_MM = (29.0, 39.0)
_OFF_CENTER_MM = 1.0  # standard deviation of a chunk's center from its nodule


def narrow(cube: Cube, spacing_mm: float | Sequence[float], rng: np.random.Generator) -> Cube:
    """Return the cube [D, H, W] reduced to a box of a chunk's size, whose border is repeated outside.

    spacing_mm: of the voxels, or one for each axis
    """
    voxel = np.asarray(spacing_mm)
    width = rng.uniform(*_WIDTHS_MM)
    size_mm = np.array([rng.uniform(*_HEIGHTS_MM), width, width])
    center_mm = np.clip(rng.normal(0, _OFF_CENTER_MM, 3), -4, 4)
    index = []
    for length, size, center in zip(cube.shape, size_mm / voxel, center_mm / voxel, strict=True):
        low = int(np.clip(np.round((length - size) / 2 + center), 0, length - 1))
        high = int(np.clip(np.round((length + size) / 2 + center), low + 1, length))
        index.append(np.clip(np.arange(length), low, high - 1))
    return np.ascontiguousarray(cube[np.ix_(*index)])
