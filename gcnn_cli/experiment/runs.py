"""The data-efficiency experiment (Winkels & Cohen 2018, arXiv:1804.04656, Figure 4): score against samples.

There is one training for every arm, number of samples and seed, on nested, balanced subsets of the training samples.
The test set, of held-out patients, is fixed and used for nothing else. A finished training leaves one JSON file per
way of scoring, with the logits of every test sample, from which all figures are computed later. A killed training
continues from its checkpoint. Several processes can share a folder; a lock file marks the training that a process
works on.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcnn_cli.errors import InputError
from gcnn_cli.experiment.arms import Arm
from gcnn_cli.files import make_folder, write_bytes
from gcnn_cli.locks import claimed
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.samples.prepare import Prepared
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.split import is_held_out, nested_subset
from gcnn_cli.training.augment import plain_batch
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.loop import Progress, train_network
from gcnn_cli.training.recipe import Recipe, stated_settings

log = logging.getLogger("gcnn")

_BATCH = 64
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """One training of the experiment."""

    arm: Arm
    samples: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-{self.samples}-{self.seed}"

    def result_names(self) -> list[tuple[str, str]]:
        """Return (name of the result, group of test-time pooling) for every way of scoring this training."""
        pooled = [(f"{self.arm.name}+{group}-{self.samples}-{self.seed}", group) for group in self.arm.pooled_over]
        return [(self.name, "trivial"), *pooled]


def plan_runs(arms: tuple[Arm, ...], samples: tuple[int, ...], seeds: int) -> list[Run]:
    """Plan all trainings: every arm at one seed before the next seed, so that a table can be drawn early."""
    return [Run(arm, count, seed) for seed in range(seeds) for count in sorted(samples) for arm in arms]


@dataclass(frozen=True)
class Split:
    """Training samples, the validation set of all trainings, and the test set."""

    training: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    fingerprint: str


def split_samples(prepared: Prepared, recipe: Recipe) -> Split:
    """Split the held-out samples: half of the patients with cut-outs to validate on, all others and scans to test on.

    Raises InputError if the test set lacks nodules or candidates of labeled scans.
    """
    seed = recipe.split.seed
    watched = [
        s
        for s in prepared.validation
        if s.kind in ("stack", "cube", "beside") and is_held_out(s.patient, 0.5, seed + 1)
    ]
    chosen = {id(s) for s in watched}
    test = [s for s in prepared.validation if id(s) not in chosen]
    kinds = {s.kind for s in test}
    if not kinds & {"stack", "cube", "mark"} or "candidate" not in kinds:
        raise InputError("the test set needs held-out nodules and a held-out labeled scan; see --hold-out")
    described = [(s.kind, s.patient, s.series, s.label) for s in (*prepared.training, *watched, *test)]
    return Split(prepared.training, watched, test, fingerprint(described))


def run_all(
    runs: list[Run],
    split: Split,
    recipe: Recipe,
    folder: Path,
    *,
    watch: Callable[[Run, int, Progress], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Run every training that is not finished and not claimed by another process. Return the number run here.

    `watch` is called with every step: the run, the number of unfinished trainings, the progress. Raises Interrupted.
    """
    make_folder(folder / "runs")
    done = 0
    for run in runs:
        with claimed(folder / "runs" / f"{run.name}.lock") as holder:
            if holder:
                log.info("%s: in progress by %s", run.name, holder)
            if holder or is_done(run, split, recipe, folder):
                continue
            left = sum(not is_done(other, split, recipe, folder) for other in runs)
            _train_one(run, split, recipe, folder, partial(watch, run, left), should_stop)
            done += 1
    return done


def is_done(run: Run, split: Split, recipe: Recipe, folder: Path) -> bool:
    """Return True if every result of a training exists. Raises InputError if it comes from other data or settings."""
    for name, _ in run.result_names():
        path = folder / "runs" / f"{name}.json"
        if not path.is_file():
            return False
        if _read_json(path).get("fingerprint") != _fingerprint(run, split, recipe):
            raise InputError(f"{path}: comes from different data or a different recipe; use another --out")
    return True


def _train_one(
    run: Run,
    split: Split,
    recipe: Recipe,
    folder: Path,
    notify: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> None:
    config = run.arm.configure(recipe.train, run.seed)
    mark, precision = _fingerprint(run, split, recipe), precision_name(_CPU)
    checkpoint = Checkpoint(folder / "runs" / f"{run.name}.checkpoint", fingerprint(mark, precision))
    started = time.monotonic()
    training = nested_subset(split.training, run.samples, run.seed)
    network, validations = train_network(
        training, split.validation, config, notify, checkpoint=checkpoint, should_stop=should_stop
    )
    for name, group in run.result_names():
        result = {
            "arm": run.arm.name if group == "trivial" else f"{run.arm.name}+{group}",
            "group": run.arm.group,
            "fields": list(run.arm.fields),
            "turned_by": run.arm.turn_group,
            "pooled_over": group,
            "parameters": network.parameters_count,
            "samples": run.samples,
            "patients": len({s.patient for s in training if s.label}),
            "kinds": {kind: sum(s.kind == kind for s in training) for kind in sorted({s.kind for s in training})},
            "seed": run.seed,
            "steps": validations[-1].step if validations else config.steps,
            "losses": [[line.step, line.validation["loss"]] for line in validations if "loss" in line.validation],
            "logits": [round(float(x), 5) for x in score(network, split.test, recipe, group)],
            "precision": precision,
            "fingerprint": mark,
            "seconds": round(time.monotonic() - started, 1),
        }
        _write_json(folder / "runs" / f"{name}.json", result)
    checkpoint.path.unlink(missing_ok=True)
    log.info("%s: done in %.0f s", run.name, time.monotonic() - started)


def score(network: GCNN, samples: list[Sample], recipe: Recipe, pooled_over: str) -> Any:
    """Return the logits [N] of the samples' central patches: means over the copies turned by a group's elements."""
    scorer = make_scorer(network, _CPU, average_over=pooled_over)
    spec = recipe.train.input
    return scorer.score(plain_batch(samples[n : n + _BATCH], spec) for n in range(0, len(samples), _BATCH))


def describe_test(split: Split) -> dict[str, Any]:
    """Return label, kind, patient and series of each test sample, in the order of every result's logits."""
    return {
        "label": [s.label for s in split.test],
        "kind": [s.kind for s in split.test],
        "patient": [s.patient for s in split.test],
        "series": [s.series for s in split.test],
    }


def _fingerprint(run: Run, split: Split, recipe: Recipe) -> str:
    config = run.arm.configure(recipe.train, run.seed)
    settings = stated_settings(config)
    return fingerprint(split.fingerprint, settings, asdict(recipe.samples), asdict(recipe.split), run.samples)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(data) + "\n").encode(), overwrite=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        data = None
    if not isinstance(data, dict):
        raise InputError(f"{path}: missing or damaged")
    return data


def read_results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the description of the test set and every finished result, sorted by arm, samples and seed.

    Raises InputError if the folder is not that of an experiment, or a file is damaged or belongs to another test set.
    """
    if not (folder / "test.json").is_file():
        raise InputError(f"{folder}: not the folder of an experiment: it holds no test.json")
    test = _read_json(folder / "test.json")
    results = [_read_json(path) for path in sorted((folder / "runs").glob("*.json"))]
    for result in results:
        if len(result["logits"]) != len(test["label"]) or not np.isfinite(result["logits"]).all():
            name = f"{result['arm']}-{result['samples']}-{result['seed']}"
            raise InputError(f"{folder}: {name} does not belong to this test set")
    return test, sorted(results, key=lambda r: (r["arm"], r["samples"], r["seed"]))


def write_test(split: Split, folder: Path) -> None:
    """Describe the test set beside the results. Raises InputError if the folder holds that of another one."""
    make_folder(folder)
    path, described = folder / "test.json", describe_test(split)
    if path.is_file() and _read_json(path) != described:
        raise InputError(f"{path}: describes another test set; hold out the same patients, or use another --out")
    _write_json(path, described)
