"""Where a scan's voxels lie, without the voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.scan.volume import Array


@dataclass(frozen=True, eq=False)
class Lattice:
    """The lattice of a scan.

    shape:    voxels along (z, y, x)
    to_world: float64 [4, 4], voxel (z, y, x, 1) -> (x, y, z, 1) in LPS mm; voxel centers
    """

    shape: tuple[int, int, int]
    to_world: Array

    def holds(self, position_mm: Array) -> NDArray[np.bool_]:
        """Positions [..., 3] as (x, y, z), LPS mm -> bool [...]: whether they lie in a voxel of the scan."""
        to_index = np.linalg.inv(self.to_world)
        index_zyx = np.asarray(position_mm, float) @ to_index[:3, :3].T + to_index[:3, 3]
        inside = (index_zyx >= -0.5) & (index_zyx <= np.array(self.shape) - 0.5)
        return np.asarray(inside.all(axis=-1), bool)
