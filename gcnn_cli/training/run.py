"""One training run, from folders to a weights file with its provenance."""

import logging
import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gcnn_cli import __version__
from gcnn_cli.errors import UsageError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.weights import SUFFIX, TrainedModel, save_model
from gcnn_cli.training.loop import Progress, TrainConfig, score_samples, train_network
from gcnn_cli.training.operating import operating_points
from gcnn_cli.training.prepare import Prepared, SplitConfig, prepare
from gcnn_cli.training.samples import SampleConfig

log = logging.getLogger("gcnn")

# Convolution parameters about equal to O's 2,2,4,4,8,8, as in the article (channels / sqrt |G|).
FIELDS: dict[str, tuple[int, ...]] = {
    "trivial": (16, 16, 32, 32, 64, 64),
    "C4": (6, 6, 12, 12, 24, 24),
    "C4h": (5, 5, 10, 10, 20, 20),
    "D4": (5, 5, 10, 10, 20, 20),
    "D4h": (4, 4, 8, 8, 16, 16),
    "O": (2, 2, 4, 4, 8, 8),
    "Oh": (2, 2, 4, 4, 6, 6),
}


@dataclass(frozen=True)
class RunConfig:
    """What to train on, what to make, what to hold out."""

    data: tuple[Path, ...]
    out: Path
    group: str = "O"
    steps: int = 1100
    seed: int = 0
    hold_out: tuple[str, ...] = ()
    hold_out_share: float = 0.2
    split_seed: int = 0
    overwrite: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.group not in FIELDS:
            raise UsageError(f"unknown group {self.group!r}: choose one of {', '.join(FIELDS)}")
        if self.out.suffix != SUFFIX:
            raise UsageError(f"{self.out}: a weights file ends in {SUFFIX}")
        if self.out.exists() and not self.overwrite:
            raise UsageError(f"{self.out} exists already; give --overwrite or another --out")


def run_training(config: RunConfig) -> TrainedModel:
    """Prepare, train, write. Raises InputError for data that cannot be learned from."""
    started = time.monotonic()
    config.out.parent.mkdir(parents=True, exist_ok=True)  # now, not after hours of training
    samples = SampleConfig()
    split = SplitConfig(config.hold_out, config.hold_out_share, config.split_seed)
    prepared = prepare(list(config.data), samples, split, strict=config.strict)
    for name, part in (("training", prepared.training), ("held out", prepared.validation)):
        log.info("%s: %s", name, dict(Counter(s.kind for s in part)))
    recipe_config = TrainConfig(
        network=NetworkConfig(group=config.group, fields=FIELDS[config.group]),
        steps=config.steps,
        seed=config.seed,
    )
    progress: list[Progress] = []

    def notify(line: Progress) -> None:
        progress.append(line)
        figures = " ".join(f"{key} {value:.3f}" for key, value in line.validation.items())
        log.info(
            "step %d/%d  loss %.3f  %.1f patches/s  %s",
            line.step, config.steps, line.loss, line.patches_per_s, figures,
        )  # fmt: skip

    network = train_network(prepared.training, prepared.validation, recipe_config, notify)
    calibration = measure_operating_points(network, prepared, recipe_config)
    provenance = provenance_of(config, recipe_config, prepared, progress, time.monotonic() - started)
    model = TrainedModel(config.out.stem, network, recipe_config.input, calibration, provenance)
    sha256 = save_model(model, config.out, overwrite=config.overwrite)
    log.info("%s: sha256 %s", config.out, sha256)
    return model


def measure_operating_points(network: GCNN, prepared: Prepared, config: TrainConfig) -> Calibration:
    """Operating points from the candidates of every labelled scan, held out or not."""
    false = [
        sample
        for sample in (*prepared.training, *prepared.validation)
        if sample.kind == "candidate" and sample.series in prepared.labelled_series
    ]
    return operating_points(score_samples(network, false, config.input).numpy(), len(prepared.labelled_series))


def provenance_of(
    config: RunConfig,
    recipe_config: TrainConfig,
    prepared: Prepared,
    progress: list[Progress],
    seconds: float,
) -> dict[str, object]:
    return {
        "tool": f"gcnn {__version__}",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "recipe": asdict(recipe_config),
        "split": asdict(prepared.split),
        "labelled_series": prepared.labelled_series,
        "training_series": prepared.training_series,
        "training_patients": prepared.training_patients,
        "held_out_patients": prepared.held_out_patients,
        "samples": dict(Counter(s.kind for s in prepared.training)),
        "validation": asdict(progress[-1]) if progress else {},
        "hours": round(seconds / 3600, 3),
    }
