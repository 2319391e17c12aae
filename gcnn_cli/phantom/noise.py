"""Noise with the grain of a CT reconstruction."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SIGMA_MM = 0.7


def make_grain(
    shape: tuple[int, ...], spacing_zyx: NDArray[np.float64], noise_hu: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Noise [D, H, W] of this standard deviation, as after filtered back-projection.

    A band of frequencies in the plane, since the ramp filter takes the lowest and the kernel the highest;
    white across slices.
    """
    white = rng.normal(size=shape)
    sigma = _SIGMA_MM / spacing_zyx * np.array([0, 1, 1])
    band = ndimage.gaussian_filter(white, sigma) - 0.6 * ndimage.gaussian_filter(white, 2.5 * sigma)
    return np.asarray(band * (noise_hu / band.std()))
