"""Results that --resume keeps: what decides them is the same, to the last option."""

import json
from dataclasses import replace

import pytest
import torch
from cohort.thin import contents, copy_scans, run_detect

from gcnn_cli.cohort.resume import read_earlier
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.pipeline import report_options
from gcnn_cli.network.proposal_weights import load_proposal_model, save_proposal_model
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.reading import read_volume


@pytest.fixture(scope="module")
def done(thin, weights, tmp_path_factory):
    """A scan with its results, and the arguments that made them."""
    folder = tmp_path_factory.mktemp("done")
    copy_scans(thin, folder / "in", 1)
    arguments = (folder / "in" / "scan00.mhd", "--model", weights, "--out", folder / "out", "-q")
    assert run_detect(*arguments).exit_code == 0
    return folder / "out", arguments


def edit(path, value, *keys):
    """Write a report that says something else."""
    data = json.loads(path.read_text("utf-8"))
    place = data
    for key in keys[:-1]:
        place = place[key]
    assert place.get(keys[-1]) != value
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(data), "utf-8")


def test_a_report_of_the_same_making_is_kept(done):
    out, arguments = done
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run_detect(*arguments, "--resume").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_results_of_other_proposals_are_not_kept(done, tmp_path):
    out, arguments = done
    other = tmp_path / "other.safetensors"
    save_proposal_model(replace(load_proposal_model("proposals"), name="other"), other)
    refused = run_detect(*arguments, "--proposals", other, "--resume")
    assert refused.exit_code == 2
    assert "candidate weights" in refused.stderr
    assert "candidate_weights" in (out / "scan00.nodules.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("value", "keys", "name"),
    [
        ("0.0.7", ("tool", "version"), "version of gcnn"),
        (0, ("options", "pipeline"), "form of the detection"),
        (3, ("options", "proposals", "kept"), "proposals.kept"),
        (1.0, ("options", "lungs", "closing_mm"), "lungs.closing_mm"),
        (77.0, ("options", "merge", "new_option"), "merge.new_option"),
        (None, ("options", "lungs"), "lungs.tissue_hu"),
        ("w", ("options", "candidate_weights"), "candidate weights;"),
        ("O", ("options", "average_over"), "--average-over"),
        ("a" * 64, ("options", "lung_mask"), "lung mask"),
        (True, ("options", "gaps_filled"), "gaps_filled"),
        (0.25, ("threshold",), "threshold"),
        ("a" * 64, ("weights", "sha256"), "weights"),
        ("a" * 64, ("input", "sha256"), "scan"),
    ],
)
def test_a_report_of_another_making_is_refused_and_overwritten_on_request(done, value, keys, name):
    out, arguments = done
    wanted, path = contents(out), out / "scan00.nodules.json"
    whole = path.read_bytes()
    edit(path, value, *keys)
    edited = path.read_bytes()
    try:
        refused = run_detect(*arguments, "--resume")
        assert (refused.exit_code, refused.stdout) == (2, "")
        (line,) = refused.stderr.splitlines()
        assert f"scan00.nodules.json exists and was made with another {name}" in line
        assert path.read_bytes() == edited
        assert run_detect(*arguments, "--resume", "--overwrite").exit_code == 0
        assert contents(out) == wanted
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"input": 1}', "[" * 100_000, '{"options": [1]}'])
def test_a_damaged_report_is_refused(done, content):
    out, arguments = done
    path = out / "scan00.nodules.json"
    whole = path.read_bytes()
    path.write_text(content)
    try:
        refused = run_detect(*arguments, "--resume")
        assert refused.exit_code == 2
        assert "exists and is damaged; give --overwrite" in refused.stderr
    finally:
        path.write_bytes(whole)


def test_every_option_in_a_report_is_compared(done, sample, tmp_path):
    detector = make_detector(load_model("octahedral"), torch.device("cpu"))
    options = report_options(detector, read_volume(sample))
    report = json.loads((done[0] / "scan00.nodules.json").read_text("utf-8"))
    assert report["options"].keys() == options.keys()
    (tmp_path / "a.json").write_text(json.dumps(report | {"options": options}))
    made_from = read_earlier({"json": tmp_path / "a.json"}).made_from

    def leaves(values):
        return sum(leaves(value) if isinstance(value, dict) else 1 for value in values.values())

    assert len(made_from) == leaves(options) + 4  # scan, weights, threshold, version
    assert {"proposals.kept", "proposals.apart_mm", "candidate_weights"} <= made_from.keys()
