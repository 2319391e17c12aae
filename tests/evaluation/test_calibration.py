"""Reliability of known cases, and a map that undoes a known distortion."""

import numpy as np
import pytest
from scipy.special import expit, logit

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.calibration import expected_error, fit_platt, reliability, study_calibration
from gcnn_cli.evaluation.matching import match
from gcnn_cli.labels.marks import make_marks


def test_the_error_of_a_case_computed_by_hand():
    # Bin [0.2, 0.3): 0.2, 0.2, 0.2, 0.2 with one positive: |0.25 - 0.2| = 0.05 over 4 of 5 marks.
    # Bin [0.9, 1]: 1.0 with none: |0 - 1| = 1 over 1 of 5. Together 0.8 * 0.05 + 0.2 * 1 = 0.24.
    bins = reliability(np.array([0.2, 0.2, 0.2, 0.2, 1.0]), np.array([True, False, False, False, False]))
    assert [b.marks for b in bins] == [0, 0, 4, 0, 0, 0, 0, 0, 0, 1]
    assert expected_error(bins) == pytest.approx(0.24)


def test_the_map_undoes_a_known_distortion():
    # True probabilities q, reported with logit 0.5 * logit(q) + 2: the map must be slope 2, offset -4.
    rng = np.random.default_rng(0)
    true = rng.uniform(0.02, 0.98, 20_000)
    positive = rng.random(20_000) < true
    reported = expit(0.5 * logit(true) + 2)
    platt = fit_platt(reported, positive)
    assert platt.slope == pytest.approx(2, abs=0.1)
    assert platt.offset == pytest.approx(-4, abs=0.2)
    assert expected_error(reliability(reported, positive)) > 0.2
    assert expected_error(reliability(platt.apply(reported), positive)) < 0.02


def test_the_map_keeps_the_order_and_takes_certain_scores():
    probability = np.array([0.0, 1e-12, 0.2, 0.7, 1.0])
    mapped = fit_platt(probability, np.array([False, False, False, True, True])).apply(probability)
    assert (np.diff(mapped) >= 0).all()
    assert ((mapped >= 0) & (mapped <= 1)).all()


def test_a_few_marks_make_nobody_certain():
    # Two of each class, told apart: Platt's targets are 3/4 and 1/4, so the map stays near them.
    probability = np.array([0.1, 0.2, 0.8, 0.9])
    mapped = fit_platt(probability, np.array([False, False, True, True])).apply(probability)
    assert 0.1 < mapped.min() < mapped.max() < 0.9


def test_weights_count_as_copies():
    probability = np.array([0.1, 0.3, 0.6, 0.7, 0.9])
    positive = np.array([False, False, True, False, True])
    copies = np.array([4, 4, 1, 4, 1])
    weighted = reliability(probability, positive, copies.astype(float))
    written = reliability(np.repeat(probability, copies), np.repeat(positive, copies))
    assert expected_error(weighted) == pytest.approx(expected_error(written))
    assert [b.weight for b in weighted] == [b.marks for b in written]


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(InputError, match="3 and 0"):
        fit_platt(np.array([0.1, 0.2, 0.3]), np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="order"):
        fit_platt(np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False]))


def scans(count, score=lambda nodule: 0.9 if nodule else 0.2):
    """In each scan a hit, two false positives and a mark in an excluded place."""
    names = [f"s{n}" for n in range(count)]
    marks = [(s, x, 0, 0, score(x == 0)) for s in names for x in (0, 50, 70)] + [(s, 99, 0, 0, 0.99) for s in names]
    nodules, excluded = [(s, 0, 0, 0, 8) for s in names], [(s, 99, 0, 0, -1) for s in names]
    return match(make_marks(marks), make_marks(nodules), make_marks(excluded), names)


def test_marks_in_excluded_places_are_neither_class():
    study = study_calibration(scans(6))
    assert sum(b.marks for b in study.bins) == 18
    assert study.bins[9].marks == 6  # 0.9: the hits; 0.99 is not there
    assert study.error_after < study.error


def test_too_few_scans_say_nothing_about_unseen_ones():
    assert np.isnan(study_calibration(scans(4)).error_after)


def test_scores_that_are_no_probabilities_are_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        study_calibration(scans(6, lambda nodule: 3.0 if nodule else -1.0))
