"""Vessels and airways: trees that branch from the hilum and thin toward the pleura.

Murray's law sets the radii at a branching: r^3 = r1^3 + r2^3. A segment is a capsule with a radius at
each end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Distance = Callable[[Vector, Vector, Vector], Vector]


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of a branch: ends in LPS mm (x, y, z), radii in mm."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float


def grow_tree(
    root: Vector,
    direction: Vector,
    radius: float,
    smallest: float,
    lung: Distance,
    rng: np.random.Generator,
) -> list[Segment]:
    """Branches inside the lung, from a root at the hilum, until they are thinner than `smallest` mm."""
    segments: list[Segment] = []
    stack = [(root, direction / np.linalg.norm(direction), radius)]
    while stack:
        start, heading, r = stack.pop()
        length = r * rng.uniform(6, 10) + 4
        for _ in range(3):  # a branch bends on its way
            heading = _unit(heading + 0.13 * rng.normal(size=3))
            end = start + heading * length / 3
            if float(lung(*(end.reshape(3, 1)))[0]) > -2.0 and r < 0.8 * radius:
                break
            segments.append(Segment(start, end, r, r * 0.95))
            start, r = end, r * 0.95
        else:
            share = rng.uniform(0.25, 0.5)
            for part, spread in ((1 - share, 0.3), (share, 0.8)):
                child = r * part ** (1 / 3)
                if child >= smallest:
                    aside = _unit(np.cross(heading, rng.normal(size=3)))
                    stack.append((start, _unit(heading + spread * rng.uniform(0.6, 1.3) * aside), child))
    return segments


def draw_segments(
    share: NDArray[np.float64],
    segments: list[Segment],
    origin: Vector,
    spacing: Vector,
    widen_mm: float = 0.0,
) -> None:
    """Raise the share [D, H, W] of each voxel that the capsules fill; origin and spacing as (x, y, z).

    A capsule thinner than a voxel fills the part of it that its cross-section fills.
    """
    voxel = float(spacing.mean())
    for s in segments:
        reach = max(s.start_radius, s.end_radius) + widen_mm + voxel
        low = np.floor((np.minimum(s.start, s.end) - reach - origin) / spacing).astype(int)
        high = np.ceil((np.maximum(s.start, s.end) + reach - origin) / spacing).astype(int) + 1
        low, high = np.maximum(low, 0), np.minimum(high, share.shape[::-1])
        if (high <= low).any():
            continue
        axes = [origin[a] + spacing[a] * np.arange(low[a], high[a]) for a in range(3)]
        x, y, z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]
        along = s.end - s.start
        t = (x - s.start[0]) * along[0] + (y - s.start[1]) * along[1] + (z - s.start[2]) * along[2]
        t = np.clip(t / max(float(along @ along), 1e-9), 0, 1)
        gap = np.sqrt(
            (x - s.start[0] - t * along[0]) ** 2
            + (y - s.start[1] - t * along[1]) ** 2
            + (z - s.start[2] - t * along[2]) ** 2
        )
        r = s.start_radius + t * (s.end_radius - s.start_radius) + widen_mm
        full = np.minimum(1.0, np.pi * (r / voxel) ** 2)
        filled = full * np.clip(0.5 - (gap - r) / voxel, 0, 1)
        window = share[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
        np.maximum(window, filled, out=window)


def _unit(v: Vector) -> Vector:
    return np.asarray(v / max(float(np.linalg.norm(v)), 1e-9))
