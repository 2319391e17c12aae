"""Two readers compared, pair by pair, over the scans that both finished.

Accepted marks of two readers are the same nodule if their centers are closer than the sum of their radii, the rule
of `labels.consensus`. Marks without a partner are one reader's alone.

agreement   positive specific agreement 2 both / (2 both + first + second): the share of a reader's nodules that the
            other one has too. It needs no count of places without a nodule, which nobody knows.
kappa       Cohen's kappa over the findings that both readers accepted or rejected: agreement beyond chance (Cohen
            1960, Educ Psychol Meas 20(1), doi 10.1177/001316446002000104). Empty where it is undefined: with no
            such finding, or all of them in one class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gcnn_cli.files import csv_text
from gcnn_cli.labels.consensus import group_by_nodule
from gcnn_cli.labels.lidc import PlacedMark
from gcnn_cli.review.review import Review

AGREEMENT = "agreement.csv"
COLUMNS = (
    "first", "second", "scans", "both", "first_only", "second_only", "agreement", "judged_by_both", "kappa",
    "apart_mm", "diameter_difference_mm",
)  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """Two readers compared.

    scans:           number of scans that both finished
    both:            nodules that both accepted, and those that only one of them did
    judged:          findings that both accepted or rejected: [2, 2], rows the first reader, accepted first
    apart_mm:        mean distance of the two centers of a nodule; None without one, as the next
    difference_mm:   mean difference of its diameters, second minus first
    """

    first: str
    second: str
    scans: int
    both: int
    first_only: int
    second_only: int
    judged: tuple[tuple[int, int], tuple[int, int]]
    apart_mm: float | None
    difference_mm: float | None

    @property
    def positive(self) -> float | None:
        """Positive specific agreement; None if neither reader accepted anything."""
        total = 2 * self.both + self.first_only + self.second_only
        return 2 * self.both / total if total else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; None where it is undefined."""
        counts = np.array(self.judged, float)
        total = counts.sum()
        if total == 0:
            return None
        observed = float(np.trace(counts) / total)
        expected = float((counts.sum(axis=0) * counts.sum(axis=1)).sum() / total**2)
        return None if expected == 1 else (observed - expected) / (1 - expected)

    def row(self) -> list[object]:
        """Return the values of COLUMNS, empty where there is none."""
        shown = [self.positive, self.kappa, self.apart_mm, self.difference_mm]
        positive, kappa, apart, difference = ("" if value is None else f"{value:.3f}" for value in shown)
        judged = int(np.sum(self.judged))
        counts = (self.both, self.first_only, self.second_only)
        return [self.first, self.second, self.scans, *counts, positive, judged, kappa, apart, difference]


def agreements(reviews: Mapping[str, Mapping[str, Review]]) -> list[Agreement]:
    """Return every pair of readers who finished a scan in common. reviews: by seriesuid, then by reader."""
    finished = {
        uid: {reader: review for reader, review in by_reader.items() if review.finished_at is not None}
        for uid, by_reader in reviews.items()
    }
    readers = sorted({reader for by_reader in finished.values() for reader in by_reader})
    pairs = []
    for first, second in combinations(readers, 2):
        shared = [(by[first], by[second]) for by in finished.values() if first in by and second in by]
        if shared:
            pairs.append(_compare(first, second, shared))
    return pairs


def agreement_csv(reviews: Mapping[str, Mapping[str, Review]]) -> str:
    """Return the table of all pairs; an empty text without a pair."""
    rows = [pair.row() for pair in agreements(reviews)]
    return csv_text(COLUMNS, rows) if rows else ""


def _compare(first: str, second: str, shared: list[tuple[Review, Review]]) -> Agreement:
    alone = [0, 0]
    together: list[tuple[PlacedMark, PlacedMark]] = []
    judged = np.zeros((2, 2), int)
    for pair in shared:
        marks = [
            PlacedMark(reader, "nodule", np.array(entry.position_mm), entry.diameter_mm)
            for reader, review in enumerate(pair)
            for entry in review.entries()
            if entry.verdict == "accepted"
        ]
        for group in group_by_nodule(marks):
            if len(group) == 2:
                one, other = sorted(group, key=lambda mark: mark.reader)
                together.append((one, other))
            else:
                alone[group[0].reader] += 1
        verdicts = [{entry.key: entry.verdict for entry in review.entries() if entry.found_mm} for review in pair]
        for key in verdicts[0].keys() & verdicts[1].keys():
            both = verdicts[0][key], verdicts[1][key]
            if set(both) <= {"accepted", "rejected"}:
                judged[int(both[0] == "rejected"), int(both[1] == "rejected")] += 1
    apart = [float(np.linalg.norm(one.center_mm - other.center_mm)) for one, other in together]
    difference = [other.diameter_mm - one.diameter_mm for one, other in together]
    (a, b), (c, d) = judged.tolist()
    return Agreement(
        first,
        second,
        len(shared),
        len(together),
        alone[0],
        alone[1],
        ((a, b), (c, d)),
        float(np.mean(apart)) if apart else None,
        float(np.mean(difference)) if difference else None,
    )
