"""Candidate -> network input. Training and detection cut patches with this same code.

A patch is cut from the network's grid without interpolation: its center is the point between
voxels (even side) or the voxel (odd side) nearest to the candidate, at most half a voxel away
along each axis. Beyond the scan there is air.

Values are scaled from the network's HU window to [-1, 1] and clipped.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcnn_cli.network.contract import InputSpec
from gcnn_cli.scan.resample import AIR_HU
from gcnn_cli.scan.volume import Array, Volume


def cut_patch(hu: NDArray[Any], center_zyx: Array, side: int | Sequence[int], beyond: float = AIR_HU) -> NDArray[Any]:
    """Cut a box around a fractional voxel index.

    side:   of the box in voxels, or one for each axis (z, y, x)
    beyond: value outside the scan (default: air)

    The middle voxel of an odd side is the nearest one, floor(index + 1/2).
    """
    sides = np.broadcast_to(side, 3)
    start = np.floor(np.asarray(center_zyx) - (sides - 1) / 2 + 0.5).astype(int)
    inner = [slice(max(s, 0), max(min(s + w, n), 0)) for s, w, n in zip(start, sides, hu.shape, strict=True)]
    patch = np.full(tuple(sides.tolist()), beyond, hu.dtype)
    if all(s.stop > s.start for s in inner):
        target = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inner, start, strict=True))
        patch[target] = hu[tuple(inner)]
    return patch


def scale_hu(hu: Tensor, spec: InputSpec) -> Tensor:
    """Scale HU from the window to [-1, 1], clipped."""
    return (hu - spec.hu_low).mul_(2 / (spec.hu_high - spec.hu_low)).sub_(1).clamp_(-1, 1)


def patch_batches(
    grid: Volume, positions_mm: Sequence[tuple[float, float, float]], spec: InputSpec, batch_size: int
) -> Iterator[Tensor]:
    """Yield network inputs, float32 [B, 1, *spec.sides], in the order of the positions."""
    indices = grid.index_zyx(np.array(positions_mm, float).reshape(-1, 3))
    for first in range(0, len(indices), batch_size):
        cubes = [cut_patch(grid.hu, index, spec.sides) for index in indices[first : first + batch_size]]
        yield scale_hu(torch.from_numpy(np.stack(cubes)).float(), spec).unsqueeze(1)
