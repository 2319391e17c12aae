"""One bootstrap for all arms of an experiment: over patients, labeled scans' patients and seeds together.

A resample draws the patients of the nodules, the patients of the scans that hold the false candidates, and the seeds,
each with replacement. All arms see the same draws, so differences between arms are paired. The seed decides the held-
out fold, the training samples and the network's start, so that drawing seeds covers these three.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.evaluation.froc import draw_scans
from gcnn_cli.experiment.measures import MEASURES, Floats, nodule_credits
from gcnn_cli.experiment.results import Test

RESAMPLES = 1000


class Resampler:
    """Draws once; then resamples the scores of any arm's results.

    tests:     of each fold
    positives: kinds of the nodules that are measured
    seeds:     all seeds of the experiment
    """

    def __init__(self, tests: dict[int, Test], positives: Sequence[str], seeds: Sequence[int], seed: int = 0) -> None:
        self._tests = {fold: _Columns(test, positives) for fold, test in tests.items()}
        nodules = sorted({p for test in self._tests.values() for p in test.nodule_patients})
        hosts = sorted({p for test in self._tests.values() for p in test.scan_patients})
        self._seeds = sorted(set(seeds))
        self._nodule_counts = dict(zip(nodules, draw_scans(len(nodules), RESAMPLES, seed).T, strict=True))
        self._host_counts = dict(zip(hosts, draw_scans(len(hosts), RESAMPLES, seed + 1).T, strict=True))
        self._seed_counts = dict(
            zip(self._seeds, draw_scans(len(self._seeds), RESAMPLES, seed + 2).T.astype(float), strict=True)
        )

    def score(self, fold: int, logits: Sequence[float], chosen: NDArray[np.bool_] | None = None) -> Floats:
        """Return the scores [measures] of one result; NaN without nodules. chosen: of the test's nodules, [N]."""
        test, values = self._tests[fold], np.asarray(logits, float)
        nodules = values[test.positive] if chosen is None else values[test.positive][chosen]
        if len(nodules) == 0:
            return np.full(len(MEASURES), np.nan)
        return np.asarray(nodule_credits(nodules, values[test.negative], test.scans).mean(axis=1))

    def resample(self, results: Sequence[dict[str, Any]], budget: str = "") -> Floats:
        """Return the mean scores over seeds, [RESAMPLES, measures], of one arm's results at one number of samples.

        NaN in a resample without any of the results' seeds.
        """
        total, weight = np.zeros((RESAMPLES, len(MEASURES))), np.zeros(RESAMPLES)
        for result in results:
            drawn = self._seed_counts[result["seed"]]
            scores = self._of_result(result["fold"], logits_of(result, budget))
            usable = np.isfinite(scores[:, 0]) & (drawn > 0)
            total[usable] += drawn[usable, None] * scores[usable]
            weight[usable] += drawn[usable]
        with np.errstate(invalid="ignore"):
            return total / weight[:, None]

    def _of_result(self, fold: int, logits: Sequence[float]) -> Floats:
        test, values = self._tests[fold], np.asarray(logits, float)
        hosts = np.stack([self._host_counts[p] for p in test.candidate_patients], axis=1).astype(float)
        scans = np.stack([self._host_counts[p] for p in test.scan_patients], axis=1).sum(axis=1)
        drawn = np.stack([self._nodule_counts[p] for p in test.nodule_patients], axis=1).astype(float)
        weight = drawn.sum(axis=1)
        credits = nodule_credits(values[test.positive], values[test.negative], scans.astype(float), hosts)
        scores = np.einsum("mrn,rn->rm", credits, drawn) / np.maximum(weight, 1)[:, None]
        scores[(weight == 0) | (scans == 0)] = np.nan
        return np.asarray(scores)


class _Columns:
    """The nodules and false candidates of one fold's test set."""

    def __init__(self, test: Test, positives: Sequence[str]) -> None:
        kinds, labels = np.array(test["kind"]), np.array(test["label"])
        patients, series = np.array(test["patient"]), np.array(test["series"])
        self.positive = np.isin(kinds, positives) & (labels == 1)
        self.negative = kinds == "candidate"
        self.nodule_patients = patients[self.positive].tolist()
        self.candidate_patients = patients[self.negative].tolist()
        owner = dict(zip(series[self.negative].tolist(), self.candidate_patients, strict=True))
        self.scan_patients = list(owner.values())  # one entry for each scan
        self.scans = len(owner)


def logits_of(result: dict[str, Any], budget: str) -> Sequence[float]:
    """Return the logits after a budget of CPU seconds, or at the end of the training (an empty budget)."""
    logits: Sequence[float] = result["budgets"][budget] if budget else result["logits"]
    return logits
