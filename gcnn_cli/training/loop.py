"""Optimization: AdamW with a scheduled learning rate, balanced batches, an averaged copy of the weights.

The same seed gives the same batches: every random choice of a step comes from a generator seeded with (seed, step).
A run that was stopped or killed continues from its last checkpoint to the same weights, bit for bit on the same CPU
with the same number of threads.
"""

import copy
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gcnn_cli.errors import InputError, ModelError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.devices import autocast
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.augment import AugmentConfig, Chances, make_batch
from gcnn_cli.training.averaging import update_average
from gcnn_cli.training.checkpoint import Checkpoint
from gcnn_cli.training.distributed import Process
from gcnn_cli.training.sampling import BatchSampler, rim_chances, slab_chances
from gcnn_cli.training.validation import validate

_WARM_UP = 50  # steps of the constant schedule


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training.

    batch_size: patches per step and process
    patience:   validations without a better score before the run ends early; 0: never
    choose_by:  what is better for patience: a higher "cpm" (AUC where no scan is held out) or a lower "loss"
    schedule:   "one-cycle" (Smith & Topin 2019), planned over all steps, or "constant" after a warm-up, for runs whose
                length only patience decides
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    input: InputSpec = field(default_factory=InputSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    average_decay: float = 0.99
    validate_every: int = 100
    patience: int = 0
    choose_by: str = "cpm"
    schedule: str = "one-cycle"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2 or self.validate_every < 1:
            raise InputError(
                f"[train] must have steps ({self.steps}) >= 1, batch_size ({self.batch_size}) >= 2"
                f" and validate_every ({self.validate_every}) >= 1"
            )
        if self.choose_by not in ("cpm", "loss") or self.schedule not in ("one-cycle", "constant"):
            raise InputError(
                f"[train] must have choose_by cpm or loss and schedule one-cycle or constant,"
                f" got {self.choose_by} and {self.schedule}"
            )
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0 <= self.average_decay < 1 and self.seed >= 0):
            raise InputError(
                f"[train] must have learning_rate ({self.learning_rate}) > 0, weight_decay ({self.weight_decay}) >= 0,"
                f" average_decay ({self.average_decay}) from 0 to below 1 and seed ({self.seed}) >= 0"
            )


@dataclass(frozen=True)
class Progress:
    """One line of the training log; `validation` is empty between validations."""

    step: int
    loss: float  # mean since the last validation
    patches_per_s: float
    validation: dict[str, float]


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Raised when a run was asked to stop; its checkpoint is written."""


Notify = Callable[[Progress], None]


def train_network(
    training: list[Sample],
    validation: list[Sample],
    config: TrainConfig,
    notify: Notify,
    *,
    checkpoint: Checkpoint | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    process: Process | None = None,
    start: GCNN | None = None,
    frozen: int = 0,
    keep_at: Collection[int] = (),
    kept: dict[int, dict[str, torch.Tensor]] | None = None,
) -> tuple[GCNN, list[Progress]]:
    """Train from scratch, from `start`, or from the checkpoint.

    start:  network with the values to begin with, of the configured shape
    frozen: number of its first convolutions that stay as they are
    keep_at: steps with a validation at which the network that training would end with then is put into `kept`, as a
            state dict by step

    Return the averaged network, in eval mode on the CPU, and the validations. With patience the network is the
    average at the best validation. Raises InputError if a class is missing, ModelError if the loss is not finite,
    Interrupted when asked to stop.
    """
    for label, name in ((1, "nodules"), (0, "negatives")):
        if not any(s.label == label for s in training):
            raise InputError(f"training needs both nodules and negatives; there are no {name}")
        if config.patience > 0 and not any(s.label == label for s in validation):
            raise InputError(
                f"patience = {config.patience} in [train] stops by held-out nodules and negatives; there are no {name}:"
                " hold out more patients, or set patience = 0"
            )
    process = process or Process()
    run = _Run(training, config, process, start, frozen)
    if checkpoint and (state := checkpoint.load()):
        run.restore(state)
    while not run.done:
        if process.all_reduce_any(should_stop()):
            if checkpoint and process.is_main:
                checkpoint.save(run.state())
            raise Interrupted
        run.advance()
        period_ends = run.step % config.validate_every == 0 or run.step == config.steps
        figures = process.broadcast(lambda: validate(run.average, validation, config.input)) if period_ends else {}
        notify(run.progress(figures))
        if period_ends:
            run.close_period(figures, keep_at)
            if checkpoint and process.is_main:
                checkpoint.save(run.state())
    if kept is not None:
        kept |= run.kept
    return run.result()


def validation_of_result(validations: list[Progress], config: TrainConfig) -> Progress:
    """Return the validation of the network that a training ends with: with patience the best, otherwise the last."""
    if config.patience == 0:
        return validations[-1]
    return max(validations, key=lambda line: _score(line.validation, config))  # the first of equals


def _score(figures: dict[str, float], config: TrainConfig) -> float:
    """Return what patience compares: more is better."""
    if config.choose_by == "loss":
        return -figures.get("loss", math.inf)
    return figures.get("cpm", figures.get("auc", -math.inf))


class _Run:
    """The state of a training, which a checkpoint holds."""

    def __init__(
        self,
        training: list[Sample],
        config: TrainConfig,
        process: Process,
        start: GCNN | None = None,
        frozen: int = 0,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.training = training
        self.process = process
        self.network = GCNN(config.network)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.network.train().to(process.device)
        for block in list(self.network.blocks.children())[
            :frozen
        ]:  # in eval mode, or the normalizations would go on learning
            block.eval().requires_grad_(False)
        self.average: GCNN = copy.deepcopy(self.network).eval().requires_grad_(True)  # none is frozen in the result
        self.best = copy.deepcopy(self.average.state_dict())
        self.trained = process.wrap(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = _schedule(self.optimizer, config)
        self.sampler = BatchSampler(training)
        self.chances = Chances(slab_chances(training, config.augment.slab_share), rim_chances(training))
        self.step = 0
        self.loss_sum, self.since, self.seconds = 0.0, 0, 0.0
        self.validations: list[Progress] = []
        self.best_score, self.without_better = -math.inf, 0
        self.kept: dict[int, dict[str, torch.Tensor]] = {}

    @property
    def done(self) -> bool:
        patience = self.config.patience
        return self.step >= self.config.steps or (patience > 0 and self.without_better >= patience)

    def advance(self) -> None:
        """Take one optimization step."""
        config, process, started = self.config, self.process, time.monotonic()
        self.step += 1
        rng = np.random.default_rng([config.seed, self.step])
        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        indices = self.sampler.draw(config.batch_size * process.world_size, rng)
        batch = [self.training[n] for n in process.shard(indices)]
        own = rng if process.world_size == 1 else np.random.default_rng([config.seed, self.step, process.rank])
        patches, labels = make_batch(batch, config.input, config.augment, self.chances, own)
        patches = patches.to(process.device, memory_format=torch.channels_last_3d)
        with autocast(process.device):
            logits = self.trained(patches)
        losses = F.binary_cross_entropy_with_logits(logits.float(), labels.to(process.device), reduction="none")
        self.optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        all_losses = process.all_gather(losses.detach()).cpu()
        if not all_losses.isfinite().all():
            raise ModelError(f"the training diverged at step {self.step}: set a lower learning_rate in [train]")
        self.sampler.update(indices, all_losses.numpy())
        # A short memory at first: the average must forget the random start. swa_utils.AveragedModel would copy the
        # first step instead and rename every key of the checkpoint.
        update_average(self.average, self.network, min(config.average_decay, self.step / (self.step + 10)))
        self.loss_sum += float(all_losses.mean())
        self.since += 1
        self.seconds += time.monotonic() - started

    def progress(self, figures: dict[str, float]) -> Progress:
        rate = self.since * self.config.batch_size * self.process.world_size / max(self.seconds, 1e-9)
        return Progress(self.step, self.loss_sum / self.since, rate, figures)

    def close_period(self, figures: dict[str, float], keep_at: Collection[int] = ()) -> None:
        """Record a validation, keep the average if it is the best, and start a new mean of the loss."""
        self.validations.append(self.progress(figures))
        score = _score(figures, self.config)
        if score > self.best_score:
            self.best_score, self.without_better = score, 0
            self.best = copy.deepcopy(self.average.state_dict())
        else:
            self.without_better += 1
        if self.step in keep_at:
            ends_with_best = self.config.patience > 0
            self.kept[self.step] = self.best if ends_with_best else copy.deepcopy(self.average.state_dict())
        self.loss_sum, self.since, self.seconds = 0.0, 0, 0.0

    def result(self) -> tuple[GCNN, list[Progress]]:
        if self.config.patience > 0:
            self.average.load_state_dict(self.best)
        return self.average.cpu(), self.validations

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "sample_losses": torch.from_numpy(self.sampler.losses),
            "period": [self.loss_sum, float(self.since), self.seconds],
            "validations": [asdict(line) for line in self.validations],
            "best_score": [self.best_score, float(self.without_better)],
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.sampler.losses = state["sample_losses"].numpy()
        self.loss_sum, since, self.seconds = state["period"]
        self.since = int(since)
        self.validations = [Progress(**line) for line in state["validations"]]
        self.best_score, without_better = state["best_score"]
        self.without_better = int(without_better)
        self.kept = dict(state["kept"])


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1 / _WARM_UP, total_iters=_WARM_UP)
    rising = 0.3 if config.steps == 5 else 0.2  # a fifth of five steps is one, by which less one PyTorch divides
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=rising
    )
