"""The contract of a network: the input that it takes and the meaning of its output. The weights file holds both."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import ModelError, UsageError
from gcnn_cli.symmetry.groups import make_group

_CLOSEST_TO_CERTAIN = 1e-12


@dataclass(frozen=True)
class InputSpec:
    """Boxes of voxels, HU scaled from [hu_low, hu_high] to [-1, 1]. Raises ModelError.

    spacing_mm: side of a voxel, or one for each axis (z, y, x)
    side:       side of a box in voxels, or one for each axis
    """

    spacing_mm: float | tuple[float, ...] = 1.0
    side: int | tuple[int, ...] = 32
    hu_low: float = -1000.0
    hu_high: float = 400.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing_mm", _compact(self.spacing_mm))  # JSON returns lists
        object.__setattr__(self, "side", _compact(self.side))
        if any(type(side) is not int for side in self.sides):
            raise ModelError(f"side must be an integer, got {self.side!r}")
        window = self.hu_high - self.hu_low
        boxes = len(self.sides) == len(self.spacing_zyx) == 3
        lengths = all(0.2 <= s <= 5 for s in self.spacing_zyx) and all(4 <= n <= 256 for n in self.sides)
        if not (boxes and lengths and 0 < window < math.inf):
            raise ModelError(f"invalid input contract: {self}")

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of a box in voxels, (z, y, x)."""
        return self.side if isinstance(self.side, tuple) else (self.side,) * 3

    @property
    def spacing_zyx(self) -> tuple[float, ...]:
        """Sides of a voxel in mm, (z, y, x)."""
        return self.spacing_mm if isinstance(self.spacing_mm, tuple) else (self.spacing_mm,) * 3


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


def _compact(value: Any) -> Any:
    """Return one number for three equal ones, and a tuple for any others."""
    if not isinstance(value, (list, tuple)):
        return value
    values = tuple(value)
    alike = len(values) == 3 and all(v == values[0] and type(v) is type(values[0]) for v in values)
    return values[0] if alike else values


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probability, _CLOSEST_TO_CERTAIN, 1 - _CLOSEST_TO_CERTAIN)
    return np.asarray(np.log(clipped / (1 - clipped)))
