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
    to_baseline: float  # CPM minus the plain CNN's at as many samples; NaN where it is not there
    to_baseline_interval: tuple[float, float]
    to_tenfold: float  # minus the plain CNN's at ten times as many
    to_tenfold_interval: tuple[float, float]
    data_factor: float  # samples the plain CNN needs for this score, over these; NaN outside its curve
    data_factor_interval: tuple[float, float]
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
        resampled = {key: drawn @ values.mean(axis=0) for key, values in of_nodules.items()}
        means = {key: float(values.mean()) for key, values in of_nodules.items()}
        for key in sorted(of_nodules, key=lambda k: (k[1], k[0])):
            runs, values = by_key[key], of_nodules[key].mean(axis=1)
            both = np.concatenate([labels[positive], labels[negative]])
            aucs = [auc(np.concatenate([_part(r, positive), _part(r, negative)]), both) for r in runs]
            same, tenfold = (BASELINE, key[1]), (BASELINE, 10 * key[1])
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
                    to_baseline=means[key] - means.get(same, np.nan),
                    to_baseline_interval=_difference(resampled, key, same),
                    to_tenfold=means[key] - means.get(tenfold, np.nan),
                    to_tenfold_interval=_difference(resampled, key, tenfold),
                    data_factor=_data_factor(key, means),
                    data_factor_interval=_factor_interval(key, resampled),
                    steps_to_loss=_steps_to_loss(runs, by_key.get(same, [])),
                    parameters=int(runs[0]["parameters"]),
                )
            )
    return cells


def _part(result: dict[str, Any], chosen: NDArray[np.bool_]) -> Floats:
    return np.asarray(result["logits"], dtype=float)[chosen]


def _difference(resampled: dict[Key, Floats], key: Key, other: Key) -> tuple[float, float]:
    return interval(resampled[key] - resampled[other]) if other in resampled else (np.nan, np.nan)


def _data_factor(key: Key, means: dict[Key, float]) -> float:
    """Samples at which the plain CNN's curve reaches this score, over this arm's samples.

    The curve is straight between its points on the logarithm of the samples, and made rising (a larger sample
    never counts as worse). NaN where it starts above or ends below the score.
    """
    points = sorted((samples, value) for (arm, samples), value in means.items() if arm == BASELINE)
    if len(points) < 2:
        return float("nan")
    log_samples = np.log([samples for samples, _ in points])
    values = np.maximum.accumulate([value for _, value in points])
    wanted = means[key]
    if not values[0] <= wanted <= values[-1]:
        return float("nan")
    reached = int(np.searchsorted(values, wanted))  # the first point at or above
    if reached == 0:
        return float(np.exp(log_samples[0]) / key[1])
    low, high = values[reached - 1], values[reached]
    share = (wanted - low) / (high - low)
    needed = log_samples[reached - 1] + share * (log_samples[reached] - log_samples[reached - 1])
    return float(np.exp(needed) / key[1])


def _factor_interval(key: Key, resampled: dict[Key, Floats]) -> tuple[float, float]:
    """Over the resamples; where one's score lies off the plain CNN's curve, the curve's end on that side stands in."""
    points = sorted(samples for arm, samples in resampled if arm == BASELINE)
    if len(points) < 2:
        return (np.nan, np.nan)
    factors = []
    for n in range(len(resampled[key])):
        means = {k: float(v[n]) for k, v in resampled.items() if k[0] == BASELINE or k == key}
        factor = _data_factor(key, means)
        if np.isnan(factor):
            factor = (points[-1] if means[key] > means[BASELINE, points[0]] else points[0]) / key[1]
        factors.append(factor)
    return interval(np.array(factors))


def _steps_to_loss(runs: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> float:
    """Median over the seeds that both have; inf for a run that never gets there."""
    lowest = {r["seed"]: min(loss for _, loss in r["losses"]) for r in baseline if r["losses"]}
    steps = [
        next((float(step) for step, loss in r["losses"] if loss <= lowest[r["seed"]]), np.inf)
        for r in runs
        if r["seed"] in lowest
    ]
    return float(np.median(steps)) if steps else float("nan")
