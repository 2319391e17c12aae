"""Nodules: irregular shapes, their sites, and their truth measured as they are drawn.

A shape is star-shaped: an ellipsoid with a few bumps, radius R(n) in direction n. Its share of each
voxel is counted on a fine lattice of points, so volume and centroid are those of the drawn shape.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.errors import UsageError
from gcnn_cli.phantom.canvas import Field, Point, SubsliceGrid
from gcnn_cli.phantom.config import KINDS
from gcnn_cli.phantom.thorax import Thorax
from gcnn_cli.phantom.trees import Piece

_SMALL_MM, _LARGE_MM, _TINY_MM = 5.0, 16.0, (3.6, 4.4)
_POINTS = 5  # sample points along each edge of a voxel
_GAP_MM = 8.0  # between nodules


@dataclass(frozen=True, eq=False)
class Shape:
    """center: (x, y, z) mm; axes: rows are unit vectors, semi-axes beside; bumps: directions, heights."""

    center: Point
    axes: NDArray[Any]
    semi_axes_mm: NDArray[Any]
    bumps: NDArray[Any]
    heights: NDArray[Any]

    def reach_mm(self) -> float:
        return float(self.semi_axes_mm.max() * (1 + self.heights.sum()))

    def inside(self, x: Any, y: Any, z: Any, scale: float = 1.0) -> NDArray[np.bool_]:
        """Return which points lie inside the shape scaled by `scale` about its center."""
        offset = np.stack(np.broadcast_arrays(x - self.center[0], y - self.center[1], z - self.center[2]), -1)
        length = np.maximum(np.linalg.norm(offset, axis=-1), 1e-9)
        unit = offset / length[..., None]
        radius = 1 / np.linalg.norm(unit @ self.axes.T / self.semi_axes_mm, axis=-1)
        bulge = (np.exp(7 * (unit @ self.bumps.T - 1)) * self.heights).sum(axis=-1)
        return np.asarray(length < scale * radius * (1 + bulge))


@dataclass(frozen=True, eq=False)
class Drawn:
    """share: of each voxel inside `box`; core: of the solid part, all of it for solid kinds."""

    kind: str
    box: tuple[slice, slice, slice]
    share: Field
    core: Field


def plan_nodules(count: int, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Return (kind, nominal diameter in mm) of each: kinds take turns, sizes are evenly spaced on a log scale."""
    tiny = 2 if count >= 7 else 0
    steps = (rng.permutation(count - tiny) + 0.5) / max(count - tiny, 1)
    sizes = [*(_SMALL_MM * (_LARGE_MM / _SMALL_MM) ** steps), *rng.uniform(*_TINY_MM, tiny)]
    return [(KINDS[i % len(KINDS)] if i < count - tiny else "solid", float(size)) for i, size in enumerate(sizes)]


class Sites:
    """Free sites in the lungs. Each choice occupies its neighborhood. Distances are in mm."""

    def __init__(
        self, grid: SubsliceGrid, thorax: Thorax, vessels: Field, pieces: list[Piece], rng: np.random.Generator
    ):
        self._grid, self._rng, self._pieces = grid, rng, pieces
        self._lung = np.minimum(thorax.lungs[1], thorax.lungs[-1])
        inside = self._lung < 0
        spacing = (grid.step_mm, grid.pixel_mm, grid.pixel_mm)
        self._depth = ndimage.distance_transform_edt(inside, sampling=spacing).astype(np.float32)
        self._wall = thorax.cage
        self._vessels = vessels
        self._taken: list[tuple[Point, float]] = []

    def choose(self, kind: str, diameter: float) -> Point:
        """Return a center (x, y, z) in mm for one nodule. Raises UsageError when there is no room."""
        radius = diameter / 2
        if kind == "vessel-attached":
            candidates = self._beside_vessels(radius)
        elif kind == "juxtapleural":
            # The wall's curve runs through the nodule, off its middle; away from heart and diaphragm.
            near = np.abs(self._depth - 0.45 * radius) < self._grid.pixel_mm / 2
            candidates = self._places(near & (self._wall > -0.45 * radius - 2) & (self._grid.z < 70))
        else:
            candidates = self._places(self._depth > 1.3 * radius + 4)
        free = [c for c in candidates if self._is_free(c, radius)]
        if not free:
            raise UsageError(f"phantom: no room for a {kind} nodule of {diameter:.1f} mm; ask for fewer nodules")
        # The site with the fewest vessels, except where the vessel is intended.
        best = free[0] if kind == "vessel-attached" else min(free[:12], key=lambda c: self._crowd(c, radius))
        self._taken.append((best, radius))
        return best

    def _places(self, allowed: NDArray[np.bool_]) -> list[Point]:
        found = np.flatnonzero(allowed)
        if not len(found):
            return []
        picks = self._rng.choice(found, size=300)
        z, y, x = np.unravel_index(picks, allowed.shape)
        grid = self._grid
        jitter = self._rng.uniform(-0.5, 0.5, (300, 3)) * (grid.pixel_mm, grid.pixel_mm, grid.step_mm)
        places = np.stack([grid.x.ravel()[x], grid.y.ravel()[y], grid.z.ravel()[z]], axis=1) + jitter
        return list(places.astype(float))

    def _beside_vessels(self, radius: float) -> list[Point]:
        thick = [p for p in self._pieces if 0.8 < p.radius_end < 2.2]
        places = []
        for i in self._rng.permutation(len(thick)):
            piece = thick[i]
            away = np.cross(piece.end - piece.start, self._rng.normal(size=3))
            middle = (piece.start + piece.end) / 2
            center = middle + away / max(float(np.linalg.norm(away)), 1e-9) * 0.75 * radius
            if self._at(self._depth, center) > 1.3 * radius + 3:
                places.append(center)
        return places

    def _is_free(self, center: Point, radius: float) -> bool:
        grid = self._grid
        if abs(center[2]) > float(grid.z.max()) - radius - 6:
            return False
        return all(
            float(np.linalg.norm(center - other)) > 1.4 * (radius + size) + _GAP_MM for other, size in self._taken
        )

    def _crowd(self, center: Point, radius: float) -> float:
        return float(self._vessels[self._grid.box(center - 1.2 * radius, center + 1.2 * radius)].mean())

    def _at(self, field: Field, center: Point) -> float:
        box = self._grid.box(center - self._grid.pixel_mm, center + self._grid.pixel_mm)
        values = field[box]
        return float(values.mean()) if values.size else -math.inf


def make_shape(center: Point, diameter: float, rng: np.random.Generator) -> Shape:
    """Return a random shape whose ellipsoid has the volume of the diameter before bumps are added."""
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    stretch = np.exp(rng.uniform(-0.22, 0.22, 3))
    bumps = rng.normal(size=(4, 3))
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    heights = rng.uniform(-0.15, 0.28, 4)
    return Shape(center, axes, diameter / 2 * stretch / np.prod(stretch) ** (1 / 3), bumps, heights)


def draw_nodule(grid: SubsliceGrid, shape: Shape, kind: str, lung: Field) -> Drawn:
    """Compute the shape's share of each subslice voxel; a juxtapleural one is cut at the pleura."""
    reach = shape.reach_mm() + 2 * grid.pixel_mm
    box = grid.box(shape.center - reach, shape.center + reach)
    share = _count(grid, box, shape, 1.0)
    core = _count(grid, box, shape, 0.6) if kind == "part-solid" else share
    if kind == "juxtapleural":
        share = share * grid.cover(lung[box])
        core = share
    if kind == "ground-glass":
        core = np.zeros_like(share)
    return Drawn(kind, box, share, core)


def _count(grid: SubsliceGrid, box: tuple[slice, slice, slice], shape: Shape, scale: float) -> Field:
    offsets = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    z = (grid.z[box[0]].ravel()[:, None] + offsets * grid.step_mm).ravel()[:, None, None]
    y = (grid.y[:, box[1]].ravel()[:, None] + offsets * grid.pixel_mm).ravel()[None, :, None]
    x = (grid.x[:, :, box[2]].ravel()[:, None] + offsets * grid.pixel_mm).ravel()[None, None, :]
    points = shape.inside(x, y, z, scale)
    depth, height, width = (n // _POINTS for n in points.shape)
    counts = points.reshape(depth, _POINTS, height, _POINTS, width, _POINTS).mean(axis=(1, 3, 5))
    return np.asarray(counts, np.float32)


def measure(grid: SubsliceGrid, drawn: Drawn) -> tuple[Point, float]:
    """Return the centroid (x, y, z) in the anatomical frame and the volume-equivalent diameter, both in mm."""
    weight = drawn.share.astype(float)
    total = weight.sum()
    z, y, x = (
        float((weight * axis).sum() / total)
        for axis in (grid.z[drawn.box[0]], grid.y[:, drawn.box[1]], grid.x[:, :, drawn.box[2]])
    )
    volume = total * grid.step_mm * grid.pixel_mm**2
    return np.array([x, y, z]), float((6 * volume / math.pi) ** (1 / 3))
