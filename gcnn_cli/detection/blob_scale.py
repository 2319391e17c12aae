"""Size of the blob at a place: the scale at which a scale-normalized Laplacian responds most (Lindeberg 1998).

The response -sigma^2 Laplacian(G_sigma * image) at the center of a ball of radius r is greatest for
sigma = r / sqrt(3). As it is needed at few places, each scale is one inner product with the scan around the place.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.detection.lungs import Mask
from gcnn_cli.detection.patches import cut_patch

DIAMETERS_MM = (3.5, 32.0)
_SCALES = 8
_WINDOW_HU = (-1000.0, 100.0)
_LUNG_HU = -850.0  # replaces everything outside the lungs, so that a nodule at the wall has contrast on all sides
_REACH_SIGMAS = 2.5  # beyond this, the kernel of the largest scale is small


def blob_diameters(
    hu: NDArray[np.float32], lungs: Mask, index_zyx: NDArray[np.float64], voxel_mm: float
) -> NDArray[np.float64]:
    """Return the diameter in mm [N] of the ball that fits best at each place [N, 3], (z, y, x), of an isotropic grid.

    The result is one of eight diameters between DIAMETERS_MM.
    """
    diameters = np.geomspace(*DIAMETERS_MM, _SCALES)
    sigmas_vox = diameters / 2 / np.sqrt(3) / voxel_mm
    side = 2 * int(np.ceil(_REACH_SIGMAS * sigmas_vox[-1])) + 1
    kernels = np.stack([_kernel(sigma, side) for sigma in sigmas_vox], axis=1)
    responses = np.array([patch @ kernels for patch in _patches(hu, lungs, index_zyx, side)])
    return np.asarray(diameters[responses.reshape(-1, _SCALES).argmax(axis=1)])


def _kernel(sigma_vox: float, side: int) -> NDArray[np.float32]:
    """Return -sigma^2 times the Laplacian of a Gaussian, [side^3], with sum 0: a constant gives no response."""
    axis = np.arange(side) - side // 2
    squared = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / sigma_vox**2
    gaussian = np.exp(-squared / 2)
    kernel = (3 - squared) * gaussian / gaussian.sum()
    return np.asarray((kernel - kernel.mean()).ravel(), np.float32)


def _patches(
    hu: NDArray[np.float32], lungs: Mask, index_zyx: NDArray[np.float64], side: int
) -> Iterator[NDArray[np.float32]]:
    for index in index_zyx:
        patch = np.clip(cut_patch(hu, index, side), *_WINDOW_HU)
        inside = cut_patch(lungs, index, side, beyond=False)
        yield np.where(inside, patch, np.float32(_LUNG_HU)).astype(np.float32).ravel()
