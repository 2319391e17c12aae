"""Out-of-fold scores: each member of a committee scores the patients that it held out.

Every labeled scan and every nodule cut-out is scored by the one member that held out its patient. Scans go through the
whole detection, including proposals and measuring, so the false positives are those of use. Scores are logits,
averaged over the same group as the committee's. They measure single members on new patients. The mean of all members,
which ships, cannot be measured on these patients, because most members were trained on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit

from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.evaluation.froc import RATES, Outcomes, outcomes_of
from gcnn_cli.evaluation.inputs import from_labelled
from gcnn_cli.evaluation.matching import FALSE, Matches, MatchRule
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.samples.held_out import HeldOut
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.operating_points import calibrate
from gcnn_cli.training.scoring import score_samples
from gcnn_cli.training.validation import rate_figures

_RATES = (*RATES, 16.0, 32.0, 64.0)  # toward the number of candidates, so that weak findings have a rate too
_CERTAIN = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The out-of-fold scores of all members.

    matches:       matches in every labeled scan; scores are logits
    patients:      patients of these scans, in the order of `matches.series`
    nodules:       nodules in cut-outs
    nodule_logits: float [N], logits of these nodules
    candidates:    number of candidates scored in all scans
    set_aside:     number of nodules in the scans that do not count (`HeldOut.set_aside`)
    """

    matches: Matches
    patients: tuple[str, ...]
    nodules: tuple[Sample, ...]
    nodule_logits: Floats
    candidates: int
    set_aside: int = 0

    @property
    def false_positives(self) -> Floats:
        """Logits [F] of the false positives in all scans."""
        return np.asarray(self.matches.predictions.value[self.matches.mark_fate == FALSE])


def score_out_of_fold(
    members: Sequence[TrainedModel],
    held_out: Sequence[HeldOut],
    *,
    average_over: str,
    device: torch.device,
    proposals: str = DEFAULT_PROPOSALS,
    notify: Callable[[str], None] = lambda _: None,
) -> OutOfFold:
    """Score the held-out data of each member; `held_out` is in the order of the members. Raises as `detect` does.

    proposals: network that proposes candidates: name of shipped weights, or path of a weights file
    """
    scans = [scan for held in held_out for scan in held.scans]
    reports: list[Report] = []
    nodules: list[Sample] = []
    logits = [np.zeros(0)]
    for member, held in zip(members, held_out, strict=True):
        # Probabilities are then the sigmoid of the logit, and all reports have the same sha256.
        plain = replace(member, calibration=Calibration(average_over=average_over), sha256="")
        detector = make_detector(plain, device, proposals=proposals)
        for scan in held.scans:
            notify(f"{member.name}: {scan.name}")
            reports.append(detect(scan.read(), detector, threshold=0.0))
        notify(f"{member.name}: {len(held.nodules)} cut-outs")
        nodules += held.nodules
        logits.append(score_samples(member.network, [*held.nodules], member.input, device, average_over))
    matches = from_labelled(scans, reports, Path()).match(MatchRule())
    return OutOfFold(
        _with_logits(matches),
        tuple(scan.patient for scan in scans),
        tuple(nodules),
        np.concatenate(logits),
        sum(report.candidates for report in reports),
        sum(held.set_aside for held in held_out),
    )


def calibrate_out_of_fold(scored: OutOfFold, average_over: str) -> tuple[Calibration, dict[str, float]]:
    """Return the calibration of the committee and the figures on which it rests.

    A probability is that of a candidate that detection scores. The prior is the share of nodules among the findings of
    the labeled scans, a few in a hundred; nodules that were set aside are among them. A smaller prior would hold clear
    findings below one half.
    Scans hold few nodules, so Platt's map is fitted to the cut-outs too. Nodules in cut-outs are larger than those of
    unselected scans, so the probabilities of small nodules may be too high. The rates of false positives are counted in
    all labeled scans.
    """
    found = outcomes_of(scored.matches)
    outcomes = Outcomes(
        score=np.concatenate([found.score, scored.nodule_logits]),
        scan=np.concatenate([found.scan, np.zeros(len(scored.nodules), np.intp)]),
        is_nodule=np.concatenate([found.is_nodule, np.ones(len(scored.nodules), bool)]),
        nodules=found.nodules + len(scored.nodules) * (np.arange(len(found.nodules)) == 0),
    )
    owners = [*(scored.patients[n] for n in found.scan), *(nodule.patient for nodule in scored.nodules)]
    groups = np.unique(owners, return_inverse=True)[1]
    prior = max(1, int(found.is_nodule.sum()) + scored.set_aside) / max(1, len(found.score) + scored.set_aside)
    calibration, error = calibrate(outcomes, groups, prior, _RATES)
    basis = {
        "scans": float(len(found.nodules)),
        "nodules_in_scans": float(found.nodules.sum()),
        "nodules_set_aside": float(scored.set_aside),
        "nodules_in_cutouts": float(len(scored.nodules)),
        "false_positives": float((~found.is_nodule).sum()),
        "candidates_per_scan": scored.candidates / len(found.nodules),
        "prior": prior,
        "expected_calibration_error": error,
        **rate_figures(outcomes),
    }
    return replace(calibration, average_over=average_over), basis


def _with_logits(matches: Matches) -> Matches:
    """Return the matches with logits in place of probabilities as scores."""

    def back(probability: Floats) -> Floats:
        return np.asarray(logit(np.clip(probability, _CERTAIN, 1 - _CERTAIN)))

    found = np.isfinite(matches.nodule_score)
    nodule_score = np.full(len(found), -np.inf)
    nodule_score[found] = back(matches.nodule_score[found])
    marks = replace(matches.predictions, value=back(matches.predictions.value))
    return replace(matches, nodule_score=nodule_score, predictions=marks)
