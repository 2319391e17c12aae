"""Two processes take the step of one with the doubled batch, and train to one weights file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training.distributed_step import step
from training.recipes import QUICK_RECIPE

from gcnn_cli.network.weights import load_model
from gcnn_cli.phantom.sample import write_phantom
from gcnn_cli.training.distributed import Process

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(map(str, command), env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_two_processes_have_the_gradients_of_one_with_the_doubled_batch(tmp_path):
    torchrun(HERE / "distributed_step.py", tmp_path / "found.pt")
    found, alone = torch.load(tmp_path / "found.pt"), step(Process())
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_torchrun_trains_to_one_usable_weights_file(phantom, tmp_path):
    write_phantom(phantom, tmp_path / "data" / "LIDC-IDRI-0001", name="LIDC-IDRI-0001")
    (tmp_path / "quick.toml").write_text(QUICK_RECIPE)
    out = tmp_path / "both.safetensors"
    options = ["--config", tmp_path / "quick.toml", "--hold-out-share", "0", "--out", out, "--device", "cpu"]
    done = torchrun("-m", "gcnn_cli", "train", "--data", tmp_path / "data", *options)
    model = load_model(out)
    assert model.provenance["validation"]["step"] == 4
    assert done.stderr.count("step 4/4") == 1  # one process speaks


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_on_the_gpu_has_the_gradients_of_the_cpu():
    here = step(Process())
    there = step(Process(device=torch.device("cuda")))
    for name, value in here.items():
        torch.testing.assert_close(there[name].cpu(), value, rtol=1e-3, atol=1e-4)
