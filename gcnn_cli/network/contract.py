"""The contract of a network: the input that it takes and the meaning of its output. The weights file holds both."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import ModelError, UsageError
from gcnn_cli.symmetry.groups import make_group

_CLOSEST_TO_CERTAIN = 1e-12


@dataclass(frozen=True)
class InputSpec:
    """Cubes of side^3 voxels of spacing_mm, HU scaled from [hu_low, hu_high] to [-1, 1]. Raises ModelError."""

    spacing_mm: float = 1.0
    side: int = 32
    hu_low: float = -1000.0
    hu_high: float = 400.0

    def __post_init__(self) -> None:
        if type(self.side) is not int:
            raise ModelError(f"side must be an integer, got {self.side!r}")
        window = self.hu_high - self.hu_low
        if not (0.2 <= self.spacing_mm <= 5 and 4 <= self.side <= 256 and 0 < window < math.inf):
            raise ModelError(f"invalid input contract: {self}")


@dataclass(frozen=True)
class Calibration:
    """Map from logit to probability (Platt 1999), with the thresholds to report at. Raises ModelError.

    probability = 1 / (1 + exp(-(slope * logit + offset)))

    threshold:        lowest probability that is reported by default
    operating_points: pairs of false positives per scan and the threshold that gives them, in ascending order
    average_over:     group over which logits are averaged (`Scorer`) before they have this meaning
    """

    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    operating_points: tuple[tuple[float, float], ...] = ()
    average_over: str = "trivial"

    def __post_init__(self) -> None:
        points = tuple((float(rate), float(cut)) for rate, cut in self.operating_points)  # JSON returns lists
        object.__setattr__(self, "operating_points", points)
        if not (0 < self.slope < math.inf and math.isfinite(self.offset) and 0 <= self.threshold <= 1):
            raise ModelError(
                f"invalid calibration: slope {self.slope}, offset {self.offset}, threshold {self.threshold}"
            )
        if not all(0 < rate < math.inf and 0 <= cut <= 1 for rate, cut in points):
            raise ModelError(
                f"invalid operating points {points}: must be pairs of false positives per scan and a probability"
            )
        make_group(self.average_over)  # raises for an unknown name

    def probability(self, logit: float) -> float:
        """Return the calibrated probability of one logit."""
        x = self.slope * logit + self.offset
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))

    def mapped(self, slope: float, offset: float, operating_points: tuple[tuple[float, float], ...]) -> "Calibration":
        """Return this calibration followed by Platt's map of its probabilities, with operating points of the result.

        The default threshold is the operating point at 1 false positive per scan. Raises ModelError without one.
        """
        threshold = dict(operating_points).get(1.0)
        if threshold is None:
            raise ModelError("no operating point at 1 false positive per scan to take the default threshold from")
        return replace(
            self,
            slope=slope * self.slope,
            offset=slope * self.offset + offset,
            threshold=threshold,
            operating_points=operating_points,
        )

    def fp_per_scan(self, probability: float) -> float | None:
        """Return how many false positives a scan has on average with at least this probability; None if unknown.

        Between the operating points the logarithm of the rate is linear in the log odds. Outside them nothing was
        counted: the first rate is then an upper bound, for higher probabilities, and the last one a lower bound.
        """
        if not self.operating_points:
            return None
        rates, cuts = np.array(self.operating_points).T
        order = np.argsort(cuts, kind="stable")
        odds = _log_odds(cuts[order])
        return float(np.exp(np.interp(_log_odds(np.array(probability)), odds, np.log(rates[order]))))

    def threshold_at(self, fps_per_scan: float) -> float:
        """Return the threshold stored for a rate of false positives per scan. Raises UsageError without one."""
        for rate, cut in self.operating_points:
            if math.isclose(rate, fps_per_scan):
                return cut
        rates = ", ".join(f"{rate:g}" for rate, _ in self.operating_points)
        raise UsageError(
            f"these weights store no operating point at {fps_per_scan:g} false positives per scan"
            f" (stored: {rates or 'no points'}); use --threshold"
        )


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probability, _CLOSEST_TO_CERTAIN, 1 - _CLOSEST_TO_CERTAIN)
    return np.asarray(np.log(clipped / (1 - clipped)))
