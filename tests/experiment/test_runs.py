"""The data-efficiency experiment: credits that average to the CPM, known figures, and a killed smoke run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.evaluation.froc import RATES, Outcomes, froc_curve, sensitivity_at
from gcnn_cli.experiment.arms import make_arms
from gcnn_cli.experiment.curve_figures import make_cells, make_strata
from gcnn_cli.experiment.curve_files import curve_text
from gcnn_cli.experiment.factors import LIMIT, fitted
from gcnn_cli.experiment.measures import MEASURES, nodule_credits
from gcnn_cli.experiment.pace import read_pace, steps_within
from gcnn_cli.experiment.results import read_results
from gcnn_cli.experiment.runs import Experiment, is_done, plan_runs
from gcnn_cli.experiment.splits import CANDIDATES, Split, split_samples, splits_by_fold, write_test
from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.training.loop import TrainConfig
from gcnn_cli.training.recipe import Recipe
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


def test_every_arm_is_planned_at_every_seed():
    arms = make_arms(("trivial", "O"), NetworkConfig())
    runs = plan_runs(arms, (300, 30), 2)
    assert [run.name for run in runs[:4]] == ["trivial-30-0", "O-30-0", "trivial-300-0", "O-300-0"]
    assert len({run.name for run in runs}) == 8
    assert runs[0].result_names() == [("trivial-30-0", "trivial"), ("trivial+O-30-0", "O")]
    with pytest.raises(UsageError, match="unknown arm 'K'"):
        make_arms(("K",), NetworkConfig())


TEST = {
    "label": [1, 1, 0, 0, 1],
    "kind": ["stack", "cube", "candidate", "candidate", "transplant"],
    "patient": ["p", "q", "a", "a", "p"],
    "series": ["1", "2", "a", "a", "a"],
}


def sample(kind, label, patient="p"):
    return Sample(lambda: np.zeros((8, 8, 8), np.int16), 8, label, kind, patient, "s", 0, 8)


def result(arm, samples, logits, seed=0, losses=((10, 0.5), (20, 0.4))):
    return {
        "arm": arm, "samples": samples, "seed": seed, "logits": logits, "losses": [list(x) for x in losses],
        "parameters": 1, "pooled_over": "trivial", "seconds": 1.0, "fold": 0, "steps": 20,
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
    text = curve_text(cells, [], {"command": "", "data": ""})
    lines = text.partition("**Transplants**")[0].splitlines()
    rows = {tuple(row.split(" | ")[:3]): row.split(" | ") for row in lines if " | CPM | " in row}
    assert rows["| 30", "O", "CPM"][6].startswith("≥10.0 (≥10.0 to ")
    assert rows["| 300", "O", "CPM"][6].startswith("≤0.1 (≤0.1 to ")
    assert ("| 30", "trivial", "CPM") not in rows


def test_arms_of_other_seeds_are_not_compared():
    """Training samples depend on the seed: a difference between seeds would mix in a difference of samples."""
    results = [result("trivial", 30, [-1, -1, 1, 0, 2], seed=s) for s in (0, 1)]
    results += [result("trivial", 300, [2, 2, 1, 0, 2], seed=s) for s in (0, 1)]
    cells = cells_of([*results, result("O", 30, [2, 2, 1, 0, 2])])
    assert np.isnan([cells["O", 30].to_plain, cells["O", 30].to_tenfold, cells["O", 30].factor]).all()
    assert cells["trivial", 30].to_tenfold == pytest.approx(3 / 7 - 1)


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
    assert fitted(30, counts, better, counts, flat) == LIMIT
    assert fitted(30, counts, flat - 0.1, counts, flat) == 1 / LIMIT


def test_budgets_are_measured_beside_the_end():
    results = [
        {**result("trivial", 30, [2, 2, 1, 0, 2]), "budgets": {"60": [-1, -1, 1, 0, 2]}},
        {**result("O", 30, [2, 2, 1, 0, 2]), "budgets": {"60": [2, 2, 1, 0, 2]}},
    ]
    cells = [c for c in make_cells({0: TEST}, results) if c.context == "own surroundings"]
    assert {(c.arm, c.budget): c.to_plain for c in cells if c.measure == "CPM"} == pytest.approx(
        {("trivial", ""): 0, ("O", ""): 0, ("trivial", "60"): 0, ("O", "60"): 4 / 7}
    )
    assert "after 60 CPU seconds" in curve_text(cells, [], {"command": "", "data": ""})


def test_the_pace_is_measured_once_and_read_again(tmp_path):
    arms = make_arms(("trivial", "O"), NetworkConfig(side=8, pool_after=(1,)))
    config = TrainConfig(network=NetworkConfig(side=8, pool_after=(1,)), input=InputSpec(side=8), batch_size=2)
    pace = read_pace(tmp_path, arms, config)
    assert min(pace.values()) > 0
    assert read_pace(tmp_path, arms, config) == pace
    assert [steps_within(s, 0.5, TrainConfig(validate_every=20)) for s in (1, 10, 29.9, 30)] == [20, 20, 40, 60]
    (tmp_path / "pace.json").write_text('{"trivial": 0, "O": "x"}')
    with pytest.raises(InputError, match=r"pace.json: damaged"):
        read_pace(tmp_path, arms, config)


def test_strata_are_measured_by_size_and_place():
    test = {**TEST, "diameter_mm": [4.0, 12.0, None, None, 7.0], "place": ["", "", "", "", "wall"]}
    strata = make_strata({0: test}, [result("O", 30, [-1, 2, 1, 0, 2])])
    at_one = MEASURES.index("at 1 FP")
    found = {(s.context, s.part): (s.nodules, s.values[at_one]) for s in strata}
    assert found == {
        ("own surroundings", "0-6 mm"): (1, 0), ("own surroundings", "from 10 mm"): (1, 1),
        ("transplants", "6-10 mm"): (1, 1), ("transplants", "wall"): (1, 1),
    }  # fmt: skip
    assert "0-6 mm (1)" in curve_text([], strata, {"command": "", "data": ""})


def prepared(held):
    """Samples of twenty patients with cut-outs and transplants, and of a labeled and an unlabeled scan."""
    cutouts = [sample(kind, label, f"p{n}") for n in range(20) for kind, label in (("chunk", 1), ("beside", 0))]
    cutouts += [sample("transplant", 1, f"p{n}") for n in range(20)]
    scans = [sample("candidate", 0, "a") for _ in range(400)]
    return SimpleNamespace(
        training=[s for s in cutouts if s.patient not in held] + scans,
        validation=[s for s in cutouts if s.patient in held] + [replace(s, patient="b", series="b") for s in scans],
    )


def test_with_folds_all_that_is_held_out_is_tested_and_validation_is_taken_from_training():
    split = split_samples(prepared({"p0", "p1", "p2"}), SplitConfig(folds=5, fold=2))
    assert sum(s.kind == "candidate" for s in split.test) == CANDIDATES
    assert {s.patient for s in split.test} == {"p0", "p1", "p2", "b"}
    assert not any("beside" in s.kind for s in split.test)
    of_cutouts = [{s.patient for s in part if s.kind != "candidate"} for part in (split.training, split.validation)]
    assert of_cutouts[0].isdisjoint(of_cutouts[1])
    assert of_cutouts[1]
    assert len(of_cutouts[0] | of_cutouts[1]) == 17
    assert 20 < sum(s.kind == "candidate" for s in split.validation) < 60
    assert len(split.training) + len(split.validation) == len(prepared({"p0", "p1", "p2"}).training)


def test_each_seed_holds_out_the_next_fold():
    asked = []

    def prepare(split):
        asked.append(split.fold)
        return prepared({f"p{split.fold}"})

    split_of = splits_by_fold(prepare, SplitConfig(folds=3, fold=1))
    assert [split_of(seed).fold for seed in (0, 0, 1, 2, 3)] == [1, 1, 2, 3, 1]
    assert asked == [1, 2, 3, 1]


def test_a_test_set_is_not_replaced_by_another(tmp_path):
    split = Split([], [], [sample("stack", 1), sample("candidate", 0)], "a")
    write_test(split, tmp_path)
    before = (tmp_path / "test.json").read_bytes()
    write_test(split, tmp_path)
    with pytest.raises(InputError, match="describes another test set"):
        write_test(Split([], [], [sample("stack", 1, patient="q"), sample("candidate", 0)], "b"), tmp_path)
    assert (tmp_path / "test.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_damaged_files_of_an_experiment_are_named(tmp_path, content):
    split = Split([], [], [sample("stack", 1), sample("candidate", 0)], "a")
    write_test(split, tmp_path)
    (tmp_path / "runs").mkdir()
    path = tmp_path / "runs" / "O-30-0.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="O-30-0.json: missing or damaged"):
        read_results(tmp_path)
    run = plan_runs(make_arms(("O",), NetworkConfig()), (30,), 1)[0]
    with pytest.raises(InputError, match="O-30-0.json: missing or damaged"):
        is_done(run, Experiment(Recipe(), tmp_path, lambda _: split))
    (tmp_path / "test.json").write_bytes(content)
    with pytest.raises(InputError, match="test.json: missing or damaged"):
        write_test(split, tmp_path)


def test_seeds_are_averaged_and_their_spread_reported():
    results = [result("trivial", 30, [2, 2, 1, 0, 2]), result("trivial", 30, [-1, -1, 1, 0, 2], seed=1)]
    cell = cells_of(results)["trivial", 30]
    assert (cell.seeds, cell.value) == (2, pytest.approx((1 + 3 / 7) / 2))
    assert cell.deviation == pytest.approx(np.std([1, 3 / 7], ddof=1))
    with pytest.raises(InputError, match="no finished training"):
        make_cells({0: TEST}, [])


# The smoke version


@pytest.fixture(scope="module")
def data(phantom, tmp_path_factory):
    """Write two labeled scans of two patients and cut-outs of nine, five of them held out."""
    folder = tmp_path_factory.mktemp("curve")
    for name in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        write_phantom(phantom, folder / "data" / name, name=name)
    rng = np.random.default_rng(0)
    for n in range(1, 10):
        hu = np.full((8, 64, 64), -850.0)
        distance = np.linalg.norm(
            (np.indices(hu.shape).T - (3.5, 31.5, 31.5)).T * [[[[1.25]]], [[[1]]], [[[1]]]], axis=0
        )
        hu[distance < 4] = 40
        np.savez(
            folder / "data" / f"LIDC-IDRI-000{n}_R_1.npz",
            hu=np.round(hu + rng.normal(0, 20, hu.shape)).astype(np.int16),
            mask=distance < 4,
            spacing_zyx=np.array([1.25, 1.0, 1.0]),
            centre_zyx=np.array([3.5, 31.5, 31.5]),
        )
    # A checkpoint in the middle of eight steps: time enough to be killed after it.
    (folder / "quick.toml").write_text(QUICK_RECIPE.replace("validate_every = 20", "validate_every = 4"))
    return folder


def arguments(data, out, *options):
    base = ["learning-curve", "--data", data / "data", "--out", out, "--config", data / "quick.toml"]
    held = [part for n in (2, 5, 6, 7, 8) for part in ("--hold-out", f"LIDC-IDRI-000{n}")]
    size = ["--groups", "trivial,D4", "--samples", "4,12", "--seeds", 2, "--steps", 8, "--threads", 1]
    return [str(p) for p in (*base, *held, "--hold-out-share", 0, "--cache", data / "cache", *size, *options)]


def without_time(folder):
    results = {path.name: json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))}
    for content in results.values():
        del content["seconds"]
    return results


@pytest.mark.slow
def test_a_killed_experiment_equals_an_unbroken_one(data, tmp_path):
    whole = CliRunner().invoke(app, arguments(data, tmp_path / "whole"))
    assert whole.exit_code == 0, whole.output
    broken = tmp_path / "broken"
    command = [sys.executable, "-c", "from gcnn_cli.cli import main; main()", *arguments(data, broken)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (
            list(broken.glob("runs/*0.json")) and list(broken.glob("runs/*.checkpoint"))
        ):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert list(broken.glob("runs/*.lock"))  # of a process that has ended
    done = CliRunner().invoke(app, arguments(data, broken))
    assert done.exit_code == 0, done.output
    assert not list(broken.glob("runs/*.lock")) + list(broken.glob("runs/*.checkpoint"))
    results = without_time(tmp_path / "whole")
    assert results == without_time(broken)
    assert len(results) == 2 * 2 * 3  # samples, seeds; plain, plain pooled over O, D4
    assert (tmp_path / "whole" / "curve.csv").read_bytes() == (broken / "curve.csv").read_bytes()
    assert "data factor" in (broken / "curve.md").read_text()
    assert (broken / "curve.png").read_bytes().startswith(b"\x89PNG")
    # Nothing is left to train, tables can be made again, and another recipe is refused.
    before = (broken / "runs" / "D4-4-0.json").stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments(data, broken, "--only-table")).exit_code == 0
    assert (broken / "runs" / "D4-4-0.json").stat().st_mtime_ns == before
    other = CliRunner().invoke(app, arguments(data, broken, "--steps", 9))
    assert other.exit_code == 3
    assert "comes from a different recipe" in other.stderr
    tests, read = read_results(broken)
    test = tests[0]
    assert len(read) == len(results)
    assert {"stack", "candidate", "mark", "transplant"} <= set(test["kind"])
    assert "LIDC-IDRI-0001" not in test["series"]


def test_impossible_experiments_are_refused(data, tmp_path):
    for options, code, text in (
        (["--samples", "many"], 2, "comma-separated numbers"),
        (["--groups", "trivial,Q"], 2, "unknown arm 'Q'"),
        (["--only-table"], 3, "not the folder of an experiment"),
    ):
        done = CliRunner().invoke(app, arguments(data, tmp_path / "none", *options))
        assert done.exit_code == code, done.output
        assert text in done.stderr
