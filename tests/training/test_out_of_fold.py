"""What scores mean, from what no network has seen: probabilities at the candidates' prior, rates of false positives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gcnn_cli.evaluation.matching import FALSE, HIT, IGNORED, Matches
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.marks import Marks
from gcnn_cli.samples.held_out import HeldOut
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.out_of_fold import OutOfFold, calibrate_out_of_fold

SCANS, FALSE_IN_EACH, NODULES, CUTOUTS = 7, 99, 7, 200


def marks(values):
    count = len(values)
    return Marks(("a",) * count, np.zeros((count, 3)), np.asarray(values, float))


@pytest.fixture
def scored():
    """One nodule in each scan, among 99 false positives and one finding that readers disagree about."""
    rng = np.random.default_rng(0)
    false = rng.normal(-4, 2, SCANS * FALSE_IN_EACH)
    nodules = rng.normal(5, 2, NODULES)
    cutouts = rng.normal(5, 2, CUTOUTS)
    scan = np.arange(SCANS)
    matches = Matches(
        series=tuple(f"scan-{n}" for n in scan),
        nodules=marks(np.full(NODULES, 8.0)),
        nodule_scan=scan,
        nodule_score=nodules,
        predictions=marks([*nodules, *false, *np.full(SCANS, 9.0)]),
        mark_scan=np.concatenate([scan, np.repeat(scan, FALSE_IN_EACH), scan]),
        mark_fate=np.array([HIT] * NODULES + [FALSE] * len(false) + [IGNORED] * SCANS, np.int8),
        double_hits=0,
    )
    held_out = tuple(
        Sample(lambda: None, 8, 1, "chunk", f"patient-{n // 2}", f"{n}", 0, 8, 8.0) for n in range(CUTOUTS)
    )
    return OutOfFold(matches, tuple(f"p{n}" for n in scan), held_out, cutouts, SCANS * 100)


def test_the_prior_is_that_of_the_candidates(scored):
    _, basis = calibrate_out_of_fold(scored, "Oh")
    assert basis["prior"] == pytest.approx(0.01)
    assert basis["candidates_per_scan"] == 100
    assert (basis["scans"], basis["nodules_in_scans"], basis["nodules_in_cutouts"]) == (SCANS, NODULES, CUTOUTS)
    assert basis["expected_calibration_error"] < 0.01


def test_nodules_set_aside_count_for_the_prior_alone(scored):
    _, basis = calibrate_out_of_fold(replace(scored, set_aside=7), "Oh")
    assert basis["prior"] == pytest.approx(14 / 707)
    assert basis["nodules_in_scans"] == NODULES
    assert basis["cpm"] == calibrate_out_of_fold(scored, "Oh")[1]["cpm"]


def test_what_another_network_has_seen_does_not_count():
    nodule, other = (((float(n), 0.0, 0.0), 6.0) for n in range(2))
    new, known, seen = (
        ScanEntry(Path(f"{name}.mha"), name, f"patient-{name}", True, (nodule,), (other,))
        for name in ("new", "known", "seen")
    )
    cutouts = tuple(Sample(lambda: None, 8, 1, "chunk", f"patient-{n}", n, 0, 8, 8.0) for n in ("new", "known"))
    left = HeldOut((new, known, seen), cutouts).unseen_by({"patient-known", "patient-seen"}, {"seen"})
    assert [scan.name for scan in left.scans] == ["new", "known"]
    assert (left.scans[0].nodules, left.scans[1].nodules) == ((nodule,), ())
    assert left.scans[1].excluded == (nodule, other)  # neither a hit nor a false positive
    assert left.nodules == cutouts[:1]
    assert left.set_aside == 1


def test_figures_are_over_scans_and_cutouts_and_know_of_the_missed(scored):
    _, basis = calibrate_out_of_fold(scored, "Oh")
    cut = np.sort(scored.false_positives)[-SCANS - 1]
    found = [*scored.matches.nodule_score, *scored.nodule_logits] > cut
    assert basis["sensitivity_at_1"] == pytest.approx(found.mean(), abs=0.02)
    missed = np.where(np.arange(NODULES) < 2, -np.inf, scored.matches.nodule_score)
    without = replace(scored, matches=replace(scored.matches, nodule_score=missed))
    assert calibrate_out_of_fold(without, "Oh")[1]["cpm"] < basis["cpm"]


def test_probabilities_are_those_of_the_mixture(scored):
    """Two normals of one width: the log odds are linear, log(1/99) + (9 x - 4.5) / 4 for logits x."""
    calibration, _ = calibrate_out_of_fold(scored, "Oh")
    for x in (0.0, 1.0, 2.5, 4.0):
        true = 1 / (1 + 99 * np.exp(-(9 * x - 4.5) / 4))
        assert calibration.probability(x) == pytest.approx(true, abs=0.12)
    assert calibration.probability(6.0) > 0.98  # a sure finding is called sure
    assert calibration.average_over == "Oh"


def test_rates_are_counted_over_all_scans(scored):
    calibration, _ = calibrate_out_of_fold(scored, "Oh")
    for rate, cut in calibration.operating_points:
        above = sum(calibration.probability(x) >= cut for x in scored.false_positives)
        assert above <= rate * SCANS < above + 2  # the lowest cut that keeps within the rate
        assert calibration.fp_per_scan(cut) == pytest.approx(rate)
    assert [rate for rate, _ in calibration.operating_points] == [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64]
    assert calibration.threshold == calibration.threshold_at(1)


def test_what_readers_disagree_about_counts_as_neither(scored):
    assert len(scored.false_positives) == SCANS * FALSE_IN_EACH
    assert scored.false_positives.max() < 9.0
