"""One row of the list that a reader works through: a finding of the detector, or a nodule that it missed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gcnn_cli.detection.findings import Nodule, Report
from gcnn_cli.output.rates import rate_text

Verdict = Literal["open", "accepted", "rejected", "unsure"]
Position = tuple[float, float, float]  # (x, y, z) in LPS mm

_LEAST_REACH_MM = 3.0  # two findings closer than this are one, however small they are


@dataclass(frozen=True)
class Entry:
    """A place in the scan with what is known and what was decided about it.

    key:         name within the scan: the place where the detector found it, or 'added-N'
    position_mm: (x, y, z) in LPS mm, as the reader left it
    found_mm:    the detector's position; None for a nodule that a reader added
    probability: the detector's; None for an added nodule
    fp_per_scan: false positives per scan with at least this probability; None if unknown
    """

    key: str
    position_mm: Position
    diameter_mm: float
    found_mm: Position | None = None
    probability: float | None = None
    fp_per_scan: float | None = None
    verdict: Verdict = "open"

    def data(self) -> dict[str, Any]:
        """Return the entry as plain data, for the page."""
        return {
            "key": self.key,
            "position_mm": list(self.position_mm),
            "diameter_mm": self.diameter_mm,
            "found_mm": None if self.found_mm is None else list(self.found_mm),
            "probability": self.probability,
            "fp_per_scan": rate_text(self.fp_per_scan),
            "verdict": self.verdict,
        }


def entries_of(report: Report) -> tuple[Entry, ...]:
    """Return the findings of a report, undecided, highest probability first."""
    return tuple(_entry(nodule) for nodule in report.nodules)


def _entry(nodule: Nodule) -> Entry:
    key = ",".join(f"{value:.3f}" for value in nodule.position_mm)
    position = nodule.position_mm
    return Entry(key, position, nodule.diameter_mm, position, nodule.probability, nodule.fp_per_scan)


def carried_over(known: Iterable[Entry], found: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the findings of a new report under the names of the earlier findings that they repeat.

    Other weights find the same nodule a little beside its first place. The new finding then takes the earlier one's
    key, place and diameter, to which the reader's decisions refer, and keeps its own probability. Earlier findings
    that the new report lacks stay as they were.

    known: earlier findings that a reader decided about, undecided and unmoved
    """
    left = list(found)
    carried = []
    for entry in known:
        near = min(left, key=lambda other: math.dist(entry.position_mm, other.position_mm), default=None)
        reach = max(_LEAST_REACH_MM, entry.diameter_mm / 2)
        if near is not None and math.dist(entry.position_mm, near.position_mm) <= reach:
            left.remove(near)
            entry = replace(entry, probability=near.probability, fp_per_scan=near.fp_per_scan)
        carried.append(entry)
    return tuple(sorted((*carried, *left), key=lambda entry: -(entry.probability or 0)))
