"""Training samples: cubes of HU, larger than a patch, with a label; how many of what, and how large.

Positives: nodules in their own surroundings (cut-outs, and the marks in labelled scans), and
nodules transplanted into the scans. Negatives: the candidate stage's own output in the scans, away
from every mark; places off the nodule in the same stacks; shams (`transplant`).

A sample holds how its cube is made, not the cube: scans lie on disk, and a batch reads what it needs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError

Cube = NDArray[np.int16]

# By label, in the order in which they are shown.
KINDS = {1: ("stack", "cube", "transplant", "mark"), 0: ("candidate", "beside", "sham")}


@dataclass(frozen=True)
class SampleConfig:
    """How many of what, and how large."""

    spacing_mm: float = 1.0
    side: int = 48  # voxels: room for turning, scaling and shifting a patch of 32
    candidates_per_scan: int = 1500
    transplants_per_scan: int = 160
    shams_per_scan: int = 80
    stack_negatives: int = 3  # of each stack
    max_host_spacing_mm: float = 3.0  # scans with thicker slices get no transplants
    match_noise: bool = True  # of transplants to their scan's

    def __post_init__(self) -> None:
        counts = (self.candidates_per_scan, self.transplants_per_scan, self.shams_per_scan, self.stack_negatives)
        if not (0.2 <= self.spacing_mm <= 5 and 4 <= self.side <= 512 and min(counts) >= 0):
            raise InputError(
                f"samples need spacing_mm from 0.2 to 5, a side from 4 to 512 and counts of 0 or more: {self}"
            )


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled cube. The slices [first, stop) along z were measured; outside them is a stand-in."""

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
        """The cube, made anew at every call."""
        return self.cut()

    @property
    def complete(self) -> bool:
        """Whether every slice was measured."""
        return self.first == 0 and self.stop == self.side
