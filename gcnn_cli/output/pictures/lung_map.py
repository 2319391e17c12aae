"""Maps of the nodules: maximum-intensity projections of the lungs, from the front and from the side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.findings import Nodule
from gcnn_cli.scan.resample import AIR_HU, resample, resample_mask
from gcnn_cli.scan.volume import Volume

_SPACING_MM = 2.0  # a map needs no finer grid
_MARGIN_MM = 10.0
_WALL_MM = 6.0  # left out: the coarse edge of the mask includes bright wall, which would hide everything else
_SILHOUETTE_HU = -700.0  # dark gray: the shape of the lungs behind their vessels
_SMOOTHING_VOX = 0.6  # a maximum over interpolated noise would show the scan's grid as stripes
WINDOW = (-850.0, 150.0)  # HU: noise of the parenchyma stays dark, vessels and nodules are bright


@dataclass(frozen=True, eq=False)
class LungMap:
    """A maximum-intensity projection and the positions of the nodules in it.

    hu:       [rows, columns], square pixels of side pixel_mm, the head at the top
    letters:  patient directions at the left, right, top and bottom edge
    places:   (down, right) of each nodule in mm from the top left corner, in the order of the report
    """

    name: str
    hu: NDArray[np.float32]
    pixel_mm: float
    letters: str
    places: tuple[tuple[float, float], ...]


def lung_maps(volume: Volume, nodules: tuple[Nodule, ...], lungs_mask: Volume | None = None) -> tuple[LungMap, LungMap]:
    """Return the projection from the front (R on the left) and from the patient's left side (A on the left).

    lungs_mask: the region to project, on any grid; ribs and skin would cover it. The whole scan by default.
    """
    grid = resample(volume, _SPACING_MM)
    lungs = np.zeros(grid.shape, np.bool_) if lungs_mask is None else resample_mask(lungs_mask, grid)
    if not lungs.any():
        lungs = np.ones(grid.shape, np.bool_)
    index = np.array([grid.index_zyx(np.array(n.position_mm)) for n in nodules]).reshape(-1, 3)
    low, high = _extent(lungs, index)
    inner = ndimage.distance_transform_edt(lungs, sampling=_SPACING_MM) > _WALL_MM
    smooth = ndimage.gaussian_filter(grid.hu, _SMOOTHING_VOX)
    hu = np.where(inner, smooth, AIR_HU)
    hu[lungs] = np.maximum(hu[lungs], _SILHOUETTE_HU)
    hu = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    front, side = hu.max(axis=1)[::-1], hu.max(axis=2)[::-1]
    down = (high[0] - 0.5 - index[:, 0]) * _SPACING_MM
    right = (index - low + 0.5) * _SPACING_MM
    return (
        LungMap("from the front", front, _SPACING_MM, "RLHF", _pairs(down, right[:, 2])),
        LungMap("from the side", side, _SPACING_MM, "APHF", _pairs(down, right[:, 1])),
    )


def _extent(lungs: NDArray[np.bool_], index: NDArray[np.float64]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the first voxel (z, y, x) with lung or nodule and the one past the last, with a margin in the grid."""
    inside = np.argwhere(lungs)
    points = np.concatenate([inside.min(0)[None], inside.max(0)[None], np.round(index).astype(int)])
    margin = round(_MARGIN_MM / _SPACING_MM)
    shape = np.array(lungs.shape)
    return np.maximum(points.min(0) - margin, 0), np.minimum(points.max(0) + margin + 1, shape)


def _pairs(down: NDArray[Any], right: NDArray[Any]) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(down, right, strict=True))
