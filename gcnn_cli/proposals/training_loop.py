"""Optimization of a proposal network: the focal loss on maps of tiles, and negatives that the network itself finds.

The loss is that of CornerNet and CenterNet (Law & Deng 2018, arXiv:1808.01244; Zhou et al. 2019, arXiv:1904.07850)
without their soft rim. With p the probability at a place it is the sum of

    nodules    - mean over nodules of the mean over their places of (1 - p)^2 log p
    the rest   - sum over negative places of p^2 log(1 - p), divided by the number of nodules, times 1/2

Each nodule counts the same whatever its size, and clear lung counts for almost nothing. During training (`rounds`) the
network is run over every scan, and its highest peaks away from the marks become places to train on. In scans without
labels the highest peaks and the places of high probability are left out: they may be nodules.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.detection.patches import scale_hu
from gcnn_cli.detection.proposals import find_peaks
from gcnn_cli.errors import InputError
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.devices import autocast
from gcnn_cli.network.proposal_map import make_mapper
from gcnn_cli.network.proposals import STRIDE, ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.proposals.batches import BatchConfig, TileSampler
from gcnn_cli.proposals.scenes import Places, Scene
from gcnn_cli.proposals.tiles import Tile, TileGeometry
from gcnn_cli.scan.resample import search_spacing
from gcnn_cli.training.averaging import update_average
from gcnn_cli.training.checkpoint import Checkpoint
from gcnn_cli.training.loop import Interrupted

_NEGATIVE_WEIGHT = 0.5
_SURE = 0.8  # from this probability on, a place in a scan without labels is not a negative
_START_LOGIT = -4.0  # bias of every logit before training: few places are nodules
_MINED = 120  # most places mined in one scan
_APART_MM = 5.0
_UNLABELLED_SKIP = 10  # highest peaks of a scan without labels that are not used
_CLEAR_VOX = 3.0  # mined places keep this far from the rim of every mark


@dataclass(frozen=True)
class ProposalTrainConfig:
    """The recipe of a training. Raises InputError for a value out of range.

    rounds:     number of times that negatives are mined, at even intervals
    save_every: steps between checkpoints
    """

    network: ProposalNetworkConfig = field(default_factory=ProposalNetworkConfig)
    input: InputSpec = field(default_factory=lambda: InputSpec(side=48))
    batch: BatchConfig = field(default_factory=BatchConfig)
    steps: int = 1000
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    average_decay: float = 0.99
    rounds: int = 2
    save_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 0 or self.save_every < 1 or self.seed < 0:
            raise InputError(f"proposal training must have steps and save_every of at least 1, got {self}")
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0 <= self.average_decay < 1):
            raise InputError(
                "proposal training must have learning_rate > 0, weight_decay >= 0 and"
                f" average_decay from 0 to below 1, got {self}"
            )
        self.geometry  # noqa: B018 - raises for a side that does not fit the network

    @property
    def geometry(self) -> TileGeometry:
        """Geometry of tiles with the input's side. Raises InputError if the side does not fit the network."""
        side = self.input.sides[0]
        if set(self.input.sides) != {side} or len(set(self.input.spacing_zyx)) > 1:
            raise InputError(f"proposal training must have cubic tiles of cubic voxels, got {self.input}")
        surplus = side - self.network.receptive_field
        if surplus < 0 or surplus % 4:
            raise InputError(f"the side of a tile must be {self.network.receptive_field} + 4 n voxels, got {side}")
        return TileGeometry(side, self.network.first_place, STRIDE, surplus // STRIDE + 2)


@dataclass(frozen=True)
class ProposalProgress:
    """The progress after a step. Losses, probability at nodules and seconds are means since the last checkpoint."""

    step: int
    nodule_loss: float
    other_loss: float
    nodule_probability: float
    seconds: float


def train_proposals(
    scenes: list[Scene],
    config: ProposalTrainConfig,
    notify: Callable[[ProposalProgress], None],
    *,
    checkpoint: Checkpoint | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> ProposalNetwork:
    """Train from scratch or from the checkpoint; return the averaged network in eval mode, on the CPU.

    device: default: the CPU

    Raises InputError without scans or nodules, Interrupted after a request to stop.
    """
    run = _Run(scenes, config, device or torch.device("cpu"))
    if checkpoint and (state := checkpoint.load()):
        run.restore(state)
    while run.step < config.steps:
        if should_stop():
            if checkpoint:
                checkpoint.save(run.state())
            raise Interrupted
        run.advance()
        notify(run.progress())
        if checkpoint and run.step % config.save_every == 0:
            checkpoint.save(run.state())
    return run.average.cpu()


def focal_loss(logits: Tensor, positive: Tensor, negative: Tensor, unmarked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses of the nodules and of the rest, unweighted.

    logits, positive, negative: [B, count, count, count]; see `Tile`
    unmarked:                   bool [B], True for tiles of scans without labels
    """
    p = logits.sigmoid()
    nodules = positive.sum().clamp(min=1)
    of_nodules = -(positive * (1 - p) ** 2 * F.logsigmoid(logits)).sum() / nodules
    doubtful = unmarked[:, None, None, None] & (p.detach() > _SURE)
    counted = negative & ~doubtful
    return of_nodules, -(counted * p**2 * F.logsigmoid(-logits)).sum() / nodules


class _Run:
    """The state of a training, which a checkpoint holds."""

    def __init__(self, scenes: list[Scene], config: ProposalTrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.sampler = TileSampler(scenes, config.geometry, config.batch)
        self.network = ProposalNetwork(config.network).train()
        nn.init.constant_(self.network.linear.bias, _START_LOGIT)
        self.network.to(device)  # drawn on the CPU: the same start on every device
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
        )
        self.step = 0
        self.sums = np.zeros(3)
        self.since = 0
        self.seconds = 0.0

    def advance(self) -> None:
        """Take one optimization step; mine negatives first when they are due."""
        config, started = self.config, time.monotonic()
        if self.step in {config.steps * n // (config.rounds + 1) for n in range(1, config.rounds + 1)}:
            self._mine()
        if self.step % config.save_every == 0:
            self.sums, self.since, self.seconds = np.zeros(3), 0, 0.0
        self.step += 1
        drawn = self.sampler.draw(np.random.default_rng([config.seed, self.step]))
        image, positive, negative = (part.to(self.device) for part in _stacked([t for t, _ in drawn], config.input))
        unmarked = torch.tensor([not labelled for _, labelled in drawn], device=self.device)
        with autocast(self.device):
            logits = self.network(image)
        of_nodules, of_rest = focal_loss(logits.float(), positive, negative, unmarked)
        self.optimizer.zero_grad()
        (of_nodules + _NEGATIVE_WEIGHT * of_rest).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        # A short memory at first, or the average would remember the random start.
        update_average(self.average, self.network, min(config.average_decay, self.step / (self.step + 10)))
        sure = (positive * logits.detach().sigmoid()).sum() / positive.sum().clamp(min=1)
        self.sums += [float(of_nodules.detach()), float(of_rest.detach()), float(sure)]
        self.since += 1
        self.seconds += time.monotonic() - started

    def progress(self) -> ProposalProgress:
        nodules, rest, sure = (float(value) for value in self.sums / self.since)
        return ProposalProgress(self.step, nodules, rest, sure, self.seconds / self.since)

    def _mine(self) -> None:
        mapper = make_mapper(self.average, self.device)
        for number, scene in enumerate(self.sampler.scenes):
            if scene.kind == "scan":
                apart_vox = _APART_MM / search_spacing(self.config.input.spacing_mm)
                found, _ = find_peaks(mapper, self.config.input, scene.hu, scene.searched, apart_vox, 2 * _MINED)
                self.sampler.hard[number] = _clear_of_marks(found, scene)[:_MINED]

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "hard": {number: torch.from_numpy(places) for number, places in self.sampler.hard.items()},
            "sums": torch.from_numpy(self.sums),
            "since": [self.since, self.seconds],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.sampler.hard = {number: places.numpy() for number, places in state["hard"].items()}
        self.sums = state["sums"].numpy()
        self.since, self.seconds = int(state["since"][0]), float(state["since"][1])


def _stacked(tiles: list[Tile], spec: InputSpec) -> tuple[Tensor, Tensor, Tensor]:
    image = scale_hu(torch.from_numpy(np.stack([tile.hu for tile in tiles])), spec).unsqueeze(1)
    positive = torch.from_numpy(np.stack([tile.positive for tile in tiles]))
    negative = torch.from_numpy(np.stack([tile.negative for tile in tiles]))
    return image.contiguous(memory_format=torch.channels_last_3d), positive, negative


def _clear_of_marks(places: Places, scene: Scene) -> Places:
    clear = np.ones(len(places), bool)
    for *center, diameter in (*scene.nodules, *scene.unsure):
        clear &= np.linalg.norm(places - center, axis=1) > max(diameter, 6) / 2 + _CLEAR_VOX
    return places[clear][0 if scene.labelled else _UNLABELLED_SKIP :]
