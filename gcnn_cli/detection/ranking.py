"""Candidate ranking: a small network orders what the blob filters propose.

Filters alone order a faint nodule among thousands of vessels by its brightness and roundness, and lose it. A small
G-CNN sees the surroundings of many blobs for the price of scoring a few with the large network. A blob's rank is
the network's logit plus a multiple of the logarithm of its strength, because the filters respond to nodules that
are larger than the small patch.

The filters keep blobs close to a stronger one, such as a nodule beside a thick vessel. The ranks decide which of
them stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from gcnn_cli.detection.candidates import CandidateConfig
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.peaks import keep_apart
from gcnn_cli.errors import InputError
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.scan.resample import search_spacing
from gcnn_cli.scan.volume import Volume

SHIPPED = "candidates"

_BATCH = 128
_COARSEST = 1.5  # times the ranker's spacing: such networks look for what filters find on their own grid


@dataclass(frozen=True)
class RankingConfig:
    """Settings of the ranking.

    proposals, proposals_apart_mm: number of blobs that are ranked, and their smallest distance
    kept, apart_mm:                number of candidates that remain, and their smallest distance
    strength_weight:               of the logarithm of the filter's response in the rank
    """

    proposals: int = 1500
    proposals_apart_mm: float = 2.5
    kept: int = 200
    apart_mm: float = 5.0
    strength_weight: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.kept <= self.proposals:
            raise InputError(f"ranking: need 0 < kept ({self.kept}) <= proposals ({self.proposals})")

    def proposing(self, filters: CandidateConfig) -> CandidateConfig:
        """Return the filter settings that propose the blobs to rank."""
        return replace(filters, max_candidates=self.proposals, apart_mm=self.proposals_apart_mm)


@dataclass(frozen=True, eq=False)
class CandidateRanker:
    """The small network on one device, and its settings."""

    model: TrainedModel
    scorer: Scorer
    config: RankingConfig = field(default_factory=RankingConfig)

    @property
    def name(self) -> str:
        """Name and checksum of the weights, as reports state them."""
        return f"{self.model.name} {self.model.sha256}"

    def rank(self, grid: Volume, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that remain, highest rank first. The grid must have the spacing of the network."""
        if not candidates:
            return []
        positions = [candidate.position_mm for candidate in candidates]
        logits = self.scorer.score(patch_batches(grid, positions, self.model.input, _BATCH))
        strengths = np.array([candidate.strength for candidate in candidates])
        ranks = logits + self.config.strength_weight * np.log(strengths)
        kept = keep_apart(np.array(positions), ranks, self.config.apart_mm, self.config.kept)
        return [candidates[n] for n in kept]


def load_ranker(model: TrainedModel, device: torch.device) -> CandidateRanker | None:
    """Return the shipped ranker, which has a grid of its own; None where the large network's is far coarser."""
    small = load_model(SHIPPED)
    if search_spacing(model.input.spacing_mm) > _COARSEST * search_spacing(small.input.spacing_mm):
        return None
    return CandidateRanker(small, make_scorer(small.network, device))
