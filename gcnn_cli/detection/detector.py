"""What a scan is searched with: weights that are loaded, and the networks ready on one device."""

from dataclasses import dataclass

import torch

from gcnn_cli.detection.ranking import CandidateRanker, load_ranker
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weights import TrainedModel


@dataclass(frozen=True, eq=False)
class Detector:
    """ranker: None where the filters decide what the network looks at."""

    model: TrainedModel
    scorer: Scorer
    ranker: CandidateRanker | None = None


def make_detector(model: TrainedModel, device: torch.device, *, average_over: str = "trivial") -> Detector:
    """The detector of these weights, with the shipped ranking of candidates where it fits them."""
    return Detector(model, make_scorer(model.network, device, average_over=average_over), load_ranker(model, device))
