"""The figures of the data-efficiency experiment: credits that average to the CPM, and cases computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.froc import RATES, Outcomes, froc_curve, sensitivity_at
from gcnn_cli.experiment.curve_figures import make_cells, make_strata
from gcnn_cli.experiment.curve_files import curve_text
from gcnn_cli.experiment.factors import LIMIT, fitted
from gcnn_cli.experiment.measures import MEASURES, nodule_credits
from gcnn_cli.experiment.results import describe_experiment
from gcnn_cli.training.validation import auc

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(scores, scores, st.integers(1, 3))
def test_credits_are_the_froc_nodule_by_nodule(nodules, false, scans):
    outcomes = Outcomes(
        np.array([*nodules, *false]),
        np.zeros(len(nodules) + len(false), dtype=np.intp),
        np.array([True] * len(nodules) + [False] * len(false)),
        np.array([len(nodules)] + [0] * (scans - 1)),
    )
    curve = froc_curve(outcomes)
    at_rates = sensitivity_at(curve.fps_per_scan, curve.sensitivity, np.array(RATES))
    cpm, at_one, area = nodule_credits(np.array(nodules), np.array(false), scans).mean(axis=1)
    assert cpm == pytest.approx(at_rates.mean())
    assert at_one == pytest.approx(at_rates[RATES.index(1.0)])
    labels = np.array([1] * len(nodules) + [0] * len(false))
    assert area == pytest.approx(auc(np.array([*nodules, *false]), labels))


@settings(max_examples=50, deadline=None)
@given(scores, st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 3)), min_size=1, max_size=8))
def test_a_weighted_candidate_counts_as_often_as_it_was_drawn(nodules, drawn):
    false, counts = np.array([x for x, _ in drawn]), np.array([n for _, n in drawn])
    weighted = nodule_credits(np.array(nodules), false, np.array([2.0]), counts[None].astype(float))[:, 0]
    assert weighted == pytest.approx(nodule_credits(np.array(nodules), np.repeat(false, counts), 2))


TEST = {
    "label": [1, 1, 0, 0, 1],
    "kind": ["stack", "cube", "candidate", "candidate", "transplant"],
    "patient": ["p", "q", "a", "a", "p"],
    "series": ["1", "2", "a", "a", "a"],
}


def result(arm, samples, logits, seed=0, losses=((10, 0.5), (20, 0.4))):
    return {
        "arm": arm, "samples": samples, "seed": seed, "logits": logits, "losses": [list(x) for x in losses],
        "parameters": 1, "pooled_over": "trivial", "seconds": 1.0, "fold": 0, "steps": 20, "precision": "float32",
    }  # fmt: skip


def cells_of(results, context="own surroundings", measure="CPM", tests=None):
    made = make_cells(tests or {0: TEST}, results)
    return {(c.arm, c.samples): c for c in made if (c.context, c.measure) == (context, measure)}


def test_figures_of_a_case_computed_by_hand():
    # One scan, false positives at 1 and 0. Found below them: from 2 FPs on (3 of 7 rates); between: from 1 on (4/7);
    # above: always. Plain at 30: stack below, cube between: (3/7 + 4/7) / 2 = 1/2. Plain at 300: both above: 1.
    # O at 30: stack above, cube between: (1 + 4/7) / 2 = 11/14. The plain curve from 1/2 (30) to 1 (300), straight in
    # log N, is at 11/14 at share 4/7: 10 ** (4/7) times the samples.
    results = [
        result("trivial", 30, [-1, 0.5, 1, 0, 2]),
        result("trivial", 300, [2, 2, 1, 0, 2]),
        result("O", 30, [2, 0.5, 1, 0, 2], losses=((10, 0.4), (20, 0.3))),
    ]
    cells = cells_of(results)
    assert cells["trivial", 30].value == pytest.approx(1 / 2)
    assert cells["O", 30].value == pytest.approx(11 / 14)
    assert cells["O", 30].to_plain == pytest.approx(11 / 14 - 1 / 2)
    assert cells["O", 30].to_tenfold == pytest.approx(11 / 14 - 1)
    assert cells["O", 30].factor == pytest.approx(10 ** (4 / 7))
    assert cells["trivial", 30].factor == pytest.approx(1)
    assert cells["O", 30].steps_to_loss == 10  # plain's lowest, 0.4, is reached at step 10
    assert np.isnan(cells["trivial", 300].to_tenfold)
    # AUC of O: pairs of two nodules and two false ones: 2 > both, 0.5 > 0 only: 3 of 4. At 1 FP both are found.
    assert cells_of(results, measure="AUC")["O", 30].value == pytest.approx(3 / 4)
    assert cells_of(results, measure="at 1 FP")["O", 30].value == 1
    assert [c.value for c in cells_of(results, "transplants").values()] == [1, 1, 1]


def test_a_score_beyond_the_plain_curve_is_marked():
    plain = [result("trivial", 30, [-1, -1, 1, 0, 2]), result("trivial", 300, [0.5, 0.5, 1, 0, 2])]
    cells = make_cells({0: TEST}, [*plain, result("O", 30, [2, 2, 1, 0, 2]), result("O", 300, [-2, -2, 1, 0, 2])])
    text = curve_text(cells, [], describe_experiment({0: TEST}, []))
    lines = text.partition("**Transplants**")[0].splitlines()
    rows = {tuple(row.split(" | ")[:3]): row.split(" | ") for row in lines if " | CPM | " in row}
    assert rows["| 30", "O", "CPM"][6].startswith("≥10.0 (≥10.0 to ")
    assert rows["| 300", "O", "CPM"][6].startswith("≤0.1 (≤0.1 to ")
    assert ("| 30", "trivial", "CPM") not in rows


def test_arms_of_other_seeds_are_not_compared():
    """Training samples depend on the seed: a difference between seeds would mix in a difference of samples."""
    results = [result("trivial", 30, [-1, -1, 1, 0, 2], seed=s) for s in (0, 1)]
    results += [result("trivial", 300, [2, 2, 1, 0, 2], seed=s) for s in (0, 1)]
    results += [result("O", 30, [2, 2, 1, 0, 2], seed=s) for s in (0, 2)]
    cells = cells_of(results)
    assert np.isnan([cells["O", 30].to_plain, cells["O", 30].to_tenfold, cells["O", 30].factor]).all()
    assert cells["trivial", 30].to_tenfold == pytest.approx(3 / 7 - 1)


def test_an_arm_of_fewer_seeds_is_compared_with_the_plain_cnn_of_the_same():
    """Seed 1 of the plain CNN finds nothing; O was trained with seed 0 alone, where both find everything."""
    results = [result("trivial", 30, logits, seed=n) for n, logits in enumerate([[2, 2, 1, 0, 2], [-1, -1, 1, 0, 2]])]
    cell = cells_of([*results, result("O", 30, [2, 2, 1, 0, 2])])["O", 30]
    assert (cell.to_plain, cell.to_plain_interval) == (0, (0, 0))


def test_intervals_include_patients_scans_and_seeds():
    """Two patients, of whom one is always found and one never: drawn alone, either decides; and so do two seeds."""
    found = [2, -1, 1, 0, 2]
    low, high = cells_of([result("O", 30, found)])["O", 30].interval
    assert (low, high) == pytest.approx((3 / 7, 1))
    both = [2, 2, 1, 0, 2], [-1, -1, 1, 0, 2]
    low, high = cells_of([result("O", 30, logits, seed=n) for n, logits in enumerate(both)])["O", 30].interval
    assert (low, high) == pytest.approx((3 / 7, 1))
    # Two scans of two patients: the nodules score above all of the first's candidates and below the second's. Both
    # scans drawn: 2 of 4 candidates are above, admitted from 1 FP/scan on. The first twice: none is. The second
    # twice: 4 are above, of which 2 FP/scan admit as many.
    test = {
        "label": [1, 1, 0, 0, 0, 0], "kind": ["stack", "stack", *["candidate"] * 4],
        "patient": ["p", "p", "a", "a", "b", "b"], "series": ["1", "1", "a", "a", "b", "b"],
    }  # fmt: skip
    (cell,) = cells_of([result("O", 30, [5, 5, 1, 2, 8, 9])], tests={0: test}).values()
    assert cell.value == pytest.approx(4 / 7)
    assert cell.interval == pytest.approx((3 / 7, 1))


def test_arms_are_compared_in_the_same_draws():
    """Two arms with the same scores differ by nothing in every resample, however wide their intervals are."""
    results = [result(arm, 30, [2, -1, 1, 0, 2], seed=s) for arm in ("trivial", "O") for s in (0, 1)]
    cell = cells_of(results)["O", 30]
    assert cell.interval[1] - cell.interval[0] > 0.5
    assert cell.to_plain_interval == (0, 0)


def test_ten_times_the_samples_are_reached_as_often_as_resampled():
    results = [result("trivial", 300, [2, -1, 1, 0, 2]), result("O", 30, [2, -1, 1, 0, 2])]
    results += [result("trivial", 30, [-1, -1, 1, 0, 2]), result("wide", 30, [-1, -1, 1, 0, 2])]
    cells = cells_of(results)
    assert cells["O", 30].reaches_tenfold == 1  # equal in every resample
    # `wide` finds neither; plain at 300 finds one of two patients, who is missing from a quarter of the resamples.
    assert cells["wide", 30].reaches_tenfold == pytest.approx(0.25, abs=0.05)


def test_power_laws_give_the_factor_that_they_were_made_with():
    counts = np.array([30.0, 300, 3000])
    plain, better = 1 - 2 * counts**-0.4, 1 - 2 * (7 * counts) ** -0.4  # as good as plain with 7 times the samples
    assert fitted(300, counts, better, counts, plain) == pytest.approx(7)
    assert fitted(30, counts, plain, counts, plain) == pytest.approx(1)
    flat = np.full(3, 0.5)
    assert fitted(30, counts, flat, counts, flat) == 1
    assert fitted(30, counts, better, counts, flat) == LIMIT
    assert fitted(30, counts, flat - 0.1, counts, flat) == 1 / LIMIT


def test_budgets_are_measured_beside_the_end():
    results = [
        {**result("trivial", 30, [2, 2, 1, 0, 2]), "budgets": {"60": [-1, -1, 1, 0, 2]}, "budget_steps": {"60": 10}},
        {**result("O", 30, [2, 2, 1, 0, 2]), "budgets": {"60": [2, 2, 1, 0, 2]}, "budget_steps": {"60": 5}},
        {**result("wide", 30, [2, 2, 1, 0, 2]), "budgets": {}, "budget_steps": {}},  # its first validation was later
        {**result("trivial+O", 30, [2, 2, 1, 0, 2]), "pooled_over": "O", "budgets": {}},
    ]
    cells = [c for c in make_cells({0: TEST}, results) if c.context == "own surroundings"]
    ends = {(arm, ""): 0 for arm in ("trivial", "O", "wide", "trivial+O")}
    assert {(c.arm, c.budget): c.to_plain for c in cells if c.measure == "CPM"} == pytest.approx(
        {**ends, ("trivial", "60"): 0, ("O", "60"): 4 / 7}
    )
    assert {(c.arm, c.steps) for c in cells if c.budget} == {("trivial", 10), ("O", 5)}
    assert "after 60 CPU seconds" in curve_text(cells, [], describe_experiment({0: TEST}, []))


def test_a_transplant_is_drawn_with_its_scan():
    """All are found in one scan and none in the other: which scans there are decides, not which donors."""
    donors, scans = [f"d{n}" for n in range(20)], ("a", "b")
    rows = [("transplant", donor, scan, 1) for scan in scans for donor in donors]
    rows += [("candidate", scan, scan, 0) for scan in scans]
    test = {name: [row[n] for row in rows] for n, name in enumerate(("kind", "patient", "series", "label"))}
    logits = [2.0 if series == "a" else -2.0 for kind, _, series, _ in rows if kind == "transplant"] + [0.0, 0.0]
    (cell,) = [c for c in make_cells({0: test}, [result("O", 30, logits)]) if c.measure == "AUC"]
    assert cell.value == 0.5
    assert cell.interval == (0, 1)


def test_a_fold_without_transplants_is_left_out_of_their_figures():
    chunks = {**TEST, "kind": ["chunk", "chunk", "candidate", "candidate", "chunk"]}
    results = [result("O", 30, [2, 2, 1, 0, 2]), {**result("O", 30, [2, 2, 1, 0, 2], seed=1), "fold": 1}]
    cells = {(c.context, c.measure): c for c in make_cells({0: TEST, 1: chunks}, results)}
    assert (cells["own surroundings", "CPM"].seeds, cells["transplants", "CPM"].seeds) == (2, 1)
    assert cells["transplants", "CPM"].value == 1


def test_strata_compare_arms_over_the_seeds_that_all_of_them_have():
    test = {**TEST, "diameter_mm": [4.0, 12.0, None, None, 7.0], "place": ["", "", "", "", "wall"]}
    results = [result("trivial", 30, [2, 2, 1, 0, 2], seed=seed) for seed in (0, 1)]
    results += [result("O", 30, [2, 2, 1, 0, 2])]
    results[1]["logits"] = [-2, -2, 1, 0, -2]
    strata = make_strata({0: test}, results)
    assert {s.values for s in strata} == {(1, 1, 1)}  # without trivial's seed 1


def test_strata_are_measured_by_size_and_place():
    test = {**TEST, "diameter_mm": [4.0, 12.0, None, None, 7.0], "place": ["", "", "", "", "wall"]}
    strata = make_strata({0: test}, [result("O", 30, [-1, 2, 1, 0, 2])])
    at_one = MEASURES.index("at 1 FP")
    found = {(s.context, s.part): (s.nodules, s.values[at_one]) for s in strata}
    assert found == {
        ("own surroundings", "0-6 mm"): (1, 0), ("own surroundings", "from 10 mm"): (1, 1),
        ("transplants", "6-10 mm"): (1, 1), ("transplants", "wall"): (1, 1),
    }  # fmt: skip
    assert "0-6 mm (1)" in curve_text([], strata, describe_experiment({0: TEST}, []))


def test_seeds_are_averaged_and_their_spread_reported():
    results = [result("trivial", 30, [2, 2, 1, 0, 2]), result("trivial", 30, [-1, -1, 1, 0, 2], seed=1)]
    cell = cells_of(results)["trivial", 30]
    assert (cell.seeds, cell.value) == (2, pytest.approx((1 + 3 / 7) / 2))
    assert cell.deviation == pytest.approx(np.std([1, 3 / 7], ddof=1))
    with pytest.raises(InputError, match="no finished training"):
        make_cells({0: TEST}, [])
