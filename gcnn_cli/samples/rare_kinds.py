"""Rare kinds of nodules, made from common ones: ground glass and cavities.

Few labeled nodules are ground glass and hardly any is hollow, so a network that trains on them as they occur misses
both. Ground glass is a nodule whose contrast to the lung is lowered. A cavity is a nodule with air or lung, and noise,
in its middle.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.lungs import Mask

Cube = NDArray[np.float32]

_LUNG_HU = -850.0
_CONTRAST = (0.25, 0.6)  # share of the contrast that ground glass keeps
_SMALLEST_CAVITY_VOX = 8.0  # diameter of a nodule that may be hollow
_CAVITY_SHARE = (0.4, 0.7)  # radius of the cavity, as a share of the nodule's


@dataclass(frozen=True)
class RareKinds:
    """Shares of the nodules that are made ground glass and hollow; small nodules are never hollow."""

    ground_glass: float
    cavity: float


def vary_kind(hu: Cube, mask: Mask, rare: RareKinds, rng: np.random.Generator) -> Cube:
    """Return a nodule as it is, as ground glass or with a cavity, at random.

    hu:   float32 [D, H, W]
    mask: bool [D, H, W], the nodule
    """
    chance = rng.random()
    if chance < rare.ground_glass:
        fainter = _LUNG_HU + rng.uniform(*_CONTRAST) * (hu - _LUNG_HU)
        return np.where(ndimage.binary_dilation(mask, iterations=2), fainter, hu).astype(np.float32)
    diameter = (6 * float(mask.sum()) / np.pi) ** (1 / 3)
    if chance < rare.ground_glass + rare.cavity and diameter > _SMALLEST_CAVITY_VOX:
        return _hollowed(hu, mask, diameter, rng)
    return hu


def _hollowed(hu: Cube, mask: Mask, diameter: float, rng: np.random.Generator) -> Cube:
    """Return the nodule with a noisy cavity of air or lung, a little off center, inside a wall."""
    center = np.array(ndimage.center_of_mass(mask)) + rng.normal(0, 0.08 * diameter, 3)
    radius = diameter / 2 * rng.uniform(*_CAVITY_SHARE)
    distance = np.linalg.norm(np.indices(mask.shape).transpose(1, 2, 3, 0) - center, axis=3)
    share = np.clip((radius - distance) / 1.2 + 0.5, 0, 1) * ndimage.binary_erosion(mask)
    share = ndimage.gaussian_filter(share.astype(np.float32), 0.6)
    air = rng.uniform(-980, -800) + rng.normal(0, rng.uniform(5, 40), mask.shape)
    return np.asarray(hu + share * (air - hu), np.float32)
