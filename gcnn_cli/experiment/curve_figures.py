"""Figures of the data-efficiency experiment: scores with spread, differences with intervals, the data factor.

Every figure is a mean over seeds, each measured on its own held-out patients. Intervals are 95 % intervals of the
bootstrap of `resampling`; the standard deviation beside a score is over seeds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.froc import interval
from gcnn_cli.experiment.factors import fitted, interpolated
from gcnn_cli.experiment.measures import MEASURES, Floats
from gcnn_cli.experiment.resampling import Columns, Resampler, logits_of
from gcnn_cli.experiment.results import Test, count_distinct
from gcnn_cli.experiment.splits import OWN_SURROUNDINGS
from gcnn_cli.samples.transplant import PLACE_KINDS

BASELINE = "trivial"
CONTEXTS: dict[str, tuple[str, ...]] = {
    "own surroundings": OWN_SURROUNDINGS,
    "transplants": ("transplant",),
}

Interval = tuple[float, float]
NONE: Interval = (np.nan, np.nan)


@dataclass(frozen=True)
class Cell:
    """One arm at one number of samples, measured in one context by one measure.

    budget:          CPU seconds of training after which it was measured; empty: at the end of the training
    deviation:       standard deviation over seeds; NaN for a single seed
    to_plain:        minus the plain CNN's of the same seeds at as many samples; NaN if one of them is missing
    to_tenfold:      minus the plain CNN's at ten times as many samples
    reaches_tenfold: share of resamples in which the score is at least the plain CNN's at ten times as many samples
    factor:          data factor by interpolation (`factors`), `factor_range` its largest and smallest possible value
    fitted:          data factor by power laws
    steps:           median over seeds of the steps until the training or the budget ended
    steps_to_loss:   median over seeds of the steps to the plain CNN's lowest validation loss; inf if never reached
    """

    context: str
    budget: str
    arm: str
    samples: int
    measure: str
    seeds: int
    parameters: int
    value: float
    interval: Interval
    deviation: float
    to_plain: float
    to_plain_interval: Interval
    to_tenfold: float
    to_tenfold_interval: Interval
    reaches_tenfold: float
    factor: float
    factor_interval: Interval
    factor_range: Interval
    fitted: float
    fitted_interval: Interval
    steps: float
    steps_to_loss: float


@dataclass(frozen=True)
class _Point:
    """One arm at one number of samples: its runs, sorted by seed, and their scores.

    scores: [S, measures]
    draws:  resampled scores of each run, [S, R, measures]
    """

    runs: list[dict[str, Any]]
    scores: Floats
    draws: Floats
    resampler: Resampler

    @property
    def seeds(self) -> list[int]:
        return [run["seed"] for run in self.runs]

    @cached_property
    def mean(self) -> Floats:
        return np.asarray(self.scores.mean(axis=0))

    @cached_property
    def resampled(self) -> Floats:
        """Means over seeds, [R, measures]."""
        return self.resampler.mean(self.seeds, self.draws)

    def of_seeds(self, seeds: list[int]) -> "_Point":
        """Return the part of some of the seeds, in their order."""
        if seeds == self.seeds:
            return self
        chosen = [self.seeds.index(seed) for seed in seeds]
        return _Point([self.runs[n] for n in chosen], self.scores[chosen], self.draws[chosen], self.resampler)


def make_cells(tests: dict[int, Test], results: list[dict[str, Any]], seed: int = 0) -> list[Cell]:
    """Compute all cells of the tables, by context, budget, samples and arm. Raises InputError without results."""
    if not results:
        raise InputError("no finished training yet")
    by_key: defaultdict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        by_key[result["arm"], result["samples"]].append(result)
    budgets = {budget for result in results for budget in result.get("budgets", {})}
    cells: list[Cell] = []
    for context, kinds in CONTEXTS.items():
        columns = {fold: Columns(test, kinds) for fold, test in tests.items()}
        columns = {fold: test for fold, test in columns.items() if test.is_measurable}
        measured = {key: [r for r in runs if r["fold"] in columns] for key, runs in by_key.items()}
        if not any(measured.values()):
            continue
        resampler = Resampler(columns, [r["seed"] for r in results], seed)
        for budget in ("", *sorted(budgets, key=float)):
            points = {
                key: _Point(
                    runs,
                    np.array([columns[r["fold"]].score(logits_of(r, budget)) for r in runs]),
                    np.array([resampler.resample(r, budget) for r in runs]),
                    resampler,
                )
                for key, runs in measured.items()
                if runs and (not budget or all(budget in r.get("budgets", {}) for r in runs))
            }
            for key in sorted(points, key=lambda k: (k[1], k[0])):
                cells += [_cell(context, budget, key, points, n) for n in range(len(MEASURES))]
    return cells


def _cell(context: str, budget: str, key: tuple[str, int], points: dict[tuple[str, int], _Point], n: int) -> Cell:
    (arm, samples), point = key, points[key]
    resampled = point.resampled[:, n]

    def comparable(wanted: str) -> dict[int, _Point]:
        """Return an arm's points by samples, of this point's seeds alone: those that were trained with all of them."""
        return {
            k[1]: p.of_seeds(point.seeds)
            for k, p in sorted(points.items())
            if k[0] == wanted and set(p.seeds) >= set(point.seeds)
        }

    plain, own = comparable(BASELINE), comparable(arm)
    counts = np.array([*plain], dtype=float)
    means = np.array([p.mean[n] for p in plain.values()])
    curves = np.array([p.resampled[:, n] for p in plain.values()])
    factor, factor_interval, factor_range = np.nan, NONE, NONE
    power, power_interval = np.nan, NONE
    if len(plain) >= 2:
        # All of them have the same seeds, and lack a score in the same resamples.
        usable = np.flatnonzero(np.isfinite(resampled))
        factor = interpolated(samples, point.mean[n], counts, means)
        values = [interpolated(samples, resampled[r], counts, curves[:, r]) for r in usable]
        factor_interval = interval(np.array(values))
        factor_range = (counts[0] / samples, counts[-1] / samples)
        if len(own) >= 2 and arm != BASELINE:
            own_counts = np.array([*own], dtype=float)
            own_curves = np.array([p.resampled[usable, n] for p in own.values()])
            power = float(fitted(samples, own_counts, np.array([p.mean[n] for p in own.values()]), counts, means))
            power_interval = interval(fitted(samples, own_counts, own_curves, counts, curves[:, usable]))
    same, tenfold = plain.get(samples), plain.get(10 * samples)
    over_tenfold = (resampled - tenfold.resampled[:, n]) if tenfold else np.array([])
    over_tenfold = over_tenfold[np.isfinite(over_tenfold)]
    return Cell(
        context=context,
        budget=budget,
        arm=arm,
        samples=samples,
        measure=MEASURES[n],
        seeds=len(point.runs),
        parameters=int(point.runs[0]["parameters"]),
        value=float(point.mean[n]),
        interval=interval(resampled),
        deviation=float(point.scores[:, n].std(ddof=1)) if len(point.runs) > 1 else np.nan,
        to_plain=float(point.mean[n] - same.mean[n]) if same else np.nan,
        to_plain_interval=interval(resampled - same.resampled[:, n]) if same else NONE,
        to_tenfold=float(point.mean[n] - tenfold.mean[n]) if tenfold else np.nan,
        to_tenfold_interval=interval(over_tenfold),
        reaches_tenfold=float((over_tenfold >= 0).mean()) if len(over_tenfold) else np.nan,
        factor=factor,
        factor_interval=factor_interval,
        factor_range=factor_range,
        fitted=power,
        fitted_interval=power_interval,
        steps=float(np.median([run["budget_steps"][budget] if budget else run["steps"] for run in point.runs])),
        steps_to_loss=_steps_to_loss(point.runs, same.runs if same else []),
    )


def _steps_to_loss(runs: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> float:
    """Return the median over the seeds that both have; a run that never gets there counts as inf."""
    lowest = {r["seed"]: min(loss for _, loss in r["losses"]) for r in baseline if r["losses"]}
    steps = [
        next((float(step) for step, loss in r["losses"] if loss <= lowest[r["seed"]]), np.inf)
        for r in runs
        if r["seed"] in lowest
    ]
    return float(np.median(steps)) if steps else float("nan")


@dataclass(frozen=True)
class Stratum:
    """One arm at one number of samples, measured on a part of the nodules: of one size or at one place.

    values: mean over seeds by each of `MEASURES`
    """

    context: str
    part: str
    nodules: int
    arm: str
    samples: int
    values: tuple[float, ...]


_SIZES_MM = ((0, 6), (6, 10), (10, 100))


def make_strata(tests: dict[int, Test], results: Sequence[dict[str, Any]]) -> list[Stratum]:
    """Measure each arm on the nodules of each size and, of transplants, at each kind of place.

    Arms are compared at each number of samples over the seeds that all of them have.
    """
    strata: list[Stratum] = []
    folds = {r["fold"] for r in results}
    described = {fold: test for fold, test in tests.items() if fold in folds and "diameter_mm" in test}
    groups = _of_common_seeds([r for r in results if r["fold"] in described])
    for context, kinds in CONTEXTS.items():
        columns = {fold: Columns(test, kinds) for fold, test in described.items()}
        parts: list[tuple[str, dict[int, Any]]] = [
            (f"{low}-{high} mm" if high < 100 else f"from {low} mm", _of_size(described, kinds, low, high))
            for low, high in _SIZES_MM
        ]
        if context == "transplants":
            parts += [(place, _at_place(described, kinds, place)) for place in PLACE_KINDS]
        for part, chosen in parts:
            count = count_distinct(
                [nodule for (*_, nodule), c in zip(_nodules(test, kinds), chosen[fold], strict=True) if c]
                for fold, test in described.items()
            )
            for (samples, arm), runs in groups.items():
                runs = [r for r in runs if chosen[r["fold"]].any()]
                if runs:
                    means = np.mean([columns[r["fold"]].score(r["logits"], chosen[r["fold"]]) for r in runs], axis=0)
                    strata.append(Stratum(context, part, count, arm, samples, tuple(float(v) for v in means)))
    return strata


def _of_common_seeds(results: Sequence[dict[str, Any]]) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Return the results by samples and arm, of the seeds alone that every arm has at this number of samples."""
    seeds: defaultdict[int, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for r in results:
        seeds[r["samples"]][r["arm"]].add(r["seed"])
    common = {samples: set.intersection(*arms.values()) for samples, arms in seeds.items()}
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for r in sorted(results, key=lambda r: (r["samples"], r["arm"])):
        if r["seed"] in common[r["samples"]]:
            groups.setdefault((r["samples"], r["arm"]), []).append(r)
    return groups


def _of_size(tests: dict[int, Test], kinds: Sequence[str], low: float, high: float) -> dict[int, Any]:
    return {
        fold: np.array([low <= (d or -1) < high for d, *_ in _nodules(test, kinds)], bool)
        for fold, test in tests.items()
    }


def _at_place(tests: dict[int, Test], kinds: Sequence[str], place: str) -> dict[int, Any]:
    return {fold: np.array([p == place for _, p, _ in _nodules(test, kinds)], bool) for fold, test in tests.items()}


def _nodules(test: Test, kinds: Sequence[str]) -> list[tuple[float | None, str, tuple[str, str, str]]]:
    """Return diameter, place, and kind, series and patient of each nodule."""
    names = ("kind", "label", "diameter_mm", "place", "series", "patient")
    return [
        (diameter, place, (kind, series, patient))
        for kind, label, diameter, place, series, patient in zip(*(test[name] for name in names), strict=True)
        if label and kind in kinds
    ]
