"""Everything but the inside of the lungs: table, chest wall, bones, mediastinum, upper abdomen."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.phantom.canvas import Field, SubsliceGrid, both, either, ellipsoid, paint, superellipse, tube_distance
from gcnn_cli.phantom.thorax import (
    AORTA,
    AORTA_BELOW,
    HEART_CENTER,
    HEART_RADII,
    HEART_TILT,
    HILA,
    SPINE_Y,
    Thorax,
)

AIR, FAT, MUSCLE, SKIN, BLOOD, HEART_MUSCLE = -1000.0, -105.0, 55.0, 20.0, 120.0, 75.0
LIVER, SPLEEN, STOMACH, CARTILAGE, DISC = 95.0, 100.0, 30.0, 110.0, 85.0
CORTEX, MARROW, VESSEL, AIRWAY_WALL = 750.0, 190.0, 70.0, 30.0

CARINA = (0.0, 8.0, 24.0)
_RIB_SPACING_MM = 25.0
_VERTEBRA_MM = 25.0


def paint_wall(grid: SubsliceGrid, hu: Field, thorax: Thorax) -> None:
    """Paint table, skin, fat, muscles, ribs, sternum, collar bones and shoulder blades, in place."""
    _paint_table(grid, hu)
    front = np.clip(-(grid.y - thorax.cage_middle) / 60, -1, 1)  # 1 at the front, -1 at the back
    paint(hu, grid.cover(thorax.body), SKIN)
    paint(hu, grid.cover(thorax.body + 2), FAT)
    # Subcutaneous fat is thick at the sides and thin over the spine; fat also parts the muscle's sheets.
    fat_mm = 8 + 3 * np.cos(grid.x / 17 + grid.z / 29) + 3 * np.abs(grid.x) / 150
    muscle = np.maximum(thorax.body + fat_mm, -(thorax.cage - 1.2))
    paint(hu, grid.cover(muscle), MUSCLE)
    around = np.arctan2(np.abs(grid.x), grid.y - thorax.cage_middle)
    seam = np.abs(thorax.cage - 11.5 - 1.5 * np.sin(grid.x / 11 + grid.z / 23)) - 1.2
    seam = seam - 2.2 * np.sin(4 * around + grid.z / 31)
    paint(hu, grid.cover(np.maximum(seam, thorax.body + fat_mm + 2)) * (0.85 - 0.15 * front), FAT)
    _paint_shoulders(grid, hu, thorax)
    _paint_ribs(grid, hu, thorax)


def paint_inside(grid: SubsliceGrid, hu: Field, thorax: Thorax) -> None:
    """Paint mediastinum and abdomen up to the cage's inner surface, in place; lungs are painted over them."""
    inside = grid.cover(thorax.cage)
    paint(hu, inside, FAT + 5)
    paint(hu, inside * grid.cover(thorax.diaphragm), MUSCLE)
    paint(hu, inside * grid.cover(thorax.diaphragm + 3), FAT)
    below = thorax.diaphragm + 3
    lobes = either(ellipsoid(grid, (-44, -12, -98), (94, 84, 60)), ellipsoid(grid, (14, -32, -104), (52, 42, 28)), 6)
    liver = both(lobes, np.maximum(below, thorax.cage + 4), 3)
    paint(hu, grid.cover(liver), LIVER)
    stomach = both(ellipsoid(grid, (62, -28, -96), (40, 34, 34)), np.maximum(below + 2, thorax.cage + 6), 3)
    paint(hu, grid.cover(stomach), HEART_MUSCLE)
    paint(hu, grid.cover(stomach + 4), STOMACH)
    paint(hu, grid.cover(both(stomach + 4, grid.y + 36, 0.5)), AIR + 20)  # gas floats to the front
    spleen = both(ellipsoid(grid, (92, 34, -100), (28, 40, 32), 35), np.maximum(below + 2, thorax.cage + 4), 2)
    paint(hu, grid.cover(spleen), SPLEEN)
    _paint_heart(grid, hu)
    _paint_vessels(grid, hu)
    _paint_spine(grid, hu)


def paint_trachea(grid: SubsliceGrid, hu: Field) -> None:
    """Paint the trachea and main bronchi with their walls over the lungs, in place."""
    paths: list[tuple[Any, Any]] = [(((0, -6, 115), (0, -2, 70), CARINA), (8.5, 8.5, 8.5))]
    for side, (x, y, z) in HILA.items():
        paths.append(((CARINA, (x * 0.55, y - 1, z + 8), (x - 4 * side, y, z + 1)), (7.0, 5.8, 4.8)))
    distances = [tube_distance(grid, points, radii) for points, radii in paths]
    airway = np.minimum.reduce(distances)
    paint(hu, grid.cover(airway - 1.4), MUSCLE)
    paint(hu, grid.cover(airway), AIR + 5)


def _paint_table(grid: SubsliceGrid, hu: Field) -> None:
    top = 116 - grid.x**2 / 1500  # a shallow trough under the back
    flat = np.broadcast_to(grid.y - top, grid.shape)
    sheet = np.maximum(np.abs(flat - 7) - 5.0, np.abs(grid.x) - 158)
    paint(hu, grid.cover(sheet), -910.0)  # foam between two skins of carbon fiber
    paint(hu, grid.cover(np.maximum(np.abs(np.abs(flat - 7) - 5.5) - 0.7, np.abs(grid.x) - 158)), -250.0)


def _paint_ribs(grid: SubsliceGrid, hu: Field, thorax: Thorax) -> None:
    """Return all ribs at once: rings around the cage that descend from back to front, repeated in z."""
    around = np.arctan2(np.abs(grid.x), grid.y - thorax.cage_middle)  # 0 at the back, pi at the front
    fall = 80 * (1 - np.cos(np.minimum(around, 2.4))) / 2 + 16 * np.minimum(around, 1.2)
    fall = fall - 60 * np.clip(around - 2.35, 0, 1)  # the cartilage rises to the sternum
    level = grid.z + fall + 8
    level = level - _RIB_SPACING_MM * np.round(level / _RIB_SPACING_MM)
    rib = (np.hypot((thorax.cage - 5.2) / 3.6, level / 6.3) - 1) * 3.6
    bony = np.clip((2.3 - around) / 0.06, 0, 1)
    paint(hu, grid.cover(rib), CARTILAGE + bony * (CORTEX - CARTILAGE))
    paint(hu, grid.cover(rib + 1.4), CARTILAGE + bony * (MARROW + 40 - CARTILAGE))
    front = thorax.cage_middle - 6.5 - _half_depth(thorax, grid)
    half_width = 14 + 12 * np.clip((grid.z - 40) / 15, 0, 1)
    sternum = superellipse(grid.x, grid.y - front, half_width, 5.5, 3.0)
    sternum = np.maximum(sternum, np.abs(grid.z - 20) - 62)
    _paint_bone(grid, hu, sternum, 1.5)


def _half_depth(thorax: Thorax, grid: SubsliceGrid) -> NDArray[Any]:
    """Return the front of the cage at each level, as a distance from its middle [D, 1, 1]."""
    column = thorax.cage[:, :, thorax.cage.shape[2] // 2]
    first = np.argmax(column < 0, axis=1)
    front: NDArray[Any] = grid.y[0, first, 0][:, None, None]
    return np.asarray(thorax.cage_middle - front)


def _paint_shoulders(grid: SubsliceGrid, hu: Field, thorax: Thorax) -> None:
    around = np.arctan2(np.abs(grid.x), grid.y - thorax.cage_middle)
    # Plates that follow the cage behind and beside it: each shoulder blade between two muscles.
    width = np.clip((grid.z + 25) / 90, 0, 1)
    plate = np.maximum(np.abs(thorax.cage - 21 - 5 * np.sin(2 * around)) - 1.8, np.abs(around - 0.95) * 95 - 42 * width)
    plate = np.maximum(plate, -20 - grid.z)
    bulk = np.maximum(plate - 8, thorax.body + 4)
    paint(hu, grid.cover(bulk), MUSCLE)
    _paint_bone(grid, hu, np.maximum(plate, thorax.body + 4), 1.2)
    for side in (1, -1):
        collar = [(side * 20, -44, 78), (side * 60, -50, 92), (side * 110, -34, 108), (side * 150, -22, 112)]
        _paint_bone(grid, hu, tube_distance(grid, collar, (7.5, 5.5, 5.5, 6.0)), 1.8)
        head = ellipsoid(grid, (side * 166, 16, 112), (25, 24, 26))
        _paint_bone(grid, hu, head, 1.8)


def _paint_heart(grid: SubsliceGrid, hu: Field) -> None:
    heart = ellipsoid(grid, HEART_CENTER, HEART_RADII, HEART_TILT)
    heart = both(heart, -76 - grid.z, 8)  # it rests on the diaphragm
    paint(hu, grid.cover(heart), FAT + 15)
    paint(hu, grid.cover(heart + 3.5), HEART_MUSCLE)
    chambers = (
        ((44, -22, -56), (28, 20, 24), 40.0),  # left ventricle
        ((8, -50, -56), (32, 15, 26), 22.0),  # right ventricle
        ((-20, -22, -40), (20, 22, 26), 0.0),  # right atrium
        ((12, 4, -26), (30, 14, 18), 0.0),  # left atrium
    )
    for center, radii, tilt in chambers:
        paint(hu, grid.cover(np.maximum(ellipsoid(grid, center, radii, tilt), heart + 5)), BLOOD)


def _paint_vessels(grid: SubsliceGrid, hu: Field) -> None:
    """Return the great vessels, the esophagus and a few lymph nodes."""
    tubes: list[tuple[Any, Any, float]] = [
        (AORTA + AORTA_BELOW[1:], (13, 14, 13.5, 12.5, 12, 12, 12, 12, 11, 10), BLOOD),
        (((-24, -20, -20), (-25, -18, 20), (-23, -20, 55), (-22, -26, 80)), (10, 9, 8, 7), BLOOD),
        (((-22, -26, 78), (8, -36, 76), (30, -36, 88)), (6.5, 6, 5.5), BLOOD),
        (((4, -46, -12), (16, -38, 12), (20, -22, 24)), (14, 13.5, 13), BLOOD),
        (((20, -22, 24), (30, -4, 24), (40, 12, 14)), (12, 10, 7), BLOOD),
        (((18, -20, 22), (-10, -14, 14), (-42, -2, 4)), (11, 10, 7), BLOOD),
        (((24, 6, -18), (36, 12, -12), (46, 14, -14)), (7, 6, 4), BLOOD),
        (((-10, 6, -18), (-30, 8, -14), (-46, 6, -16)), (7, 6, 4), BLOOD),
        (((-6, -20, 54), (-14, -24, 80), (-18, -22, 112)), (6, 5.5, 5), BLOOD),
        (((2, -8, 57), (12, -14, 82), (16, -12, 112)), (4.5, 4.2, 4), BLOOD),
        (((12, 10, 56), (20, 4, 82), (30, 2, 112)), (5, 4.8, 4.6), BLOOD),
        (((4, 18, 115), (5, 20, 40), (4, 28, -20), (10, 26, -90)), (7, 7, 7, 8), 40.0),
    ]
    for points, radii, value in tubes:
        distance = tube_distance(grid, points, radii)
        paint(hu, grid.cover(distance), value)
    for center, radii3 in (
        ((-13, 0, 44), (5, 4, 6)),
        ((2, 14, 10), (8, 5, 7)),
        ((10, -8, 34), (5, 4, 5)),
        ((-34, 10, 16), (6, 6, 8)),
        ((34, 16, 22), (5, 5, 7)),
    ):
        paint(hu, grid.cover(ellipsoid(grid, center, radii3)), 45.0)


def _paint_spine(grid: SubsliceGrid, hu: Field) -> None:
    muscle = superellipse(np.abs(grid.x) - 24, grid.y - SPINE_Y - 26, 24.0, 13.0, 2.2)
    paint(hu, grid.cover(muscle), MUSCLE)
    level = grid.z - _VERTEBRA_MM * np.round(grid.z / _VERTEBRA_MM)
    waist = 1.5 * np.cos(2 * np.pi * level / _VERTEBRA_MM)  # bodies are slimmer half way up
    body = superellipse(grid.x, grid.y - SPINE_Y, 17.0 - waist, 14.0 - waist, 2.3)
    paint(hu, grid.cover(body), DISC)
    _paint_bone(grid, hu, np.maximum(body, np.abs(level) - 10), 1.4)
    arch = np.abs(np.hypot(grid.x / 1.15, grid.y - SPINE_Y - 20) - 9.5) - 2.2
    _paint_bone(grid, hu, np.maximum(arch, np.abs(level + 2) - 9), 1.0)
    wing = np.hypot((np.abs(grid.x) - 24) / 3.2, (grid.y - SPINE_Y - 22 - 0.15 * np.abs(grid.x))) - 4.5
    _paint_bone(grid, hu, np.maximum(wing, np.abs(level) - 5), 1.2)
    thorn = np.maximum(np.abs(grid.x) - 2.8, np.abs(grid.y - SPINE_Y - 36) - 9)
    _paint_bone(grid, hu, np.maximum(thorn, np.abs(level + 4) - 9), 1.0)
    paint(hu, grid.cover(np.hypot(grid.x / 1.15, grid.y - SPINE_Y - 20) - 7), 25.0)


def _paint_bone(grid: SubsliceGrid, hu: Field, distance: Any, cortex_mm: float) -> None:
    paint(hu, grid.cover(distance), CORTEX)
    paint(hu, grid.cover(distance + cortex_mm), MARROW)
