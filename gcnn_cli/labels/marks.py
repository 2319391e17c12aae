"""Marks: places in the patient, each with a diameter or a score.

A diameter that nobody measured is written as -1, as in LUNA16's annotations_excluded.csv (30,513 of its 35,192
rows). Wherever such a mark needs a radius, its diameter is taken to be 10 mm, as in LUNA16's evaluation script.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gcnn_cli.scan.volume import Array

UNMEASURED_MM = -1.0
_ASSUMED_DIAMETER_MM = 10.0

Mark = tuple[float, float, float, float]  # x, y, z in LPS mm; diameter in mm, or UNMEASURED_MM
Row = tuple[str, float, float, float, float]  # seriesuid; x, y, z in LPS mm; diameter, class or score


def radius_mm(diameter_mm: ArrayLike) -> Array:
    """Return the radii in mm for diameters in mm, of the same shape: 5 mm where the diameter is unmeasured."""
    diameter = np.asarray(diameter_mm, np.float64)
    return np.asarray(np.where(diameter == UNMEASURED_MM, _ASSUMED_DIAMETER_MM, diameter) / 2)


@dataclass(frozen=True, eq=False)
class Marks:
    """Marks in several scans, as columns. Row n of every column belongs to one mark.

    series:      seriesuid of the scan
    position_mm: float64 [N, 3], (x, y, z) in LPS mm
    value:       float64 [N], score of a prediction, or diameter in mm (UNMEASURED_MM allowed) of a reference mark
    """

    series: tuple[str, ...]
    position_mm: Array
    value: Array

    def __post_init__(self) -> None:
        if self.position_mm.shape != (len(self.series), 3) or self.value.shape != (len(self.series),):
            raise ValueError("series, positions and values differ in number")

    def __len__(self) -> int:
        return len(self.series)


def make_marks(rows: Sequence[Row]) -> Marks:
    """Return rows as columns."""
    numbers = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), 4)
    return Marks(tuple(row[0] for row in rows), numbers[:, :3], numbers[:, 3])
