"""Matching marks with nodules by LUNA16's rules (Setio et al. 2017, arXiv:1612.08012, and its evaluation script).

For every scan:

1. With a cap of M marks, only marks strictly above the (M+1)-th largest score stay. Marks tied at the cut all
   drop.
2. A mark hits a nodule if it lies strictly within the nodule's radius (`marks.radius_mm`: an unmeasured nodule
   has 5 mm). Hits are not matched one to one: a mark in two nodules credits both.
3. A hit nodule gets the highest score of its hits. Further hits are ignored, and no hit is a false positive.
4. A mark that hits no nodule and lies in an excluded mark is ignored.
5. All other marks are false positives.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.labels.marks import Marks, radius_mm

OFFICIAL_CAP = 100
_ENDINGS = (".mhd", ".mha", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".hdr", ".zip")

HIT, IGNORED, FALSE, CAPPED = range(4)  # fates of a mark


@dataclass(frozen=True)
class MatchRule:
    """A rule for hits.

    max_marks:     marks kept per scan; 0: all
    hit_radius_mm: radius of every nodule and excluded mark; None: each its own, as in LUNA16
    """

    max_marks: int = OFFICIAL_CAP
    hit_radius_mm: float | None = None

    def __post_init__(self) -> None:
        if self.max_marks < 0:
            raise UsageError(f"--max-marks must be 0 (no cap) or more, got {self.max_marks}")
        if self.hit_radius_mm is not None and not self.hit_radius_mm > 0:
            raise UsageError(f"--hit-radius must be above 0 mm, got {self.hit_radius_mm}")


@dataclass(frozen=True, eq=False)
class Matches:
    """The fate of every nodule and every mark.

    series:         the evaluated scans, in the given order
    nodules:        the reference nodules [N] in these scans
    nodule_scan:    int [N], index in `series`
    nodule_score:   float [N], highest score of a hit; -inf if missed
    predictions:    the marks [M] in these scans
    mark_scan:      int [M], index in `series`
    mark_fate:      int [M], HIT, IGNORED (in an excluded mark), FALSE or CAPPED
    double_hits:    hits beyond the first, over all nodules
    """

    series: tuple[str, ...]
    nodules: Marks
    nodule_scan: NDArray[np.intp]
    nodule_score: NDArray[np.float64]
    predictions: Marks
    mark_scan: NDArray[np.intp]
    mark_fate: NDArray[np.int8]
    double_hits: int


def match(
    predictions: Marks,
    nodules: Marks,
    excluded: Marks,
    series: Sequence[str],
    rule: MatchRule | None = None,
    *,
    allow_unknown: bool = False,
) -> Matches:
    """Match predictions with nodules in the listed scans.

    Nodules and excluded marks in other scans are left out, as for one fold of a cross-validation. A prediction in
    another scan raises InputError, or with `allow_unknown` is dropped as by LUNA16's script.
    """
    rule = rule or MatchRule()
    row = {name: number for number, name in enumerate(series)}
    unknown = sorted({name for name in predictions.series if name not in row})
    if unknown and not allow_unknown:
        if remedy := _other_ending(unknown[0], row):
            raise InputError(f"predictions for series {unknown[0]}, which the reference calls {remedy}; write it so")
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(
            f"predictions for series {unknown[0]}{more}, not among the evaluated scans;"
            " list every scan with --series, or leave them out with --allow-unknown"
        )
    predictions, mark_scan = _listed(predictions, row)
    nodules, nodule_scan = _listed(nodules, row)
    excluded, excluded_scan = _listed(excluded, row)

    score = np.full(len(nodules), -np.inf)
    fate = np.full(len(predictions), FALSE, dtype=np.int8)
    double_hits = 0
    marks_of, nodules_of, excluded_of = _by_scan(mark_scan), _by_scan(nodule_scan), _by_scan(excluded_scan)
    for scan, marks in marks_of.items():
        kept = _under_cap(predictions.value[marks], rule.max_marks)
        fate[marks[~kept]] = CAPPED
        marks = marks[kept]
        places = predictions.position_mm[marks]
        here = nodules_of.get(scan, _NONE)
        hits = _inside(places, nodules, here, rule)
        for nodule, hit in zip(here, hits.T, strict=True):
            if hit.any():
                score[nodule] = predictions.value[marks[hit]].max()
                double_hits += int(hit.sum()) - 1
        is_hit = hits.any(axis=1)
        fate[marks[is_hit]] = HIT
        ignored = ~is_hit & _inside(places, excluded, excluded_of.get(scan, _NONE), rule).any(axis=1)
        fate[marks[ignored]] = IGNORED
    return Matches(tuple(series), nodules, nodule_scan, score, predictions, mark_scan, fate, double_hits)


_NONE = np.zeros(0, dtype=np.intp)


def _listed(marks: Marks, row: dict[str, int]) -> tuple[Marks, NDArray[np.intp]]:
    """Return the marks in listed scans and the index of each one's scan."""
    rows = np.array([row.get(name, -1) for name in marks.series], dtype=np.intp)
    kept = np.flatnonzero(rows >= 0)
    part = Marks(tuple(marks.series[n] for n in kept), marks.position_mm[kept], marks.value[kept])
    return part, rows[kept]


def _by_scan(scans: NDArray[np.intp]) -> dict[int, NDArray[np.intp]]:
    """Return the rows of each scan, in order."""
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for number, scan in enumerate(scans.tolist()):
        rows[scan].append(number)
    return {scan: np.array(numbers, dtype=np.intp) for scan, numbers in rows.items()}


def _under_cap(scores: NDArray[np.float64], cap: int) -> NDArray[np.bool_]:
    if cap == 0 or len(scores) <= cap:
        return np.ones(len(scores), dtype=bool)
    return np.asarray(scores > np.sort(scores)[::-1][cap])


def _inside(
    places: NDArray[np.float64], reference: Marks, rows: NDArray[np.intp], rule: MatchRule
) -> NDArray[np.bool_]:
    """Return bool [marks, references]: True if a place lies strictly within the radius of a reference mark."""
    radius = radius_mm(reference.value[rows])
    if rule.hit_radius_mm is not None:
        radius = np.full(len(rows), rule.hit_radius_mm)
    squared = ((places[:, None] - reference.position_mm[rows][None]) ** 2).sum(axis=2)
    return np.asarray(squared < radius**2)


def _other_ending(name: str, known: Mapping[str, int]) -> str:
    """Return the known name that differs only by the ending of an image file, or an empty string."""
    bare = next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)
    return next((other for other in (bare, *(bare + ending for ending in _ENDINGS)) if other in known), "")
