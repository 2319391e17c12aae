"""The benchmark for a GPU runs without one, so that the hour with one is not spent on its defects."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cohort.thin import thin_scan, write_thin_scans, write_weights
from conftest import make_network
from training.recipes import QUICK_RECIPE

from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.phantom import write_phantom
from gcnn_cli.scan.resample import resample

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"
CPU = torch.device("cpu")


@pytest.fixture
def benchmarks(monkeypatch):
    """Makes the modules of the benchmarks importable."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_every_part_runs_in_small_and_is_written(phantom, tmp_path):
    scans = write_thin_scans(phantom, tmp_path, 1)
    recipe, out = tmp_path / "quick.toml", tmp_path / "gpu.json"
    recipe.write_text(QUICK_RECIPE)
    common = ("--scan", scans / "scan00.mhd", "--model", write_weights(tmp_path / "w.safetensors"), "--recipe", recipe)
    done = run("--small", "--device", "cpu", *common, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["complete"]
    for part in ("scores", "findings", "throughput", "scans", "training"):
        assert f"### {part.capitalize()}" in done.stdout
        assert found[part]
    exact = [row for row in found["scores"] if row["precision"] == "float32"]
    assert [row["largest difference in score"] for row in exact] == [0, 0]  # the CPU against itself
    assert all(row["largest difference in score"] < 0.01 for row in found["scores"])
    same, *_ = found["findings"]
    assert same["nodules"] == same["of the CPU"] > 0
    assert same["without a counterpart"] == same["largest shift, mm"] == same["largest difference in score"] == 0
    again = run("--small", "--device", "cpu", *common, "--out", out, "--parts", "training")
    assert (again.returncode, again.stdout) == (1, "")
    assert "exists already; give --overwrite" in again.stderr


@pytest.mark.slow
def test_a_committee_is_trained_end_to_end(phantom, tmp_path):
    for name in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        write_phantom(phantom, tmp_path / "data" / name, name=name)
    recipe, out = tmp_path / "quick.toml", tmp_path / "gpu.json"
    recipe.write_text(QUICK_RECIPE + "[split]\nfolds = 2\nfold = 1\n")
    committee = ("--committee", tmp_path / "data", "--recipe", recipe, "--steps", 2)
    done = run("--small", "--device", "cpu", *committee, "--parts", "", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["committee"]
    assert [row["command"] for row in rows] == ["train --fold 1", "train --fold 2", "combine", "all"]
    assert rows[-1]["seconds"] == pytest.approx(sum(row["seconds"] for row in rows[:-1]))


def test_every_feed_brings_the_same_patches(benchmarks, phantom):
    """Places at the rim, and wholly beyond it, too."""
    from gpu_feeds import FEEDS

    volume = thin_scan(phantom, 0)
    spec = InputSpec(spacing_mm=4.0, side=8)
    grid = resample(volume, spec.spacing_mm)
    shape = np.array(grid.shape)
    index = np.array([shape / 2, shape * 0.0, shape - 0.5, shape + 100, [-50.0, 3.2, 4.9], shape / 2 + 0.3])
    positions = [tuple(position) for position in grid.position_mm(index)]
    expected = [*patch_batches(grid, positions, spec, 4)]
    for name, feed in FEEDS.items():
        batches = [*feed(grid, positions, spec, 4, CPU)]
        assert [len(batch) for batch in batches] == [4, 2], name
        assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True)), name


def test_float16_stays_near_float32(benchmarks):
    from gpu_precisions import scorer_in

    model = TrainedModel("small", make_network("O"), InputSpec(spacing_mm=4.0, side=8), Calibration())
    patches = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = scorer_in("float32", model, CPU).score([patches])
    half = scorer_in("float16", model, CPU).score([patches])
    assert 0 < np.abs(half - exact).max() < 0.01
