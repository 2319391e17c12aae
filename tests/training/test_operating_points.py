"""Figures of a validation, and the calibration and operating points of new weights."""

import numpy as np
import pytest
from training.small import sample

from gcnn_cli.training.operating_points import study_operation
from gcnn_cli.training.validation import auc, froc_figures


def test_validation_is_froc_over_the_held_out_scans():
    # Two scans: false candidates at 3 (a) and 1 (b); nodules, a stack and a mark, at 4 and 2; a place beside at 9.
    # FPs/scan: 1/2 at 3, 1 at 1. Found: 1/2 at 4, 2/2 at 2. Points (0,0) (0,.5) (.5,.5) (.5,1) (1,1): from 1/2 on 1,
    # below 1/2: .5. CPM (.5 + .5 + 1 + 1 + 1 + 1 + 1) / 7 = 6/7. The place beside a nodule is in no scan.
    samples = [
        sample(1, "stack"), sample(1, "mark", series="a"), sample(0, "candidate", series="a"),
        sample(0, "candidate", series="b"), sample(0, "beside"),
    ]  # fmt: skip
    figures = froc_figures(np.array([4.0, 2.0, 3.0, 1.0, 9.0]), samples)
    assert figures == {"cpm": pytest.approx(6 / 7), "sensitivity_at_1": 1.0}
    assert froc_figures(np.array([4.0, 9.0]), [samples[0], samples[4]]) == {}


def test_auc_counts_ties_half():
    # Positives 2, 1; negatives 1, 0: pairs 2>1, 2>0, 1=1, 1>0: 3.5 of 4.
    assert auc(np.array([2.0, 1.0, 1.0, 0.0]), np.array([1, 1, 0, 0])) == pytest.approx(3.5 / 4)


def test_operating_points_leave_what_they_say_and_probabilities_keep_the_order():
    rng = np.random.default_rng(0)
    samples = [sample(1, "stack", n=n) for n in range(40)]
    samples += [sample(0, "candidate", n=n, series=f"s{n % 4}") for n in range(400)] + [sample(1, "mark", series="s0")]
    logits = np.concatenate([rng.normal(3, 1, 40), rng.normal(-2, 1.5, 400), [3.0]])
    held_out = [s.kind == "stack" or s.series in ("s0", "s1") for s in samples]
    study = study_operation(samples, logits, held_out)
    assert (study.scans, study.held_out) == (4, False)
    assert study.prior == pytest.approx(1 / 401)
    false = np.array([study.calibration.probability(x) for x in logits[40:440]])
    for rate, cut in study.calibration.operating_points:
        assert (false >= cut).sum() <= rate * 4
    assert study.calibration.threshold == study.calibration.threshold_at(1.0)
    assert study.expected_error < 0.01
    # Weighed down to the prior, the mean probability over all candidates is about the prior.
    found = np.array([study.calibration.probability(x) for x in logits[:40]]).mean()
    assert study.prior * found + (1 - study.prior) * false.mean() == pytest.approx(study.prior, abs=0.003)


def test_enough_held_out_scans_set_the_operating_points_alone():
    samples = [sample(1, "stack", n=n) for n in range(6)]
    samples += [sample(0, "candidate", n=n, series=f"s{n % 10}") for n in range(60)]
    logits = np.concatenate([np.full(6, 2.0), np.linspace(-3, 1, 60)])
    held_out = [s.label == 1 or s.series != "s9" for s in samples]
    study = study_operation(samples, logits, held_out)
    assert (study.scans, study.held_out) == (9, True)
    # Marks of the scan that was trained on do not raise the prior of the scans that are counted.
    marks = [sample(1, "mark", series="s9") for _ in range(3)]
    more = study_operation([*samples, *marks], np.append(logits, [2.0] * 3), [*held_out, *[False] * 3])
    assert more.prior == study.prior == pytest.approx(1 / 55)
    alone = study_operation(samples[:6], logits[:6], [True] * 6)
    assert (alone.calibration.operating_points, alone.missing) == ((), "candidates of labeled scans")
