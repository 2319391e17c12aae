"""CT noise: grain correlated in the plane, and the texture of the lung."""

from typing import Any

import numpy as np
from scipy import ndimage

from gcnn_cli.phantom.canvas import Field, SubsliceGrid

# A standard kernel passes spatial frequencies up to about this; filtered back-projection's ramp makes
# the noise power rise with frequency before it falls.
_CUTOFF_PER_MM = 0.42


def make_noise(shape: tuple[int, int, int], pixel_mm: float, rng: np.random.Generator) -> Field:
    """Return unit-variance noise [D, H, W]: power f·exp(-(f/f0)²) in the plane, neighboring slices share 0.2."""
    fy = np.fft.fftfreq(shape[1], pixel_mm)[:, None]
    fx = np.fft.rfftfreq(shape[2], pixel_mm)[None, :]
    frequency = np.hypot(fy, fx)
    gain = np.sqrt(frequency + 0.02) * np.exp(-0.5 * (frequency / _CUTOFF_PER_MM) ** 2)
    noise = np.empty(shape, np.float32)
    for k in range(shape[0]):
        white = rng.standard_normal(shape[1:])
        noise[k] = np.fft.irfft2(np.fft.rfft2(white) * gain, s=shape[1:])
    noise = ndimage.correlate1d(noise, [0.1, 0.97, 0.1], axis=0, mode="reflect")
    return np.asarray(noise / noise.std(), np.float32)


def noise_level(hu: Field, grid: SubsliceGrid) -> Field:
    """Return the noise at each voxel relative to the middle's: less near the skin and in lung, least in air."""
    radius = np.hypot(grid.x / 160, (grid.y - 5) / 110)
    dense = np.minimum(3 * ndimage.uniform_filter(np.clip((hu + 1000) / 1000, 0, 1), 9), 1)
    return np.asarray((1.05 - 0.25 * np.minimum(radius, 1)) * (0.12 + 0.88 * dense), np.float32)


def make_texture(grid: SubsliceGrid, rng: np.random.Generator, grain_mm: float) -> Any:
    """Return smooth unit-variance noise with details of about grain_mm, for tissue."""
    spacing = np.array((grid.step_mm, grid.pixel_mm, grid.pixel_mm))
    coarse = np.ceil(np.array(grid.shape) * spacing / grain_mm).astype(int) + 2
    values = ndimage.gaussian_filter(rng.standard_normal(tuple(coarse)), 0.7)
    # Not zoom(): its rounding of sizes would tie the texture's place to the grid.
    where = [np.arange(n) * s / grain_mm for n, s in zip(grid.shape, spacing, strict=True)]
    for axis, at in enumerate(where):
        low = np.floor(at).astype(int)
        t = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        values = values.take(low, axis) * (1 - t) + values.take(low + 1, axis) * t
    return (values / values.std()).astype(np.float32)
