"""One training run, from labeled folders to a weights file with its provenance. It can be stopped and resumed.

Beside the weights file `NAME.safetensors`, the folder `NAME.run` holds the recipe, the names of the data
(`data.json`), `metrics.jsonl`, a plot of the loss, the last checkpoint and, by default, the cache of preprocessed
scans.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from gcnn_cli.detection.detector import Detector, make_detector
from gcnn_cli.detection.proposals import SHIPPED
from gcnn_cli.files import make_folder, write_bytes
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.samples.montage import draw_montage
from gcnn_cli.samples.prepare import Prepared, prepare
from gcnn_cli.samples.split import nested_subset
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.distributed import Process
from gcnn_cli.training.loop import Progress, train_network
from gcnn_cli.training.metrics import Metrics
from gcnn_cli.training.operating_points import OperatingStudy, study_operation
from gcnn_cli.training.provenance import provenance_of, write_data_names
from gcnn_cli.training.recipe import Recipe, recipe_text, stated_settings
from gcnn_cli.training.run_files import check_run_files, checkpoint_path, run_folder
from gcnn_cli.training.scoring import score_samples

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class RunConfig:
    """Input and output of a run.

    cache:     folder of preprocessed scans; None for one in the run's folder
    montage:   draw the training samples into this PNG and do not train
    resume:    continue from the checkpoint of an earlier run
    strict:    raise InputError for any problem of the data instead of leaving it out
    name_data: name series and patients in the weights file
    proposals: network that proposes candidates: name of shipped weights, or path of a weights file
    """

    data: tuple[Path, ...]
    out: Path
    recipe: Recipe = field(default_factory=Recipe)
    cache: Path | None = None
    montage: Path | None = None
    tensorboard: bool = False
    overwrite: bool = False
    resume: bool = False
    strict: bool = False
    name_data: bool = False
    proposals: str = SHIPPED

    def __post_init__(self) -> None:
        check_run_files(self.out, overwrite=self.overwrite, resume=self.resume)

    @property
    def folder(self) -> Path:
        """Folder of everything that the run keeps except the weights."""
        return run_folder(self.out)

    @property
    def checkpoint_path(self) -> Path:
        """Path of the run's checkpoint."""
        return checkpoint_path(self.out)


def run_training(
    config: RunConfig,
    *,
    watch: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    process: Process | None = None,
) -> TrainedModel | None:
    """Prepare samples, train, calibrate and write the weights. `watch` is called with every step.

    Return None if only a montage was requested, and on every rank but 0.

    Raises InputError for data that cannot be learned from, Interrupted when asked to stop.
    """
    started = time.monotonic()
    process = process or Process()
    make_folder(config.folder)  # now, not after hours of training
    recipe = config.recipe
    cache = config.cache or config.folder / "cache"
    prepared = process.main_first(
        lambda: prepare(
            list(config.data),
            recipe.samples,
            recipe.split,
            strict=config.strict,
            cache=cache,
            detector=None if config.montage else _future_detector(recipe, config.proposals),
            proposals=config.proposals,
        )
    )
    training = prepared.training
    if recipe.subset:
        training = nested_subset(training, recipe.subset, recipe.split.seed)
    for name, part in (("training", training), ("held out", prepared.validation)):
        log.info("%s: %s", name, dict(Counter(s.kind for s in part)))
    if config.montage:
        draw_montage(training, config.montage, recipe.train.seed)
        return None
    # With patients by their names in the index: an id given by hand is stored nowhere.
    recipe = Recipe(recipe.train, recipe.samples, prepared.split, recipe.subset)
    precision = precision_name(process.device)
    settings = {**asdict(recipe), "train": stated_settings(recipe.train)}
    run = fingerprint(settings, prepared.training_series, prepared.training_patients, len(training), precision)
    checkpoint = Checkpoint(config.checkpoint_path, run)
    if process.is_main and not config.resume:
        checkpoint.path.unlink(missing_ok=True)
    with _reporting(config, recipe, watch) if process.is_main else nullcontext(_nothing) as notify:
        network, validations = train_network(
            training,
            prepared.validation,
            recipe.train,
            notify,
            checkpoint=checkpoint,
            should_stop=should_stop,
            process=process,
        )
    if not process.is_main:
        return None
    study = _study(network, prepared, recipe)
    kinds = Counter(s.kind for s in training)
    provenance = provenance_of(recipe, prepared, kinds, validations, study, precision, name_data=config.name_data)
    provenance["hours"] = round((time.monotonic() - started) / 3600, 3)
    model = TrainedModel(config.out.stem, network, recipe.train.input, study.calibration, provenance)
    sha256 = save_model(model, config.out, overwrite=config.overwrite)
    write_data_names(prepared, config.folder, sha256)
    checkpoint.path.unlink(missing_ok=True)  # the run is finished
    log.info("%s: sha256 %s", config.out, sha256)
    return model


@contextmanager
def _reporting(
    config: RunConfig, recipe: Recipe, watch: Callable[[Progress], None]
) -> Iterator[Callable[[Progress], None]]:
    """Yield the callback of every step: it calls `watch` and, at validations, logs and writes the metrics."""
    write_bytes(config.folder / "recipe.toml", recipe_text(recipe).encode(), overwrite=True)
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
    """Rank 0 alone reports."""


def _future_detector(recipe: Recipe, proposals: str) -> Detector:
    """Return the detector that the new weights will have, but for the weights: it finds the same candidates."""
    untrained = TrainedModel("untrained", GCNN(recipe.train.network).eval(), recipe.train.input, Calibration())
    return make_detector(untrained, torch.device("cpu"), proposals=proposals)


def _study(network: GCNN, prepared: Prepared, recipe: Recipe) -> OperatingStudy:
    """Calibrate on held-out nodules and on the candidates that detection scores in every labeled scan."""
    labelled, held = set(prepared.labelled_series), set(prepared.held_out_patients)
    nodules = [s for s in prepared.validation if s.label]
    marks = [s for s in prepared.training if s.kind == "mark" and s.series in labelled]
    samples = [*nodules, *marks, *prepared.scored]
    logits = score_samples(network, samples, recipe.train.input).numpy()
    return study_operation(samples, logits, [s.patient in held for s in samples])
