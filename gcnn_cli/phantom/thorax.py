"""Shape of the thorax: the outline of the body, the ribcage's inside, the lungs between their neighbors.

Everything is a signed distance in mm on the grid (`gcnn_cli.phantom.canvas`). `out` is a coordinate
across the midline: x on the left side, -x on the right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from gcnn_cli.phantom.canvas import Field, SubsliceGrid, both, either, ellipsoid, superellipse, tube_distance

# Level z and there: half width, half depth and middle of the ribcage; of the body; half width of the
# mediastinum. Small adult, arms raised.
_LEVELS = (-115, -60, 0, 40, 65, 85, 98, 115)
_CAGE_HALF_WIDTH = (127, 132, 127, 115, 99, 80, 64, 48)
_CAGE_HALF_DEPTH = (83, 86, 82, 74, 63, 51, 42, 34)
_CAGE_MIDDLE = (2, 2, 4, 8, 14, 19, 22, 24)
_BODY_HALF_WIDTH = (147, 152, 153, 158, 172, 188, 196, 200)
_BODY_HALF_DEPTH = (104, 105, 103, 97, 89, 80, 74, 70)
_BODY_MIDDLE = (5, 5, 6, 11, 17, 22, 25, 28)
_MEDIASTINUM_HALF_WIDTH = (40, 36, 27, 27, 29, 31, 34, 38)

AORTA = ((-12, -28, 0), (-16, -30, 25), (-12, -22, 46), (2, -4, 57), (14, 16, 55), (21, 34, 42), (23, 42, 15))
AORTA_BELOW = ((23, 42, 15), (21, 44, -40), (12, 42, -80), (6, 40, -120))
HEART_CENTER, HEART_RADII, HEART_TILT = (19, -26, -48), (64, 46, 46), 28.0
HILA = {1: (40.0, 10.0, 8.0), -1: (-40.0, 8.0, 2.0)}  # left is +1
SPINE_Y = 64.0


@dataclass(frozen=True, eq=False)
class Thorax:
    """Signed distances in mm [D, H, W] to the skin, the inside of the ribcage, both lungs and the diaphragm."""

    body: Field
    cage: Field
    cage_middle: Field  # [D, 1, 1], y of the ribcage's middle at each level
    lungs: dict[int, Field]  # +1 left, -1 right
    diaphragm: Field  # negative below


def shape_thorax(grid: SubsliceGrid) -> Thorax:
    cage_middle = _profile(grid, _CAGE_MIDDLE)
    cage = superellipse(
        grid.x, grid.y - cage_middle, _profile(grid, _CAGE_HALF_WIDTH), _profile(grid, _CAGE_HALF_DEPTH), 2.3
    )
    body = superellipse(
        grid.x,
        grid.y - _profile(grid, _BODY_MIDDLE),
        _profile(grid, _BODY_HALF_WIDTH),
        _profile(grid, _BODY_HALF_DEPTH),
        2.5,
    )
    domes = {side: _dome(grid, side) for side in (1, -1)}
    middle = _mediastinum(grid)
    lungs = {side: _lung(grid, side, cage, domes[side], middle) for side in (1, -1)}
    left = np.clip(0.5 + grid.x / 30, 0, 1)  # the domes meet under the heart
    diaphragm = left * domes[1] + (1 - left) * domes[-1]
    return Thorax(body, cage, cage_middle, lungs, diaphragm)


def _lung(grid: SubsliceGrid, side: int, cage: Field, dome: Any, middle: Field) -> Field:
    out = side * grid.x
    across, back = (out - 46) / 46, (grid.y - 18) / 62
    apex = (grid.z - 101 + 24 * (across**2 + back**2)) / np.sqrt(
        1 + (2 * 24 / 46 * across) ** 2 + (2 * 24 / 62 * back) ** 2
    )
    lung = both(cage, apex, 10)
    lung = both(lung, -dome, 2.5)  # a small radius: the costophrenic angles are sharp
    lung = both(lung, -middle, 4)
    return np.asarray(both(lung, 3 - out, 2), np.float32)


def _dome(grid: SubsliceGrid, side: int) -> Any:
    """Return the distance to one side's diaphragm, negative below; the right one is higher, the back low."""
    top = -46.0 if side < 0 else -56.0
    across, back = (side * grid.x - 62) / 70, (grid.y + 14) / 82
    height = top - 60 * (across**2 + back**2) ** 1.15
    slope_x = 120 * 1.15 * across / 70
    slope_y = 120 * 1.15 * back / 82
    return np.clip((grid.z - height) / np.sqrt(1 + slope_x**2 + slope_y**2), -60, 60)


def _mediastinum(grid: SubsliceGrid) -> Field:
    """Return the structures between the lungs: column, spine, heart, aorta and the two hila."""
    column = superellipse(grid.x, grid.y + 12, _profile(grid, _MEDIASTINUM_HALF_WIDTH), 64.0 + 0 * grid.z, 1.7)
    field = either(column, superellipse(grid.x, grid.y - SPINE_Y - 4, 25.0, 25.0, 2.2), 8)
    field = either(field, ellipsoid(grid, HEART_CENTER, HEART_RADII, HEART_TILT), 5)
    aorta = tube_distance(grid, AORTA + AORTA_BELOW[1:], (15, 16, 15, 14, 14, 14, 14, 14, 13, 12))
    field = either(field, aorta, 4)
    for side, (x, y, z) in HILA.items():
        field = either(field, ellipsoid(grid, (x - 11 * side, y, z + 2), (17, 14, 24)), 6)
    return np.asarray(field, np.float32)


def _profile(grid: SubsliceGrid, values: tuple[float, ...]) -> Field:
    return np.asarray(PchipInterpolator(_LEVELS, values)(grid.z), np.float32)
