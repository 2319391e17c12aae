"""The data factor: samples that the plain CNN needs for an arm's score, divided by the arm's own.

By interpolation: the plain CNN's curve is straight between its points over the logarithm of the samples, and made
non-decreasing. By a power law, as the literature on scaling fits learning curves (Hestness et al. 2017,
arXiv:1712.00409): the error 1 - score is a line over the logarithm of the samples, in logarithms; it is fitted to
all points of the plain CNN and to all points of the arm, and read where the arm has N samples.
"""

import numpy as np

from gcnn_cli.experiment.measures import Floats

LIMIT = 1000.0  # factors beyond are told apart by nothing that was measured
_LEAST_ERROR = 1e-4


def interpolated(samples: int, score: float, counts: Floats, plain: Floats) -> float:
    """Return the factor by interpolation. counts, plain: the plain CNN's numbers of samples [P] and scores [P].

    A score outside the curve gives the factor of its first or last point.
    """
    rising = np.maximum.accumulate(plain)
    reached = int(np.searchsorted(rising, score))  # the first point at or above
    if reached == 0 or reached == len(rising):
        return float(counts[min(reached, len(rising) - 1)] / samples)
    low, high = rising[reached - 1], rising[reached]
    share = (score - low) / (high - low)
    return float(counts[reached - 1] * (counts[reached] / counts[reached - 1]) ** share / samples)


def fitted(samples: int, counts: Floats, scores: Floats, plain_counts: Floats, plain: Floats) -> Floats:
    """Return the factor by power laws through the arm's points [A] and the plain CNN's [P], within `LIMIT`.

    scores, plain: [A] and [P], or [A, R] and [P, R] for the factors [R] of resamples

    A plain CNN that does not gain by more samples never reaches a better arm: the factor is the limit.
    """
    slope, height = _power_law(plain_counts, plain)
    own_slope, own_height = _power_law(counts, scores)
    error = own_height + own_slope * np.log(samples)
    gains = slope < -1e-9
    needed = (error - height) / np.where(gains, slope, -1)
    own = height + slope * np.log(samples)  # the plain CNN's error with as many samples
    never = np.where(np.isclose(error, own), 0, np.where(error < own, np.inf, -np.inf))
    power = np.where(gains, needed - np.log(samples), never) / np.log(LIMIT)
    return np.asarray(LIMIT ** np.clip(power, -1, 1))


def _power_law(counts: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return slope and height of log(1 - score) over log(samples), by least squares."""
    slope, height = np.polyfit(np.log(counts), np.log(np.maximum(1 - scores, _LEAST_ERROR)), 1)
    return slope, height
