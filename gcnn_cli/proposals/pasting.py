"""Nodules pasted into scans, varied at random before: turned, made ground glass, or hollowed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.lungs import bounding_box
from gcnn_cli.samples.donors import Donor
from gcnn_cli.samples.rare_kinds import RareKinds, vary_kind
from gcnn_cli.samples.transplant import blend, match_noise, soften

Cube = NDArray[np.float32]

_RARE = RareKinds(ground_glass=0.2, cavity=0.15)
_RIM_VOX = 8
_SEEN_HU, _SEEN_SHARE = 100.0, 0.4  # a nodule is visible if this share of its core is brighter than before by this


@dataclass(frozen=True, eq=False)
class Nodule:
    """A nodule to paste: hu and weight [D, H, W], its center (z, y, x) in them, and its diameter, in voxels."""

    hu: Cube
    weight: Cube
    center: NDArray[np.float64]
    diameter: float
    donor: Donor


def vary_nodule(donor: Donor, diameter: float, rng: np.random.Generator) -> Nodule:
    """Return the donor's nodule in a box around it, perhaps as ground glass or with a cavity, turned by Oh."""
    box = bounding_box(donor.mask, _RIM_VOX)
    mask = np.pad(donor.mask[box], _RIM_VOX)
    hu = np.pad(donor.hu[box].astype(np.float32), _RIM_VOX, mode="edge")
    hu = vary_kind(hu, mask, _RARE, rng)
    axes, flips = rng.permutation(3), tuple(axis for axis in range(3) if rng.integers(2))
    weight = np.flip(soften(mask).transpose(axes), flips)
    center = np.array(ndimage.center_of_mass(np.flip(mask.transpose(axes), flips)))
    return Nodule(np.ascontiguousarray(np.flip(hu.transpose(axes), flips)), weight, center, diameter, donor)


def paste(cube: Cube, start: NDArray[np.int64], place: NDArray[np.float64], noise_hu: float, nodule: Nodule) -> bool:
    """Blend a nodule, centered at a voxel of the host, into the cube that begins at `start`, in place.

    noise_hu: noise of the host; NaN leaves the nodule's noise as it is

    Return False, with the cube unchanged, if the nodule would not be visible there.
    """
    shape = np.array(nodule.hu.shape)
    first = corner_of(place, nodule) - start
    low, high = np.maximum(first, 0), np.minimum(first + shape, cube.shape)
    if not (high > low).all():
        return False
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    source = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    host, pasted = cube[target].copy(), nodule.hu[source]
    if nodule.donor.noise and np.isfinite(noise_hu):
        pasted = match_noise(pasted, nodule.donor.noise, host, noise_hu)
    weight = np.asarray(nodule.weight[source], np.float32)
    made = blend(host, pasted, weight)
    core = weight > 0.9
    if not core.any() or (made - host > _SEEN_HU)[core].mean() < _SEEN_SHARE:
        return False
    cube[target] = made
    return True


def corner_of(place: NDArray[np.float64], nodule: Nodule) -> NDArray[np.int64]:
    """Return the voxel of the host at which the nodule's box begins if its center is at a place."""
    return np.asarray(np.round(place - nodule.center), np.int64)
