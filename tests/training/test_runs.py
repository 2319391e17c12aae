"""A run: when it ends and what it keeps, and the command from a labeled folder to weights with their provenance."""

import dataclasses
import json

import pytest
import torch
from training.small import CONFIG, TRAINING, VALIDATION, arguments
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import load_proposer
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.weights import load_model, tensors_sha256
from gcnn_cli.training.loop import Progress, train_network, validation_of_result
from gcnn_cli.training.operating_points import study_operation
from gcnn_cli.training.recipe import read_recipe
from gcnn_cli.training.run import RunConfig, run_training


def test_a_run_ends_early_and_keeps_its_best(monkeypatch):
    scores = iter([0.5, 0.9, 0.7, 0.6, 0.99])
    states = []

    def scored(network, *_):
        states.append({key: value.clone() for key, value in network.state_dict().items()})
        return {"cpm": next(scores)}

    monkeypatch.setattr("gcnn_cli.training.loop.validate", scored)
    config = dataclasses.replace(CONFIG, validate_every=2, patience=2)
    network, lines = train_network(TRAINING, VALIDATION, config, lambda _: None)
    assert [line.validation["cpm"] for line in lines] == [0.5, 0.9, 0.7, 0.6]
    assert validation_of_result(lines, config) is lines[1]
    assert all(torch.equal(value, states[1][key]) for key, value in network.state_dict().items())


def test_the_figures_of_a_result_are_those_of_the_network_that_was_kept():
    lines = [Progress(step, 0.1, 1.0, {"cpm": 0.5, "loss": loss}) for step, loss in ((1, 0.4), (2, 0.3), (3, 0.3))]
    for patience, choose_by, step in ((0, "loss", 3), (2, "loss", 2), (2, "cpm", 1)):
        config = dataclasses.replace(CONFIG, patience=patience, choose_by=choose_by)
        assert validation_of_result(lines, config).step == step


@pytest.mark.parametrize(("label", "missing"), [(0, "nodules"), (1, "negatives")])
def test_a_run_that_cannot_tell_when_to_end_is_refused(label, missing):
    """Without a validation figure its best network would be the random start."""
    config = dataclasses.replace(CONFIG, patience=2)
    with pytest.raises(InputError, match=f"patience = 2 .* there are no {missing}: hold out more patients"):
        train_network(TRAINING, [s for s in VALIDATION if s.label == label], config, lambda _: None)


@pytest.mark.parametrize(("patience", "kept_from"), [(0, 1), (9, 0)])
def test_what_is_kept_is_what_training_would_have_ended_with(monkeypatch, patience, kept_from):
    scores, states, kept = iter([0.9, 0.5, 0.6]), [], {}

    def scored(network, *_):
        states.append({key: value.clone() for key, value in network.state_dict().items()})
        return {"cpm": next(scores)}

    monkeypatch.setattr("gcnn_cli.training.loop.validate", scored)
    config = dataclasses.replace(CONFIG, validate_every=4, patience=patience)
    train_network(TRAINING, VALIDATION, config, lambda _: None, keep_at=[8], kept=kept)
    assert all(torch.equal(value, states[kept_from][key]) for key, value in kept[8].items())


def test_a_folder_becomes_weights_with_their_provenance(data, tmp_path):
    out = tmp_path / "new" / "mine.safetensors"
    done = CliRunner().invoke(app, arguments(data, out, "--name-data"))
    assert done.exit_code == 0, done.output
    model = load_model(str(out))
    assert (model.name, model.group) == ("mine", "trivial")
    assert model.provenance["training_series"] == ["LIDC-IDRI-0001"]
    assert model.provenance["held_out_patients"] == ["LIDC-IDRI-0002"]
    assert model.provenance["operating_points"]["scans"] == 2
    assert not model.provenance["operating_points"]["all_held_out"]
    assert model.provenance["precision"] == precision_name(torch.device("cpu"))
    assert model.provenance["operating_points"]["calibration"] == "fitted"
    assert model.provenance["candidate_weights"] == load_proposer(torch.device("cpu")).name
    assert model.calibration.threshold_at(1) == model.calibration.threshold
    lines = [json.loads(line) for line in (tmp_path / "new" / "mine.run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    assert {"cpm", "sensitivity_at_1", "auc"} <= set(lines[-1]["validation"])
    assert (tmp_path / "new" / "mine.run" / "loss.png").stat().st_size > 1000
    assert not (tmp_path / "new" / "mine.run" / "checkpoint.pt").exists()
    # The recipe beside the weights makes them again.
    recipe = tmp_path / "new" / "mine.run" / "recipe.toml"
    again = ["train", "--data", data / "data", "--out", tmp_path / "b.safetensors", "--config", recipe]
    done = CliRunner().invoke(app, [str(a) for a in (*again, "--cache", data / "cache", "--threads", 1)])
    assert done.exit_code == 0, done.output
    states = [load_model(str(path)).network.state_dict() for path in (out, tmp_path / "b.safetensors")]
    assert tensors_sha256(states[0]) == tensors_sha256(states[1])


def test_operating_points_are_counted_on_what_detection_scores(data, tmp_path, monkeypatch):
    """Not on the candidates that training learns from: of those there are 12 a scan here, and half are held out."""
    few = tmp_path / "few.toml"
    few.write_text((data / "quick.toml").read_text().replace("candidates_per_scan = 40", "candidates_per_scan = 12"))
    counted = []

    def recording(samples, logits, held_out):
        counted.extend(zip(samples, held_out, strict=True))
        return study_operation(samples, logits, held_out)

    monkeypatch.setattr("gcnn_cli.training.run.study_operation", recording)
    recipe = read_recipe(few, {"split": {"hold_out": ("LIDC-IDRI-0002",), "share": 0.0}})
    config = RunConfig((data / "data",), tmp_path / "a.safetensors", recipe, data / "cache")
    model = run_training(config)
    # Detection proposes candidates on a grid of its own, not on that of 3 mm.
    detector = make_detector(model, torch.device("cpu"))
    for entry, held in zip(read_index([data / "data"]).scans, (False, True), strict=True):
        false = [s for s, out in counted if s.series == entry.name and s.kind == "candidate" and out == held]
        scored = detect(entry.read(), detector, threshold=1.0).candidates
        assert scored / 2 < len(false) < scored  # all but those at the seven nodules
        assert len(false) > 12
    assert sum(s.kind == "candidate" for s, _ in counted) == sum(not s.label for s, _ in counted)


def test_weights_without_a_calibration_say_so(data, tmp_path, caplog):
    """All nodules are trained on: the logits of what a network has learned say nothing about what it has not."""
    recipe = read_recipe(data / "quick.toml", {"split": {"share": 0.0}})
    model = run_training(RunConfig((data / "data",), tmp_path / "a.safetensors", recipe, data / "cache"))
    assert (model.calibration.slope, model.calibration.operating_points) == (1.0, ())
    (warning,) = (r.getMessage() for r in caplog.records if "calibrate" in r.getMessage())
    assert warning.startswith("no held-out nodules to calibrate on: ")
    assert "as if every second candidate were a nodule" in warning
    assert "hold out patients with nodules" in warning
    assert model.provenance["operating_points"]["calibration"] == "none: no held-out nodules"


@pytest.mark.parametrize("steps", range(1, 8))
def test_any_number_of_steps_can_be_trained(steps):
    """Five did not: the learning rate rises for a fifth of the steps less one, by which PyTorch divides."""
    train_network(TRAINING, [], dataclasses.replace(CONFIG, steps=steps), lambda _: None)


def test_samples_can_be_looked_at(data, tmp_path):
    options = ("--montage", tmp_path / "samples.png")
    done = CliRunner().invoke(app, arguments(data, tmp_path / "none.safetensors", *options))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "none.safetensors").exists()
    assert "exists already" in CliRunner().invoke(app, arguments(data, tmp_path / "b.safetensors", *options)).stderr


def test_what_cannot_be_made_is_refused_before_anything_is_read(data, tmp_path):
    for extra, code, text in (
        (["--group", "C5"], 2, "unknown group 'C5'"),
        (["--out", tmp_path / "weights.pt"], 2, "must end in .safetensors"),
        (["--config", tmp_path / "none.toml"], 3, "none.toml: no such file"),
        (["--samples", 4000], 3, "--samples 4000 needs 2000 samples of class 1"),
    ):
        done = CliRunner().invoke(app, arguments(data, tmp_path / "a.safetensors", *extra))
        assert done.exit_code == code, done.output
        assert text in done.stderr
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(UsageError, match="exists already"):
        RunConfig((tmp_path,), tmp_path / "x.safetensors")
