"""What scores mean and where to cut: Platt's map and operating points, from held-out samples.

Operating points are counted with `evaluation.froc` on the candidates of labelled scans, which are all that
detection would score, away from every mark: of the held-out scans where there are enough of them, else of
all labelled scans; then they are optimistic, and the provenance says so.

The map makes a probability that of a candidate to be a nodule, in scans that hold as many nodules as the
labelled ones: training balances the classes, so nodules are weighed down to that prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.calibration import error_on_unseen, fit_platt
from gcnn_cli.evaluation.froc import RATES, Floats, Outcomes, froc_curve, thresholds_at
from gcnn_cli.network.contract import Calibration
from gcnn_cli.samples.samples import Sample
from gcnn_cli.training.validation import candidate_outcomes

ENOUGH_SCANS = 8  # held-out labelled scans from which on they alone set the operating points


@dataclass(frozen=True)
class OperatingStudy:
    """A calibration, and what it rests on."""

    calibration: Calibration
    scans: int  # labelled scans whose candidates were counted
    held_out: bool  # whether all of them were held out
    prior: float  # of a candidate to be a nodule; 0 where nothing could be fitted
    expected_error: float  # of maps fitted to four fifths of the patients, on the rest; NaN where too few


def study_operation(samples: Sequence[Sample], logits: Floats, held_out: Sequence[bool]) -> OperatingStudy:
    """From the positives that were held out and the candidates of labelled scans, with their logits [N].

    held_out [N]: whether a sample was. The calibration is the plain one where there is nothing to count.
    """
    held_series = {s.series for s, out in zip(samples, held_out, strict=True) if out and s.kind == "candidate"}
    only_held = len(held_series) >= ENOUGH_SCANS
    used = [n for n, out in enumerate(held_out) if out or (samples[n].kind == "candidate" and not only_held)]
    chosen, scores = [samples[n] for n in used], np.asarray(logits, float)[used]
    outcomes = candidate_outcomes(scores, chosen)
    if outcomes is None:
        return OperatingStudy(Calibration(), 0, False, 0.0, float("nan"))
    scans = len(outcomes.nodules)
    marks = max(1, sum(s.kind == "mark" for s in samples))
    prior = marks / (marks + int((~outcomes.is_nodule).sum()))
    kept = [s for s in chosen if s.label or s.kind == "candidate"]
    groups = np.unique([s.patient if s.label else s.series for s in kept], return_inverse=True)[1]
    calibration, error = calibrate(outcomes, groups, prior)
    return OperatingStudy(calibration, scans, only_held, prior, error)


def calibrate(
    outcomes: Outcomes, groups: NDArray[np.intp], prior: float, rates: tuple[float, ...] = RATES
) -> tuple[Calibration, float]:
    """Return Platt's map of logits at a prior, with operating points; and its expected error on unseen groups.

    outcomes: nodules and false positives, scored by logits; groups: int [E], who stay together when maps are
    fitted to four fifths of them; prior: the probability of a scored place to be a nodule. Nodules together weigh
    `prior` and false positives the rest, however many there are of each. The error is NaN where it is undefined.
    """
    positive = outcomes.is_nodule
    weight = np.where(positive, prior / positive.sum(), (1 - prior) / (~positive).sum())
    probability = expit(outcomes.score)
    try:
        platt = fit_platt(probability, positive, weight)
        error = error_on_unseen(probability, positive, groups, weight)
        slope, offset = platt.slope, platt.offset
    except InputError:  # scores that rank the wrong way round: an untrained network
        slope, offset, error = 1.0, 0.0, float("nan")
    meaning = Calibration(slope, offset)
    thresholds = thresholds_at(froc_curve(outcomes), np.array(rates))
    points = tuple(
        (rate, meaning.probability(float(cut))) for rate, cut in zip(rates, thresholds, strict=True) if cut is not None
    )
    return Calibration(slope, offset, dict(points).get(1.0, 0.5), points), error
