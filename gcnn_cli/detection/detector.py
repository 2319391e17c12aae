"""The detector: weights, the networks ready on one device, and the settings of each stage."""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from gcnn_cli.detection.lungs import LungConfig
from gcnn_cli.detection.merge import MergeConfig
from gcnn_cli.detection.proposals import ProposalConfig, Proposer, load_proposer
from gcnn_cli.errors import InputError
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.scan.resample import search_spacing

log = logging.getLogger("gcnn")

# Raise it with every change by which the same scan, weights and settings give another result. It stands in every
# report, and `gcnn detect --resume` keeps no result of another number.
PIPELINE = 5


@dataclass(frozen=True)
class DetectionConfig:
    """Settings of the stages; the defaults are the shipped behavior.

    No option of the command line changes them: the shipped calibration and every published figure hold for the
    defaults alone. A Python caller may, and each report states what was used.

    screened: where a score takes several passes (a committee, test-time averaging), one pass of one network comes
              first, and only this many of its best candidates are scored in full. The others are no findings.
    unlikely: nor are those of the best whose probability after that pass is below this
    """

    lungs: LungConfig = field(default_factory=LungConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    screened: int = 64
    unlikely: float = 1e-3
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.screened < 1 or self.batch_size < 1:
            raise InputError(f"detection: need screened ({self.screened}) and batch_size ({self.batch_size}) >= 1")
        if not 0 <= self.unlikely < 1:
            raise InputError(f"detection: need 0 <= unlikely ({self.unlikely}) < 1")


@dataclass(frozen=True, eq=False)
class Detector:
    """Weights and networks on one device. Made once, used for every scan.

    proposer: finds the candidates, on a grid of its own
    """

    model: TrainedModel
    scorer: Scorer
    proposer: Proposer
    config: DetectionConfig = field(default_factory=DetectionConfig)

    @property
    def spacing_mm(self) -> float:
        """Spacing of the grid on which candidates are proposed and measured. The large network may have another."""
        return search_spacing(self.proposer.model.input.spacing_mm)

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the weights and the scan that decides a result, as plain data."""
        return {
            "pipeline": PIPELINE,
            "spacing_mm": self.model.input.spacing_mm,
            "grid_mm": self.spacing_mm,  # of the grid on which nodules are measured
            **asdict(self.config),
            "average_over": self.scorer.average_over,
            "candidate_weights": self.proposer.name,
        }


def make_detector(
    model: TrainedModel,
    device: torch.device,
    *,
    average_over: str | None = None,
    proposals: str = DEFAULT_PROPOSALS,
    config: DetectionConfig | None = None,
) -> Detector:
    """Return the detector of these weights. Raises ModelError for unusable proposal weights.

    average_over: default: the group with which the weights were calibrated
    proposals:    network that proposes candidates: name of shipped weights, or path of a weights file

    Warns if the weights were trained on the candidates of another network.
    """
    group = model.calibration.average_over if average_over is None else average_over
    scorer = make_scorer(model.network, device, average_over=group)
    proposer = load_proposer(device, proposals)
    theirs = str(model.provenance.get("candidate_weights", ""))
    if theirs and theirs.rpartition(" ")[2] != proposer.model.sha256:
        log.warning(
            "%s was trained on candidates of %s, not of %s: its probabilities and thresholds may be wrong;"
            " name the weights with --proposals",
            model.name,
            theirs.rpartition(" ")[0],
            proposer.model.name,
        )
    return Detector(model, scorer, proposer, config or DetectionConfig())
