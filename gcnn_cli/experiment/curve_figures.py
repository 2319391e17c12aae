"""Figures of the data-efficiency experiment: scores with spread, differences with intervals, the data factor.

The score is LUNA16's CPM: nodules of the test patients against the candidates of the held-out labeled scans. With
the false positives fixed it is a mean over nodules (`nodule_credits`), so it can be resampled by patient: a paired
bootstrap over the nodules' patients, after averaging each arm's seeds. The interval describes the spread over
patients; the standard deviation beside it describes the spread over seeds.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.froc import RATES, draw_scans, interval
from gcnn_cli.training.validation import auc

BASELINE = "trivial"
CONTEXTS: dict[str, tuple[str, ...]] = {"own surroundings": ("stack", "cube", "mark"), "transplants": ("transplant",)}
RESAMPLES = 1000

Floats = NDArray[np.float64]
Key = tuple[str, int]  # arm, samples


@dataclass(frozen=True)
class Cell:
    """One arm at one number of samples, measured in one context. Intervals are 95% intervals.

    seed_deviation:    standard deviation of the seeds' CPM; NaN for a single seed
    to_baseline:       CPM minus the plain CNN's at as many samples; NaN if it was not trained with the same seeds
    to_tenfold:        CPM minus the plain CNN's at ten times as many samples
    data_factor:       samples that the plain CNN needs for this CPM, over this cell's; an end of its curve if the
                       CPM lies outside
    data_factor_range: the ends of the plain CNN's curve as factors, beyond which nothing was measured
    steps_to_loss:     median over seeds of the steps to the plain CNN's lowest validation loss; inf if never reached
    """

    arm: str
    samples: int
    context: str
    seeds: int
    cpm: float
    seed_deviation: float
    interval: tuple[float, float]
    auc: float
    to_baseline: float
    to_baseline_interval: tuple[float, float]
    to_tenfold: float
    to_tenfold_interval: tuple[float, float]
    data_factor: float
    data_factor_interval: tuple[float, float]
    data_factor_range: tuple[float, float]
    steps_to_loss: float
    parameters: int


def nodule_credits(nodules: Floats, false: Floats, scans: int) -> Floats:
    """Return for each nodule [N] the mean over LUNA16's seven rates of how far it counts as found.

    The mean over nodules is the CPM. A rate of R FPs/scan admits R * scans false positives. A nodule whose score is
    below `above` false positives, and tied with `within - above`, is found if `above` or more are admitted; within
    the tie the credit is interpolated.
    """
    ordered = np.sort(false)
    above = len(ordered) - np.searchsorted(ordered, nodules, side="right")
    within = len(ordered) - np.searchsorted(ordered, nodules, side="left")
    let_in = np.array(RATES)[:, None] * scans
    tied = within > above
    shares = np.clip((let_in - above) / np.where(tied, within - above, 1), 0, 1)
    return np.asarray(np.where(tied, shares, let_in >= above).mean(axis=0))


def make_cells(test: dict[str, Any], results: list[dict[str, Any]], seed: int = 0) -> list[Cell]:
    """Compute all cells of the table, by context, samples and arm. Raises InputError without results."""
    if not results:
        raise InputError("no finished training yet")
    kinds, labels = np.array(test["kind"]), np.array(test["label"])
    series, patients = np.array(test["series"]), np.array(test["patient"])
    negative = kinds == "candidate"
    scans = len(set(series[negative]))
    redrawn = _within_scans(series[negative], seed)
    cells: list[Cell] = []
    for context, positives in CONTEXTS.items():
        positive = np.isin(kinds, positives) & (labels == 1)
        if not positive.any():
            continue
        names, owner = np.unique(patients[positive], return_inverse=True)
        drawn = draw_scans(len(names), RESAMPLES, seed)[:, owner].astype(float)
        drawn /= drawn.sum(axis=1, keepdims=True)
        by_key: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
        for result in results:
            by_key[result["arm"], result["samples"]].append(result)
        of_nodules = {
            key: np.stack([nodule_credits(_part(r, positive), _part(r, negative), scans) for r in runs])
            for key, runs in by_key.items()
        }
        seeds = {key: tuple(sorted(r["seed"] for r in runs)) for key, runs in by_key.items()}
        resampled = {
            key: np.mean(
                [_resampled(_part(r, positive), _part(r, negative), drawn, redrawn, scans) for r in runs], axis=0
            )
            for key, runs in by_key.items()
        }
        means = {key: float(values.mean()) for key, values in of_nodules.items()}
        for key in sorted(of_nodules, key=lambda k: (k[1], k[0])):
            runs, values = by_key[key], of_nodules[key].mean(axis=1)
            both = np.concatenate([labels[positive], labels[negative]])
            aucs = [auc(np.concatenate([_part(r, positive), _part(r, negative)]), both) for r in runs]
            # Subsets go by the seed: only arms with the same seeds were trained on the same samples.
            plain = {k: v for k, v in resampled.items() if k[0] == BASELINE and seeds[k] == seeds[key]}
            same, tenfold = (BASELINE, key[1]), (BASELINE, 10 * key[1])
            factor, factor_interval, factor_range = _data_factor(key[1], means[key], resampled[key], means, plain)
            cells.append(
                Cell(
                    arm=key[0],
                    samples=key[1],
                    context=context,
                    seeds=len(runs),
                    cpm=means[key],
                    seed_deviation=float(values.std(ddof=1)) if len(values) > 1 else np.nan,
                    interval=interval(resampled[key]),
                    auc=float(np.mean(aucs)),
                    to_baseline=means[key] - means[same] if same in plain else np.nan,
                    to_baseline_interval=_difference(resampled[key], plain.get(same)),
                    to_tenfold=means[key] - means[tenfold] if tenfold in plain else np.nan,
                    to_tenfold_interval=_difference(resampled[key], plain.get(tenfold)),
                    data_factor=factor,
                    data_factor_interval=factor_interval,
                    data_factor_range=factor_range,
                    steps_to_loss=_steps_to_loss(runs, by_key.get(same, [])),
                    parameters=int(runs[0]["parameters"]),
                )
            )
    return cells


def _within_scans(series: NDArray[np.str_], seed: int) -> NDArray[np.intp]:
    """Draw candidates with replacement within every scan, [RESAMPLES, candidates], the same ones for every arm.

    At low rates a few candidates decide, which drawing nodules alone would hide. The scans themselves stay fixed.
    """
    rng = np.random.default_rng([seed, 1])
    drawn = np.empty((RESAMPLES, len(series)), dtype=np.intp)
    for name in np.unique(series):
        members = np.flatnonzero(series == name)
        drawn[:, members] = rng.choice(members, (RESAMPLES, len(members)))
    return drawn


def _resampled(nodules: Floats, false: Floats, drawn: Floats, redrawn: NDArray[np.intp], scans: int) -> Floats:
    """Return the CPM [RESAMPLES] over nodules weighted by `drawn` [RESAMPLES, N] and the candidates of `redrawn`."""
    return np.array(
        [weights @ nodule_credits(nodules, false[ids], scans) for weights, ids in zip(drawn, redrawn, strict=True)]
    )


def _part(result: dict[str, Any], chosen: NDArray[np.bool_]) -> Floats:
    return np.asarray(result["logits"], dtype=float)[chosen]


def _difference(values: Floats, others: Floats | None) -> tuple[float, float]:
    return (np.nan, np.nan) if others is None else interval(values - others)


def _data_factor(
    samples: int, mean: float, resampled: Floats, means: dict[Key, float], plain: dict[Key, Floats]
) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """Return the factor, its interval over the resamples, and the ends of the plain CNN's curve as factors."""
    points = sorted(plain)
    if len(points) < 2:
        return np.nan, (np.nan, np.nan), (np.nan, np.nan)
    counts = np.array([count for _, count in points], dtype=float)
    factor = _samples_for(mean, counts, np.array([means[p] for p in points])) / samples
    curves = np.stack([plain[p] for p in points], axis=1)
    factors = [_samples_for(v, counts, curve) / samples for v, curve in zip(resampled, curves, strict=True)]
    return factor, interval(np.array(factors)), (counts[0] / samples, counts[-1] / samples)


def _samples_for(wanted: float, counts: Floats, scores: Floats) -> float:
    """Return the samples at which a curve first reaches a score; its first or last point if the score lies outside.

    The curve is linear between its points over the logarithm of the samples, and made non-decreasing: more samples
    never count as worse.
    """
    rising = np.maximum.accumulate(scores)
    reached = int(np.searchsorted(rising, wanted))  # the first point at or above
    if reached == 0 or reached == len(rising):
        return float(counts[min(reached, len(rising) - 1)])
    low, high = rising[reached - 1], rising[reached]
    share = (wanted - low) / (high - low)
    return float(counts[reached - 1] * (counts[reached] / counts[reached - 1]) ** share)


def _steps_to_loss(runs: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> float:
    """Return the median over the seeds that both have; a run that never gets there counts as inf."""
    lowest = {r["seed"]: min(loss for _, loss in r["losses"]) for r in baseline if r["losses"]}
    steps = [
        next((float(step) for step, loss in r["losses"] if loss <= lowest[r["seed"]]), np.inf)
        for r in runs
        if r["seed"] in lowest
    ]
    return float(np.median(steps)) if steps else float("nan")
