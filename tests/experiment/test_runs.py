"""The data-efficiency experiment: credits that average to the CPM, known figures, and a killed smoke run."""

import json
import os
import signal
import subprocess
import sys
import time

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
from gcnn_cli.experiment.curve_figures import make_cells, nodule_credits
from gcnn_cli.experiment.curve_files import curve_text
from gcnn_cli.experiment.runs import Split, is_done, plan_runs, read_results, write_test
from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.recipe import Recipe

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
    cpm = sensitivity_at(curve.fps_per_scan, curve.sensitivity, np.array(RATES)).mean()
    assert nodule_credits(np.array(nodules), np.array(false), scans).mean() == pytest.approx(cpm)


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
        "parameters": 1, "pooled_over": "trivial", "seconds": 1.0,
    }  # fmt: skip


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
    cells = {(c.arm, c.samples): c for c in make_cells(TEST, results) if c.context == "own surroundings"}
    assert cells["trivial", 30].cpm == pytest.approx(1 / 2)
    assert cells["O", 30].cpm == pytest.approx(11 / 14)
    assert cells["O", 30].to_baseline == pytest.approx(11 / 14 - 1 / 2)
    assert cells["O", 30].to_tenfold == pytest.approx(11 / 14 - 1)
    assert cells["O", 30].data_factor == pytest.approx(10 ** (4 / 7))
    assert cells["trivial", 30].data_factor == pytest.approx(1)
    assert cells["O", 30].steps_to_loss == 10  # plain's lowest, 0.4, is reached at step 10
    # AUC of O: pairs of two nodules and two false ones: 2 > both, 0.5 > 0 only: 3 of 4.
    assert cells["O", 30].auc == pytest.approx(3 / 4)
    assert np.isnan(cells["trivial", 300].to_tenfold)
    assert [c.cpm for c in make_cells(TEST, results) if c.context == "transplants"] == [1, 1, 1]


def test_a_score_beyond_the_plain_curve_is_marked():
    plain = [result("trivial", 30, [-1, -1, 1, 0, 2]), result("trivial", 300, [0.5, 0.5, 1, 0, 2])]
    cells = make_cells(TEST, [*plain, result("O", 30, [2, 2, 1, 0, 2]), result("O", 300, [-2, -2, 1, 0, 2])])
    text = curve_text(cells, {"command": "", "data": ""})
    lines = text.partition("**Transplants**")[0].splitlines()
    rows = {tuple(row.split(" | ")[:2]): row.split(" | ") for row in lines if row.startswith("| 30")}
    assert rows["| 30", "O"][8] == "≥10.0 (≥10.0 to ≥10.0)"
    assert rows["| 300", "O"][8] == "≤0.1 (≤0.1 to ≤0.1)"
    assert rows["| 30", "trivial"][8] == "-"


def test_arms_of_other_seeds_are_not_compared():
    """Training samples depend on the seed: a difference between seeds would mix in a difference of samples."""
    results = [result("trivial", 30, [-1, -1, 1, 0, 2], seed=s) for s in (0, 1)]
    results += [result("trivial", 300, [2, 2, 1, 0, 2], seed=s) for s in (0, 1)]
    made = make_cells(TEST, [*results, result("O", 30, [2, 2, 1, 0, 2])])
    cells = {(c.arm, c.samples): c for c in made if c.context == "own surroundings"}
    assert np.isnan([cells["O", 30].to_baseline, cells["O", 30].to_tenfold, cells["O", 30].data_factor]).all()
    assert cells["trivial", 30].to_tenfold == pytest.approx(3 / 7 - 1)


def test_intervals_include_the_choice_of_candidates():
    """Nodules score between two candidates; resampled, both are below (CPM 1), both above (3/7), or one each (4/7)."""
    low, high = make_cells(TEST, [result("O", 30, [0.5, 0.5, 1, 0, 2])])[0].interval
    assert (low, high) == pytest.approx((3 / 7, 1))


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
        is_done(run, split, Recipe(), tmp_path)
    (tmp_path / "test.json").write_bytes(content)
    with pytest.raises(InputError, match="test.json: missing or damaged"):
        write_test(split, tmp_path)


def test_seeds_are_averaged_and_their_spread_reported():
    results = [result("trivial", 30, [2, 2, 1, 0, 2]), result("trivial", 30, [-1, -1, 1, 0, 2], seed=1)]
    cell = make_cells(TEST, results)[0]
    assert (cell.seeds, cell.cpm) == (2, pytest.approx((1 + 3 / 7) / 2))
    assert cell.seed_deviation == pytest.approx(np.std([1, 3 / 7], ddof=1))
    with pytest.raises(InputError, match="no finished training"):
        make_cells(TEST, [])


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
    assert "comes from different data or a different recipe" in other.stderr
    test, read = read_results(broken)
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
