"""Runs can be stopped, killed and resumed to the same weights, and only what belongs to them is resumed."""

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
import torch
from training.recipes import QUICK_RECIPE
from training.small import CONFIG, TRAINING, VALIDATION, arguments
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.network import devices
from gcnn_cli.network.weights import load_model, tensors_sha256
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.prepare import Prepared
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.loop import Interrupted, train_network
from gcnn_cli.training.metrics import Metrics
from gcnn_cli.training.recipe import Recipe, read_recipe
from gcnn_cli.training.run import RunConfig, run_fingerprint, run_training


def equal(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


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
