"""The data-efficiency experiment: splits, plans, files, and a killed smoke run."""

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
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.detection.proposals import ProposalConfig
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.experiment.arms import make_arms
from gcnn_cli.experiment.pace import read_pace, steps_within
from gcnn_cli.experiment.results import describe_experiment, read_results
from gcnn_cli.experiment.runs import Experiment, is_done, plan_runs
from gcnn_cli.experiment.splits import MOST, Split, split_samples, splits_by_fold, write_test
from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.training.loop import TrainConfig
from gcnn_cli.training.recipe import Recipe


def test_every_arm_is_planned_at_every_seed():
    arms = make_arms(("trivial", "O"), NetworkConfig())
    runs = plan_runs(arms, (300, 30), 2)
    assert [run.name for run in runs[:4]] == ["trivial-30-0", "O-30-0", "trivial-300-0", "O-300-0"]
    assert len({run.name for run in runs}) == 8
    assert runs[0].result_names() == [("trivial-30-0", "trivial"), ("trivial+O-30-0", "O")]
    with pytest.raises(UsageError, match="unknown arm 'K'"):
        make_arms(("K",), NetworkConfig())


def sample(kind, label, patient="p"):
    return Sample(lambda: np.zeros((8, 8, 8), np.int16), 8, label, kind, patient, "s", 0, 8)


def test_the_pace_is_measured_once_and_read_again(tmp_path):
    arms = make_arms(("trivial", "O"), NetworkConfig(side=8, pool_after=(1,)))
    config = TrainConfig(network=NetworkConfig(side=8, pool_after=(1,)), input=InputSpec(side=8), batch_size=2)
    pace = read_pace(tmp_path, arms, config)
    assert min(pace.values()) > 0
    assert read_pace(tmp_path, arms, config) == pace
    assert [steps_within(s, 0.5, TrainConfig(validate_every=20)) for s in (1, 10, 29.9, 30)] == [0, 20, 40, 60]
    (tmp_path / "pace.json").write_text('{"trivial": 0, "O": "x"}')
    with pytest.raises(InputError, match=r"pace.json: damaged"):
        read_pace(tmp_path, arms, config)


def prepared(held):
    """Samples of twenty patients with cut-outs and transplants, and of a labeled and an unlabeled scan."""
    cutouts = [sample(kind, label, f"p{n}") for n in range(20) for kind, label in (("chunk", 1), ("beside", 0))]
    cutouts += [sample("transplant", 1, f"p{n}") for n in range(20)]
    scans = [sample("candidate", 0, "a") for _ in range(400)]
    return SimpleNamespace(
        training=[s for s in cutouts if s.patient not in held] + scans,
        validation=[s for s in cutouts if s.patient in held] + [replace(s, patient="b", series="b") for s in scans],
        origin=("proposals abc",),
    )


def test_without_folds_a_patient_who_is_watched_is_not_tested():
    """Nor are transplants of the patient's nodules, nor is a patient of a scan watched."""
    samples = prepared({f"p{n}" for n in range(10)})
    samples.validation += [sample("mark", 1, "p3"), sample("stack", 1, "b")]
    split = split_samples(samples, SplitConfig())
    watched = {s.patient for s in split.validation}
    assert watched
    assert watched.isdisjoint({s.patient for s in split.test})
    assert watched.isdisjoint({"p3", "b"})
    assert "transplant" not in {s.kind for s in split.validation}


def test_with_folds_all_that_is_held_out_is_tested_and_validation_is_taken_from_training():
    split = split_samples(prepared({"p0", "p1", "p2"}), SplitConfig(folds=5, fold=2))
    assert sum(s.kind == "candidate" for s in split.test) == MOST["candidate"] == ProposalConfig().kept
    assert {s.patient for s in split.test} == {"p0", "p1", "p2", "b"}
    assert not any("beside" in s.kind for s in split.test)
    of_cutouts = [{s.patient for s in part if s.kind != "candidate"} for part in (split.training, split.validation)]
    assert of_cutouts[0].isdisjoint(of_cutouts[1])
    assert of_cutouts[1]
    assert len(of_cutouts[0] | of_cutouts[1]) == 17
    assert 20 < sum(s.kind == "candidate" for s in split.validation) < 60
    assert len(split.training) + len(split.validation) == len(prepared({"p0", "p1", "p2"}).training)


def test_other_labels_and_other_proposals_make_another_split():
    """The test set may look the same: as many candidates, of the same scans."""
    one, other = prepared({"p0"}), prepared({"p0"})
    other.origin = ("proposals def",)
    folds = SplitConfig(folds=5, fold=2)
    assert split_samples(one, folds).fingerprint == split_samples(prepared({"p0"}), folds).fingerprint
    assert split_samples(one, folds).fingerprint != split_samples(other, folds).fingerprint


@pytest.mark.parametrize("what", ["recipe", "data"])
def test_results_of_two_recipes_make_no_table(tmp_path, what):
    write_test(Split([], [], [sample("stack", 1), sample("candidate", 0)], "a"), tmp_path)
    (tmp_path / "runs").mkdir()
    for seed in (0, 1):
        content = {"arm": "O", "samples": 30, "seed": seed, "logits": [1, 0], "recipe": "r", "data": "d"}
        content[what] += str(seed)
        (tmp_path / "runs" / f"O-30-{seed}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"O-30-0 and O-30-1 come from different {what}"):
        read_results(tmp_path)


def test_samples_of_a_scan_that_several_folds_test_on_count_once():
    scan = {"kind": ["candidate", "candidate"], "series": ["s", "s"], "patient": ["a", "a"]}
    of_fold = {n: {key: [*scan[key], value] for key, value in
                   {"kind": "stack", "series": f"c{n}", "patient": f"p{n}"}.items()} for n in (1, 2)}  # fmt: skip
    about = describe_experiment(of_fold, [])
    assert (about["test"], about["test_scans"]) == ({"candidate": 2, "stack": 2}, 1)


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
        is_done(run, split, Experiment(Recipe(), tmp_path, lambda _: split))
    (tmp_path / "test.json").write_bytes(content)
    with pytest.raises(InputError, match="test.json: missing or damaged"):
        write_test(split, tmp_path)


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
    recipe = QUICK_RECIPE.replace("validate_every = 20", "validate_every = 4")
    # Enough transplants that some are of the patients who are not validated on.
    recipe = recipe.replace("transplants_per_scan = 4", "transplants_per_scan = 12")
    (folder / "quick.toml").write_text(recipe)
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
    tests, read = read_results(broken)
    test = tests[0]
    assert len(read) == len(results)
    assert {"stack", "candidate", "mark", "transplant"} <= set(test["kind"])
    assert "LIDC-IDRI-0001" not in test["series"]


def test_impossible_experiments_are_refused(data, tmp_path):
    for options, code, text in (
        (["--samples", "many"], 2, "comma-separated numbers"),
        (["--budgets", "60,inf"], 2, "comma-separated CPU seconds above 0"),
        (["--budgets", "soon"], 2, "comma-separated CPU seconds above 0"),
        (["--groups", "trivial,Q"], 2, "unknown arm 'Q'"),
        (["--only-table"], 3, "not the folder of an experiment"),
    ):
        done = CliRunner().invoke(app, arguments(data, tmp_path / "none", *options))
        assert done.exit_code == code, done.output
        assert text in done.stderr
