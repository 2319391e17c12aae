"""`gcnn train --dry-run`: what a run would train on, how long it would take here, how much it would need.

Times are measured, not guessed: one scan is preprocessed and a few steps are taken, on patches of noise, with the
run's own network, batch and device. Nothing is written. What a cache holds already is not known here, so that a run
with a filled cache is faster than its plan.
"""

import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS
from gcnn_cli.samples.overview import Overview, look_over, time_one
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.distributed import Process
from gcnn_cli.training.loop import Progress, train_network
from gcnn_cli.training.parent import Parent
from gcnn_cli.training.recipe import Recipe
from gcnn_cli.training.run import future_detector

_STEPS = 3  # timed, after one that is not
_SCORING = 1 / 3  # of a training step's time for the same patches: a step goes forward and twice as far back


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    seen:         held-out patients that the parent was trained on; None without a parent, or if it does not say
    prepare_s:    seconds to preprocess a scan
    step_s:       seconds of a training step
    validation_s: seconds of all validations of one network
    """

    data: Overview
    networks: int
    steps: int
    seen: int | None
    prepare_s: float
    step_s: float
    validation_s: float
    cache_bytes: int
    memory_bytes: int

    @property
    def seconds(self) -> float:
        """Expected duration of the whole run."""
        training = self.networks * (self.steps * self.step_s + self.validation_s)
        return len(self.data.scans) * self.prepare_s + training + 2 * self.validation_s

    def rows(self) -> list[dict[str, Any]]:
        """Return what is on each side of the split, as table rows."""
        return [
            {
                "data": name,
                "patients": len(side.patients),
                "labeled scans": side.labelled,
                "other scans": side.unlabelled,
                "nodules in scans": side.nodules,
                "cut-outs": side.cutouts,
            }
            for name, side in (("training", self.data.training), ("held out", self.data.held_out))
        ]

    def lines(self) -> list[str]:
        """Return the plan in sentences."""
        network = "1 network" if self.networks == 1 else f"{self.networks} networks, one after the other"
        lines = [
            f"{network}, {self.steps} steps{'' if self.networks == 1 else ' each'}: about {self.step_s:.2g} s a step on"
            " this machine",
            f"scans to preprocess: {len(self.data.scans)}, about {self.prepare_s:.2g} s each unless the cache has them",
            f"about {_duration(self.seconds)} in all, {_size(self.memory_bytes)} of memory and"
            f" {_size(self.cache_bytes)} of disk for the cache",
        ]
        if self.data.unknown:
            lines.append(f"{self.data.unknown} cut-outs name no patient; they are used only if their voxels show whose")
        if self.seen:
            lines.append(
                f"{self.seen} of the held-out patients were in the parent's training data: hold out others, or the"
                " comparison at the end says little"
            )
        if not self.data.held_out.labelled:
            lines.append("no labeled scan is held out: false positives per scan cannot be compared at the end")
        return lines


def plan_run(
    folders: list[Path],
    recipe: Recipe,
    device: torch.device,
    parent: Parent | None = None,
    *,
    strict: bool = False,
    proposals: str = DEFAULT_PROPOSALS,
) -> Plan:
    """Measure what a run would need. Raises InputError as `prepare`, and if no scan of the data can be read."""
    data = look_over(folders, recipe.split, strict=strict)
    prepare_s, cache_bytes = time_one(data, recipe.samples, recipe.split, future_detector(recipe.train, proposals))
    step_s = step_seconds(recipe, device)
    negatives = recipe.samples.candidates_per_scan * data.held_out.labelled
    scored = negatives + data.held_out.nodules + data.held_out.cutouts * (1 + recipe.samples.stack_negatives)
    validations = -(-recipe.train.steps // recipe.train.validate_every)
    seen = parent.patients if parent else None
    return Plan(
        data,
        networks=len(parent.starts(recipe.split)) if parent else 1,
        steps=recipe.train.steps,
        seen=None if seen is None else len(seen & data.held_out.patients),
        prepare_s=prepare_s,
        step_s=step_s,
        validation_s=validations * scored * _SCORING * step_s / recipe.train.batch_size,
        cache_bytes=len(data.scans) * cache_bytes,
        memory_bytes=_peak_bytes(device),
    )


def step_seconds(recipe: Recipe, device: torch.device, steps: int = _STEPS) -> float:
    """Return the seconds of a training step, with augmentation, on patches of noise: the mean after one to warm up."""
    config = replace(recipe.train, steps=1 + steps, validate_every=1 + steps, patience=0)
    ends: list[float] = []

    def note(_: Progress) -> None:
        ends.append(time.monotonic())

    train_network(noise_samples(recipe), [], config, note, process=Process(device=device))
    return (ends[-1] - ends[0]) / steps


def noise_samples(recipe: Recipe) -> list[Sample]:
    """Return a nodule and a candidate of noise, with cubes of the recipe's size."""
    sides = recipe.samples.sides
    noise = np.random.default_rng(0).normal(-600, 200, sides).astype(np.int16)
    return [
        Sample(lambda: noise, recipe.samples.side, label, kind, "noise", "noise", 0, sides[0])
        for label, kind in ((1, "mark"), (0, "candidate"))
    ]


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has held: the device's and its own."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return own + (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
