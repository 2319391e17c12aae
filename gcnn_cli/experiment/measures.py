"""What each nodule of a test set adds to a score, so that scores can be resampled by patient.

With the false candidates fixed, each measure is a mean over nodules:

- CPM: LUNA16's mean sensitivity at 1/8 to 8 false positives per scan
- at 1 FP: the sensitivity at one false positive per scan
- AUC: the area under the ROC curve, the share of false candidates that a nodule is above (Mann-Whitney U)
"""

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.evaluation.froc import RATES

Floats = NDArray[np.float64]

MEASURES = ("CPM", "at 1 FP", "AUC")


def nodule_credits(nodules: Floats, false: Floats, scans: Floats | float, weights: Floats | None = None) -> Floats:
    """Return how far each nodule counts by each measure, [measures, N], or [measures, R, N] with weights.

    nodules: scores [N]
    false:   scores of the false candidates [F]
    scans:   number of scans that the false candidates are from, or one for each resample, [R]
    weights: how often each false candidate is in each resample, [R, F] (default: once, in one)

    A rate of R FPs/scan admits R * scans false positives. A nodule whose score is below `above` false positives, and
    tied with `within - above`, is found if `above` or more are admitted; within the tie the credit is interpolated.
    """
    order = np.argsort(false)
    counts = np.ones(len(false)) if weights is None else weights[..., order]
    up_to = np.concatenate([np.zeros((*counts.shape[:-1], 1)), np.cumsum(counts, axis=-1)], axis=-1)
    total = up_to[..., -1:]
    above = total - up_to[..., np.searchsorted(false[order], nodules, side="right")]
    within = total - up_to[..., np.searchsorted(false[order], nodules, side="left")]
    tied = within > above
    width = np.where(tied, within - above, 1)

    def found(rate: float) -> Floats:
        let_in = rate * np.asarray(scans, float)[..., None]
        return np.asarray(np.where(tied, np.clip((let_in - above) / width, 0, 1), let_in >= above), float)

    at_rates = {rate: found(rate) for rate in RATES}
    return np.stack(
        [np.mean([*at_rates.values()], axis=0), at_rates[1.0], 1 - (above + within) / 2 / np.maximum(total, 1)]
    )
