"""Training samples: labeled cubes of HU, larger than a patch, and the settings that they are made with.

Positives: nodules in their own surroundings (cut-outs, and marks in labeled scans), and nodules transplanted into
the scans. Negatives: candidates in the scans, away from every mark; places beside the nodule in the same stacks;
shams (`transplant`).

A sample holds a function that makes its cube, not the cube itself: scans stay on disk, and a batch reads its part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError

Cube = NDArray[np.int16]

# Kinds of samples by label, in the order of the montage.
KINDS = {1: ("stack", "cube", "transplant", "mark"), 0: ("candidate", "beside", "sham")}


@dataclass(frozen=True)
class SampleConfig:
    """Numbers of samples of each kind, and the size of their cubes."""

    spacing_mm: float | tuple[float, ...] = 1.0  # or one for each axis, (z, y, x)
    side: int | tuple[int, ...] = 48  # voxels, or one for each axis: room for turning, scaling and shifting patches
    candidates_per_scan: int = 1500
    transplants_per_scan: int = 160
    shams_per_scan: int = 80
    stack_negatives: int = 3  # per stack
    max_host_spacing_mm: float = 3.0  # scans with thicker slices get no transplants
    match_noise: bool = True  # bring transplants to the noise of their scan
    ground_glass_share: float = 0.0  # of the transplants; see `rare_kinds`
    cavity_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "side"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)  # JSON returns lists
        counts = (self.candidates_per_scan, self.transplants_per_scan, self.shams_per_scan, self.stack_negatives)
        boxes = len(self.sides) == len(self.spacing_zyx) == 3
        lengths = all(0.2 <= s <= 5 for s in self.spacing_zyx) and all(4 <= n <= 512 for n in self.sides)
        if not (boxes and lengths and min(counts) >= 0):
            raise InputError(
                "[samples] must have spacing_mm from 0.2 to 5, a side from 4 to 512 and counts of 0 or more,"
                f" got {self}"
            )
        if not (self.ground_glass_share >= 0 and 0 <= self.cavity_share <= 1 - self.ground_glass_share):
            raise InputError(
                "[samples] must have ground_glass_share and cavity_share of at least 0 that sum to at most 1,"
                f" got {self.ground_glass_share:g} and {self.cavity_share:g}"
            )

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of a cube in voxels, (z, y, x)."""
        return self.side if isinstance(self.side, tuple) else (self.side,) * 3

    @property
    def spacing_zyx(self) -> tuple[float, ...]:
        """Sides of a voxel in mm, (z, y, x)."""
        return self.spacing_mm if isinstance(self.spacing_mm, tuple) else (self.spacing_mm,) * 3


@dataclass(frozen=True, eq=False)
class Sample:
    """One labeled cube, or box. Slices [first, stop) along z were measured; the others are filled in.

    diameter_mm: of a nodule; NaN if it is not known
    place:       of a transplant: free, wall or vessel; else empty
    """

    cut: Callable[[], Cube]  # int16 [side, side, side], or [*side]
    side: int | tuple[int, ...]
    label: int
    kind: str
    patient: str
    series: str  # name of the scan or cut-out
    first: int
    stop: int
    diameter_mm: float = math.nan
    place: str = ""

    @property
    def hu(self) -> Cube:
        """The cube, made again on every access."""
        return self.cut()

    @property
    def complete(self) -> bool:
        """True if every slice was measured."""
        return self.first == 0 and self.stop == self.sides[0]

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the cube in voxels, (z, y, x)."""
        return self.side if isinstance(self.side, tuple) else (self.side,) * 3
