"""Training samples: labeled cubes of HU, larger than a patch, and the settings that they are made with.

Positives: nodules in their own surroundings (cut-outs, and marks in labeled scans), and nodules transplanted into
the scans. Negatives: candidates in the scans, away from every mark; places beside the nodule in the same stacks;
shams (`transplant`).

A sample holds a function that makes its cube, not the cube itself: scans stay on disk, and a batch reads its part.
"""

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

    spacing_mm: float = 1.0
    side: int = 48  # voxels: room for turning, scaling and shifting a patch of 32
    candidates_per_scan: int = 1500
    transplants_per_scan: int = 160
    shams_per_scan: int = 80
    stack_negatives: int = 3  # per stack
    max_host_spacing_mm: float = 3.0  # scans with thicker slices get no transplants
    match_noise: bool = True  # bring transplants to the noise of their scan
    ground_glass_share: float = 0.0  # of the transplants; see `rare_kinds`
    cavity_share: float = 0.0

    def __post_init__(self) -> None:
        counts = (self.candidates_per_scan, self.transplants_per_scan, self.shams_per_scan, self.stack_negatives)
        if not (0.2 <= self.spacing_mm <= 5 and 4 <= self.side <= 512 and min(counts) >= 0):
            raise InputError(
                "[samples] must have spacing_mm from 0.2 to 5, a side from 4 to 512 and counts of 0 or more,"
                f" got {self}"
            )
        if not (self.ground_glass_share >= 0 and 0 <= self.cavity_share <= 1 - self.ground_glass_share):
            raise InputError(
                "[samples] must have ground_glass_share and cavity_share of at least 0 that sum to at most 1,"
                f" got {self.ground_glass_share:g} and {self.cavity_share:g}"
            )


@dataclass(frozen=True, eq=False)
class Sample:
    """One labeled cube. Slices [first, stop) along z were measured; the others are filled in."""

    cut: Callable[[], Cube]  # int16 [side, side, side]
    side: int
    label: int
    kind: str
    patient: str
    series: str  # name of the scan or cut-out
    first: int
    stop: int

    @property
    def hu(self) -> Cube:
        """The cube, made again on every access."""
        return self.cut()

    @property
    def complete(self) -> bool:
        """True if every slice was measured."""
        return self.first == 0 and self.stop == self.side
