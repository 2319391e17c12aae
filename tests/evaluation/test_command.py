"""`gcnn evaluate --froc` from outside: what it prints, writes and refuses."""

import csv
import dataclasses
import json

import pytest
import torch
from conftest import make_network
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.evaluation.leakage import find_leakage
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.proposal_weights import load_proposal_model, save_proposal_model
from gcnn_cli.network.weights import TrainedModel, load_model, save_model
from gcnn_cli.phantom import write_phantom

REFERENCE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
HEADER = "seriesuid,coordX,coordY,coordZ,probability\n"


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, ["evaluate", "--froc", *map(str, arguments)])


@pytest.fixture
def tables(tmp_path):
    """Six scans '001' to '006', a nodule in the first five, found at falling scores among false positives."""
    names = [f"{n:03}" for n in range(1, 7)]
    contents = {
        "annotations": REFERENCE + "".join(f"{name},0,0,0,8\n" for name in names[:5]),
        "excluded": REFERENCE + "001,50,0,0,-1\n",
        "series": "\n".join(names) + "\n",
        "predictions": HEADER
        + "".join(f"{name},1,0,0,{0.95 - 0.1 * n:.2f}\n{name},99,0,0,0.{n}5\n" for n, name in enumerate(names[:5]))
        + "001,50,0,0,0.99\n",
    }
    for name, text in contents.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return {name: tmp_path / f"{name}.csv" for name in contents}


def options(tables, *names):
    return [part for name in names or tables for part in (f"--{name}", tables[name])]


def test_tables_alone_are_enough(run, tables, tmp_path):
    out = tmp_path / "out"
    done = run(*options(tables), "--out", out, "--bootstraps", 200)
    assert done.exit_code == 0, done.output
    assert "rule: LUNA16: at most 100 marks" in done.stdout
    assert "scans: 6 (1 without nodules, 1 without marks); nodules: 5" in done.stdout
    assert "leakage not checked" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == [
        "false_positives.csv", "froc.csv", "froc.json", "froc.png", "missed.csv",
    ]  # fmt: skip
    report = json.loads((out / "froc.json").read_text())
    # The excluded place takes its mark; nodules at .95 .85 .75 .65 .55, false positives at .05 .15 .25 .35 .45: CPM 1.
    assert report["cpm"] == 1
    assert report["counts"]["ignored"] == 1
    assert report["rule"]["name"].startswith("LUNA16")
    rows = list(csv.DictReader((out / "false_positives.csv").read_text().splitlines()))
    assert [row["probability"] for row in rows] == ["0.45", "0.35", "0.25", "0.15", "0.05"]
    assert (out / "froc.png").read_bytes().startswith(b"\x89PNG")


def test_stdout_holds_nothing_but_the_json(run, tables):
    done = run(*options(tables), "--json", "--bootstraps", 100)
    report = json.loads(done.stdout)
    assert len(report["operating_points"]) == 7
    assert report["bootstrap"]["seed"] == 0
    assert json.loads(run(*options(tables), "--json", "--bootstraps", 100).stdout) == report


def test_without_resamples_a_difference_has_no_interval(run, tables):
    arguments = (*options(tables), "--compare", tables["predictions"], "--bootstraps", 0)
    done = run(*arguments, "--json")
    assert json.loads(done.stdout)["comparison"] | {"test": ""} == {
        "cpm_difference": 0, "interval": None, "p": None, "test": "",
    }  # fmt: skip
    assert "CPM difference: +0.000\n" in run(*arguments).stdout


def test_froc_is_the_default(tables):
    runner = CliRunner()
    arguments = [*map(str, options(tables)), "--json", "--bootstraps", "0"]
    named, default = (runner.invoke(app, ["evaluate", *flag, *arguments]) for flag in (["--froc"], []))
    assert named.exit_code == default.exit_code == 0
    assert named.stdout == default.stdout


def test_missed_nodules_are_those_not_found_within_one_false_positive_per_scan(run, tables, tmp_path):
    tables["annotations"].write_text(tables["annotations"].read_text() + "006,0,0,0,5\n")
    assert run(*options(tables), "--out", tmp_path / "out").exit_code == 0
    (row,) = csv.DictReader((tmp_path / "out" / "missed.csv").read_text().splitlines())
    assert (row["seriesuid"], row["diameter_mm"], row["probability"]) == ("006", "5.0000", "")


def test_comparing_with_other_predictions(run, tables, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(HEADER + "001,99,0,0,0.9\n")
    done = run(*options(tables), "--compare", other, "--json")
    assert json.loads(done.stdout)["comparison"]["cpm_difference"] == 1
    assert "paired bootstrap" in run(*options(tables), "--compare", other).stdout


def test_reports_that_end_at_a_threshold_are_named_in_a_comparison_too(run, labelled, tmp_path):
    out, truth = tmp_path / "out", labelled / "data" / "annotations.csv"
    assert run("--data", labelled / "data", "--model", labelled / "clean.safetensors", "--out", out).exit_code == 0
    (whole,) = (out / "detections").glob("*.json")
    report = json.loads(whole.read_text())
    report["threshold"] = 0.5
    cut = tmp_path / "cut.nodules.json"
    cut.write_text(json.dumps(report))
    done = run("--predictions", whole, "--annotations", truth, "--compare", cut)
    assert done.exit_code == 0, done.output
    assert "cut.nodules.json: the reports hold nodules from probability 0.5 on" in done.stderr
    assert "the curve ends there" not in run("--predictions", whole, "--annotations", truth).stderr
    compared = json.loads(run("--predictions", whole, "--annotations", truth, "--compare", cut, "--json").stdout)
    assert compared["comparison"]["p"] is compared["comparison"]["interval"] is None  # one scan says nothing of chance


def test_calibration_is_measured_on_every_mark(run, tables, tmp_path):
    done = run(*options(tables), "--calibrate", "--json", "--max-marks", 1)
    study = json.loads(done.stdout)["calibration"]
    assert sum(b["marks"] for b in study["bins"]) == 10  # 11 marks, one in an excluded place, none capped
    assert run(*options(tables), "--calibrate", "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "reliability.png").is_file()


def test_nothing_is_replaced_unasked(run, tables, tmp_path):
    arguments = (*options(tables), "--out", tmp_path / "out", "--bootstraps", 0)
    assert run(*arguments).exit_code == 0
    again = run(*arguments)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert run(*arguments, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--predictions", "p.csv"], 2, "needs --annotations"),
        (["--annotations", "a.csv"], 2, "go with --predictions"),
        (["--predictions", "p.csv", "--data", "d"], 2, "give one of them"),
        (["--resume"], 2, "--resume continues detections in --out"),
        (["--save-calibrated", "w.safetensors"], 2, "needs --calibrate"),
        (["--predictions", "nowhere.csv", "--annotations", "a.csv"], 3, "nowhere.csv: no such file"),
        (["--hit-radius", "-1"], 2, "--hit-radius must be above 0"),
        (["--data", "nowhere"], 3, "nowhere: no such folder"),
        (["--cpm", "best"], 2, "best"),
    ],
)
def test_refusals_have_their_codes(run, arguments, code, text):
    done = run(*arguments)
    assert done.exit_code == code, done.output
    assert text in done.stderr
    assert done.stdout == ""


def test_predictions_for_another_scan_are_named(run, tables):
    tables["predictions"].write_text(HEADER + "1,0,0,0,0.5\n")
    done = run(*options(tables))
    assert done.exit_code == 3
    assert "predictions for series 1," in done.stderr
    assert run(*options(tables), "--allow-unknown").exit_code == 0


def test_nodules_of_other_scans_are_left_out_with_a_remark(run, tables):
    tables["series"].write_text("001\n002\n")
    tables["predictions"].write_text(HEADER + "001,0,0,0,0.5\n")
    done = run(*options(tables))
    assert "nodules: 2, hit by no mark: 1" in done.stdout
    assert "3 of 5 nodules lie in scans that are not listed" in done.stderr


def test_missing_tables_are_remarked(run, tables):
    done = run(*options(tables, "predictions", "annotations"))
    assert "no --series" in done.stderr
    assert "no --excluded" in done.stderr


# --- detection in labeled scans ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(phantom, tmp_path_factory):
    """A folder with one labelled phantom and weights that were trained on another scan of that name."""
    folder = tmp_path_factory.mktemp("labelled")
    write_phantom(phantom, folder / "data")
    for name, provenance in (("clean", {"training_series": ["other"]}), ("leaky", {"training_series": ["thorax"]})):
        network = make_network("O")
        with torch.no_grad():
            network.linear.weight.neg_()  # these random weights would rank nodules below the rest
        model = TrainedModel(name, network, InputSpec(spacing_mm=2.0, side=8), Calibration(), provenance)
        save_model(model, folder / f"{name}.safetensors")
    return folder


def test_a_labelled_folder_is_searched_evaluated_and_resumed(run, labelled, tmp_path):
    out, calibrated = tmp_path / "out", tmp_path / "calibrated.safetensors"
    arguments = ("--data", labelled / "data", "--model", labelled / "clean.safetensors", "--out", out)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    report = json.loads((out / "froc.json").read_text())
    assert (report["counts"]["scans"], report["counts"]["nodules"]) == (1, 7)
    assert report["cpm_interval"] is None  # one scan says nothing of chance
    assert report["sources"]["weights"]["name"] == "clean"
    detections = out / "detections" / "thorax.nodules.json"
    before = detections.stat().st_mtime_ns
    again = run(*arguments, "--resume")
    assert again.exit_code == 0, again.output
    assert detections.stat().st_mtime_ns == before
    assert json.loads((out / "froc.json").read_text()) == report
    # The same detections as files: one report, its folder, or a table of them.
    truth = labelled / "data" / "annotations.csv"
    for predictions in (detections, out / "detections"):
        same = json.loads(run("--predictions", predictions, "--annotations", truth, "--json").stdout)
        assert same["operating_points"] == report["operating_points"]
    assert not calibrated.exists()


def test_weights_keep_the_map_and_the_operating_points(run, labelled, tmp_path):
    path = tmp_path / "calibrated.safetensors"
    out = tmp_path / "out"
    weights = labelled / "clean.safetensors"
    done = run("--data", labelled / "data", "--model", weights, "--out", out, "--calibrate", "--save-calibrated", path)
    assert done.exit_code == 0, done.output
    study = json.loads((out / "froc.json").read_text())["calibration"]
    before, after = load_model(str(weights)).calibration, load_model(str(path)).calibration
    assert after.slope == pytest.approx(study["platt"]["slope"] * before.slope)
    assert after.offset == pytest.approx(study["platt"]["slope"] * before.offset + study["platt"]["offset"])
    assert after.threshold == after.threshold_at(1.0)


def test_scans_that_were_trained_on_are_reported_and_refused_with_strict(run, labelled):
    arguments = ("--data", labelled / "data", "--model", labelled / "leaky.safetensors", "--bootstraps", 0)
    done = run(*arguments)
    assert done.exit_code == 0
    assert "warning: the training data holds 1 of the evaluated series and 0 of the patients (thorax)" in done.stderr
    refused = run(*arguments, "--strict")
    assert refused.exit_code == 3
    assert refused.stdout == ""
    assert "--strict: the training data holds 1 of the evaluated series" in refused.stderr


def test_only_weights_that_made_the_predictions_are_credited_and_checked(run, labelled, tables, tmp_path, monkeypatch):
    """The variable names the weights of detection; a file of predictions may come from any."""
    clean, leaky = labelled / "clean.safetensors", labelled / "leaky.safetensors"
    monkeypatch.setenv("GCNN_MODEL", str(clean))
    done = run(*options(tables), "--strict")
    assert done.exit_code == 3
    assert "leakage not checked" in done.stderr
    assert run(*options(tables), "--strict", "--model", clean).exit_code == 0  # the user's word
    out = tmp_path / "out"
    assert run("--data", labelled / "data", "--model", leaky, "--out", out).exit_code == 0
    detections = ("--predictions", out / "detections", "--annotations", labelled / "data" / "annotations.csv")
    refused = run(*detections, "--model", clean)
    assert (refused.exit_code, refused.stderr.count("\n")) == (3, 1)
    assert "made with the weights" in refused.stderr
    assert "1 of the evaluated series" in run(*detections, "--model", leaky).stderr
    assert "leakage not checked" in run(*detections).stderr


def test_the_proposal_networks_training_data_count_too(run, labelled, tmp_path):
    """A scan in which the proposal network has learned where to look is not a new one."""
    shipped = load_proposal_model("proposals")
    for name, provenance in (("seen", {"training_series": ["thorax"]}), ("unsaid", {"counts": {}})):
        save_proposal_model(
            dataclasses.replace(shipped, name=name, provenance=provenance), tmp_path / f"{name}.safetensors"
        )
    out = tmp_path / "out"
    arguments = ("--data", labelled / "data", "--model", labelled / "clean.safetensors", "--bootstraps", 0)
    seen, unsaid = (("--proposals", tmp_path / f"{name}.safetensors") for name in ("seen", "unsaid"))
    assert "holds 1 of the evaluated series" in run(*arguments, *seen, "--out", out).stderr
    assert run(*arguments, *seen, "--strict").exit_code == 3
    refused = run(*arguments, *unsaid, "--strict")
    assert refused.exit_code == 3
    assert "training data of the proposal network are unknown" in refused.stderr
    assert run(*arguments, "--strict").exit_code == 0
    # The reports name it by its checksum.
    reports = (
        "--predictions", out / "detections", "--annotations", labelled / "data" / "annotations.csv",
        "--model", labelled / "clean.safetensors",
    )  # fmt: skip
    assert "holds 1 of the evaluated series" in run(*reports, *seen).stderr
    assert "training data of the proposal network are unknown" in run(*reports).stderr


def test_weights_that_hold_counts_alone_cannot_be_checked():
    assert not find_leakage({"counts": {"training_series": 3}}, ["a"], ["p"]).known


def test_strict_refuses_what_cannot_be_checked(run, tables):
    done = run(*options(tables), "--strict")
    assert done.exit_code == 3
    assert "leakage not checked" in done.stderr
