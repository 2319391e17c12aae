"""One training run, from folders to a weights file with its provenance; it can be stopped and resumed.

Beside the weights file `NAME.safetensors` a folder `NAME.run` holds the recipe, `metrics.jsonl`, a plot of the
loss, the last checkpoint and, unless another is given, the cache of searched scans.
"""

import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from gcnn_cli import __version__
from gcnn_cli.errors import UsageError
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.weights import SUFFIX, TrainedModel, save_model
from gcnn_cli.samples.montage import draw_montage
from gcnn_cli.samples.prepare import Prepared, prepare
from gcnn_cli.samples.split import nested_subset
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.distributed import Team
from gcnn_cli.training.loop import Progress, train_network
from gcnn_cli.training.metrics import Metrics
from gcnn_cli.training.operating_points import OperatingStudy, study_operation
from gcnn_cli.training.recipe import Recipe, recipe_text
from gcnn_cli.training.scoring import score_samples

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class RunConfig:
    """What to train on and what to make. resume: go on from the checkpoint of an earlier run."""

    data: tuple[Path, ...]
    out: Path
    recipe: Recipe = field(default_factory=Recipe)
    cache: Path | None = None
    montage: Path | None = None  # draw the training samples there and do not train
    tensorboard: bool = False
    overwrite: bool = False
    resume: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix != SUFFIX:
            raise UsageError(f"{self.out}: a weights file ends in {SUFFIX}")
        if self.out.exists() and not self.overwrite:
            raise UsageError(f"{self.out} exists already; give --overwrite or another --out")
        if self.checkpoint_path.exists() and not (self.resume or self.overwrite):
            raise UsageError(f"{self.checkpoint_path} is of an unfinished run; give --resume or --overwrite")

    @property
    def folder(self) -> Path:
        """Where the run keeps what is not the weights."""
        return self.out.with_suffix(".run")

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"


def run_training(
    config: RunConfig,
    *,
    watch: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    team: Team | None = None,
) -> TrainedModel | None:
    """Prepare, train, calibrate, write. `watch` sees every step.

    None where only a montage was asked for, and in every process of a team but the first.

    Raises InputError for data that cannot be learned from, Interrupted when asked to stop.
    """
    started = time.monotonic()
    team = team or Team()
    config.folder.mkdir(parents=True, exist_ok=True)  # now, not after hours of training
    recipe = config.recipe
    cache = config.cache or config.folder / "cache"
    prepared = team.in_turn(
        lambda: prepare(list(config.data), recipe.samples, recipe.split, strict=config.strict, cache=cache)
    )
    training = prepared.training
    if recipe.subset:
        training = nested_subset(training, recipe.subset, recipe.split.seed)
    for name, part in (("training", training), ("held out", prepared.validation)):
        log.info("%s: %s", name, dict(Counter(s.kind for s in part)))
    if config.montage:
        draw_montage(training, config.montage, recipe.train.seed)
        return None
    # With the patients as the index knows them: an id given by hand is stored nowhere.
    recipe = Recipe(recipe.train, recipe.samples, prepared.split, recipe.subset)
    checkpoint = Checkpoint(
        config.checkpoint_path,
        fingerprint(asdict(recipe), prepared.training_series, prepared.training_patients, len(training)),
    )
    if team.leads and not config.resume:
        checkpoint.path.unlink(missing_ok=True)
    with _reporting(config, recipe, watch) if team.leads else nullcontext(_nothing) as notify:
        network, validations = train_network(
            training,
            prepared.validation,
            recipe.train,
            notify,
            checkpoint=checkpoint,
            should_stop=should_stop,
            team=team,
        )
    if not team.leads:
        return None
    study = _study(network, prepared, recipe)
    provenance = provenance_of(recipe, prepared, Counter(s.kind for s in training), validations, study)
    provenance["hours"] = round((time.monotonic() - started) / 3600, 3)
    model = TrainedModel(config.out.stem, network, recipe.train.input, study.calibration, provenance)
    sha256 = save_model(model, config.out, overwrite=config.overwrite)
    checkpoint.path.unlink(missing_ok=True)  # the run is finished
    log.info("%s: sha256 %s", config.out, sha256)
    return model


@contextmanager
def _reporting(
    config: RunConfig, recipe: Recipe, watch: Callable[[Progress], None]
) -> Iterator[Callable[[Progress], None]]:
    """What hears of every step: the watcher, and at validations the log and the run's folder."""
    (config.folder / "recipe.toml").write_text(recipe_text(recipe), encoding="utf-8")
    with Metrics(config.folder, tensorboard=config.tensorboard, resume=config.resume) as metrics:

        def notify(line: Progress) -> None:
            watch(line)
            if line.validation or line.step == recipe.train.steps:
                metrics.write(line)
                figures = " ".join(f"{key} {value:.3f}" for key, value in line.validation.items())
                log.info(
                    "step %d/%d  loss %.3f  %.1f patches/s  %s",
                    line.step, recipe.train.steps, line.loss, line.patches_per_s, figures,
                )  # fmt: skip

        yield notify


def _nothing(_: Progress) -> None:
    """The first process of a team speaks for the others."""


def _study(network: GCNN, prepared: Prepared, recipe: Recipe) -> OperatingStudy:
    """Calibration from the held-out samples and the candidates of every labelled scan."""
    labelled = set(prepared.labelled_series)
    counted = [
        s
        for s in prepared.training
        if s.kind in ("candidate", "mark") and s.series in labelled and not recipe.split.folds
    ]  # with folds every scan is held out from one network: nothing is counted twice
    samples = [*prepared.validation, *counted]
    logits = score_samples(network, samples, recipe.train.input).numpy()
    return study_operation(samples, logits, [n < len(prepared.validation) for n in range(len(samples))])


def provenance_of(
    recipe: Recipe, prepared: Prepared, kinds: Counter[str], validations: list[Progress], study: OperatingStudy
) -> dict[str, object]:
    """What a weights file says of where it comes from."""
    return {
        "tool": f"gcnn {__version__}",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "labelled_series": prepared.labelled_series,
        "training_series": prepared.training_series,
        "training_patients": prepared.training_patients,
        "held_out_patients": prepared.held_out_patients,
        "samples": dict(kinds),
        "validation": asdict(validations[-1]) if validations else {},
        "operating_points": {
            "scans": study.scans,
            "all_held_out": study.held_out,
            "prior": study.prior,
            "expected_calibration_error": None
            if study.expected_error != study.expected_error
            else study.expected_error,
        },
    }
