"""Settings of a phantom, its nodules and their truth, and the scan itself."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import UsageError
from gcnn_cli.scan.volume import Volume

KINDS = ("solid", "part-solid", "ground-glass", "juxtapleural", "vessel-attached")

_MAX_NODULES = 20  # more do not fit at a distance from each other


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of one phantom. Equal settings give equal bytes. Raises UsageError for a value out of range.

    seed:               0 or more; varies vessels, nodules and noise, not the body
    spacing_zyx:        mm between voxel centers; y and x alike
    nodules:            number of nodules; the kinds take turns, and of seven or more the last two are tiny
    vessels_per_tree:   terminal branches of each of the four vessel trees: arteries and veins, two lungs
    noise_hu:           standard deviation in the middle of the body, 0 for none
    step_hu:            HU are rounded to multiples of it, so that the file compresses
    nodule_offset_hu:   added to every nodule: below 0 makes them fainter
    """

    seed: int = 7
    spacing_zyx: tuple[float, float, float] = (2.0, 1.4, 1.4)
    nodules: int = 9
    vessels_per_tree: int = 800
    noise_hu: float = 20.0
    step_hu: int = 8
    nodule_offset_hu: float = 0.0

    def __post_init__(self) -> None:
        _check("seed", self.seed, 0, 2**63 - 1)
        slice_mm, row_mm, column_mm = self.spacing_zyx
        _check("slice spacing", slice_mm, 0.5, 5.0)
        _check("pixel spacing", row_mm, 0.5, 3.0)
        if row_mm != column_mm:
            raise UsageError(f"phantom: voxels must be square in the slice, got {row_mm} and {column_mm} mm")
        _check("nodules", self.nodules, 0, _MAX_NODULES)
        _check("vessels_per_tree", self.vessels_per_tree, 10, 3000)
        _check("noise_hu", self.noise_hu, 0, 200)
        _check("step_hu", self.step_hu, 1, 16)
        _check("nodule_offset_hu", self.nodule_offset_hu, -500, 500)


def quick_config(seed: int = 0, *, nodules: int = 5, noise_hu: float = 20.0) -> PhantomConfig:
    """Return settings for a coarse chest with fewer vessels, made in about three seconds, for tests."""
    return PhantomConfig(seed, (2.5, 2.0, 2.0), nodules, vessels_per_tree=120, noise_hu=noise_hu, step_hu=1)


@dataclass(frozen=True)
class PhantomNodule:
    """The truth of one nodule, measured on the rendered shape.

    position_mm: centroid (x, y, z) in LPS mm; diameter_mm: of the ball of equal volume; kind: one of
    KINDS. A juxtapleural nodule is what lies inside the pleura; a part-solid one includes its halo.
    """

    position_mm: tuple[float, float, float]
    diameter_mm: float
    kind: str

    @property
    def volume_mm3(self) -> float:
        return math.pi / 6 * self.diameter_mm**3


@dataclass(frozen=True, eq=False)
class Phantom:
    """volume: the scan; nodules: its truth; lungs: bool [D, H, W], vessels and nodules included."""

    config: PhantomConfig
    volume: Volume
    nodules: tuple[PhantomNodule, ...]
    lungs: NDArray[np.bool_]


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false for NaN as well
        raise UsageError(f"phantom: {name} must be between {low} and {high}, got {value}")
