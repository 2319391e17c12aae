"""Local maxima of a map, refined to fractions of a voxel and kept apart from each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gcnn_cli.detection.lungs import Mask

Map = NDArray[np.float32]

_NEIGHBORS = np.array([(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)])


def local_maxima(values: Map, allowed: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the local maxima at allowed places, [N, 3] in fractions of a voxel, and their values [N]."""
    index = _peaks(values, allowed)
    last = np.array(values.shape) - 1
    around = tuple(np.clip(index[:, None, :] + _NEIGHBORS, 0, last).transpose(2, 0, 1))
    offsets = _subvoxel_offsets(values[around].reshape(-1, 3, 3, 3))
    return np.clip(index + offsets, 0, last), values[tuple(index.T)].astype(float)


def _peaks(response: Map, allowed: Mask) -> NDArray[np.int64]:
    """Return the allowed voxels [N, 3] that none of their 26 neighbors exceeds.

    Neighbors are compared one at a time, each only for the voxels still left; the nearest rule out most.
    """
    padded = np.pad(response, 1, mode="edge")
    values = padded.ravel()
    places = np.flatnonzero(np.pad(allowed, 1))
    strides = np.array(padded.strides) // padded.itemsize
    for neighbor in sorted(_NEIGHBORS, key=lambda step: int(step @ step)):
        places = places[values[places] >= values[places + strides @ neighbor]]
    return np.stack(np.unravel_index(places, padded.shape), axis=1) - 1


def _subvoxel_offsets(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the vertex of the parabola through the peak along each axis, [N, 3, 3, 3] -> [N, 3] in voxels.

    The offset is 0 beside a place without a value (-inf), where there is no parabola.
    """
    offsets = []
    for axis in range(3):
        before, peak, after = np.moveaxis(np.asarray(values, float), axis + 1, 0)[:, :, 1, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            curvature = before - 2 * peak + after
            curved = np.isfinite(curvature) & (curvature < 0)
            offset = np.where(curved, (before - after) / (2 * curvature), 0.0)
        offsets.append(np.clip(offset, -0.5, 0.5))
    return np.stack(offsets, axis=1)


def keep_apart(points: NDArray[np.float64], rank: NDArray[np.float64], apart: float, most: int) -> list[int]:
    """Return the indices of at most `most` points [N, 3], highest rank first, all farther apart than `apart`.

    rank: [N]; apart: in the unit of the points
    """
    if len(points) == 0:
        return []
    tree = cKDTree(points)
    dropped = np.zeros(len(points), bool)
    kept: list[int] = []
    for candidate in np.argsort(-rank, kind="stable"):
        if dropped[candidate]:
            continue
        kept.append(int(candidate))
        if len(kept) == most:
            break
        dropped[tree.query_ball_point(points[candidate], apart)] = True
    return kept
