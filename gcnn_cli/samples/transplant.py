"""Transplants: real nodules blended into real lungs, at known places.

The voxels of the nodule, resampled to the host's grid and turned by an element of Oh, are blended into the host
through the nodule's mask with a softened edge:

    mixed = (1 - a) host + a donor,      a = softened mask in [0, 1]
    host' = the brighter of host and mixed

The maximum is taken because at a wall or a vessel the donor's own lung would leave a dark ring that no real nodule
has. A cavity that meets a wall comes out filled.

Before blending, the donor is brought to the host's noise. Noise is measured in aerated lung, as the detail that a
Gaussian of one voxel removes. Most donors have twice the noise of a scan with thick slices, and a network would
recognize them by it. Excess noise is smoothed away with the Gaussian that was measured to be right for this donor.
If the donor has too little, the host's own noise at the place continues through the nodule.

Strengths: the tissue is a real nodule's, and the surroundings are a real lung's, noise included. Limits: a nodule
that pulled at its pleura or vessels no longer does, a smoothed one has softer edges, and noise of equal strength
can differ in texture. A network could learn the seam, so the negatives include shams: a piece of the same lung
pasted through a nodule's mask.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.lungs import Mask

Cube = NDArray[np.float32]

_GROW_VOX = 1  # keeps the nodule's own partial-volume rim
_SOFTEN_VOX = 0.7
_AERATED_HU = (-980.0, -700.0)
_MIN_VOXELS = 200  # of aerated lung, to measure noise in
_SMOOTHINGS_VOX = (0.0, 0.4, 0.6, 0.8, 1.0)
_EDGE = 3.0  # multiples of the noise: larger differences are anatomy


def soften(mask: Mask) -> Cube:
    """Return a blending weight in [0, 1] that is 1 in the nodule and falls to 0 around it."""
    grown = ndimage.binary_dilation(mask, iterations=_GROW_VOX).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(grown, _SOFTEN_VOX))


def blend(host: Cube, donor: Cube, weight: Cube) -> Cube:
    """Blend the donor into the host by its weight where that is brighter. All HU [D, H, W] of one shape."""
    return np.maximum(host, host + weight * (donor - host))


@dataclass(frozen=True)
class NoiseLevels:
    """Noise of a donor in HU: unsmoothed, then after each smoothing; never increasing."""

    hu: tuple[float, ...]

    def smoothing_vox(self, wanted_hu: float) -> float:
        """Return the standard deviation of the Gaussian that leaves this noise; at most the strongest one measured."""
        return float(np.interp(-wanted_hu, -np.array(self.hu), _SMOOTHINGS_VOX))


def noise_levels(hu: NDArray[Any]) -> NoiseLevels | None:
    """Measure the noise of a cut-out [D, H, W]. Return None if it shows too little lung."""
    lung = _aerated(hu)
    levels = [_noise_hu(_smoothed(hu, sigma), lung) for sigma in _SMOOTHINGS_VOX]
    return None if np.isnan(levels).any() else NoiseLevels(tuple(np.minimum.accumulate(levels).tolist()))


def noise_hu(hu: NDArray[Any]) -> float:
    """Return the noise of the aerated lung in a scan or a part of one [D, H, W], in HU; NaN for too little lung."""
    return _noise_hu(hu, _aerated(hu))


def match_noise(donor: Cube, levels: NoiseLevels, host: Cube, wanted_hu: float | None = None) -> Cube:
    """Bring a donor to the host's noise. Return it unchanged if the host shows too little lung to measure noise in.

    wanted_hu: noise of the host; default: measured in `host`
    """
    wanted = noise_hu(host) if wanted_hu is None else wanted_hu
    if np.isnan(wanted):
        return donor
    if wanted < levels.hu[0]:
        return _smoothed(donor, levels.smoothing_vox(wanted))
    noise = np.clip(host - _smoothed(host, 1.0), -_EDGE * wanted, _EDGE * wanted)
    return np.asarray(donor + np.float32(np.sqrt(1 - (levels.hu[0] / max(wanted, 1e-6)) ** 2)) * noise)


def _aerated(hu: NDArray[Any]) -> Mask:
    return np.asarray((hu > _AERATED_HU[0]) & (hu < _AERATED_HU[1]))


def _noise_hu(hu: NDArray[Any], where: Mask) -> float:
    """Return the standard deviation, by the median absolute deviation, of the detail that a Gaussian removes."""
    if where.sum() < _MIN_VOXELS:
        return float("nan")
    rest = (hu - _smoothed(hu, 1.0))[where]
    return float(1.4826 * np.median(np.abs(rest - np.median(rest))))


def _smoothed(hu: NDArray[Any], sigma_vox: float) -> Cube:
    return np.asarray(ndimage.gaussian_filter(hu.astype(np.float32), sigma_vox, mode="nearest"))


PLACE_KINDS = ("free", "wall", "vessel")


def choose_places(
    hu: NDArray[Any], lungs: Mask, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose voxels [N, 3] for nodules: a third free, a third near the wall, a third near vessels.

    Return them with their kinds [N], which are indices of `PLACE_KINDS`. N is smaller than `count` where the lungs have
    no place of a kind.
    """
    depth = ndimage.distance_transform_edt(lungs)
    vessels = lungs & (depth > 4) & (np.asarray(hu) > -500)
    to_vessel = ndimage.distance_transform_edt(~vessels)
    pools = [
        np.argwhere((depth > 8) & (to_vessel > 4)),
        np.argwhere((depth > 1) & (depth <= 4) & (np.asarray(hu) < -600)),
        np.argwhere((depth > 6) & (to_vessel > 0.5) & (to_vessel <= 2.5)),
    ]
    kinds = [n % 3 for n in range(count) if len(pools[n % 3])]
    places = [pools[kind][rng.integers(len(pools[kind]))] for kind in kinds]
    return np.array(places, dtype=np.int64).reshape(-1, 3), np.array(kinds, dtype=np.int64)
