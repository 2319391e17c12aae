"""The detector: weights, the networks ready on one device, and the settings of each stage."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from gcnn_cli.detection.candidates import CandidateConfig
from gcnn_cli.detection.lungs import LungConfig
from gcnn_cli.detection.merge import MergeConfig
from gcnn_cli.detection.ranking import CandidateRanker, load_ranker
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weights import TrainedModel

# Raise it with every change by which the same scan, weights and settings give another result. It stands in every
# report, and `gcnn detect --resume` keeps no result of another number.
PIPELINE = 2


@dataclass(frozen=True)
class DetectionConfig:
    """Settings of the stages; the defaults are the shipped behavior.

    No option of the command line changes them: the shipped calibration and every published figure hold for the
    defaults alone. A Python caller may, and each report states what was used.
    """

    lungs: LungConfig = field(default_factory=LungConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    batch_size: int = 32


@dataclass(frozen=True, eq=False)
class Detector:
    """Weights and networks on one device. Made once, used for every scan.

    ranker: chooses which candidates are scored; without one, the strongest blobs are
    """

    model: TrainedModel
    scorer: Scorer
    ranker: CandidateRanker | None = None
    config: DetectionConfig = field(default_factory=DetectionConfig)

    @property
    def spacing_mm(self) -> float:
        """Spacing of the grid on which candidates are proposed, ranked and measured: the ranker's, where there is one.

        The large network may have another grid of its own.
        """
        return (self.ranker.model if self.ranker else self.model).input.spacing_mm

    @property
    def proposal_config(self) -> CandidateConfig:
        """Settings of the blob filters: with a ranker they propose as many candidates as it ranks."""
        return self.ranker.config.proposing(self.config.candidates) if self.ranker else self.config.candidates

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the weights and the scan that decides a result, as plain data."""
        return {
            "pipeline": PIPELINE,
            "spacing_mm": self.model.input.spacing_mm,
            "grid_mm": self.spacing_mm,  # of the grid on which nodules are measured, which the ranker may decide
            **asdict(self.config),
            "average_over": self.scorer.average_over,
            "ranking": {**asdict(self.ranker.config), "weights": self.ranker.name} if self.ranker else "",
        }


def make_detector(
    model: TrainedModel,
    device: torch.device,
    *,
    average_over: str | None = None,
    config: DetectionConfig | None = None,
) -> Detector:
    """Return the detector of these weights, with the shipped candidate ranking where it fits them.

    average_over: default: the group with which the weights were calibrated
    """
    group = model.calibration.average_over if average_over is None else average_over
    scorer = make_scorer(model.network, device, average_over=group)
    return Detector(model, scorer, load_ranker(model, device), config or DetectionConfig())
