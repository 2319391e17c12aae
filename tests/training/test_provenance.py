"""Weights are given away: their file names no file and no patient unless public data was named on request."""

import json
import shutil

import pytest
import SimpleITK as sitk
from safetensors import safe_open
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import InputError
from gcnn_cli.labels.patients import pseudonym
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.resample import as_image
from gcnn_cli.training.provenance import read_data_names

NAME = "Mueller_Hans_1961"
HELD_OUT = "Schmidt_Eva_1950"


@pytest.fixture
def train(phantom, tmp_path):
    """Train on one scan and hold another out; both are called by a person's name and year of birth."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for name in (NAME, HELD_OUT):
        sitk.WriteImage(as_image(phantom.volume), str(folder / f"{name}.nii.gz"))
        rows += [",".join(map(str, (name, *n.position_mm, n.diameter_mm))) for n in phantom.nodules]
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "quick.toml").write_text(QUICK_RECIPE)

    def call(*options):
        out = tmp_path / "mine.safetensors"
        arguments = ["train", "--data", folder, "--out", out, "--config", tmp_path / "quick.toml"]
        fixed = ["--hold-out", HELD_OUT, "--hold-out-share", 0, "--threads", 1]
        done = CliRunner().invoke(app, [str(part) for part in (*arguments, *fixed, *options)])
        assert done.exit_code == 0, done.output
        return out

    return call


def test_weights_and_metrics_name_no_file_and_no_patient(train):
    out = train()
    metrics = out.with_suffix(".run") / "metrics.jsonl"
    header = safe_open(out, framework="pt").metadata()["gcnn"]
    for name in (NAME, HELD_OUT):
        for secret in (name, name.split("_")[0], pseudonym(name)):
            assert secret.encode() not in out.read_bytes()
            assert secret not in header
            assert secret not in metrics.read_text()
    provenance = load_model(str(out)).provenance
    assert provenance["counts"] == {
        "labelled_series": 2, "training_series": 1, "training_patients": 1, "held_out_patients": 1,
    }  # fmt: skip
    assert provenance["recipe"]["split"]["hold_out"] == 1
    assert not {"labelled_series", "training_series", "training_patients", "held_out_patients"} & provenance.keys()
    # Whoever trained keeps the names, and the recipe still makes the same weights again.
    names = read_data_names(out.with_suffix(".run"), load_model(str(out)).sha256)
    assert (names["training_patients"], names["held_out_patients"]) == ([NAME], [HELD_OUT])
    assert HELD_OUT in (out.with_suffix(".run") / "recipe.toml").read_text()


def test_leakage_is_seen_where_the_run_is_kept_and_unknown_where_the_weights_went(train, tmp_path):
    out = train()
    (tmp_path / "given").mkdir()
    given = shutil.copy(out, tmp_path / "given")
    for weights, message in (
        (out, "the training data holds 1 of the evaluated series and 1 of the patients"),
        (given, "leakage not checked"),
    ):
        arguments = ["evaluate", "--data", tmp_path / "data", "--model", weights, "--strict"]
        done = CliRunner().invoke(app, [str(part) for part in arguments])
        assert done.exit_code == 3
        assert message in done.stderr


def test_public_data_is_named_on_request(train):
    provenance = load_model(str(train("--name-data"))).provenance
    assert provenance["training_series"] == [NAME]
    assert provenance["held_out_patients"] == provenance["recipe"]["split"]["hold_out"] == [HELD_OUT]


def test_names_belong_to_one_weights_file(tmp_path):
    assert read_data_names(tmp_path, "abc") == {}
    (tmp_path / "data.json").write_text(json.dumps({"weights_sha256": "abc", "training_series": ["a"]}))
    assert read_data_names(tmp_path, "abc")["training_series"] == ["a"]
    assert read_data_names(tmp_path, "of other weights") == {}
    for content in (b"[]", b"{", b"\xff"):
        (tmp_path / "data.json").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            read_data_names(tmp_path, "abc")
