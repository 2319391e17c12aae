"""Calibration (Platt's map) and operating points of new weights.

Operating points are counted with `evaluation.froc` on the candidates of labeled scans that detection would score
(`samples.detection_candidates`), away from every mark. If there are enough held-out scans, they alone are counted. If
not, all labeled scans are: the operating points are then optimistic, and the provenance states it.

The map turns a logit into the probability that a candidate is a nodule, in scans with as many nodules as the
counted ones. Training balances the classes, so nodules are weighted down to that prior.
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
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.validation import candidate_outcomes

ENOUGH_SCANS = 8  # with this many held-out labeled scans, they alone set the operating points


@dataclass(frozen=True)
class OperatingStudy:
    """A calibration and its basis.

    scans:          labeled scans whose candidates were counted
    held_out:       True if all of them were held out
    prior:          probability of a candidate to be a nodule; 0 if there was nothing to fit
    expected_error: expected calibration error of maps fitted to four fifths of the patients, on the rest; NaN if
                    there are too few
    missing:        what there was none of, so that nothing could be fitted; empty if something was
    """

    calibration: Calibration
    scans: int
    held_out: bool
    prior: float
    expected_error: float
    missing: str = ""


def study_operation(samples: Sequence[Sample], logits: Floats, held_out: Sequence[bool]) -> OperatingStudy:
    """Calibrate on held-out nodules and the candidates of labeled scans, given their logits [N].

    samples:  nodules and false candidates that detection scores; marks that were trained on count for the prior
    held_out: [N] flags of held-out samples

    Without nodules or candidates the calibration is the default one.
    """
    held_series = {s.series for s, out in zip(samples, held_out, strict=True) if out and s.kind == "candidate"}
    only_held = len(held_series) >= ENOUGH_SCANS
    used = [n for n, out in enumerate(held_out) if out or (samples[n].kind == "candidate" and not only_held)]
    chosen, scores = [samples[n] for n in used], np.asarray(logits, float)[used]
    outcomes = candidate_outcomes(scores, chosen)
    if outcomes is None:
        missing = "candidates of labeled scans" if any(s.label for s in chosen) else "held-out nodules"
        return OperatingStudy(Calibration(), 0, False, 0.0, float("nan"), missing)
    scans = len(outcomes.nodules)
    # Marks of the counted scans alone, or the prior would be that of other scans than the false candidates'.
    marks = max(1, sum(s.kind == "mark" and (out or not only_held) for s, out in zip(samples, held_out, strict=True)))
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
    except InputError:  # higher scores for negatives: an untrained network
        slope, offset, error = 1.0, 0.0, float("nan")
    meaning = Calibration(slope, offset)
    thresholds = thresholds_at(froc_curve(outcomes), np.array(rates))
    points = tuple(
        (rate, meaning.probability(float(cut))) for rate, cut in zip(rates, thresholds, strict=True) if cut is not None
    )
    return Calibration(slope, offset, dict(points).get(1.0, 0.5), points), error
