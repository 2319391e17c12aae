"""Figures on held-out samples: FROC by `evaluation.froc`, AUC, shares of positives above the negatives.

Held-out nodules (cut-outs and marks) are compared with the candidates of held-out labeled scans. These are the
candidates that training takes its negatives from, more than detection would score (`samples.detection_candidates`).
Nodules that the candidate stage misses do not count: the figures measure the network alone.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from gcnn_cli.evaluation.froc import RATES, Outcomes, froc_curve, sensitivity_at
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.scoring import score_samples


def validate(network: GCNN, samples: list[Sample], spec: InputSpec) -> dict[str, float]:
    """Return the figures of the validation samples; an empty dict unless there are both classes.

    loss:                  cross-entropy, both classes weighted equally
    cpm, sensitivity_at_1: against the candidates of held-out labeled scans; absent without such scans
    auc:                   over all samples
    KIND_above_99:         share of a kind's positives above 99% of all negatives
    """
    if {s.label for s in samples} != {0, 1}:
        return {}
    logits = score_samples(network, samples, spec, next(network.parameters()).device)
    labels = np.array([s.label for s in samples])
    kinds = np.array([s.kind for s in samples])
    figures = froc_figures(logits, samples)
    figures["auc"] = auc(logits, labels)
    figures["loss"] = balanced_loss(logits, labels)
    bar = np.quantile(logits[labels == 0], 0.99)
    for kind in sorted(set(kinds[labels == 1])):
        figures[f"{kind}_above_99"] = float((logits[kinds == kind] > bar).mean())
    return figures


def candidate_outcomes(logits: NDArray[np.float64], samples: list[Sample]) -> Outcomes | None:
    """Pool nodules and candidates, by scan, for a FROC curve. Return None without nodules or without candidates.

    A cut-out has no scan. All nodules are counted in the first scan, which changes no sensitivity.
    """
    series = sorted({s.series for s in samples if s.kind == "candidate"})
    kept = [n for n, s in enumerate(samples) if s.label or s.kind == "candidate"]
    is_nodule = np.array([samples[n].label == 1 for n in kept], dtype=bool)
    if not series or not is_nodule.any():
        return None
    scan = np.array([0 if samples[n].label else series.index(samples[n].series) for n in kept], dtype=np.intp)
    nodules = np.zeros(len(series), dtype=np.intp)
    nodules[0] = is_nodule.sum()
    return Outcomes(logits[kept], scan, is_nodule, nodules)


def froc_figures(logits: NDArray[np.float64], samples: list[Sample]) -> dict[str, float]:
    """Return CPM and the sensitivity at 1 false positive per scan; nothing without nodules or candidates."""
    outcomes = candidate_outcomes(logits, samples)
    return {} if outcomes is None else rate_figures(outcomes)


def rate_figures(outcomes: Outcomes) -> dict[str, float]:
    """Return CPM and the sensitivity at 1 false positive per scan. Raises InputError without nodules."""
    curve = froc_curve(outcomes)
    values = sensitivity_at(curve.fps_per_scan, curve.sensitivity, np.array(RATES))
    return {"cpm": float(values.mean()), "sensitivity_at_1": float(values[RATES.index(1.0)])}


def balanced_loss(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the cross-entropy as the mean of both classes' means."""
    return float(np.mean([np.logaddexp(0, logits[labels == 0]).mean(), np.logaddexp(0, -logits[labels == 1]).mean()]))


def auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the area under the ROC curve (Mann-Whitney U by ranks); ties count half."""
    positive = labels == 1
    positives = int(positive.sum())
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * (len(labels) - positives)))
