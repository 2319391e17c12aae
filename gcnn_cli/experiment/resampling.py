"""One bootstrap for all arms of an experiment: over patients, labeled scans' patients and seeds together.

A resample draws the patients of the nodules, the patients of the scans that hold the false candidates, and the seeds,
each with replacement. A transplant counts as often as its nodule's patient and its scan's patient were both drawn. All
arms see the same draws, so differences between arms are paired. The seed decides the held-out fold, the training
samples and the network's start, so that drawing seeds covers these three.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.evaluation.froc import draw_scans
from gcnn_cli.experiment.measures import MEASURES, Floats, nodule_credits
from gcnn_cli.experiment.results import Test

RESAMPLES = 1000


class Columns:
    """The nodules of some kinds and the false candidates of one fold's test set."""

    def __init__(self, test: Test, positives: Sequence[str]) -> None:
        kinds, labels = np.array(test["kind"]), np.array(test["label"])
        patients, series = np.array(test["patient"]), np.array(test["series"])
        self.positive = np.isin(kinds, positives) & (labels == 1)
        self.negative = kinds == "candidate"
        self.nodule_patients = patients[self.positive].tolist()
        self.candidate_patients = patients[self.negative].tolist()
        owner = dict(zip(series[self.negative].tolist(), self.candidate_patients, strict=True))
        self.scan_patients = list(owner.values())  # one entry for each scan
        chosen = zip(series[self.positive].tolist(), kinds[self.positive].tolist(), strict=True)
        self.nodule_hosts = [owner.get(scan) if kind == "transplant" else None for scan, kind in chosen]

    @property
    def is_measurable(self) -> bool:
        """Whether there are nodules and false candidates."""
        return bool(self.positive.any() and self.negative.any())

    def score(self, logits: Sequence[float], chosen: NDArray[np.bool_] | None = None) -> Floats:
        """Return the scores [measures] of one result; NaN without nodules. chosen: of the nodules, [N]."""
        values = np.asarray(logits, float)
        nodules = values[self.positive] if chosen is None else values[self.positive][chosen]
        if len(nodules) == 0:
            return np.full(len(MEASURES), np.nan)
        return np.asarray(nodule_credits(nodules, values[self.negative], len(self.scan_patients)).mean(axis=1))


class Resampler:
    """Draws once; then resamples the scores of any arm's results.

    tests: of each fold, all of them measurable
    seeds: all seeds of the experiment
    """

    def __init__(self, tests: dict[int, Columns], seeds: Sequence[int], seed: int = 0) -> None:
        nodules = _drawn([p for test in tests.values() for p in test.nodule_patients], seed)
        hosts = _drawn([p for test in tests.values() for p in test.scan_patients], seed + 1)
        self._seeds = _drawn(seeds, seed + 2)
        self._draws = {fold: _Draws(test, nodules, hosts) for fold, test in tests.items()}

    def resample(self, result: dict[str, Any], budget: str = "") -> Floats:
        """Return the scores of one result, [RESAMPLES, measures]; NaN in a resample without nodules or scans."""
        return self._draws[result["fold"]].scores(logits_of(result, budget))

    def mean(self, seeds: Sequence[int], scores: Floats) -> Floats:
        """Return the mean over seeds, each as often as it was drawn, [RESAMPLES, measures].

        scores: of one result for each seed, [S, RESAMPLES, measures]

        NaN in a resample without any of the seeds.
        """
        drawn = np.stack([self._seeds[seed] for seed in seeds])
        weights = np.where(np.isfinite(scores[..., 0]), drawn, 0)[..., None]
        with np.errstate(invalid="ignore"):
            return np.asarray((weights * np.nan_to_num(scores)).sum(axis=0) / weights.sum(axis=0))


class _Draws:
    """How often each nodule, false candidate and scan of one fold is in each resample."""

    def __init__(self, test: Columns, nodules: dict[Any, Floats], hosts: dict[Any, Floats]) -> None:
        self._test = test
        once = np.ones(RESAMPLES)
        pairs = zip(test.nodule_patients, test.nodule_hosts, strict=True)
        self._nodules = np.stack([nodules[p] * (once if h is None else hosts[h]) for p, h in pairs], axis=1)
        self._candidates = np.stack([hosts[p] for p in test.candidate_patients], axis=1)
        self._scans = np.stack([hosts[p] for p in test.scan_patients], axis=1).sum(axis=1)

    def scores(self, logits: Sequence[float]) -> Floats:
        """Return the scores [RESAMPLES, measures]; NaN in a resample without nodules or without scans."""
        values, weight = np.asarray(logits, float), self._nodules.sum(axis=1)
        credits = nodule_credits(
            values[self._test.positive], values[self._test.negative], self._scans, self._candidates
        )
        scores = np.einsum("mrn,rn->rm", credits, self._nodules) / np.maximum(weight, 1)[:, None]
        scores[(weight == 0) | (self._scans == 0)] = np.nan
        return np.asarray(scores)


def _drawn(names: Sequence[Any], seed: int) -> dict[Any, Floats]:
    """Return how often each name is in each resample, [RESAMPLES]."""
    known = sorted(set(names))
    return dict(zip(known, draw_scans(len(known), RESAMPLES, seed).T.astype(float), strict=True))


def logits_of(result: dict[str, Any], budget: str) -> Sequence[float]:
    """Return the logits after a budget of CPU seconds, or at the end of the training (an empty budget)."""
    logits: Sequence[float] = result["budgets"][budget] if budget else result["logits"]
    return logits
