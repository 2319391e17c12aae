"""LUNA16's rules: hand-computed cases, a slow transcription to compare with, and the bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.evaluation import EvaluationConfig, compare_matches, evaluate_matches
from gcnn_cli.evaluation.froc import (
    RATES,
    compare,
    draw_scans,
    froc_curve,
    interval,
    outcomes_of,
    resampled_sensitivities,
    sensitivity_at,
    thresholds_at,
)
from gcnn_cli.evaluation.matching import CAPPED, FALSE, HIT, IGNORED, MatchRule, match
from gcnn_cli.labels.marks import make_marks

FAR = 1000.0


def froc_of(predictions, nodules, excluded=(), series=("a",), rule=None):
    matches = match(make_marks(predictions), make_marks(nodules), make_marks(excluded), series, rule)
    return matches, froc_curve(outcomes_of(matches))


def at(curve, rate, interpolation="luna16"):
    return float(sensitivity_at(curve.fps_per_scan, curve.sensitivity, np.array([rate]), interpolation)[0])


def test_a_hit_lies_strictly_within_the_radius():
    # Diameter 6: radius 3. A mark at exactly 3 mm does not hit (9 < 9 is false), one at 2.999 does.
    nodule = [("a", 0, 0, 0, 6)]
    matches, _ = froc_of([("a", 3, 0, 0, 0.9)], nodule)
    assert matches.mark_fate.tolist() == [FALSE]
    assert matches.nodule_score.tolist() == [-np.inf]
    matches, _ = froc_of([("a", 2.999, 0, 0, 0.9)], nodule)
    assert matches.mark_fate.tolist() == [HIT]


def test_double_hits_credit_the_highest_score_and_are_no_false_positives():
    # Three marks in one nodule: it is found at 0.9, two double hits, no false positive: sensitivity 1 everywhere.
    marks = [("a", 0, 0, 0, 0.4), ("a", 1, 0, 0, 0.9), ("a", 0, 1, 0, 0.6)]
    matches, curve = froc_of(marks, [("a", 0, 0, 0, 10)])
    assert matches.nodule_score.tolist() == [0.9]
    assert matches.double_hits == 2
    assert curve.fps_per_scan.tolist() == [0, 0]
    assert at(curve, 0.125) == 1


def test_one_mark_in_two_nodules_credits_both():
    # The mark at 4 mm lies in both 10 mm nodules (centers 0 and 8, distance 4 < 5): 2 of 2 found, no double hit.
    matches, curve = froc_of([("a", 4, 0, 0, 0.7)], [("a", 0, 0, 0, 10), ("a", 8, 0, 0, 10)])
    assert matches.nodule_score.tolist() == [0.7, 0.7]
    assert matches.double_hits == 0
    assert curve.sensitivity.tolist() == [0, 1]


def test_an_unmeasured_mark_counts_as_10_mm():
    # Radius 5 mm: a mark 4.9 mm away is ignored, one 5.0 mm away is a false positive.
    marks = [("a", 4.9, 0, 0, 0.9), ("a", 0, 5.0, 0, 0.8)]
    matches, _ = froc_of(marks, [("a", FAR, 0, 0, 8)], [("a", 0, 0, 0, -1)])
    assert matches.mark_fate.tolist() == [IGNORED, FALSE]
    matches, _ = froc_of(marks, [("a", 0, 0, 0, -1)])
    assert matches.mark_fate.tolist() == [HIT, FALSE]


def test_a_nodule_comes_before_an_excluded_mark_at_the_same_place():
    matches, _ = froc_of([("a", 0, 0, 0, 0.9)], [("a", 0, 0, 0, 8)], [("a", 0, 0, 0, -1)])
    assert matches.mark_fate.tolist() == [HIT]


def test_forgetting_the_excluded_list_changes_the_result():
    # One nodule found at 0.5; one mark at 0.9 in an excluded place. With the list: no false positive, CPM 1.
    # Without: the false positive stands before the nodule, at 1 FP/scan. The curve runs (0,0), (1,0), (1,1), so
    # it is 0 below 1 FP/scan and 1 from there on: sensitivity at 1/8..8 is 0, 0, 0, 1, 1, 1, 1; CPM 4/7.
    marks = [("a", 0, 0, 0, 0.5), ("a", FAR, 0, 0, 0.9)]
    nodules, excluded = [("a", 0, 0, 0, 8)], [("a", FAR, 0, 0, -1)]
    with_list, _ = froc_of(marks, nodules, excluded)
    without, _ = froc_of(marks, nodules)
    assert evaluate_matches(with_list).cpm == 1
    assert evaluate_matches(without).cpm == pytest.approx(4 / 7)


def test_marks_tied_at_the_cap_all_drop():
    # Cap 2, scores 0.9 0.5 0.5 0.1: the third largest is 0.5, only 0.9 is strictly above it.
    scores = [0.5, 0.9, 0.1, 0.5]
    marks = [("a", FAR + n, 0, 0, score) for n, score in enumerate(scores)]
    matches, _ = froc_of(marks, [("a", 0, 0, 0, 8)], rule=MatchRule(max_marks=2))
    assert matches.mark_fate.tolist() == [CAPPED, FALSE, CAPPED, CAPPED]
    # No cap (0), and a cap that is not exceeded, keep all four.
    for cap in (0, 4):
        matches, _ = froc_of(marks, [("a", 0, 0, 0, 8)], rule=MatchRule(max_marks=cap))
        assert (matches.mark_fate == FALSE).all()


def test_ties_between_a_nodule_and_a_false_positive_share_a_threshold():
    # One scan, 0.8 for a nodule and for a false positive: the curve goes straight from (0, 0) to (1, 1), whatever
    # the order of the rows, so the sensitivity at 1/4 FP/scan is 1/4. An untied 0.81 for the nodule makes it 1.
    nodule, false = ("a", 0, 0, 0, 0.8), ("a", FAR, 0, 0, 0.8)
    for marks in ([nodule, false], [false, nodule]):
        _, curve = froc_of(marks, [("a", 0, 0, 0, 8)])
        assert curve.fps_per_scan.tolist() == [0, 1]
        assert at(curve, 0.25) == 0.25
    _, curve = froc_of([("a", 0, 0, 0, 0.81), false], [("a", 0, 0, 0, 8)])
    assert at(curve, 0.25) == 1


def test_scans_without_nodules_count_in_the_false_positive_rate():
    # Scan a: nodule found at 0.5, below one false positive. With a alone that is 1 FP/scan; with three more scans
    # without nodule or mark it is 1/4: the curve (0,0), (1/4,0), (1/4,1) has 1 from 1/4 on, 0 at 1/8.
    marks, nodules = [("a", 0, 0, 0, 0.5), ("a", FAR, 0, 0, 0.9)], [("a", 0, 0, 0, 8)]
    _, alone = froc_of(marks, nodules)
    _, among = froc_of(marks, nodules, series=("a", "b", "c", "d"))
    assert (at(alone, 0.25), at(alone, 1)) == (0, 1)
    assert (at(among, 0.125), at(among, 0.25)) == (0, 1)


def test_missed_nodules_stay_in_the_denominator_and_the_curve_is_flat_at_its_end():
    # 1 of 2 found, at 0.5; one false positive at 0.9, another at 0.1. Points (0,0) (1,0) (1,.5) (2,.5): .5 at 8.
    marks = [("a", 0, 0, 0, 0.5), ("a", FAR, 0, 0, 0.9), ("a", FAR, 0, 0, 0.1)]
    matches, curve = froc_of(marks, [("a", 0, 0, 0, 8), ("a", 99, 0, 0, 8)])
    assert curve.fps_per_scan.tolist() == [0, 1, 1, 2]
    assert curve.sensitivity.tolist() == [0, 0, 0.5, 0.5]
    assert at(curve, 8) == 0.5
    assert evaluate_matches(matches).counts.missed == 1


def test_no_false_positives_at_all():
    # Both nodules found, at 0.9 and 0.2: sensitivity 1 at every rate, since any threshold has 0 FPs/scan.
    marks = [("a", 0, 0, 0, 0.9), ("a", 99, 0, 0, 0.2)]
    matches, _ = froc_of(marks, [("a", 0, 0, 0, 8), ("a", 99, 0, 0, 8)])
    result = evaluate_matches(matches)
    assert result.cpm == 1
    assert [p.threshold for p in result.points] == [0.2] * 7


def test_no_predictions():
    matches, curve = froc_of([], [("a", 0, 0, 0, 8)], series=("a", "b"))
    result = evaluate_matches(matches)
    assert result.cpm == 0
    assert curve.threshold.tolist() == [np.inf]
    assert [p.threshold for p in result.points] == [None] * 7
    assert (result.counts.missed, result.counts.scans_without_marks) == (1, 2)


def test_only_false_positives():
    matches, _ = froc_of([("a", FAR, 0, 0, 0.9)], [("a", 0, 0, 0, 8)])
    assert evaluate_matches(matches).cpm == 0


def test_the_reference_submitted_as_its_own_prediction_scores_1():
    rng = np.random.default_rng(0)
    nodules = [(f"s{n % 7}", *(30.0 * n + rng.uniform(0, 3, 3)), rng.uniform(4, 25)) for n in range(20)]
    predictions = [(*row[:4], 1.0) for row in nodules]
    matches, _ = froc_of(predictions, nodules, series=[f"s{n}" for n in range(10)])
    assert evaluate_matches(matches).cpm == 1


def test_without_nodules_nothing_is_defined():
    with pytest.raises(InputError, match="no nodules"):
        froc_of([("a", 0, 0, 0, 0.5)], [])


def test_series_ids_are_strings():
    # '056' is listed, '56' is not.
    with pytest.raises(InputError, match="series 56"):
        froc_of([("56", 0, 0, 0, 0.5)], [("056", 0, 0, 0, 8)], series=("056",))


def test_unknown_series_can_be_left_out_as_the_official_script_does():
    arguments = make_marks([("b", 0, 0, 0, 0.5)]), make_marks([("a", 0, 0, 0, 8)]), make_marks([]), ["a"]
    with pytest.raises(InputError, match="series b"):
        match(*arguments)
    assert len(match(*arguments, allow_unknown=True).predictions) == 0


def test_nearest_reads_a_point_of_the_curve():
    # Points (0,0) (0,.25) (1,.25) (1,.75) (3,.75) (3,1). Interpolated at 2: between (1,.75) and (3,.75): .75; at 0.6:
    # 0.25 + 0 = .25 (flat). Nearest: 0.6 is nearer to 1 (.75); 0.5 is equally near to 0 and 1: the lower (.25);
    # 8 lies beyond: (3, 1).
    fps, sensitivity = np.array([0, 0, 1, 1, 3, 3.0]), np.array([0, 0.25, 0.25, 0.75, 0.75, 1])
    rates = np.array([0.5, 0.6, 2.0, 8.0])
    assert sensitivity_at(fps, sensitivity, rates).tolist() == [0.25, 0.25, 0.75, 1]
    assert sensitivity_at(fps, sensitivity, rates, "nearest").tolist() == [0.25, 0.75, 0.75, 1]


def test_the_threshold_at_a_rate_keeps_within_it():
    # One scan, false positives at 0.9 and 0.7, the nodule at 0.8. At 1 FP/scan 0.8 is the lowest threshold
    # (0.7 lets the second in). At 1/2 even 0.9 is one too many: None. At 2 and above: 0.7, the last score.
    marks = [("a", FAR, 0, 0, 0.9), ("a", FAR, 9, 0, 0.7), ("a", 0, 0, 0, 0.8)]
    _, curve = froc_of(marks, [("a", 0, 0, 0, 8)])
    assert thresholds_at(curve, np.array([0.5, 1, 2, 8])) == [None, 0.8, 0.7, 0.7]


def test_strata_share_the_false_positives():
    # A 4 mm nodule found at 0.9, a 12 mm one at 0.3, one false positive at 0.5, one scan.
    # Small: (0,1) before the false positive: CPM 1. Large: found at 1 FP/scan and beyond: 4 of 7 rates.
    marks = [("a", 0, 0, 0, 0.9), ("a", 99, 0, 0, 0.3), ("a", FAR, 0, 0, 0.5)]
    matches, _ = froc_of(marks, [("a", 0, 0, 0, 4), ("a", 99, 0, 0, 12)])
    strata = evaluate_matches(matches).strata
    assert [s.nodules for s in strata] == [1, 0, 0, 0, 1]
    assert strata[0].cpm == 1
    assert strata[1].cpm is None
    assert strata[4].cpm == pytest.approx(4 / 7)


def test_a_stratum_begins_with_its_lower_bound():
    matches, _ = froc_of([], [("a", 50 * n, 0, 0, d) for n, d in enumerate((4.999, 5, 5.999, 6, 8, 10, -1))])
    result = evaluate_matches(matches)
    assert [s.nodules for s in result.strata] == [1, 2, 1, 1, 1]
    assert (result.counts.nodules, result.counts.unmeasured) == (7, 1)  # the unmeasured one is in no stratum


def test_the_rule_is_named():
    assert EvaluationConfig().name.startswith("LUNA16:")
    for other in (
        EvaluationConfig(MatchRule(0)),
        EvaluationConfig(MatchRule(hit_radius_mm=5.0)),
        EvaluationConfig(interpolation="nearest"),
    ):
        assert other.name.startswith("not LUNA16:")


# --- a slow, plain transcription of the rules --------------------------------------------------------------------


def transcribed(predictions, nodules, excluded, series, cap):
    """Lists of FPs/scan and sensitivity by the rules' own words, one mark at a time."""
    scores_of_nodules, false_scores, missed = [], [], 0
    for scan in series:
        marks = [row[1:] for row in predictions if row[0] == scan]
        if cap and len(marks) > cap:
            cut = sorted((mark[3] for mark in marks), reverse=True)[cap]
            marks = [mark for mark in marks if mark[3] > cut]
        pool = set(range(len(marks)))
        for _, x, y, z, diameter in (row for row in nodules if row[0] == scan):
            radius = (10.0 if diameter < 0 else diameter) / 2
            hits = [n for n, m in enumerate(marks) if (m[0] - x) ** 2 + (m[1] - y) ** 2 + (m[2] - z) ** 2 < radius**2]
            pool -= set(hits)
            if hits:
                scores_of_nodules.append(max(marks[n][3] for n in hits))
            else:
                missed += 1
        for _, x, y, z, diameter in (row for row in excluded if row[0] == scan):
            radius = (10.0 if diameter < 0 else diameter) / 2
            pool -= {n for n, m in enumerate(marks) if (m[0] - x) ** 2 + (m[1] - y) ** 2 + (m[2] - z) ** 2 < radius**2}
        false_scores += [marks[n][3] for n in sorted(pool)]
    total = len(scores_of_nodules) + missed
    points = [(0.0, 0.0)]
    for threshold in sorted({*scores_of_nodules, *false_scores}, reverse=True):
        false = sum(score >= threshold for score in false_scores)
        found = sum(score >= threshold for score in scores_of_nodules)
        points.append((false / len(series), found / total))
    return points


def read_off(points, rate):
    """Linear interpolation; of several points at one rate the highest, beyond the last the last."""
    below = [p for p in points if p[0] <= rate]
    above = [p for p in points if p[0] > rate]
    (x0, y0) = max(below)
    if not above:
        return y0
    (x1, y1) = min(above)
    return y0 + (y1 - y0) * (rate - x0) / (x1 - x0)


coordinate = st.integers(0, 8).map(float)
scan_name = st.sampled_from(["a", "b", "c", "d"])
score = st.integers(0, 5).map(lambda n: n / 5)
diameter = st.sampled_from([-1.0, 2.0, 4.0, 6.0])
prediction_rows = st.lists(st.tuples(scan_name, coordinate, coordinate, coordinate, score), max_size=25)
reference_rows = st.lists(st.tuples(scan_name, coordinate, coordinate, coordinate, diameter), max_size=6)


@settings(max_examples=200, deadline=None)
@given(prediction_rows, reference_rows.filter(bool), reference_rows, st.sampled_from([0, 1, 3, 100]))
def test_the_fast_code_agrees_with_the_transcription(predictions, nodules, excluded, cap):
    series = ("a", "b", "c", "d")
    _, curve = froc_of(predictions, nodules, excluded, series, MatchRule(max_marks=cap))
    points = transcribed(predictions, nodules, excluded, series, cap)
    assert np.stack([curve.fps_per_scan, curve.sensitivity], axis=1) == pytest.approx(np.array(points))
    for rate in RATES:
        assert at(curve, rate) == pytest.approx(read_off(points, rate))


# --- bootstrap ----------------------------------------------------------------------------------------------------


def random_case(seed, scans=12, quality=1.0):
    """Outcomes with and without nodules in a scan, with ties."""
    rng = np.random.default_rng(seed)
    nodules = [(f"s{rng.integers(scans)}", 50.0 * n, 0, 0, 8) for n in range(15)]
    marks = [(*row[:4], round(rng.normal(quality, 1), 1)) for row in nodules if rng.random() < 0.8]
    marks += [(f"s{rng.integers(scans)}", -FAR, 50.0 * n, 0, round(rng.normal(0, 1), 1)) for n in range(60)]
    return marks, nodules, [f"s{n}" for n in range(scans)]


@pytest.mark.parametrize("interpolation", ["luna16", "nearest"])
def test_resamples_equal_the_curve_of_the_repeated_scans(interpolation):
    """Each resample is what one gets by writing the drawn scans out, copies under names of their own."""
    marks, nodules, series = random_case(1)
    matches, _ = froc_of(marks, nodules, series=series)
    counts = draw_scans(len(series), 20, seed=3)
    got = resampled_sensitivities(outcomes_of(matches), counts, np.array(RATES), interpolation)
    for row, values in zip(counts, got, strict=True):
        copies = {name: [f"{name}.{n}" for n in range(count)] for name, count in zip(series, row, strict=True)}
        written = [[(c, *m[1:]) for m in rows for c in copies[m[0]]] for rows in (marks, nodules)]
        _, curve = froc_of(*written, series=[c for some in copies.values() for c in some])
        assert values.tolist() == pytest.approx([at(curve, rate, interpolation) for rate in RATES])


def test_resamples_draw_as_many_scans_as_there_are_and_repeat_with_the_seed():
    counts = draw_scans(9, 50, seed=0)
    assert (counts.sum(axis=1) == 9).all()
    assert (counts == draw_scans(9, 50, seed=0)).all()
    assert (counts != draw_scans(9, 50, seed=1)).any()


def test_a_resample_without_nodules_is_left_out():
    # Two scans, one nodule in the first: a resample of the second twice has no sensitivity.
    matches, _ = froc_of([("a", 0, 0, 0, 0.9)], [("a", 0, 0, 0, 8)], series=("a", "b"))
    counts = np.array([[2, 0], [0, 2], [1, 1]], dtype=np.int32)
    got = resampled_sensitivities(outcomes_of(matches), counts, np.array(RATES))
    assert np.isnan(got[1]).all()
    assert (got[[0, 2]] == 1).all()
    result = evaluate_matches(matches)
    assert 0 < result.resamples_used < 1000
    assert result.cpm_interval == (1, 1)


def test_the_interval_is_that_of_the_official_order_statistics():
    # 1,000 values 0..999: floor(0.025 * 1000) = 25 and floor(0.975 * 1000) = 975.
    assert interval(np.random.default_rng(0).permutation(1000.0 * np.arange(1000)) / 1000) == (25, 975)
    assert interval(np.array([np.nan, 2.0])) == (2, 2)


def test_the_interval_covers_the_figure_and_one_scan_has_none():
    marks, nodules, series = random_case(2)
    matches, _ = froc_of(marks, nodules, series=series)
    result = evaluate_matches(matches)
    low, high = result.cpm_interval
    assert low < result.cpm < high
    assert all(point.interval[0] <= point.sensitivity <= point.interval[1] for point in result.points)
    alone, _ = froc_of([("a", 0, 0, 0, 0.9)], [("a", 0, 0, 0, 8)])
    assert evaluate_matches(alone).cpm_interval is None


def test_comparing_predictions_with_themselves_finds_nothing():
    marks, nodules, series = random_case(3)
    matches, _ = froc_of(marks, nodules, series=series)
    same = compare_matches(matches, matches, EvaluationConfig(resamples=200))
    assert (same.cpm, same.interval, same.p) == (0, (0, 0), 1)


def test_a_clear_difference_is_found_and_has_a_sign():
    marks, nodules, series = random_case(4, quality=2.5)
    worse = [(*mark[:4], -mark[4]) for mark in marks]
    good, _ = froc_of(marks, nodules, series=series)
    bad, _ = froc_of(worse, nodules, series=series)
    counts = draw_scans(len(series), 500, seed=0)
    found = compare(outcomes_of(good), outcomes_of(bad), counts)
    assert found.cpm > 0.3
    assert found.interval[0] > 0
    assert found.p == pytest.approx(2 / 501)  # no resample on the other side: 2 (0 + 1) / (500 + 1)
    turned = compare(outcomes_of(bad), outcomes_of(good), counts)
    assert turned.cpm == -found.cpm
