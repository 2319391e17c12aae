"""Computing time: what a step of each arm costs, so that arms can be compared after equal time.

A step is the network's part: forward, backward and update. Making a batch costs all arms the same. Times are CPU
seconds of this process, so other processes on the machine hardly change them. They are measured once and kept in the
folder of the experiment: every process and machine that shares it counts with the same ones.
"""

import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from gcnn_cli.errors import InputError
from gcnn_cli.experiment.arms import Arm
from gcnn_cli.experiment.results import read_json, write_json
from gcnn_cli.files import make_folder
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.devices import autocast
from gcnn_cli.training.loop import TrainConfig

_WARM_UP, _STEPS = 2, 9
_CPU = torch.device("cpu")


def read_pace(folder: Path, arms: tuple[Arm, ...], config: TrainConfig) -> dict[str, float]:
    """Return the CPU seconds of one step of each arm: those in the folder's pace.json, or measured and put there."""
    path = folder / "pace.json"
    known = read_json(path) if path.is_file() else {}
    missing = [arm for arm in arms if arm.name not in known]
    for arm in missing:
        known[arm.name] = round(_seconds_per_step(arm.configure(config, 0)), 4)
    if missing:
        make_folder(folder)
        known |= read_json(path) if path.is_file() else {}  # what another process wrote in the meantime counts
        write_json(path, known)
    if not all(isinstance(known[arm.name], int | float) and known[arm.name] > 0 for arm in arms):
        raise InputError(f"{path}: damaged; remove it to measure again")
    return {arm.name: float(known[arm.name]) for arm in arms}


def steps_within(budget: float, seconds_per_step: float, config: TrainConfig) -> int:
    """Return the last step with a validation within a budget of CPU seconds; 0 if the first one is beyond it."""
    return int(budget / seconds_per_step) // config.validate_every * config.validate_every


def _seconds_per_step(config: TrainConfig) -> float:
    """Measure the network's part of a step: forward, backward and update of one batch. Return the median step's."""
    network = GCNN(config.network).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    sides = config.input.sides
    patches = torch.rand(config.batch_size, 1, *sides).to(memory_format=torch.channels_last_3d)
    labels = torch.arange(config.batch_size).remainder(2).float()
    seconds = []
    for _ in range(_WARM_UP + _STEPS):
        started = time.process_time()
        with autocast(_CPU):
            logits = network(patches)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()
        seconds.append(time.process_time() - started)
    return median(seconds[_WARM_UP:])
