"""Free-response ROC (FROC): sensitivity against false positives per scan, CPM and bootstrap intervals.

    sensitivity(t) = nodules hit at a score >= t / all nodules
    FPs/scan(t)    = false positives at a score >= t / all scans, including those without nodules
    CPM            = mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 FPs/scan (Niemeijer et al. 2011)

Tied scores share one threshold, so the curve is straight across a tie. It starts at (0, 0) and is flat beyond its
last false positive. Missed nodules stay in the denominator.

Two ways to interpolate the sensitivity at R FPs/scan:

luna16:   linear (Setio et al. 2017, arXiv:1612.08012)
nearest:  the point of the curve with the nearest FPs/scan; of two equally near points the lower one

Intervals: scans are drawn with replacement, and a scan drawn twice counts twice (Efron's percentile bootstrap,
order statistics as in LUNA16's script). A resample without nodules has no sensitivity and is left out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.matching import FALSE, Matches

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # FPs/scan
CONFIDENCE = 0.95

Interpolation = Literal["luna16", "nearest"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The found nodules and the false positives, from which a FROC curve is made.

    score:     float [E]
    scan:      int [E], number of the scan
    is_nodule: bool [E], True for a found nodule, False for a false positive
    nodules:   int [scans], reference nodules of each scan, found or missed
    """

    score: Floats
    scan: NDArray[np.intp]
    is_nodule: NDArray[np.bool_]
    nodules: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Curve:
    """Points of a FROC curve by falling threshold, arrays [P]. The first is (0, 0) at an infinite threshold."""

    fps_per_scan: Floats
    sensitivity: Floats
    threshold: Floats


def outcomes_of(matches: Matches, only: NDArray[np.bool_] | None = None) -> Outcomes:
    """Return the outcomes of a matching.

    only: bool [N], the nodules to keep; false positives are all kept
    """
    counted = np.ones(len(matches.nodules), dtype=bool) if only is None else only
    found = counted & np.isfinite(matches.nodule_score)
    false = matches.mark_fate == FALSE
    return Outcomes(
        score=np.concatenate([matches.nodule_score[found], matches.predictions.value[false]]),
        scan=np.concatenate([matches.nodule_scan[found], matches.mark_scan[false]]),
        is_nodule=np.concatenate([np.ones(found.sum(), dtype=bool), np.zeros(false.sum(), dtype=bool)]),
        nodules=np.bincount(matches.nodule_scan[counted], minlength=len(matches.series)),
    )


def froc_curve(outcomes: Outcomes) -> Curve:
    """Return the curve over all scans. Raises InputError without scans or nodules: sensitivity is then undefined."""
    if len(outcomes.nodules) == 0 or outcomes.nodules.sum() == 0:
        raise InputError("no nodules in the evaluated scans: sensitivity is undefined")
    order, ends = _thresholds(outcomes.score)
    is_nodule = outcomes.is_nodule[order]
    false, found = np.cumsum(~is_nodule)[ends], np.cumsum(is_nodule)[ends]
    return Curve(
        fps_per_scan=np.concatenate([[0.0], false / len(outcomes.nodules)]),
        sensitivity=np.concatenate([[0.0], found / outcomes.nodules.sum()]),
        threshold=np.concatenate([[np.inf], outcomes.score[order][ends]]),
    )


def sensitivity_at(
    fps_per_scan: Floats, sensitivity: Floats, rates: Floats, interpolation: Interpolation = "luna16"
) -> Floats:
    """Return the sensitivities [K] of one curve [P] at rates [K]."""
    if interpolation == "luna16":
        return np.asarray(np.interp(rates, fps_per_scan, sensitivity))  # takes the last of equal abscissae
    below = np.searchsorted(fps_per_scan, rates, side="right") - 1
    following = fps_per_scan[np.minimum(below + 1, len(fps_per_scan) - 1)]
    above = np.searchsorted(fps_per_scan, following, side="right") - 1
    take_above = following - rates < rates - fps_per_scan[below]
    return np.asarray(sensitivity[np.where(take_above, above, below)])


def thresholds_at(curve: Curve, rates: Floats) -> list[float | None]:
    """Return the lowest threshold that keeps within each rate; None if even the highest score exceeds it."""
    last = np.searchsorted(curve.fps_per_scan, rates, side="right") - 1
    return [float(curve.threshold[n]) if n > 0 else None for n in last]


def draw_scans(scans: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """Draw scans with replacement. Returns how often each scan is in each resample, [resamples, scans]."""
    drawn = np.random.default_rng(seed).integers(scans, size=(resamples, scans))
    flat = drawn + np.arange(resamples)[:, None] * scans
    return np.bincount(flat.ravel(), minlength=resamples * scans).reshape(resamples, scans).astype(np.int32)


def resampled_sensitivities(
    outcomes: Outcomes, counts: NDArray[np.int32], rates: Floats, interpolation: Interpolation = "luna16"
) -> Floats:
    """Return the sensitivities [resamples, K] at rates [K]; NaN for a resample without nodules.

    counts: from `draw_scans`
    """
    order, ends = _thresholds(outcomes.score)
    scan, is_nodule = outcomes.scan[order], outcomes.is_nodule[order]
    scans = counts.shape[1]
    nodules = counts @ outcomes.nodules
    result = np.full((len(counts), len(rates)), np.nan)
    # Some resamples at a time, to keep [rows, E] within tens of megabytes.
    rows = max(1, 4_000_000 // max(1, len(scan)))
    for first in range(0, len(counts), rows):
        weight = counts[first : first + rows][:, scan]
        false = np.cumsum(np.where(is_nodule, 0, weight), axis=1)[:, ends]
        found = np.cumsum(np.where(is_nodule, weight, 0), axis=1)[:, ends]
        for n, total in enumerate(nodules[first : first + rows]):
            if total > 0:
                fps = np.concatenate([[0.0], false[n] / scans])
                sensitivity = np.concatenate([[0.0], found[n] / total])
                result[first + n] = sensitivity_at(fps, sensitivity, rates, interpolation)
    return result


def interval(values: Floats) -> tuple[float, float]:
    """Return the central 95 % of values [R], as order statistics. NaN values are left out."""
    ordered = np.sort(values[np.isfinite(values)])
    if len(ordered) == 0:
        return (np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    # Value floor(0.975 * R) of R, counted from 0, as in LUNA16's script. The rounding keeps 0.975 * 1000 at 975.
    low, high = (int(round(p * len(ordered), 6)) for p in (tail, 1 - tail))
    return float(ordered[low]), float(ordered[min(high, len(ordered) - 1)])


@dataclass(frozen=True)
class Difference:
    """CPM of one set of predictions minus that of another. p is two-sided. Without resamples there is the CPM alone."""

    cpm: float
    interval: tuple[float, float] | None
    p: float | None


def compare(
    first: Outcomes, second: Outcomes, counts: NDArray[np.int32], interpolation: Interpolation = "luna16"
) -> Difference:
    """Compare CPMs by a paired bootstrap over the same resamples.

    p is twice the share of resamples on the less frequent side of zero, with the observed difference counted among
    them (Davison & Hinkley 1997, eq. 4.11), and at most 1.
    """
    rates = np.array(RATES)
    curves = [froc_curve(first), froc_curve(second)]
    a, b = (sensitivity_at(c.fps_per_scan, c.sensitivity, rates, interpolation).mean() for c in curves)
    resampled = [resampled_sensitivities(o, counts, rates, interpolation).mean(axis=1) for o in (first, second)]
    differences = resampled[0] - resampled[1]
    differences = differences[np.isfinite(differences)]
    if len(differences) == 0:
        return Difference(float(a - b), None, None)
    side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Difference(float(a - b), interval(differences), min(1.0, 2 * (side + 1) / (len(differences) + 1)))


def _thresholds(score: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order by falling score, and the last position of each distinct score in that order."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], np.ones(min(1, len(ordered)), dtype=bool)))
    return order, ends
