"""The chest without its lungs' contents: shapes as signed distances, and their tissue.

A signed distance is negative inside, in mm, and exact enough near the surface to soften it over
one voxel: that is the partial volume. Coordinates: x to the left, y to the back, z to the head, mm.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

AIR_HU, LUNG_HU, FAT_HU, SOFT_HU, BLOOD_HU = -1000.0, -865.0, -95.0, 45.0, 40.0
CORTEX_HU, MARROW_HU, TABLE_HU, FOAM_HU = 650.0, 180.0, -60.0, -940.0

_RIB_LEVELS_MM = np.arange(-120.0, 130.0, 24.0)
_RIB_REACH_MM = 52.0  # how far a rib rises and falls from its level


@dataclass(frozen=True)
class Body:
    """The proportions of one patient; all lengths in mm."""

    half_width: float = 138.0
    half_depth: float = 96.0
    lung_x: float = 66.0
    lung_axes: tuple[float, float, float] = (56.0, 76.0, 118.0)  # x, y, z
    dome_z: float = -96.0

    def skin(self, x: Field, y: Field, z: Field) -> Field:
        """Outer surface of the body; wider at the shoulders."""
        shoulders = 1 + 0.06 / (1 + np.exp(-(z - 60) / 15))
        return ellipsoid(x, y, 0 * z, (self.half_width * shoulders, self.half_depth, 1e6))

    def lung(self, x: Field, y: Field, z: Field) -> Field:
        """Both lungs, with heart, spine and the domes of the diaphragm taken out."""
        ax, ay, az = self.lung_axes
        sides = np.minimum(
            ellipsoid(x - self.lung_x, y, z - 4, (ax, ay, az)),
            ellipsoid(x + self.lung_x, y, z, (ax + 3, ay, az)),
        )
        dome = np.minimum(
            ellipsoid(x - self.lung_x, y + 4, z - self.dome_z + 44, (62, 84, 52)),
            ellipsoid(x + self.lung_x, y + 4, z - self.dome_z + 38, (66, 86, 58)),
        )
        return _all_of([sides, -dome, -self.heart(x, y, z), -self.mediastinum(x, y, z)])

    def heart(self, x: Field, y: Field, z: Field) -> Field:
        return ellipsoid(x - 22, y + 22, z + 42, (54, 42, 50))

    def mediastinum(self, x: Field, y: Field, z: Field) -> Field:
        """What lies between the lungs: vessels, esophagus, the spine's front."""
        middle = ellipsoid(x - 3, y + 6, 0 * z, (22 + 6 * np.exp(-(((z - 10) / 30) ** 2)), 62, 1e6))
        spine = np.hypot(x, y - 58) - 24
        aorta = np.hypot(x - 24, y - 36) - 13
        return _any_of([middle, spine, aorta])


def ellipsoid(x: Field, y: Field, z: Field, axes: tuple[float | Field, float | Field, float]) -> Field:
    """First-order signed distance to an ellipsoid around the origin."""
    a, b, c = axes
    k = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    gradient = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
    return np.asarray(k * (k - 1) / np.maximum(gradient, 1e-9))


def paint(hu: Field, distance: Field, value: float | Field, voxel_mm: float) -> Field:
    """Mix a tissue in where the distance is negative, its surface softened over one voxel."""
    share = np.clip(0.5 - distance / voxel_mm, 0, 1)
    return hu + share * (value - hu)


def draw_chest(body: Body, x: Field, y: Field, z: Field, voxel_mm: float) -> Field:
    """HU of everything but what is inside the lungs; lungs are filled with plain parenchyma."""
    hu = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), AIR_HU)
    hu = _draw_table(body, hu, x, y, z, voxel_mm)
    skin = body.skin(x, y, z)
    hu = paint(hu, skin, SOFT_HU, voxel_mm)
    hu = paint(hu, skin + 2, FAT_HU, voxel_mm)
    lung = body.lung(x, y, z)
    hu = paint(hu, skin + 10, SOFT_HU, voxel_mm)
    hu = paint(hu, np.maximum(lung - 6, -(lung - 1)), FAT_HU + 70, voxel_mm)  # fat under the pleura
    hu = _draw_bones(body, hu, x, y, z, voxel_mm)
    hu = paint(hu, body.heart(x, y, z) + 4, BLOOD_HU, voxel_mm)
    gravity = LUNG_HU + 0.35 * y  # the lung is denser where it lies
    hu = paint(hu, lung, gravity, voxel_mm)
    return _draw_airway_trunk(hu, x, y, z, voxel_mm)


def _draw_table(body: Body, hu: Field, x: Field, y: Field, z: Field, voxel_mm: float) -> Field:
    """A foam pad in a thin shell, curved, just below the back."""
    depth = y - (body.half_depth + 3) + 0.0006 * x**2 + 0 * z
    across = np.abs(x) - body.half_width * 0.9
    pad = np.maximum(np.maximum(-depth, depth - 10), across)
    hu = paint(hu, pad - 1.5, TABLE_HU, voxel_mm)
    return paint(hu, pad, FOAM_HU, voxel_mm)


def _draw_bones(body: Body, hu: Field, x: Field, y: Field, z: Field, voxel_mm: float) -> Field:
    disc = np.abs((z + 300) % 26 - 13) - 10.5  # vertebral bodies between discs
    vertebra = np.maximum(np.hypot(x, (y - 60) / 0.9) - 16, disc)
    canal = np.hypot(x, y - 82) - 8
    arch = np.maximum(np.hypot(x, y - 84) - 14, -canal)
    sternum = np.maximum(ellipsoid(x, y + 80, 0 * z, (17, 5, 1e6)), -z - 70)
    for bone in (np.minimum(vertebra, arch), sternum):
        hu = _paint_bone(hu, bone, voxel_mm)
    for level in _RIB_LEVELS_MM:
        near = np.flatnonzero(np.abs(z.ravel() - level) < _RIB_REACH_MM)
        if len(near):
            window = slice(near[0], near[-1] + 1)
            ribs = np.minimum(*(_rib(body, side, level, x, y, z[window]) for side in (-1, 1)))
            hu[window] = _paint_bone(hu[window], ribs, voxel_mm)
    return hu


def _rib(body: Body, side: int, level: float, x: Field, y: Field, z: Field) -> Field:
    """A band around one lung that falls toward the front."""
    ax, ay, az = body.lung_axes
    height = level - 0.35 * (y - 20)
    shrink = np.sqrt(np.clip(1 - (height / (az + 22)) ** 2, 0.05, 1))
    around = ellipsoid(x - side * body.lung_x, y, 0 * z, ((ax + 8) * shrink, (ay + 7) * shrink, 1e6))
    return np.maximum(np.hypot(around, (z - height) / 1.4) - 4.2, 14 - side * x)


def _paint_bone(hu: Field, bone: Field, voxel_mm: float) -> Field:
    hu = paint(hu, bone, CORTEX_HU, voxel_mm)
    return paint(hu, bone + 1.6, MARROW_HU, voxel_mm)


def _draw_airway_trunk(hu: Field, x: Field, y: Field, z: Field, voxel_mm: float) -> Field:
    trachea = np.maximum(np.hypot(x, y - 6) - 8, 22 - z)
    return paint(hu, trachea, AIR_HU, voxel_mm)


def _all_of(distances: list[Field]) -> Field:
    """Intersection of shapes."""
    return reduce(np.maximum, distances)


def _any_of(distances: list[Field]) -> Field:
    """Union of shapes."""
    return reduce(np.minimum, distances)
