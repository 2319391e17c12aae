"""The trainings of an experiment: planned, claimed by one process each, resumed after a kill, stored as logits.

Processes and machines that share the folder share the work. Each training is claimed by a lock, continues from its
checkpoint, and leaves one JSON file with the logits of all test samples for each way of scoring.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from gcnn_cli.errors import InputError
from gcnn_cli.experiment.arms import Arm
from gcnn_cli.experiment.pace import steps_within
from gcnn_cli.experiment.results import read_json, write_json
from gcnn_cli.experiment.splits import Split, write_test
from gcnn_cli.files import make_folder
from gcnn_cli.locks import claimed
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.devices import precision_name
from gcnn_cli.samples.split import nested_subset
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.loop import Progress, train_network
from gcnn_cli.training.recipe import Recipe, stated_settings
from gcnn_cli.training.scoring import score_samples

log = logging.getLogger("gcnn")

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


def plan_runs(arms: tuple[Arm, ...], samples: tuple[int, ...], seeds: int, first: int = 0) -> list[Run]:
    """Plan all trainings: every arm at one seed before the next seed, so that a table can be drawn early."""
    return [Run(arm, count, seed) for seed in range(first, first + seeds) for count in sorted(samples) for arm in arms]


@dataclass(frozen=True)
class Experiment:
    """What all trainings share.

    split_of: from a seed to its samples
    budgets:  CPU seconds after which each network is also measured as training would have left it then, by one look at
              each sample
    pace:     CPU seconds of one step, by arm; all arms of the runs where there are budgets
    command:  the command line, for the record
    """

    recipe: Recipe
    folder: Path
    split_of: Callable[[int], Split]
    budgets: tuple[float, ...] = ()
    pace: dict[str, float] = field(default_factory=dict)
    command: str = ""

    def budget_steps(self, run: Run) -> dict[str, int]:
        """Return the last step within each budget, by its name; none for a budget that ends before a validation."""
        steps = {f"{b:g}": steps_within(b, self.pace[run.arm.name], self.recipe.train) for b in self.budgets}
        return {budget: step for budget, step in steps.items() if step}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of what the results of one table share."""
        recipe = self.recipe
        return fingerprint(stated_settings(recipe.train), asdict(recipe.samples), asdict(recipe.split))


def run_all(
    runs: list[Run],
    experiment: Experiment,
    *,
    watch: Callable[[Run, int, Progress], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Run every training that is not finished and not claimed by another process. Return the number run here.

    `watch` is called with every step: the run, the number of unfinished trainings, the progress. Raises Interrupted,
    and InputError for a result that comes from other data or settings.
    """
    make_folder(experiment.folder / "runs")
    done = 0
    for run in runs:
        split = experiment.split_of(run.seed)
        write_test(split, experiment.folder)
        with claimed(experiment.folder / "runs" / f"{run.name}.lock") as holder:
            if holder:
                log.info("%s: in progress by %s", run.name, holder)
            if holder or is_done(run, split, experiment):
                continue
            left = sum(not _is_there(other, experiment) for other in runs)
            _train_one(run, split, experiment, partial(watch, run, left), should_stop)
            done += 1
    return done


def is_done(run: Run, split: Split, experiment: Experiment) -> bool:
    """Return True if every result of a training exists. Raises InputError if it comes from other data or settings."""
    if not _is_there(run, experiment):
        return False
    for path in _result_paths(run, experiment):
        if read_json(path).get("fingerprint") != _fingerprint(run, split, experiment):
            raise InputError(
                f"{path}: comes from different data or a different recipe, or other --budgets; use another --out"
            )
    return True


def _is_there(run: Run, experiment: Experiment) -> bool:
    return all(path.is_file() for path in _result_paths(run, experiment))


def _result_paths(run: Run, experiment: Experiment) -> list[Path]:
    return [experiment.folder / "runs" / f"{name}.json" for name, _ in run.result_names()]


def _train_one(
    run: Run,
    split: Split,
    experiment: Experiment,
    notify: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> None:
    recipe, folder = experiment.recipe, experiment.folder
    config = run.arm.configure(recipe.train, run.seed)
    mark, precision = _fingerprint(run, split, experiment), precision_name(_CPU)
    checkpoint = Checkpoint(folder / "runs" / f"{run.name}.checkpoint", fingerprint(mark, precision))
    training = nested_subset(split.training, run.samples, run.seed)
    steps = experiment.budget_steps(run)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    network, validations = train_network(
        training,
        split.validation,
        config,
        notify,
        checkpoint=checkpoint,
        should_stop=should_stop,
        keep_at=steps.values(),
        kept=kept,
    )
    ended = validations[-1].step
    then = GCNN(config.network).eval()
    seconds = _training_seconds(validations, config.batch_size)

    def logits_of(trained: GCNN, group: str) -> list[float]:
        logits = score_samples(trained, split.test, recipe.train.input, _CPU, group)
        return [round(float(x), 3) for x in logits]

    for name, group in run.result_names():
        logits = logits_of(network, group)
        budgets = {}
        for budget, step in steps.items() if group == "trivial" else ():
            if step >= ended:
                budgets[budget] = logits
            else:
                then.load_state_dict(kept[step])
                budgets[budget] = logits_of(then, group)
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
            "fold": split.fold,
            "steps": ended,
            "losses": [[v.step, round(v.validation["loss"], 5)] for v in validations if "loss" in v.validation],
            "logits": logits,
            "budgets": budgets,
            "budget_steps": {budget: min(steps[budget], ended) for budget in budgets},
            "precision": precision,
            "command": experiment.command,
            "data": split.fingerprint,
            "recipe": experiment.fingerprint,
            "fingerprint": mark,
            "seconds": round(seconds, 1),
        }
        write_json(folder / "runs" / f"{name}.json", result)
    checkpoint.path.unlink(missing_ok=True)
    log.info("%s: done after %d steps in %.0f s", run.name, ended, seconds)


def _training_seconds(validations: list[Progress], batch_size: int) -> float:
    """Return the seconds spent on steps, those before a resume too."""
    begins = [0, *(v.step for v in validations)]
    return sum((v.step - begin) * batch_size / v.patches_per_s for begin, v in zip(begins, validations, strict=False))


def _fingerprint(run: Run, split: Split, experiment: Experiment) -> str:
    settings = stated_settings(run.arm.configure(experiment.recipe.train, run.seed))
    return fingerprint(split.fingerprint, experiment.fingerprint, settings, run.samples, experiment.budget_steps(run))
