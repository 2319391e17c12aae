"""Substitutes for missing slices.

Stacks end at the first and last slice of their nodule, so most of a patch of 32 mm is missing. Repeating the outer
slice would turn a nodule into a rod, and air would cut every wall. Instead, the outer slice continues without its
small bright structures: a gray opening in the plane removes vessels and the rest of the nodule and keeps wall and
lung. The grain that the opening removed is added again, shifted at random.

Complete patches of both classes lose slices equally often (`training.sampling`), so that a missing slice says
nothing about the class.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Cube = NDArray[np.float32]

_OPENING_RADIUS_MM = 5.0


def extend_slab(cube: Cube, first: int, stop: int, rng: np.random.Generator, pixel_mm: float = 1.0) -> Cube:
    """Replace the slices outside [first, stop) of a cube [D, H, W] with continued surroundings.

    pixel_mm: spacing in the plane
    """
    radius = max(1, round(_OPENING_RADIUS_MM / pixel_mm))
    extended = cube.copy()
    for edge, missing in ((first, slice(0, first)), (stop - 1, slice(stop, len(cube)))):
        count = len(range(*missing.indices(len(cube))))
        if count:
            extended[missing] = _continued(cube[edge], count, radius, rng)
    return extended


def _continued(edge: Cube, count: int, radius: int, rng: np.random.Generator) -> Cube:
    background = ndimage.grey_opening(edge, footprint=_disc(radius), mode="nearest")
    background = ndimage.gaussian_filter(background, 1.0)
    # The grain: detail finer than a voxel or two and too faint to be anatomy.
    grain = np.clip(edge - ndimage.gaussian_filter(edge, 1.0), -60, 60)
    shifts = rng.integers(0, np.array(edge.shape), (count, 2))
    return np.stack([background + np.roll(grain, tuple(shift), axis=(0, 1)) for shift in shifts])


def _disc(radius: int) -> NDArray[np.bool_]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius)
