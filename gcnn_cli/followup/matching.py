"""Which nodule of one date is which of the other: one to one, near each other once the scans are aligned.

First the findings of both dates are matched with each other, then those that are left with the fainter findings of
the other date, which no one would have been shown: a nodule that scored just below the threshold a year ago is not
new. Fainter findings must lie closer, because there are many of them and some lie near every place.

    cost = distance / reach + |ln(d2 / d1)|      reach = 10 mm + the larger radius

so that of two neighbors the one of like size is taken. Two nodules that stay apart, one gone and one new, cost 1.5.
The sum is the least possible (Kuhn 1955): a nodule that has not changed keeps its partner though its neighbors come and
go, and a pair that costs more is two nodules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import linear_sum_assignment

from gcnn_cli.detection.findings import Nodule, ScanSummary
from gcnn_cli.followup.growth import Growth, growth
from gcnn_cli.followup.registration import Alignment
from gcnn_cli.scan.lattice import Lattice
from gcnn_cli.scan.volume import Array

_REACH_MM = 10.0  # what is left of two breaths after an affine map
_FAINT_SHARE = 0.5  # of the reach, for findings below the threshold
_APART = 1.5


class Status(StrEnum):
    """What became of a nodule."""

    MATCHED = "matched"
    NEW = "new"
    GONE = "gone"
    NOT_SHOWN = "not shown"  # its place lies outside the other scan


@dataclass(frozen=True)
class Pair:
    """One nodule on two dates.

    prior, current: as found on each date; None where it was not
    place_mm:       LPS mm (x, y, z) where the missing one would lie, in that scan's own frame; None for a match
    distance_mm:    between the two once aligned; None without a match
    faint:          one of the two is below the threshold
    """

    status: Status
    prior: Nodule | None
    current: Nodule | None
    place_mm: tuple[float, float, float] | None = None
    distance_mm: float | None = None
    growth: Growth | None = None  # None without a match, and where one of the two could not be measured
    faint: bool = False


@dataclass(frozen=True)
class Found:
    """The findings of one date, most probable first. threshold: of what is reported; fainter ones serve matching"""

    scan: ScanSummary
    nodules: tuple[Nodule, ...]
    threshold: float

    @property
    def slice_mm(self) -> float:
        """Largest voxel spacing, which decides how well volumes are measured."""
        return max(self.scan.spacing_zyx)

    @property
    def lattice(self) -> Lattice:
        """The lattice of the scan."""
        return Lattice(self.scan.shape_zyx, np.array(self.scan.to_world))


def match_nodules(prior: Found, current: Found, alignment: Alignment, days: float | None) -> list[Pair]:
    """Return the pairs by the current nodules' order, then what is gone by the prior ones' order.

    days: between the two dates, None if unknown
    """
    aligned = alignment.to_prior(_positions(current.nodules))  # [N, 3] in the prior scan
    shown = [[n.probability >= found.threshold for n in found.nodules] for found in (prior, current)]
    partner: dict[int, int] = {}  # current -> prior
    for prior_shown, current_shown, share in (
        (True, True, 1.0),
        (False, True, _FAINT_SHARE),
        (True, False, _FAINT_SHARE),
    ):
        rows = [n for n, s in enumerate(shown[1]) if s == current_shown and n not in partner]
        columns = [n for n, s in enumerate(shown[0]) if s == prior_shown and n not in partner.values()]
        partner |= _assign(rows, columns, prior.nodules, current.nodules, aligned, share)
    pairs = []
    for n, nodule in enumerate(current.nodules):
        if n in partner:
            before = prior.nodules[partner[n]]
            grown = None
            if before.is_measured and nodule.is_measured:
                grown = growth(before.volume_mm3, prior.slice_mm, nodule.volume_mm3, current.slice_mm, days)
            pairs.append(
                Pair(
                    Status.MATCHED,
                    before,
                    nodule,
                    distance_mm=float(np.linalg.norm(aligned[n] - before.position_mm)),
                    growth=grown,
                    faint=not (shown[1][n] and shown[0][partner[n]]),
                )
            )
        elif shown[1][n]:
            pairs.append(_alone(Status.NEW, None, nodule, aligned[n], prior))
    there = alignment.to_current(_positions(prior.nodules))
    for n, nodule in enumerate(prior.nodules):
        if shown[0][n] and n not in partner.values():
            pairs.append(_alone(Status.GONE, nodule, None, there[n], current))
    return pairs


def _alone(status: Status, prior: Nodule | None, current: Nodule | None, place: Array, other: Found) -> Pair:
    x, y, z = (float(v) for v in place)
    covered = bool(other.lattice.holds(np.array([x, y, z])))
    return Pair(status if covered else Status.NOT_SHOWN, prior, current, place_mm=(x, y, z))


def _assign(
    rows: list[int],
    columns: list[int],
    prior: Sequence[Nodule],
    current: Sequence[Nodule],
    aligned: Array,
    share: float,
) -> dict[int, int]:
    """Return pairs of current (rows) and prior (columns) nodules within reach, at the least total cost."""
    cost = np.full((len(rows), len(columns)), _APART)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            sizes = current[row].diameter_mm, prior[column].diameter_mm
            reach = share * (_REACH_MM + max(sizes) / 2)
            distance = float(np.linalg.norm(aligned[row] - prior[column].position_mm))
            if distance <= reach:
                cost[i, j] = min(_APART, distance / reach + abs(np.log(sizes[0] / sizes[1])))
    chosen = zip(*linear_sum_assignment(cost), strict=True)
    return {rows[i]: columns[j] for i, j in chosen if cost[i, j] < _APART}


def _positions(nodules: Sequence[Nodule]) -> Array:
    return np.array([nodule.position_mm for nodule in nodules], float).reshape(-1, 3)
