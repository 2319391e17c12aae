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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gcnn_cli.detection.detector import Detector, make_detector
from gcnn_cli.files import make_folder, write_bytes
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.committee import Committee, Network, shares_of
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.samples.montage import draw_montage
from gcnn_cli.samples.prepare import Prepared, prepare
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.split import nested_subset
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.comparison import Comparison, compare_with_parent
from gcnn_cli.training.distributed import Process
from gcnn_cli.training.loop import Progress, TrainConfig, train_network, validation_of_result
from gcnn_cli.training.metrics import Metrics
from gcnn_cli.training.operating_points import OperatingStudy, study_operation
from gcnn_cli.training.parent import Parent
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
    parent:    weights to go on from; None to start anew
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
    proposals: str = DEFAULT_PROPOSALS
    parent: Parent | None = None

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

    @property
    def networks(self) -> int:
        """Number of networks that are trained, one after the other."""
        return len(self.parent.starts(self.recipe.split)) if self.parent else 1


def run_training(
    config: RunConfig,
    *,
    watch: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    process: Process | None = None,
    compared: Callable[[Comparison | None], None] = lambda _: None,
) -> TrainedModel | None:
    """Prepare samples, train, calibrate and write the weights. `watch` is called with every step.

    compared: called with the comparison of new weights and their parent, once the weights are written; with None if
              nothing was held out to compare on

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
            detector=None if config.montage else future_detector(recipe.train, config.proposals),
            proposals=config.proposals,
            combined=True,
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
    recipe = replace(recipe, split=prepared.split)
    precision = precision_name(process.device)
    settings = {**asdict(recipe), "train": stated_settings(recipe.train)}
    run = run_fingerprint(settings, prepared, len(training), precision, process.world_size)
    checkpoints = [Checkpoint(checkpoint_path(config.out, n), run) for n in range(config.networks)]
    if process.is_main and not config.resume:
        for checkpoint in checkpoints:
            checkpoint.path.unlink(missing_ok=True)
    with _reporting(config, recipe, watch) if process.is_main else nullcontext(_nothing) as notify:
        network, validations = _train(config, recipe, training, prepared, notify, checkpoints, should_stop, process)
    if not process.is_main:
        return None
    study = _study(network, prepared, recipe, config.parent)
    kinds = Counter(s.kind for s in training)
    provenance = provenance_of(recipe, prepared, kinds, validations, study, precision, name_data=config.name_data)
    comparison = None
    if config.parent:
        provenance["parent"] = config.parent.provenance(recipe.split)
        comparison = _compare(config.parent, network, prepared, recipe)
        provenance["comparison"] = comparison.data() if comparison else {}
    provenance["hours"] = round((time.monotonic() - started) / 3600, 3)
    calibration = _calibration(study, config.parent)
    model = TrainedModel(config.out.stem, network, recipe.train.input, calibration, provenance)
    sha256 = save_model(model, config.out, overwrite=config.overwrite)
    write_data_names(prepared, config.folder, sha256)
    for checkpoint in checkpoints:
        checkpoint.path.unlink(missing_ok=True)  # the run is finished
    log.info("%s: sha256 %s", config.out, sha256)
    if config.parent:
        compared(comparison)
    return model


def run_fingerprint(settings: dict[str, Any], prepared: Prepared, samples: int, precision: str, processes: int) -> str:
    """Return the fingerprint of all that decides a run's weights. Processes draw the variations of their patches."""
    names = prepared.training_series, prepared.training_patients, prepared.held_out_patients
    return fingerprint(settings, names, samples, prepared.origin, prepared.contents, precision, processes)


@contextmanager
def _reporting(
    config: RunConfig, recipe: Recipe, watch: Callable[[Progress], None]
) -> Iterator[Callable[[Progress], None]]:
    """Yield the callback of every step: it calls `watch` and, at validations, logs and writes the metrics."""
    write_bytes(config.folder / "recipe.toml", recipe_text(recipe).encode(), overwrite=True)
    with Metrics(config.folder, tensorboard=config.tensorboard, resume=config.resume) as metrics:

        def notify(line: Progress) -> None:
            watch(line)
            if line.validation or line.step % recipe.train.steps == 0:
                metrics.write(line)
                figures = " ".join(f"{key} {value:.3f}" for key, value in line.validation.items())
                log.info(
                    "step %d/%d  loss %.3f  %.1f patches/s  %s",
                    line.step, recipe.train.steps * config.networks, line.loss, line.patches_per_s, figures,
                )  # fmt: skip

        yield notify


def _nothing(_: Progress) -> None:
    """Rank 0 alone reports."""


def future_detector(train: TrainConfig, proposals: str = DEFAULT_PROPOSALS) -> Detector:
    """Return the detector that the new weights will have, but for the weights: it finds the same candidates."""
    untrained = TrainedModel("untrained", GCNN(train.network).eval(), train.input, Calibration())
    return make_detector(untrained, torch.device("cpu"), proposals=proposals)


def _train(
    config: RunConfig,
    recipe: Recipe,
    training: list[Sample],
    prepared: Prepared,
    notify: Callable[[Progress], None],
    checkpoints: list[Checkpoint],
    should_stop: Callable[[], bool],
    process: Process,
) -> tuple[Network, list[Progress]]:
    """Train the network, or every member of the parent's committee in turn. Steps are counted over all of them.

    Return it with the validation of each network as it is kept.
    """
    starts = config.parent.starts(recipe.split) if config.parent else [None]
    trained: list[GCNN] = []
    kept: list[Progress] = []
    for n, (start, checkpoint) in enumerate(zip(starts, checkpoints, strict=True)):
        before = n * recipe.train.steps

        def shifted(line: Progress, before: int = before) -> None:
            notify(replace(line, step=before + line.step))

        network, validations = train_network(
            training,
            prepared.validation,
            replace(recipe.train, seed=recipe.train.seed + n),
            shifted,
            checkpoint=checkpoint,
            should_stop=should_stop,
            process=process,
            start=start,
            frozen=recipe.init.frozen,
        )
        trained.append(network)
        kept.append(validation_of_result(validations, recipe.train))
    if len(trained) == 1:
        return trained[0], kept
    assert config.parent  # for the type checker: a training from scratch is of one network
    return Committee(trained, shares_of(config.parent.model.network)).eval(), kept


def _study(network: Network, prepared: Prepared, recipe: Recipe, parent: Parent | None) -> OperatingStudy:
    """Calibrate on held-out nodules and on the candidates that detection scores in every labeled scan."""
    labelled, held = set(prepared.labelled_series), set(prepared.held_out_patients)
    nodules = [s for s in prepared.validation if s.label]
    marks = [s for s in prepared.training if s.kind == "mark" and s.series in labelled]
    samples = [*nodules, *marks, *prepared.scored]
    logits = _logits(network, samples, recipe, parent)
    study = study_operation(samples, logits, [s.patient in held for s in samples])
    if parent is None:
        return study
    averaged = replace(study.calibration, average_over=parent.model.calibration.average_over)
    return replace(study, calibration=averaged)


def _logits(network: Network, samples: list[Sample], recipe: Recipe, parent: Parent | None) -> NDArray[np.float64]:
    """Return the logits [N] as the weights will score: averaged over the same group as the parent's."""
    average_over = parent.model.calibration.average_over if parent else "trivial"
    return score_samples(network, samples, recipe.train.input, torch.device("cpu"), average_over)


def _calibration(study: OperatingStudy, parent: Parent | None) -> Calibration:
    """Return the new calibration; where there was nothing to fit one to, the parent's or the default one."""
    if not study.missing:
        return study.calibration
    if parent:
        log.warning("no %s to calibrate on: the new weights keep the parent's calibration and threshold", study.missing)
        return parent.model.calibration
    log.warning(
        "no %s to calibrate on: the probabilities are as if every second candidate were a nodule, the threshold is %g,"
        " and how many false positives it gives is unknown; hold out patients with nodules, and add labeled scans",
        study.missing,
        study.calibration.threshold,
    )
    return study.calibration


def _compare(parent: Parent, network: Network, prepared: Prepared, recipe: Recipe) -> Comparison | None:
    held = set(prepared.held_out_patients)
    candidates = [s for s in prepared.scored if s.patient in held]
    negatives = candidates or [s for s in prepared.validation if not s.label]
    samples = [*(s for s in prepared.validation if s.label), *negatives]
    new, old = (_logits(n, samples, recipe, parent) for n in (network, parent.model.network))
    return compare_with_parent(samples, new, old, parent.patients)
