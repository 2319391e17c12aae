"""The candidates that detection scores in a scan, on which operating points must be counted.

Training takes its negatives from more candidates (`preprocessed`), as they are better to learn from. A threshold that
was counted on those would admit another number of false positives than it states.
"""

import hashlib
import json

from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, Mask, segment_lungs
from gcnn_cli.detection.proposals import ProposalConfig, Proposer
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume


def detection_candidates(volume: Volume, grid: Volume, lungs: Mask, detector: Detector) -> list[Candidate]:
    """Find the candidates that `detection.pipeline.detect` scores in a scan, in its order."""
    config = detector.config
    return propose(volume, grid, lungs, detector.proposer, config.proposals, config.lungs)


def propose(
    volume: Volume,
    grid: Volume,
    lungs: Mask,
    proposer: Proposer,
    config: ProposalConfig,
    lung_config: LungConfig | None = None,
) -> list[Candidate]:
    """Find the candidates of a scan, which is resampled again if the proposals' grid is not the given one."""
    spacing_mm = proposer.model.input.spacing_mm
    if grid.spacing_zyx[0] != spacing_mm:
        grid = resample(volume, spacing_mm)
        lungs = segment_lungs(grid, lung_config or LungConfig())
    return proposer.propose(grid, lungs, config)


def candidates_key(detector: Detector) -> str:
    """Return a short hash of the settings and weights that decide which candidates a detector scores."""
    options = detector.options
    decisive = json.dumps([options["proposals"], options["candidate_weights"]], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]
