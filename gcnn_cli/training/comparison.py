"""New weights against those that they went on from, on patients that the new training held out.

Both score the same patches: the nodules of held-out patients, and the candidates that detection scores in their
labeled scans. Patients are drawn with replacement (Efron's percentile bootstrap), each with all of its nodules, scans
and candidates, and both weights are measured on every draw: the intervals are those of the paired difference.

    CPM: mean sensitivity at 1/8 to 8 false positives per scan, as in `evaluation.froc`; needs a labeled scan
    AUC: share of pairs of a nodule and a candidate in which the nodule scores higher; ties count half

Nodules that no candidate marks count as found or missed by their own patch: the figures measure the networks alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.evaluation.froc import RATES, interval, sensitivity_at
from gcnn_cli.samples.sample import Sample

_RESAMPLES = 2000
_ENOUGH_PATIENTS = 5  # an interval over fewer is narrower than it should be

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One figure of both weights, with the interval of new minus parent; None where there is nothing to draw."""

    name: str
    new: float
    parent: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """New minus parent."""
        return self.new - self.parent


@dataclass(frozen=True)
class Comparison:
    """New weights and their parent on held-out patients. The first figure decides.

    scans:  labeled scans of these patients
    false:  false candidates in them, or other negatives of these patients where they have no labeled scan
    seen:   how many of the patients the parent was trained on; None if its header does not say
    """

    figures: tuple[Figure, ...]
    patients: int
    scans: int
    nodules: int
    false: int
    seen: int | None

    def rows(self) -> list[dict[str, str]]:
        """Return the table, as `show_rows` prints it."""
        return [
            {
                "held out": figure.name,
                "new": f"{figure.new:.3f}",
                "parent": f"{figure.parent:.3f}",
                "difference": f"{figure.difference:+.3f}",
                "95 % interval": _span(figure.interval),
            }
            for figure in self.figures
        ]

    def verdict(self) -> str:
        """Return one sentence on which weights to use, and one on what the figures are worth."""
        figure = self.figures[0]
        basis = f"on {_count(self.patients, 'held-out patient')} the {figure.name} is {figure.new:.3f} with the new"
        basis += f" weights and {figure.parent:.3f} with the parent's"
        if figure.interval is None or self.patients < _ENOUGH_PATIENTS:
            return f"Keep the parent's weights: {basis}, and so few patients cannot tell them apart.{self._caveat()}"
        low, high = figure.interval
        shown = f"(95 % interval of the difference {_span(figure.interval)})"
        if low > 0:
            return f"Use the new weights: {basis} {shown}.{self._caveat()}"
        if high < 0:
            return f"Keep the parent's weights: {basis} {shown}.{self._caveat()}"
        return f"Keep the parent's weights: {basis}, which may be chance {shown}.{self._caveat()}"

    def data(self) -> dict[str, Any]:
        """Return everything as plain data, for the header of the weights."""
        return {**asdict(self), "verdict": self.verdict()}

    def _caveat(self) -> str:
        if self.seen is None:
            return " Whether the parent was trained on these patients is unknown."
        if self.seen:
            return (
                f" The parent was trained on {self.seen} of these patients: both figures are too high, and the"
                " comparison says little about new patients."
            )
        return ""


def compare_with_parent(
    samples: Sequence[Sample], new: Floats, parent: Floats, trained_on: set[str] | None
) -> Comparison | None:
    """Compare two networks by their logits [N] of held-out samples. Return None unless there are both classes.

    samples:    nodules, and the candidates that detection scores; where there is no candidate, any negatives
    trained_on: patients of the parent's training data, None if unknown
    """
    scans = sorted({s.series for s in samples if s.kind == "candidate"})
    kept = [n for n, s in enumerate(samples) if s.label or s.kind == "candidate" or not scans]
    chosen = [samples[n] for n in kept]
    label = np.array([s.label == 1 for s in chosen], dtype=bool)
    if not label.any() or label.all():
        return None
    names, owner = np.unique([s.patient for s in chosen], return_inverse=True)
    scans_of = np.zeros(len(names))
    for patient in {s.series: n for s, n in zip(chosen, owner, strict=True) if s.kind == "candidate"}.values():
        scans_of[patient] += 1
    logits = (np.asarray(new, float)[kept], np.asarray(parent, float)[kept])
    measures: dict[str, Callable[[Floats, Floats], float]] = {}
    if scans:
        measures["CPM"] = lambda score, weight: _cpm(score, label, weight[owner], float(weight @ scans_of))
        measures["sensitivity at 1 false positive per scan"] = lambda score, weight: float(
            _sensitivities(score, label, weight[owner], float(weight @ scans_of))[RATES.index(1.0)]
        )
    measures["AUC"] = lambda score, weight: _auc(score, label, weight[owner])
    draws = _draws(len(names))
    return Comparison(
        tuple(_figure(name, measure, *logits, draws) for name, measure in measures.items()),
        patients=len(names),
        scans=len(scans),
        nodules=int(label.sum()),
        false=int((~label).sum()),
        seen=None if trained_on is None else len(trained_on & set(map(str, names))),
    )


def _figure(
    name: str, measure: Callable[[Floats, Floats], float], new: Floats, parent: Floats, draws: Floats
) -> Figure:
    whole = np.ones(draws.shape[1])
    differences = [measure(new, weight) - measure(parent, weight) for weight in draws]
    known = np.array([d for d in differences if np.isfinite(d)])
    return Figure(name, measure(new, whole), measure(parent, whole), interval(known) if len(known) else None)


def _draws(patients: int) -> Floats:
    """Return how often each patient is in each resample, [resamples, patients]; no resamples of a single patient."""
    if patients < 2:
        return np.zeros((0, patients))
    drawn = np.random.default_rng(0).integers(patients, size=(_RESAMPLES, patients))
    return np.stack([np.bincount(row, minlength=patients) for row in drawn]).astype(float)


def _cpm(score: Floats, label: NDArray[np.bool_], weight: Floats, scans: float) -> float:
    return float(_sensitivities(score, label, weight, scans).mean())


def _sensitivities(score: Floats, label: NDArray[np.bool_], weight: Floats, scans: float) -> Floats:
    """Return the sensitivities at RATES; NaN for a draw without nodules or without scans."""
    nodules = weight[label].sum()
    if nodules == 0 or scans == 0:
        return np.full(len(RATES), np.nan)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # tied scores share one threshold
    false = np.cumsum(np.where(label, 0, weight)[order])[ends] / scans
    found = np.cumsum(np.where(label, weight, 0)[order])[ends] / nodules
    return sensitivity_at(np.append(0.0, false), np.append(0.0, found), np.array(RATES))


def _auc(score: Floats, label: NDArray[np.bool_], weight: Floats) -> float:
    """Return the area under the ROC curve of weighted samples; NaN for a draw without both classes."""
    positive, negative = weight[label].sum(), weight[~label].sum()
    if positive == 0 or negative == 0:
        return float("nan")
    values, rank = np.unique(score, return_inverse=True)
    above = np.bincount(rank, np.where(label, weight, 0), len(values))
    below = np.bincount(rank, np.where(label, 0, weight), len(values))
    return float((above * (np.cumsum(below) - below / 2)).sum() / (positive * negative))


def _span(span: tuple[float, float] | None) -> str:
    return "unknown" if span is None else f"{span[0]:+.3f} to {span[1]:+.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
