"""One evaluation: matches -> every reported figure, together with its rule."""

from dataclasses import dataclass, field

import numpy as np

from gcnn_cli.evaluation.calibration import CalibrationStudy, PlattMap, study_calibration
from gcnn_cli.evaluation.froc import (
    RATES,
    Curve,
    Difference,
    Floats,
    Interpolation,
    compare,
    draw_scans,
    froc_curve,
    interval,
    outcomes_of,
    resampled_sensitivities,
    sensitivity_at,
    thresholds_at,
)
from gcnn_cli.evaluation.matching import CAPPED, FALSE, HIT, IGNORED, OFFICIAL_CAP, Matches, MatchRule
from gcnn_cli.labels.marks import UNMEASURED_MM

BAND_RATES = np.geomspace(0.125, 8, 121)  # FPs/scan at which the plot's band is measured
STRATA_MM = ((0.0, 5.0), (5.0, 6.0), (6.0, 8.0), (8.0, 10.0), (10.0, np.inf))


@dataclass(frozen=True)
class EvaluationConfig:
    """The rules of an evaluation.

    resamples: bootstrap resamples of the scans; 0: no intervals
    """

    rule: MatchRule = field(default_factory=MatchRule)
    interpolation: Interpolation = "luna16"
    resamples: int = 1000
    seed: int = 0

    @property
    def name(self) -> str:
        """The rules in words; they stand beside every figure."""
        cap = f"at most {self.rule.max_marks} marks per scan" if self.rule.max_marks else "no cap on marks"
        radius = self.rule.hit_radius_mm
        hit = "within the nodule's radius" if radius is None else f"within {radius:g} mm"
        read = "linear interpolation" if self.interpolation == "luna16" else "nearest point"
        official = (self.rule, self.interpolation) == (MatchRule(OFFICIAL_CAP), "luna16")
        return f"{'LUNA16' if official else 'not LUNA16'}: {cap}, a hit lies {hit}, {read} of the curve"


@dataclass(frozen=True)
class OperatingPoint:
    """Sensitivity at one rate.

    rate:      FPs/scan
    interval:  None with fewer than two scans or without resamples
    threshold: the lowest score that keeps within the rate; None if even the highest exceeds it
    """

    rate: float
    sensitivity: float
    interval: tuple[float, float] | None
    threshold: float | None


@dataclass(frozen=True)
class Stratum:
    """Nodules with a diameter in [low, high) mm, against all false positives. Unmeasured nodules are in no stratum.

    sensitivities: at RATES; empty without nodules
    cpm:           None without nodules
    """

    low_mm: float
    high_mm: float
    nodules: int
    sensitivities: tuple[float, ...]
    cpm: float | None


@dataclass(frozen=True)
class Counts:
    """Numbers of scans, nodules and marks.

    unmeasured: nodules without a diameter, which are in no stratum
    missed:     nodules hit by no mark at any score
    ignored:    marks in excluded places
    """

    scans: int
    scans_without_nodules: int
    scans_without_marks: int
    nodules: int
    unmeasured: int
    missed: int
    marks: int
    hits: int
    double_hits: int
    ignored: int
    false_positives: int
    over_the_cap: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every figure of `gcnn evaluate --froc`. Intervals are None with fewer than two scans or without resamples.

    band: low and high sensitivity at BAND_RATES
    """

    config: EvaluationConfig
    counts: Counts
    points: tuple[OperatingPoint, ...]
    cpm: float
    cpm_interval: tuple[float, float] | None
    strata: tuple[Stratum, ...]
    curve: Curve
    band: tuple[Floats, Floats] | None
    resamples_used: int
    matches: Matches
    calibration: CalibrationStudy | None = None

    def calibrated_points(self, platt: PlattMap) -> tuple[tuple[float, float], ...]:
        """Return the operating points with a threshold, as (FPs/scan, threshold mapped by `platt`)."""
        return tuple((p.rate, platt.apply_one(p.threshold)) for p in self.points if p.threshold is not None)


def evaluate_matches(
    matches: Matches, config: EvaluationConfig | None = None, *, every_mark: Matches | None = None
) -> Evaluation:
    """Return every figure of one matching. Raises InputError without nodules.

    every_mark: the same matching without a cap on marks, for calibration: the weakest marks belong to it as much as
                the strongest. None: no calibration
    """
    config = config or EvaluationConfig()
    outcomes = outcomes_of(matches)
    curve = froc_curve(outcomes)
    rates = np.array(RATES)
    sensitivities = sensitivity_at(curve.fps_per_scan, curve.sensitivity, rates, config.interpolation)
    intervals: list[tuple[float, float] | None] = [None] * len(RATES)
    cpm_interval, band, used = None, None, 0
    if config.resamples and len(matches.series) > 1:
        counts = draw_scans(len(matches.series), config.resamples, config.seed)
        at_all = np.concatenate([rates, BAND_RATES])
        resampled = resampled_sensitivities(outcomes, counts, at_all, config.interpolation)
        at_rates, at_band = resampled[:, : len(rates)], resampled[:, len(rates) :]
        used = int(np.isfinite(at_rates[:, 0]).sum())
        intervals = [interval(column) for column in at_rates.T]
        cpm_interval = interval(at_rates.mean(axis=1))
        low, high = zip(*(interval(column) for column in at_band.T), strict=True)
        band = (np.array(low), np.array(high))
    return Evaluation(
        config=config,
        counts=_count(matches),
        points=tuple(
            OperatingPoint(*point)
            for point in zip(RATES, map(float, sensitivities), intervals, thresholds_at(curve, rates), strict=True)
        ),
        cpm=float(sensitivities.mean()),
        cpm_interval=cpm_interval,
        strata=tuple(_stratum(matches, low, high, config.interpolation) for low, high in STRATA_MM),
        curve=curve,
        band=band,
        resamples_used=used,
        matches=matches,
        calibration=study_calibration(every_mark) if every_mark else None,
    )


def compare_matches(first: Matches, second: Matches, config: EvaluationConfig) -> Difference:
    """Return the CPM of the first minus that of the second, paired over the same scans.

    One scan has no interval: each of its resamples is the same.
    """
    counts = draw_scans(len(first.series), config.resamples if len(first.series) > 1 else 0, config.seed)
    return compare(outcomes_of(first), outcomes_of(second), counts, config.interpolation)


def _count(matches: Matches) -> Counts:
    fates = np.bincount(matches.mark_fate, minlength=4)
    scans = len(matches.series)
    return Counts(
        scans=scans,
        scans_without_nodules=scans - len(np.unique(matches.nodule_scan)),
        scans_without_marks=scans - len(np.unique(matches.mark_scan)),
        nodules=len(matches.nodules),
        unmeasured=int((matches.nodules.value == UNMEASURED_MM).sum()),
        missed=int((~np.isfinite(matches.nodule_score)).sum()),
        marks=len(matches.predictions),
        hits=int(fates[HIT]),
        double_hits=matches.double_hits,
        ignored=int(fates[IGNORED]),
        false_positives=int(fates[FALSE]),
        over_the_cap=int(fates[CAPPED]),
    )


def _stratum(matches: Matches, low: float, high: float, interpolation: Interpolation) -> Stratum:
    diameter = matches.nodules.value
    inside = (diameter >= low) & (diameter < high)
    if not inside.any():
        return Stratum(low, high, 0, (), None)
    curve = froc_curve(outcomes_of(matches, only=inside))
    values = sensitivity_at(curve.fps_per_scan, curve.sensitivity, np.array(RATES), interpolation)
    return Stratum(low, high, int(inside.sum()), tuple(map(float, values)), float(values.mean()))
