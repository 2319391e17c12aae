"""Optimization: AdamW with a one-cycle rate, balanced batches, an averaged copy of the weights.

The same seed gives the same batches: every random choice of a step comes from a generator seeded
with (seed, step).
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import InputError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.training.augment import AugmentConfig, make_batch, plain_batch
from gcnn_cli.training.samples import Sample
from gcnn_cli.training.sampling import BatchSampler, slab_chances


@dataclass(frozen=True)
class TrainConfig:
    """The recipe."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    input: InputSpec = field(default_factory=InputSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    average_decay: float = 0.99
    validate_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise InputError(f"training needs steps ({self.steps}) >= 1 and batch_size ({self.batch_size}) >= 2")


@dataclass(frozen=True)
class Progress:
    """One line of the training log."""

    step: int
    loss: float
    patches_per_s: float
    validation: dict[str, float]


def train_network(
    training: list[Sample], validation: list[Sample], config: TrainConfig, notify: Callable[[Progress], None]
) -> GCNN:
    """Train from scratch; returns the averaged network in eval mode. Raises InputError without both classes."""
    if {s.label for s in training} != {0, 1}:
        raise InputError("training needs nodules and candidates that are none; one of the two is missing")
    torch.manual_seed(config.seed)
    network = GCNN(config.network).train()
    average: GCNN = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.2
    )
    sampler = BatchSampler(training)
    chances = slab_chances(training, config.augment.slab_share)
    started, loss_sum, since = time.monotonic(), 0.0, 0
    for step in range(1, config.steps + 1):
        rng = np.random.default_rng([config.seed, step])
        indices = sampler.draw(config.batch_size, rng)
        patches, labels = make_batch([training[n] for n in indices], config.input, config.augment, chances, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(patches.contiguous(memory_format=torch.channels_last_3d))
        losses = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        sampler.update(indices, losses.detach().numpy())
        # A short memory at first, or the average would remember the random start.
        _average(average, network, min(config.average_decay, step / (step + 10)))
        loss_sum, since = loss_sum + float(losses.mean().detach()), since + 1
        if step % config.validate_every == 0 or step == config.steps:
            rate = since * config.batch_size / (time.monotonic() - started)
            notify(Progress(step, loss_sum / since, rate, validate(average, validation, config.input)))
            started, loss_sum, since = time.monotonic(), 0.0, 0
    return average


@torch.no_grad()
def score_samples(network: GCNN, samples: list[Sample], spec: InputSpec, batch_size: int = 64) -> Tensor:
    """Logits [N] of the samples' central patches."""
    logits = [torch.zeros(0)]
    for first in range(0, len(samples), batch_size):
        batch = plain_batch(samples[first : first + batch_size], spec)
        with torch.autocast("cpu", torch.bfloat16):
            logits.append(network(batch.contiguous(memory_format=torch.channels_last_3d)).float())
    return torch.cat(logits)


def validate(network: GCNN, samples: list[Sample], spec: InputSpec) -> dict[str, float]:
    """AUC over the validation samples and, by kind of positive, the share above 99 % of the negatives."""
    if {s.label for s in samples} != {0, 1}:
        return {}
    logits = score_samples(network, samples, spec).numpy()
    labels = np.array([s.label for s in samples])
    kinds = np.array([s.kind for s in samples])
    order = np.argsort(np.argsort(logits))
    positives = int(labels.sum())
    rank_sum = float(order[labels == 1].sum()) - positives * (positives - 1) / 2
    figures = {"auc": rank_sum / (positives * (len(labels) - positives))}
    bar = np.quantile(logits[labels == 0], 0.99)
    for kind in sorted(set(kinds[labels == 1])):
        figures[f"{kind}_above_99"] = float((logits[kinds == kind] > bar).mean())
    return figures


@torch.no_grad()
def _average(average: GCNN, network: GCNN, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
