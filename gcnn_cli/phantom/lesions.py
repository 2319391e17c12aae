"""Nodules: bumpy ellipsoids, drawn on a grid four times finer than the scan's.

What is averaged down is also what is measured, so center and diameter are those of the drawn shape.
A nodule at the wall ends at the pleura: its truth is the part inside the lung, which is what a
reader outlines.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.phantom.trees import Distance, Vector

Kind = Literal["solid", "part-solid", "ground-glass", "juxtapleural", "vessel-attached"]

_FINER = 4
_SOLID_HU, _GROUND_GLASS_HU = 45.0, -560.0
_CORE_SHARE = 0.55  # of a part-solid nodule's radius


@dataclass(frozen=True)
class PhantomNodule:
    """The truth of one nodule: centroid in LPS mm and diameter of the ball of the same volume."""

    kind: Kind
    position_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class Shape:
    """An ellipsoid of mean radius `radius_mm`, stretched along turned axes, with low bumps."""

    center: Vector
    radius_mm: float
    stretch: NDArray[np.float64]  # [3, 3]
    bumps: NDArray[np.float64]  # [N, 4]: direction and height

    def inside(self, points: NDArray[np.float64], share: float = 1.0) -> NDArray[np.bool_]:
        """Which points [..., 3] lie inside; share scales the shape about its center."""
        local = (points - self.center) @ self.stretch.T
        length = np.linalg.norm(local, axis=-1)
        direction = local / np.maximum(length, 1e-9)[..., None]
        surface = np.ones(length.shape)
        for *axis, height in self.bumps:
            surface += height * np.exp(6 * (direction @ np.array(axis) - 1))
        return np.asarray(length < share * self.radius_mm * surface)


def make_shape(center: Vector, diameter_mm: float, rng: np.random.Generator) -> Shape:
    """A random shape of about this diameter."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    axes = rng.uniform(0.88, 1.14, 3)
    stretch = turn @ np.diag(axes / np.prod(axes) ** (1 / 3)) @ turn.T
    directions = rng.normal(size=(5, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bumps = np.concatenate([directions, rng.uniform(-0.1, 0.16, (5, 1))], axis=1)
    return Shape(center, diameter_mm / 2, stretch, bumps)


def draw_nodule(
    hu: NDArray[np.float64], origin: Vector, spacing: Vector, shape: Shape, kind: Kind, lung: Distance
) -> PhantomNodule | None:
    """Draw into hu [D, H, W] in place and return the truth; None if nothing of it lies in the lung."""
    reach = 1.5 * shape.radius_mm + 2 * float(spacing.max())
    low = np.floor((shape.center - reach - origin) / spacing).astype(int)
    high = np.ceil((shape.center + reach - origin) / spacing).astype(int) + 1
    if (low < 0).any() or (high > np.array(hu.shape[::-1])).any():
        return None
    fine = [
        origin[a] + spacing[a] * (low[a] - 0.5 + (np.arange((high[a] - low[a]) * _FINER) + 0.5) / _FINER)
        for a in range(3)
    ]
    z, y, x = np.meshgrid(fine[2], fine[1], fine[0], indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    in_lung = lung(x, y, z) < 0
    body = shape.inside(points) & in_lung
    if not body.any():
        return None
    window = hu[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    dense = _SOLID_HU if kind not in ("part-solid", "ground-glass") else _GROUND_GLASS_HU
    window += _average(body) * (dense - window)
    if kind == "part-solid":
        window += _average(shape.inside(points, _CORE_SHARE) & in_lung) * (_SOLID_HU - window)
    volume = float(body.sum()) * float(np.prod(spacing)) / _FINER**3
    center = points[body].mean(axis=0)
    return PhantomNodule(
        kind,
        (float(center[0]), float(center[1]), float(center[2])),
        float((6 * volume / np.pi) ** (1 / 3)),
    )


def _average(fine: NDArray[np.bool_]) -> NDArray[np.float64]:
    d, h, w = (n // _FINER for n in fine.shape)
    return np.asarray(fine.reshape(d, _FINER, h, _FINER, w, _FINER).mean(axis=(1, 3, 5)))
