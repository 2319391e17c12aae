"""Candidates: bright blobs in the lungs, at every scale a nodule can have.

Scale space (Lindeberg 1998): the scan is smoothed with Gaussians of growing sigma; a ball of
radius r gives a maximum of the scale-normalized -sigma^2 Laplacian at its center for
sigma = r / sqrt(3). Maxima over position and scale are the candidates.

Vessels respond too, as all lines do, so each maximum is weighted by the shape of its Hessian. With
eigenvalues |l1| >= |l2| >= |l3|, all negative for something bright, l3^2 / |l1| is large for a
ball and near zero for a line or a plate (Li, Sone & Doi 2003, doi 10.1118/1.1581411).

Everything outside the lungs is replaced by lung, so that a nodule at the wall stands out like any
other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import Mask, bounding_box
from gcnn_cli.detection.peaks import NEIGHBORS, keep_apart, peak_voxels, subvoxel_offsets
from gcnn_cli.detection.pyramid import STEP, halve
from gcnn_cli.errors import InputError
from gcnn_cli.scan.volume import Volume

Image = NDArray[np.float32]

_COARSE_SIGMA_VOX = 2.8  # from this sigma on, every second voxel is enough


@dataclass(frozen=True)
class CandidateConfig:
    """Settings of the blob filters. Diameters and distances are in mm, intensities in HU."""

    min_diameter_mm: float = 3.5
    max_diameter_mm: float = 32.0
    scales: int = 8
    min_response_hu: float = 15.0
    line_weight: float = 0.15  # share of the blob response that a perfect line keeps
    max_candidates: int = 500
    lung_hu: float = -850.0
    window_low_hu: float = -1000.0
    window_high_hu: float = 100.0
    apart_mm: float = 4.0  # a weaker candidate nearer than this to a stronger one is dropped

    def __post_init__(self) -> None:
        if not 0 < self.min_diameter_mm < self.max_diameter_mm:
            raise InputError(
                f"candidates: need 0 < min_diameter_mm ({self.min_diameter_mm})"
                f" < max_diameter_mm ({self.max_diameter_mm})"
            )
        if self.scales < 2 or self.max_candidates < 1:
            raise InputError(
                f"candidates: need at least 2 scales and 1 candidate, got {self.scales} and {self.max_candidates}"
            )

    @property
    def sigmas_mm(self) -> NDArray[np.float64]:
        """Sigmas in mm, evenly spaced on a log scale from the smallest to the largest nodule."""
        radii = np.geomspace(self.min_diameter_mm, self.max_diameter_mm, self.scales) / 2
        return np.asarray(radii / np.sqrt(3))


@dataclass(frozen=True, eq=False)
class _Maxima:
    """Blobs of one scale: positions, responses and roundness."""

    index_zyx: NDArray[np.float64]  # [N, 3] in voxels of the box
    response: NDArray[np.float64]  # [N] HU
    roundness: NDArray[np.float64]  # [N] 0 line or plate, 1 ball
    sigma_mm: float


def find_candidates(grid: Volume, lungs: Mask, config: CandidateConfig) -> list[Candidate]:
    """Return the blobs inside the mask of an isotropic grid, strongest first, with positions in LPS mm."""
    if not lungs.any():
        return []
    voxel_mm = float(grid.spacing_zyx[0])
    margin = int(np.ceil(config.max_diameter_mm / 4 / voxel_mm))
    box = bounding_box(lungs, margin)
    inside = lungs[box]
    image = np.clip(grid.hu[box], config.window_low_hu, config.window_high_hu).astype(np.float32)
    image = np.where(inside, image, np.float32(config.lung_hu))

    found = _scale_space_maxima(image, inside, voxel_mm, config)
    index = np.concatenate([m.index_zyx for m in found]) + [s.start for s in box]
    strength = np.concatenate(
        [m.response * (config.line_weight + (1 - config.line_weight) * m.roundness) for m in found]
    )
    sigmas = np.concatenate([np.full(len(m.response), m.sigma_mm) for m in found])
    kept = keep_apart(index * voxel_mm, strength, config.apart_mm, config.max_candidates)
    positions = grid.position_mm(index[kept])
    return [
        Candidate(
            position_mm=(float(p[0]), float(p[1]), float(p[2])),
            diameter_mm=float(2 * np.sqrt(3) * sigma),
            strength=float(s),
        )
        for p, sigma, s in zip(positions, sigmas[kept], strength[kept], strict=True)
    ]


def _scale_space_maxima(image: Image, inside: Mask, voxel_mm: float, config: CandidateConfig) -> list[_Maxima]:
    """Return the local maxima over position at every scale."""
    found = []
    coarse = halve(image)
    coarse_inside = halve(inside.astype(np.float32)) > 0
    for sigma_mm in config.sigmas_mm:
        sigma_vox = sigma_mm / voxel_mm
        if sigma_vox < _COARSE_SIGMA_VOX:
            found.append(_maxima(image, inside, sigma_vox, sigma_mm, config.min_response_hu))
        else:
            # Averaging 2 x 2 x 2 voxels has already smoothed with a variance of 1/4.
            sigma_coarse = np.sqrt(sigma_vox**2 - 0.25) / STEP
            m = _maxima(coarse, coarse_inside, sigma_coarse, sigma_mm, config.min_response_hu)
            found.append(_Maxima(STEP * m.index_zyx + 0.5, m.response, m.roundness, sigma_mm))
    return found


def _maxima(image: Image, inside: Mask, sigma_vox: float, sigma_mm: float, floor: float) -> _Maxima:
    smooth = _smooth(image, sigma_vox)
    response = -(sigma_vox**2) * _laplacian(smooth)
    index = peak_voxels(response, (response > floor) & inside)
    # The stencils repeat the border, as the smoothing does, so that a nodule in the scan's last slice counts too.
    last = np.array(image.shape) - 1
    around = tuple(np.clip(index[:, None, :] + NEIGHBORS, 0, last).transpose(2, 0, 1))
    offsets = subvoxel_offsets(response[around].reshape(-1, 3, 3, 3))
    hessians = _hessians(smooth[around].reshape(-1, 3, 3, 3))
    strengths = response[tuple(index.T)].astype(float)
    return _Maxima(np.clip(index + offsets, 0, last), strengths, _roundness(hessians), sigma_mm)


def _smooth(image: Image, sigma_vox: float) -> Image:
    """Smooth with a Gaussian, one axis after the other, with repeated borders.

    Each pass is a product with a banded matrix. The band wastes arithmetic, but a matrix product
    runs near the processor's peak and direct filtering does not.
    """
    for axis in range(3):
        kernel = _gaussian_matrix(image.shape[axis], sigma_vox)
        moved = np.moveaxis(image, axis, 0)
        product = kernel @ np.ascontiguousarray(moved).reshape(len(kernel), -1)
        image = np.moveaxis(product.reshape(moved.shape), 0, axis)
    return np.ascontiguousarray(image)


def _gaussian_matrix(length: int, sigma_vox: float) -> Image:
    identity = np.eye(length, dtype=np.float32)
    return np.asarray(ndimage.gaussian_filter1d(identity, sigma_vox, axis=0, mode="nearest"))


def _laplacian(smooth: Image) -> Image:
    padded = np.pad(smooth, 1, mode="edge")
    total = -6 * smooth
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + smooth.shape[axis])
            total += padded[tuple(window)]
    return total


def _hessians(smooth: NDArray[Any]) -> NDArray[np.float64]:
    """Return the second differences of the smoothed scan around each peak, [N, 3, 3, 3] -> [N, 3, 3]."""
    s = np.asarray(smooth, float)
    hessian = np.empty((len(s), 3, 3))
    for a in range(3):
        for b in range(3):
            hessian[:, a, b] = _second_difference(s, a, b)
    return hessian


def _second_difference(s: NDArray[np.float64], a: int, b: int) -> NDArray[np.float64]:
    def at(step_a: int, step_b: int) -> NDArray[np.float64]:
        place = [1, 1, 1]
        place[a] += step_a
        place[b] += step_b
        return s[:, place[0], place[1], place[2]]

    if a == b:
        return at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    return (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4


def _roundness(hessians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least over the greatest curvature: 1 for a ball, 0 for a line, a plate or a saddle."""
    if len(hessians) == 0:
        return np.zeros(0)
    eigenvalues = np.linalg.eigvalsh(hessians)  # ascending: the most negative first
    return np.asarray(np.clip(eigenvalues[:, 2] / np.minimum(eigenvalues[:, 0], -1e-9), 0, 1))
