"""The candidates that detection scores in a scan, on which operating points must be counted.

Training takes its negatives from more candidates (`preprocessed`), as they are better to learn from. A threshold that
was counted on those would admit another number of false positives than it states.
"""

import hashlib
import json

from gcnn_cli.detection.candidates import find_candidates
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import Mask
from gcnn_cli.scan.volume import Volume


def detection_candidates(grid: Volume, lungs: Mask, detector: Detector) -> list[Candidate]:
    """Find the candidates that `detection.pipeline.detect` scores on this grid, in its order."""
    candidates = find_candidates(grid, lungs, detector.proposal_config)
    return detector.ranker.rank(grid, candidates) if detector.ranker else candidates


def candidates_key(detector: Detector) -> str:
    """Return a short hash of the settings and weights that decide which candidates a detector scores."""
    options = detector.options
    decisive = json.dumps([options["candidates"], options["ranking"]], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]
