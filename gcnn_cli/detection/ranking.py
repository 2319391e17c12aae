"""Which blobs are worth a look: a small network ranks what the filters propose.

Filters alone rank a faint nodule among thousands of vessels by its brightness and roundness, and lose it. A small
G-CNN sees the surroundings of each of many blobs at the price of a few looks of the large one. A blob's rank
is the network's logit plus a multiple of the logarithm of its strength: the filters know of nodules that are
larger than the small patch.

The filters leave blobs in that are near to a stronger one, a nodule beside a thick vessel say; which of near ones
stays is decided by these ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from gcnn_cli.detection.candidates import CandidateConfig, keep_apart
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.errors import InputError
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.scan.volume import Volume

SHIPPED = "candidates"

_BATCH = 128


@dataclass(frozen=True)
class RankingConfig:
    """proposals, proposals_apart_mm: how many blobs are ranked, and how near to each other they may be
    kept, apart_mm: how many of them remain, and how near to a better one they may be
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
        """The filters, set to propose what is ranked."""
        return replace(filters, max_candidates=self.proposals, apart_mm=self.proposals_apart_mm)


@dataclass(frozen=True, eq=False)
class CandidateRanker:
    """The small network and how many it keeps."""

    model: TrainedModel
    scorer: Scorer
    config: RankingConfig = field(default_factory=RankingConfig)

    @property
    def name(self) -> str:
        """What stands in a report's options for it."""
        return f"{self.model.name} {self.model.sha256}"

    def rank(self, grid: Volume, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that remain, the most promising first. The grid is the one the network was trained on."""
        if not candidates:
            return []
        positions = [candidate.position_mm for candidate in candidates]
        logits = self.scorer.score(patch_batches(grid, positions, self.model.input, _BATCH))
        strengths = np.array([candidate.strength for candidate in candidates])
        ranks = logits + self.config.strength_weight * np.log(strengths)
        kept = keep_apart(np.array(positions), ranks, self.config.apart_mm, self.config.kept)
        return [candidates[n] for n in kept]


def load_ranker(model: TrainedModel, device: torch.device) -> CandidateRanker | None:
    """The shipped one, where the large network looks on the same grid; else none, and the filters decide."""
    small = load_model(SHIPPED)
    if small.input.spacing_mm != model.input.spacing_mm:
        return None
    return CandidateRanker(small, make_scorer(small.network, device))
