"""Runs can be killed, stopped, resumed and repeated; recipes, caches, subsets and operating points are right."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import load_proposer
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.network import devices
from gcnn_cli.network.architecture import FIELDS, NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.weights import load_model, tensors_sha256
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples import preprocessed
from gcnn_cli.samples.prepare import Prepared
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import Sample, SampleConfig
from gcnn_cli.samples.split import SplitConfig, nested_subset
from gcnn_cli.scan.resample import as_image
from gcnn_cli.scan.volume import Volume
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.loop import Interrupted, Progress, TrainConfig, train_network, validation_of_result
from gcnn_cli.training.metrics import Metrics
from gcnn_cli.training.operating_points import study_operation
from gcnn_cli.training.recipe import Recipe, read_recipe, recipe_text
from gcnn_cli.training.run import RunConfig, run_fingerprint, run_training
from gcnn_cli.training.validation import auc, froc_figures

SIDE = 12
CONFIG = TrainConfig(
    network=NetworkConfig(group="D4", fields=(2, 2), pool_after=(1,), side=8, head_fields=4, dropout=0.2),
    input=InputSpec(side=8),
    steps=12,
    batch_size=4,
    validate_every=4,
)


def sample(label, kind="", n=0, series="", patient=""):
    """Return a bright (nodule) or dark (negative) noisy cube."""
    hu = (np.random.default_rng(n).normal(0 if label else -800, 200, (SIDE,) * 3)).astype(np.int16)
    kind = kind or ("cube" if label else "candidate")
    return Sample(lambda: hu, SIDE, label, kind, patient or f"patient-{n}", series or f"series-{n}", 0, SIDE)


TRAINING = [sample(n % 2, n=n) for n in range(16)]
VALIDATION = [sample(n % 2, n=100 + n, series="a") for n in range(8)]


def equal(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# Resuming


@pytest.mark.parametrize("stop_at", [1, 4, 7, 11])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, stop_at):
    whole, lines = train_network(TRAINING, VALIDATION, CONFIG, lambda _: None)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "run")
    seen = []
    with pytest.raises(Interrupted):
        train_network(
            TRAINING, VALIDATION, CONFIG, seen.append, checkpoint=checkpoint, should_stop=lambda: len(seen) == stop_at
        )
    resumed, again = train_network(TRAINING, VALIDATION, CONFIG, seen.append, checkpoint=checkpoint)
    assert [line.step for line in seen] == list(range(1, 13))
    assert equal(whole, resumed)
    assert [(line.step, line.loss, line.validation) for line in again] == [
        (line.step, line.loss, line.validation) for line in lines
    ]


def test_a_checkpoint_is_of_one_run(tmp_path):
    Checkpoint(tmp_path / "c.pt", "one").save({"step": 3})
    assert Checkpoint(tmp_path / "c.pt", "one").load()["step"] == 3
    assert Checkpoint(tmp_path / "none.pt", "one").load() is None
    with pytest.raises(UsageError, match="another run"):
        Checkpoint(tmp_path / "c.pt", "two").load()
    for content in (b"", b"no checkpoint", (tmp_path / "c.pt").read_bytes()[:-200]):
        (tmp_path / "c.pt").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            Checkpoint(tmp_path / "c.pt", "one").load()


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "done"),)

    torch.save({"run": "one", "step": Evil()}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="damaged"):
        Checkpoint(tmp_path / "c.pt", "one").load()
    assert not (tmp_path / "done").exists()


def test_the_fingerprint_sees_every_choice():
    recipe = Recipe()
    other = Recipe(train=dataclasses.replace(recipe.train, seed=1))
    prints = {fingerprint(dataclasses.asdict(r), names) for r in (recipe, other) for names in (("a",), ("a", "b"))}
    assert len(prints) == 4


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


# The command


@pytest.fixture(scope="module")
def data(phantom, tmp_path_factory):
    """Write two labeled scans of two patients, with the recipe and a cache beside them."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        write_phantom(phantom, folder / "data" / name, name=name)
    (folder / "quick.toml").write_text(QUICK_RECIPE)
    return folder


def arguments(data, out, *options):
    base = ["train", "--data", data / "data", "--out", out, "--config", data / "quick.toml"]
    fixed = ["--cache", data / "cache", "--hold-out", "LIDC-IDRI-0002", "--hold-out-share", 0, "--threads", 1]
    return [str(part) for part in (*base, *fixed, *options)]


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


def test_a_run_is_not_resumed_in_another_precision(data, tmp_path, monkeypatch):
    recipe = read_recipe(data / "quick.toml", {"split": {"hold_out": ("LIDC-IDRI-0002",), "share": 0.0}})
    config = RunConfig((data / "data",), tmp_path / "a.safetensors", recipe, data / "cache")
    monkeypatch.setattr(devices, "has_fast_bfloat16", lambda _: True)
    with pytest.raises(Interrupted):
        run_training(config, should_stop=lambda: True)
    monkeypatch.setattr(devices, "has_fast_bfloat16", lambda _: False)
    with pytest.raises(UsageError, match="precision"):
        run_training(dataclasses.replace(config, resume=True))


def test_a_run_is_not_resumed_on_other_labels(data, tmp_path):
    """As many nodules, one of them moved: the samples before and after would be of two data sets."""
    shutil.copytree(data / "data", tmp_path / "data")
    recipe = read_recipe(data / "quick.toml", {"split": {"hold_out": ("LIDC-IDRI-0002",), "share": 0.0}})
    config = RunConfig((tmp_path / "data",), tmp_path / "a.safetensors", recipe, data / "cache")
    with pytest.raises(Interrupted):
        run_training(config, should_stop=lambda: True)
    (labels, *_) = sorted((tmp_path / "data").rglob("annotations.csv"))
    heading, first, *rest = labels.read_text().splitlines()
    name, x, *others = first.split(",")
    labels.write_text("\n".join([heading, ",".join([name, str(float(x) + 2), *others]), *rest]) + "\n")
    with pytest.raises(UsageError, match="data"):
        run_training(dataclasses.replace(config, resume=True))


@pytest.mark.parametrize("changed", ["scan", "cut-out", "held-out cut-out"])
def test_a_run_is_not_resumed_on_other_voxels(data, phantom, tmp_path, changed):
    """Under the same names, and with the same labels."""
    shutil.copytree(data / "data", tmp_path / "data")
    patients = {"cut-out": "LIDC-IDRI-0003", "held-out cut-out": "LIDC-IDRI-0002"}
    for patient in patients.values():
        write_cutout(tmp_path / "data" / f"{patient}_n1.npz", hu=-100)
    recipe = read_recipe(data / "quick.toml", {"split": {"hold_out": ("LIDC-IDRI-0002",), "share": 0.0}})
    config = RunConfig((tmp_path / "data",), tmp_path / "a.safetensors", recipe, data / "cache")
    with pytest.raises(Interrupted):
        run_training(config, should_stop=lambda: True)
    with pytest.raises(Interrupted):
        run_training(dataclasses.replace(config, resume=True), should_stop=lambda: True)
    if changed == "scan":
        other = dataclasses.replace(phantom.volume, hu=phantom.volume.hu + np.int16(7))
        name = "LIDC-IDRI-0001"
        write_phantom(dataclasses.replace(phantom, volume=other), tmp_path / "data" / name, name=name, overwrite=True)
    else:
        write_cutout(tmp_path / "data" / f"{patients[changed]}_n1.npz", hu=-90)
    with pytest.raises(UsageError, match="data"):
        run_training(dataclasses.replace(config, resume=True))


def write_cutout(path, hu):
    cube = np.full((6, 48, 48), -850, np.int16)
    cube[1:5, 20:28, 20:28] = hu
    spacing, center = np.array([2.0, 1.0, 1.0]), np.array([2.5, 23.5, 23.5])
    np.savez(path, hu=cube, mask=cube > -800, spacing_zyx=spacing, centre_zyx=center)


def test_a_run_is_of_one_number_of_processes_and_one_held_out_side():
    """Batches are divided among the processes, and augmented in each by draws of its own."""
    prepared = Prepared([], [], (), (), (), ("a",), SplitConfig(), [], (), ())
    others = (dataclasses.replace(prepared, held_out_patients=("b",)), dataclasses.replace(prepared, contents=("c",)))
    prints = {run_fingerprint({}, p, 8, "float32", 1) for p in (prepared, *others)}
    assert len(prints | {run_fingerprint({}, prepared, 8, "float32", 2)}) == 4


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


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_killed_run_goes_on_to_the_same_weights(data, tmp_path, number, code):
    recipe = tmp_path / "often.toml"
    recipe.write_text(QUICK_RECIPE.replace("validate_every = 20", "validate_every = 10"))
    steps = ("--steps", 40, "--config", recipe)
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    command = [sys.executable, "-c", "from gcnn_cli.cli import main; main()", *arguments(data, killed, *steps)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        checkpoint = tmp_path / "killed.run" / "checkpoint.pt"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert not killed.exists()
    if number == signal.SIGTERM:
        assert "with --resume to continue from" in errors
    refused = CliRunner().invoke(app, arguments(data, killed, *steps))
    assert refused.exit_code == 2
    assert "unfinished run; give --resume or --overwrite" in refused.stderr
    assert CliRunner().invoke(app, arguments(data, killed, *steps, "--resume")).exit_code == 0
    assert CliRunner().invoke(app, arguments(data, whole, *steps)).exit_code == 0
    states = [load_model(str(path)).network.state_dict() for path in (whole, killed)]
    assert tensors_sha256(states[0]) == tensors_sha256(states[1])
    metrics = [tmp_path / f"{name}.run" / "metrics.jsonl" for name in ("whole", "killed")]
    steps_logged = [[json.loads(line)["step"] for line in path.read_text().splitlines()] for path in metrics]
    assert steps_logged[0] == steps_logged[1] == [10, 20, 30, 40]


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


# Recipe


def test_a_recipe_survives_its_file(tmp_path):
    recipe = read_recipe(
        None, {"network": {"group": "Oh"}, "split": {"hold_out": ('a "b" \\ c',)}, "train": {"seed": 3}}
    )
    (tmp_path / "r.toml").write_text(recipe_text(recipe))
    assert read_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize("patient", ["a\tb", "a\nb", "\x00", "\x1b[31m", "\x7f", '"""', "\u2028", "é\\u0041"])
def test_a_patient_with_control_characters_survives_its_file(tmp_path, patient):
    recipe = read_recipe(None, {"split": {"hold_out": (patient,)}})
    (tmp_path / "r.toml").write_bytes(recipe_text(recipe).encode())
    assert read_recipe(tmp_path / "r.toml") == recipe


def test_fields_follow_the_group_and_the_side_the_input(tmp_path):
    assert read_recipe(None, {"network": {"group": "trivial"}}).train.network.fields == FIELDS["trivial"]
    (tmp_path / "r.toml").write_text('[network]\ngroup = "O"\nfields = [1, 2]\npool_after = [1]\n[input]\nside = 16\n')
    recipe = read_recipe(tmp_path / "r.toml", {"network": {"group": None}, "train": {"steps": 7}})
    assert (recipe.train.network.fields, recipe.train.network.side, recipe.train.steps) == ((1, 2), 16, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tran]\nsteps = 1\n", r"unknown section \[tran\]"),
        ("[train]\nstep = 1\n", r"unknown key step in \[train\]"),
        ('[train]\nsteps = "many"\n', "steps in .train. is 'many', not a whole number"),
        ("[train]\nsteps = 0\n", "steps"),
        ("steps = 3\n", "unknown section"),
        ("[train\n", "not TOML"),
        ("[network]\nside = 16\n", "side is 16 in .network. and 32 in .input."),
        ("[train]\nnetwork = 3\n", "unknown key network"),
    ],
)
def test_unusable_recipes_are_refused(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "r.toml")


# Cache

FAST = SampleConfig(spacing_mm=4.0, side=12, candidates_per_scan=0, transplants_per_scan=0, shams_per_scan=0)


def test_a_scan_is_preprocessed_once(data, tmp_path, monkeypatch):
    entry = read_index([data / "data"]).scans[0]
    config = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=4, shams_per_scan=2)
    fresh = preprocess_scan(entry, config, seed=0)
    stored = preprocess_scan(entry, config, seed=0, cache=tmp_path)
    monkeypatch.setattr(preprocessed, "_preprocess", None)
    again = preprocess_scan(entry, config, seed=0, cache=tmp_path)
    assert isinstance(again.hu, np.memmap)
    for scan in (stored, again):
        for name in ("hu", "to_world", "candidates", "places", "pieces"):
            assert np.array_equal(getattr(scan, name), getattr(fresh, name))
    for other in (dataclasses.replace(config, candidates_per_scan=31), config):
        with pytest.raises(TypeError):  # other settings make another entry
            preprocess_scan(entry, other, seed=int(other is config), cache=tmp_path)


def test_a_damaged_cache_entry_is_named(data, tmp_path):
    entry = read_index([data / "data"]).scans[0]
    config = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)
    preprocess_scan(entry, config, 0, tmp_path)
    (rest,), (note,) = tmp_path.glob("*/rest.npz"), tmp_path.glob("seen-*")
    for path, content in ((rest, rest.read_bytes()[:-100]), (rest, b"\0" * 50), (note, b"\xff")):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged cache entry; remove it"):
            preprocess_scan(entry, config, 0, tmp_path)


def test_a_changed_file_is_another_scan(phantom, tmp_path):
    write_phantom(phantom, tmp_path / "data")
    config = SampleConfig(spacing_mm=4.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)
    (entry,) = read_index([tmp_path / "data"]).scans
    before = preprocess_scan(entry, config, 0, tmp_path / "cache")
    changed = dataclasses.replace(phantom.volume, hu=phantom.volume.hu + np.int16(7))
    write_phantom(dataclasses.replace(phantom, volume=changed), tmp_path / "data", overwrite=True)
    after = preprocess_scan(entry, config, 0, tmp_path / "cache")
    assert abs(float(after.hu.mean()) - float(before.hu.mean()) - 7) < 0.5


def test_the_voxels_of_a_header_may_have_another_name(phantom, tmp_path):
    (tmp_path / "data").mkdir()
    header, voxels = tmp_path / "data" / "scan.mhd", tmp_path / "data" / "voxels.raw"
    sitk.WriteImage(as_image(phantom.volume), str(header))
    header.with_suffix(".raw").rename(voxels)
    header.write_text(header.read_text().replace("scan.raw", "voxels.raw"))
    (entry,) = read_index([tmp_path / "data"]).scans
    before = preprocess_scan(entry, FAST, 0, tmp_path / "cache")
    voxels.write_bytes((np.frombuffer(voxels.read_bytes(), np.int16) + np.int16(7)).tobytes())
    after = preprocess_scan(entry, FAST, 0, tmp_path / "cache")
    assert abs(float(after.hu.mean()) - float(before.hu.mean()) - 7) < 0.5


def test_two_series_of_a_folder_do_not_share_a_note(phantom, tmp_path):
    """A second series that was changed was taken for the first, which had not been, and kept its old voxels."""
    volumes = {"first": phantom.volume, "second": phantom.volume}

    class Series(ScanEntry):
        def read(self):
            return volumes[self.name]

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.dcm").touch()
    first, second = (Series(tmp_path / "data", name, "p", True) for name in volumes)
    before = [preprocess_scan(entry, FAST, 0, tmp_path / "cache") for entry in (first, second)]
    hu = phantom.volume.hu + np.int16(7)
    volumes["second"] = Volume(hu, phantom.volume.to_world, dataclasses.replace(phantom.volume.source, sha256="new"))
    (tmp_path / "data" / "1.dcm").write_bytes(b"changed")
    after = [preprocess_scan(entry, FAST, 0, tmp_path / "cache") for entry in (first, second)]
    gains = [float(a.hu.mean()) - float(b.hu.mean()) for a, b in zip(after, before, strict=True)]
    assert np.allclose(gains, [0, 7], atol=0.5)


def test_voxels_around_the_lungs_lie_where_they_did(data):
    entry = read_index([data / "data"]).scans[0]
    config = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)
    scan = preprocess_scan(entry, config, seed=0)
    marks = np.array([mark[:3] for mark in entry.nodules])
    index = scan.index_zyx(marks)
    assert np.allclose(scan.position_mm(index), marks)
    solid = [n for n, mark in enumerate(entry.nodules) if mark[3] > 8]
    assert all(scan.hu[tuple(np.round(index[n]).astype(int))] > -750 for n in solid)


# Subsets, validation, operating points


def test_subsets_are_nested_balanced_and_few_patients():
    samples = [sample(1, n=n, patient=f"p{n // 5}") for n in range(50)] + [sample(0, n=n) for n in range(50)]
    small, large = nested_subset(samples, 20, seed=1), nested_subset(samples, 60, seed=1)
    assert {id(s) for s in small} < {id(s) for s in large}
    assert sum(s.label for s in small) == 10
    assert len({s.patient for s in small if s.label}) == 2
    assert {id(s) for s in small} != {id(s) for s in nested_subset(samples, 20, seed=2)}
    with pytest.raises(InputError, match="needs 60 samples of class 1, found 50"):
        nested_subset(samples, 120, seed=1)


def test_validation_is_froc_over_the_held_out_scans():
    # Two scans: false candidates at 3 (a) and 1 (b); nodules, a stack and a mark, at 4 and 2; a place beside at 9.
    # FPs/scan: 1/2 at 3, 1 at 1. Found: 1/2 at 4, 2/2 at 2. Points (0,0) (0,.5) (.5,.5) (.5,1) (1,1): from 1/2 on 1,
    # below 1/2: .5. CPM (.5 + .5 + 1 + 1 + 1 + 1 + 1) / 7 = 6/7. The place beside a nodule is in no scan.
    samples = [
        sample(1, "stack"), sample(1, "mark", series="a"), sample(0, "candidate", series="a"),
        sample(0, "candidate", series="b"), sample(0, "beside"),
    ]  # fmt: skip
    figures = froc_figures(np.array([4.0, 2.0, 3.0, 1.0, 9.0]), samples)
    assert figures == {"cpm": pytest.approx(6 / 7), "sensitivity_at_1": 1.0}
    assert froc_figures(np.array([4.0, 9.0]), [samples[0], samples[4]]) == {}


def test_auc_counts_ties_half():
    # Positives 2, 1; negatives 1, 0: pairs 2>1, 2>0, 1=1, 1>0: 3.5 of 4.
    assert auc(np.array([2.0, 1.0, 1.0, 0.0]), np.array([1, 1, 0, 0])) == pytest.approx(3.5 / 4)


def test_operating_points_leave_what_they_say_and_probabilities_keep_the_order():
    rng = np.random.default_rng(0)
    samples = [sample(1, "stack", n=n) for n in range(40)]
    samples += [sample(0, "candidate", n=n, series=f"s{n % 4}") for n in range(400)] + [sample(1, "mark", series="s0")]
    logits = np.concatenate([rng.normal(3, 1, 40), rng.normal(-2, 1.5, 400), [3.0]])
    held_out = [s.kind == "stack" or s.series in ("s0", "s1") for s in samples]
    study = study_operation(samples, logits, held_out)
    assert (study.scans, study.held_out) == (4, False)
    assert study.prior == pytest.approx(1 / 401)
    false = np.array([study.calibration.probability(x) for x in logits[40:440]])
    for rate, cut in study.calibration.operating_points:
        assert (false >= cut).sum() <= rate * 4
    assert study.calibration.threshold == study.calibration.threshold_at(1.0)
    assert study.expected_error < 0.01
    # Weighed down to the prior, the mean probability over all candidates is about the prior.
    found = np.array([study.calibration.probability(x) for x in logits[:40]]).mean()
    assert study.prior * found + (1 - study.prior) * false.mean() == pytest.approx(study.prior, abs=0.003)


def test_enough_held_out_scans_set_the_operating_points_alone():
    samples = [sample(1, "stack", n=n) for n in range(6)]
    samples += [sample(0, "candidate", n=n, series=f"s{n % 10}") for n in range(60)]
    logits = np.concatenate([np.full(6, 2.0), np.linspace(-3, 1, 60)])
    held_out = [s.label == 1 or s.series != "s9" for s in samples]
    study = study_operation(samples, logits, held_out)
    assert (study.scans, study.held_out) == (9, True)
    # Marks of the scan that was trained on do not raise the prior of the scans that are counted.
    marks = [sample(1, "mark", series="s9") for _ in range(3)]
    more = study_operation([*samples, *marks], np.append(logits, [2.0] * 3), [*held_out, *[False] * 3])
    assert more.prior == study.prior == pytest.approx(1 / 55)
    alone = study_operation(samples[:6], logits[:6], [True] * 6)
    assert (alone.calibration.operating_points, alone.missing) == ((), "candidates of labeled scans")


@pytest.mark.parametrize("content", [b"{", b"[1]\n", b"{}\n", b'{"step": null}\n', b"\xff"])
def test_damaged_metrics_are_named_when_a_run_resumes(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="metrics.jsonl: damaged"):
        Metrics(tmp_path, tensorboard=False, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_an_unfinished_run_is_given_up_only_for_a_new_one(tmp_path):
    """A run that cannot begin leaves the checkpoint alone."""
    config = RunConfig((tmp_path / "nothing",), tmp_path / "a.safetensors", overwrite=True)
    config.folder.mkdir()
    config.checkpoint_path.write_bytes(b"hours")
    with pytest.raises(InputError):
        run_training(config)
    assert config.checkpoint_path.read_bytes() == b"hours"
