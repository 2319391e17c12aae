"""Where to cut: probabilities that leave a given number of false positives in a scan, on average.

Counted on the candidates of the labelled scans, which are all that detection would score, away from every
mark. Scans that were trained on count too where few are held out, and make the points optimistic: the
provenance says how many of each there were.
"""

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.network.contract import Calibration

RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
DEFAULT_RATE = 1.0


def operating_points(false_logits: NDArray[np.floating], scans: int) -> Calibration:
    """Cuts from the logits of all false candidates of a number of scans; as it is without any.

    At a rate R the cut is the lowest probability that leaves at most R * scans candidates at or above it.
    """
    plain = Calibration()
    if scans < 1 or len(false_logits) == 0:
        return plain
    probabilities = np.sort([plain.probability(float(logit)) for logit in false_logits])[::-1]
    points = []
    for rate in RATES:
        allowed = int(rate * scans)
        highest_refused = probabilities[allowed] if allowed < len(probabilities) else 0.0
        points.append((rate, float(np.nextafter(highest_refused, 1.0))))
    return Calibration(threshold=dict(points)[DEFAULT_RATE], operating_points=tuple(points))
