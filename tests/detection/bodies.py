"""Scans that are not of a chest, drawn: heads, bellies, legs, phantoms and tables, each with what deceives a search.

Lengths are in mm from the middle of the scan, x to the left, y to the back, z to the head. Slices are drawn 1 mm
thick and averaged to their thickness, as a scanner does: thick slices have wide rims.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.scan.volume import Volume

Grid = tuple[Any, Any, Any]
Scan = NDArray[np.float32]
PIXEL_MM = 1.5
AIR, FOAM, PLASTIC, FAT, SOFT, WATER, BONE = -1000.0, -900.0, 100.0, -100.0, 40.0, 0.0, 900.0


def drawn(
    paint: Callable[[Grid, Scan], None], size_mm: tuple[int, int, int], slice_mm: int = 5, noise_hu: float = 10.0
) -> Volume:
    """Paint a scan of some size (z, y, x) on air."""
    depth, height, width = (size_mm[0] // slice_mm * slice_mm, *(round(n / PIXEL_MM) for n in size_mm[1:]))
    z = np.arange(depth)[:, None, None] - (depth - 1) / 2
    y = (np.arange(height)[None, :, None] - (height - 1) / 2) * PIXEL_MM
    x = (np.arange(width)[None, None, :] - (width - 1) / 2) * PIXEL_MM
    hu = np.full((depth, height, width), AIR, np.float32)
    paint((z, y, x), hu)
    hu = ndimage.gaussian_filter(hu, (0.3, 0.5, 0.5)).reshape(-1, slice_mm, height, width).mean(axis=1)
    hu += noise_hu * np.random.default_rng(0).standard_normal(hu.shape).astype(np.float32)
    to_world = np.diag([PIXEL_MM, PIXEL_MM, float(slice_mm), 1])[:, [2, 1, 0, 3]]
    return Volume(np.clip(np.round(hu), -1024, 3071).astype(np.int16), to_world)


def ball(grid: Grid, center: tuple[float, float, float], radii: tuple[float, float, float]) -> Any:
    """Inside of an ellipsoid; center and radii (x, y, z)."""
    z, y, x = grid
    return sum(((g - c) / r) ** 2 for g, c, r in zip((x, y, z), center, radii, strict=True)) < 1


def cylinder(grid: Grid, center: tuple[float, float], radii: tuple[float, float]) -> Any:
    """Inside of an elliptic cylinder along z; center and radii (x, y)."""
    z, y, x = grid
    return np.broadcast_to(
        ((x - center[0]) / radii[0]) ** 2 + ((y - center[1]) / radii[1]) ** 2 < 1, (len(z), y.size, x.size)
    )


def box(grid: Grid, low: tuple[float, float, float], high: tuple[float, float, float]) -> Any:
    """Inside of a box between two corners (x, y, z)."""
    z, y, x = grid
    return np.logical_and.reduce(
        np.broadcast_arrays(*((g >= a) & (g <= b) for g, a, b in zip((x, y, z), low, high, strict=True)))
    )


def head(grid: Grid, hu: Scan) -> None:
    """A head with its sinuses in a padded holder: plastic around foam around the head, open to the front."""
    z, y, x = grid
    outer, inner = cylinder(grid, (0, 5), (112, 125)), cylinder(grid, (0, 5), (102, 115))
    holder = outer & (y > -30)
    hu[holder] = PLASTIC
    hu[holder & inner] = AIR
    hu[holder & inner & (np.abs(x) + 0 * y + 0 * z > 55) & (y > -20)] = FOAM
    hu[holder & inner & (y > 85)] = FOAM
    shape = ball(grid, (0, 22, -15), (76, 98, 105))
    hu[shape] = SOFT
    hu[ball(grid, (0, 22, -15), (70, 92, 99)) & ~ball(grid, (0, 22, -15), (64, 86, 93))] = BONE
    for side in (-1, 1):
        hu[ball(grid, (side * 28, -62, -45), (14, 15, 16))] = AIR
        hu[ball(grid, (side * 55, 15, -50), (9, 14, 14))] = -600.0  # mastoid cells
    hu[box(grid, (-8, -85, -60), (8, -40, -30))] = AIR


def bare_head(grid: Grid, hu: Scan) -> None:
    """A head on a curved shell, with a wedge of air on both sides of it."""
    y = grid[1]
    shell = cylinder(grid, (0, -15), (125, 125)) & ~cylinder(grid, (0, -15), (112, 112)) & (y > 0)
    hu[shell] = PLASTIC
    hu[ball(grid, (0, 5, 0), (75, 95, 140))] = SOFT
    hu[ball(grid, (0, 5, 0), (69, 89, 134)) & ~ball(grid, (0, 5, 0), (63, 83, 128))] = BONE


def wrapped_head(grid: Grid, hu: Scan) -> None:
    """A head in folded cloth between the walls of a holder that a strap closes in front."""
    z, y, x = grid
    outer, inner = cylinder(grid, (0, 0), (122, 132)), cylinder(grid, (0, 0), (112, 122))
    folds = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal(hu.shape), (6, 3, 3))
    cloth = inner & (np.abs(x) + 0 * y + 0 * z > 40) & (folds > 0.3 * folds.std())
    hu[cloth] = (-880 + 250 * folds / folds.std())[cloth].clip(-980, -450)
    hu[outer & ~inner & ((y > -60) | (np.abs(z) + 0 * y < 20))] = PLASTIC
    hu[ball(grid, (0, 30, -15), (76, 98, 110))] = SOFT
    hu[ball(grid, (0, 30, -15), (70, 92, 104)) & ~ball(grid, (0, 30, -15), (64, 86, 98))] = BONE


def belly(grid: Grid, hu: Scan) -> None:
    """A belly with gas in the stomach and all along the colon, over a table."""
    z, y, x = grid
    hu[cylinder(grid, (0, 0), (170, 120))] = FAT
    hu[cylinder(grid, (0, 0), (150, 100))] = SOFT
    hu[cylinder(grid, (0, 70), (22, 22))] = BONE
    hu[ball(grid, (60, -45, 60), (45, 35, 35))] = AIR
    for side in (-1, 1):
        wavy = 22 + 4 * np.sin(z / 6)
        hu[((x - side * 105) ** 2 + (y + 10) ** 2 < wavy**2) & (np.abs(z) < 70)] = AIR
    hu[((y + 70) ** 2 + (z - 10) ** 2 < (20 + 3 * np.sin(x / 6)) ** 2) & (np.abs(x) < 110)] = AIR
    hu[ball(grid, (-70, 20, -60), (40, 35, 30))] = -350.0  # stool
    hu[ball(grid, (-70, 10, -60), (30, 20, 20))] = -650.0  # stool with gas
    hu[box(grid, (-200, 135, -200), (200, 145, 200))] = PLASTIC


def water_phantom(grid: Grid, hu: Scan) -> None:
    """A cylinder of water with inserts of air, acrylic and plastic foam."""
    hu[cylinder(grid, (0, 0), (100, 100))] = PLASTIC
    hu[cylinder(grid, (0, 0), (95, 95))] = WATER
    for (x, y), value in (((45, 0), AIR), ((-45, 0), AIR), ((0, 45), PLASTIC), ((0, -45), AIR)):
        hu[cylinder(grid, (x, y), (24, 24))] = value


def air_phantom(grid: Grid, hu: Scan) -> None:
    """An empty cylinder with closed ends."""
    z, _, _ = grid
    hu[cylinder(grid, (0, 0), (100, 100))] = PLASTIC
    hu[cylinder(grid, (0, 0), (92, 92)) & (np.abs(z) < 60)] = AIR


def knees(grid: Grid, hu: Scan) -> None:
    """Two knees that touch in front and behind, on a padded rest."""
    for side in (-1, 1):
        hu[cylinder(grid, (side * 62, 0), (60, 66))] = FAT
        hu[cylinder(grid, (side * 62, 0), (52, 58))] = SOFT
        hu[cylinder(grid, (side * 62, 0), (34, 34))] = BONE
    hu[box(grid, (-35, -66, -200), (35, -52, 200))] = SOFT
    hu[box(grid, (-35, 52, -200), (35, 66, 200))] = SOFT
    hu[box(grid, (-150, 68, -200), (150, 95, 200))] = FOAM
    hu[box(grid, (-150, 95, -200), (150, 105, 200))] = PLASTIC


def empty_table(grid: Grid, hu: Scan) -> None:
    """A table with nobody on it: a thick shell around foam."""
    hu[box(grid, (-180, -40, -200), (180, 40, 200))] = PLASTIC
    hu[box(grid, (-170, -30, -200), (170, 30, 200))] = FOAM


def open_tray(grid: Grid, hu: Scan) -> None:
    """A hollow table, open at both ends."""
    hu[box(grid, (-180, -40, -200), (180, 40, 200))] = PLASTIC
    hu[box(grid, (-170, -28, -200), (170, 28, 200))] = AIR
    for x in (-100, 0, 100):
        hu[box(grid, (x - 4, -40, -200), (x + 4, 40, 200))] = PLASTIC


BODIES: dict[str, Callable[[], Volume]] = {
    "head in a padded holder": lambda: drawn(head, (140, 270, 250)),
    "head on a shell": lambda: drawn(bare_head, (140, 250, 270)),
    "head in thin slices": lambda: drawn(head, (140, 270, 250), slice_mm=1),
    "head in cloth": lambda: drawn(wrapped_head, (140, 290, 270)),
    "belly": lambda: drawn(belly, (200, 300, 380)),
    "belly in thin slices": lambda: drawn(belly, (200, 300, 380), slice_mm=2),
    "noisy belly": lambda: drawn(belly, (200, 300, 380), noise_hu=60),
    "water phantom": lambda: drawn(water_phantom, (120, 230, 230)),
    "air phantom": lambda: drawn(air_phantom, (150, 230, 230)),
    "knees": lambda: drawn(knees, (160, 230, 320)),
    "empty table": lambda: drawn(empty_table, (150, 200, 420)),
    "hollow table": lambda: drawn(open_tray, (150, 200, 420)),
}
