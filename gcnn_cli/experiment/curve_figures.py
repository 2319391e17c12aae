"""What the data-efficiency experiment says: scores with spread, differences with intervals, the data factor.

The score is LUNA16's CPM, nodules of the test patients against the candidates of the held-out labelled scans. With
the false positives fixed, it is a mean over nodules (`credits`), so it can be resampled by patient: a paired
bootstrap over the nodules' patients, each arm's seeds averaged first. That interval is about patients; how much
the seeds matter stands beside it as a standard deviation.
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
    """One arm at one number of samples, measured in one context. Intervals are of 95 %."""

    arm: str
    samples: int
    context: str
    seeds: int
    cpm: float
    seed_deviation: float  # standard deviation of the seeds' CPM; NaN for one
    interval: tuple[float, float]
    auc: float
    to_baseline: float  # CPM minus the plain CNN's at as many samples; NaN where it was not trained with these seeds
    to_baseline_interval: tuple[float, float]
    to_tenfold: float  # minus the plain CNN's at ten times as many
    to_tenfold_interval: tuple[float, float]
    data_factor: (
        float  # samples the plain CNN needs for this score, over these; an end of its curve where it lies outside
    )
    data_factor_interval: tuple[float, float]
    data_factor_range: tuple[
        float, float
    ]  # the ends of the plain CNN's curve, over these samples: nothing beyond is seen
    steps_to_loss: float  # median over seeds of the steps to the plain CNN's lowest validation loss; inf: never
    parameters: int


def credits(nodules: Floats, false: Floats, scans: int) -> Floats:
    """How far each nodule [N] counts as found, the mean over the seven rates; the mean over nodules is the CPM.

    At R FPs/scan R * scans false positives are let in. A nodule with `above` of them strictly above its score
    and `within` at or above it is found when that many are let in; within a tie it is found by interpolation.
    """
    ordered = np.sort(false)
    above = len(ordered) - np.searchsorted(ordered, nodules, side="right")
    within = len(ordered) - np.searchsorted(ordered, nodules, side="left")
    let_in = np.array(RATES)[:, None] * scans
    tied = within > above
    shares = np.clip((let_in - above) / np.where(tied, within - above, 1), 0, 1)
    return np.asarray(np.where(tied, shares, let_in >= above).mean(axis=0))


def make_cells(test: dict[str, Any], results: list[dict[str, Any]], seed: int = 0) -> list[Cell]:
    """All cells of the table, by context, samples and arm. Raises InputError without results."""
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
            key: np.stack([credits(_part(r, positive), _part(r, negative), scans) for r in runs])
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
    """Candidates of every scan drawn with replacement, [RESAMPLES, candidates]: the same ones for every arm.

    At low rates a few candidates decide; drawing nodules alone would hide that. It still is one choice of scans.
    """
    rng = np.random.default_rng([seed, 1])
    drawn = np.empty((RESAMPLES, len(series)), dtype=np.intp)
    for name in np.unique(series):
        members = np.flatnonzero(series == name)
        drawn[:, members] = rng.choice(members, (RESAMPLES, len(members)))
    return drawn


def _resampled(nodules: Floats, false: Floats, drawn: Floats, redrawn: NDArray[np.intp], scans: int) -> Floats:
    """The CPM [RESAMPLES] over nodules weighed as `drawn` [RESAMPLES, N] and the candidates of `redrawn`."""
    return np.array(
        [weights @ credits(nodules, false[ids], scans) for weights, ids in zip(drawn, redrawn, strict=True)]
    )


def _part(result: dict[str, Any], chosen: NDArray[np.bool_]) -> Floats:
    return np.asarray(result["logits"], dtype=float)[chosen]


def _difference(values: Floats, others: Floats | None) -> tuple[float, float]:
    return (np.nan, np.nan) if others is None else interval(values - others)


def _data_factor(
    samples: int, mean: float, resampled: Floats, means: dict[Key, float], plain: dict[Key, Floats]
) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """The factor, its interval over the resamples, and the ends of the plain CNN's curve as factors."""
    points = sorted(plain)
    if len(points) < 2:
        return np.nan, (np.nan, np.nan), (np.nan, np.nan)
    counts = np.array([count for _, count in points], dtype=float)
    factor = _samples_for(mean, counts, np.array([means[p] for p in points])) / samples
    curves = np.stack([plain[p] for p in points], axis=1)
    factors = [_samples_for(v, counts, curve) / samples for v, curve in zip(resampled, curves, strict=True)]
    return factor, interval(np.array(factors)), (counts[0] / samples, counts[-1] / samples)


def _samples_for(wanted: float, counts: Floats, scores: Floats) -> float:
    """Samples at which a curve first reaches a score; its first or last point where the score lies outside.

    The curve is straight between its points on the logarithm of the samples, and made rising (a larger sample
    never counts as worse).
    """
    rising = np.maximum.accumulate(scores)
    reached = int(np.searchsorted(rising, wanted))  # the first point at or above
    if reached == 0 or reached == len(rising):
        return float(counts[min(reached, len(rising) - 1)])
    low, high = rising[reached - 1], rising[reached]
    share = (wanted - low) / (high - low)
    return float(counts[reached - 1] * (counts[reached] / counts[reached - 1]) ** share)


def _steps_to_loss(runs: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> float:
    """Median over the seeds that both have; inf for a run that never gets there."""
    lowest = {r["seed"]: min(loss for _, loss in r["losses"]) for r in baseline if r["losses"]}
    steps = [
        next((float(step) for step, loss in r["losses"] if loss <= lowest[r["seed"]]), np.inf)
        for r in runs
        if r["seed"] in lowest
    ]
    return float(np.median(steps)) if steps else float("nan")
