"""Calibration of probabilities: reliability, and Platt's map.

A mark is positive if it hits a nodule and negative if it is a false positive. Marks in excluded places are neither.
"Probability" is therefore the probability that a reported place lies in a nodule, among the places that detection
reports.

Expected calibration error: mean of |share of positives - mean probability| over ten equal bins of
probability, weighted by their marks (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599).
Map: probability = sigmoid(slope * logit + offset), fitted with Platt's smoothed targets (Platt 1999).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.matching import FALSE, HIT, Matches

BINS = 10
FOLDS = 5
_CLOSEST_TO_CERTAIN = 1e-7  # a probability that was rounded to 0 or 1 has no finite logit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """Marks with a probability in [low, high); the last bin includes 1.

    weight:           sum of the marks' weights; equal to `marks` without weights
    mean_probability: NaN in an empty bin
    positives:        share of the weight; NaN in an empty bin
    """

    low: float
    high: float
    marks: int
    weight: float
    mean_probability: float
    positives: float


@dataclass(frozen=True)
class PlattMap:
    """probability -> sigmoid(slope * logit(probability) + offset)."""

    slope: float
    offset: float

    def apply(self, probability: Floats) -> Floats:
        """Return the mapped probabilities [N], in the same order."""
        return np.asarray(expit(self.slope * _logit(probability) + self.offset))

    def apply_one(self, probability: float) -> float:
        """Return the mapped probability of one mark."""
        return float(self.apply(np.array([probability]))[0])


@dataclass(frozen=True, eq=False)
class CalibrationStudy:
    """Reliability before and after Platt's map.

    bins, error: before the map
    platt:       the map fitted to all marks
    error_after: error after the map on unseen scans: each fifth of the scans is mapped by a fit to the other four;
                 NaN with fewer than 5 scans
    """

    bins: tuple[ReliabilityBin, ...]
    error: float
    platt: PlattMap
    error_after: float


def study_calibration(matches: Matches) -> CalibrationStudy:
    """Measure reliability and fit the map. Raises InputError for scores outside [0, 1] or a missing class."""
    counted = (matches.mark_fate == HIT) | (matches.mark_fate == FALSE)
    probability = matches.predictions.value[counted]
    positive = matches.mark_fate[counted] == HIT
    scan = matches.mark_scan[counted]
    if len(probability) and not (probability.min() >= 0 and probability.max() <= 1):
        raise InputError("calibration needs probabilities between 0 and 1; these scores are not probabilities")
    bins = reliability(probability, positive)
    platt = fit_platt(probability, positive)
    return CalibrationStudy(bins, expected_error(bins), platt, error_on_unseen(probability, positive, scan))


def reliability(
    probability: Floats, positive: NDArray[np.bool_], weight: Floats | None = None
) -> tuple[ReliabilityBin, ...]:
    """Sort marks [N] into ten equal bins of probability. `weight` [N] is the number of marks each stands for."""
    weight = np.ones(len(probability)) if weight is None else weight
    bin_of = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for n in range(BINS):
        inside = bin_of == n
        total = float(weight[inside].sum())
        mean = float((weight * probability)[inside].sum() / total) if total else np.nan
        share = float((weight * positive)[inside].sum() / total) if total else np.nan
        rows.append(ReliabilityBin(n / BINS, (n + 1) / BINS, int(inside.sum()), total, mean, share))
    return tuple(rows)


def expected_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the expected calibration error; NaN without marks."""
    total = sum(b.weight for b in bins)
    if total == 0:
        return float("nan")
    return sum(b.weight * abs(b.positives - b.mean_probability) for b in bins if b.weight) / total


def fit_platt(probability: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> PlattMap:
    """Fit the map of highest likelihood. Marks weigh 1, or `weight` [N].

    Targets are Platt's, as if each class had one more mark with the label of the other. Where hits weigh less than
    false positives, the false positives' target shrinks as much: at a prior of 1 %, Platt's own would add a tenth as
    many hits among the lowest scores, and hold sure hits far below 1.

    Raises InputError if a class is missing, or if the map would reverse the order.
    """
    found = int(positive.sum())
    false = len(positive) - found
    if found == 0 or false == 0:
        raise InputError(f"calibration needs hits and false positives; there are {found} and {false}")
    share = np.ones(len(positive)) if weight is None else weight
    share = share / share.sum()
    x = _logit(probability)
    lighter = 1.0 if weight is None else min(1.0, float(share[positive].sum() / share[~positive].sum()))
    target = np.where(positive, (found + 1) / (found + 2), lighter / (false + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = parameters[0] * x + parameters[1]
        residual = expit(z) - target
        value = np.logaddexp(0, z) - target * z
        return float((share * value).sum()), np.array([(share * residual * x).sum(), (share * residual).sum()])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if not slope > 0:
        raise InputError("higher scores do not mean more nodules here: no calibration keeps their order")
    return PlattMap(float(slope), float(offset))


def error_on_unseen(
    probability: Floats, positive: NDArray[np.bool_], scan: NDArray[np.intp], weight: Floats | None = None
) -> float:
    """Return the expected calibration error of cross-fitted maps; each fold is every fifth scan with marks.

    NaN with fewer than five scans with marks, or if four folds lack a class.
    """
    weight = np.ones(len(positive)) if weight is None else weight
    present = np.unique(scan)
    if len(present) < FOLDS:
        return float("nan")
    fold = np.searchsorted(present, scan) % FOLDS
    mapped = np.empty_like(probability)
    for n in range(FOLDS):
        inside = fold == n
        try:
            platt = fit_platt(probability[~inside], positive[~inside], weight[~inside])
        except InputError:
            return float("nan")
        mapped[inside] = platt.apply(probability[inside])
    return expected_error(reliability(mapped, positive, weight))


def _logit(probability: Floats) -> Floats:
    return np.asarray(logit(np.clip(probability, _CLOSEST_TO_CERTAIN, 1 - _CLOSEST_TO_CERTAIN)))
