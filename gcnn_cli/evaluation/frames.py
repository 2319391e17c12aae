"""Is the frame of the predictions that of the reference? A wrong frame looks like a detector that finds nothing.

Tools differ: MONAI and nibabel give RAS millimeters, NumPy gives z, y, x, and some tables hold voxel indices. Where
nearly no nodule is hit, the other frames are tried, and one in which many would be hit is named.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.labels.marks import Marks, radius_mm

_HARDLY_ANY, _MANY = 0.1, 0.3  # shares of the nodules
_LARGEST_INDEX = 2048
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def frame_warning(predictions: Marks, nodules: Marks) -> str:
    """Return a warning for predictions, or a reference, in another frame than LPS millimeters, else an empty string.

    Raises nothing: figures stay what they are.
    """
    nodules, predictions = _of_common_scans(nodules, predictions)
    if not len(nodules) or not len(predictions):
        return ""
    hit = _hit_share(predictions.position_mm, predictions, nodules)
    if hit >= _HARDLY_ANY:
        return ""
    others = {
        "with x and y negated, as from RAS to LPS": predictions.position_mm * _LPS_TO_RAS,
        "in the order z, y, x": predictions.position_mm[:, ::-1],
        "in the order z, y, x with x and y negated": predictions.position_mm[:, ::-1] * _LPS_TO_RAS,
    }
    shares = {name: _hit_share(positions, predictions, nodules) for name, positions in others.items()}
    best = max(shares, key=lambda name: shares[name])
    found = f"{hit:.0%} of the nodules are hit"
    if shares[best] >= max(_MANY, 3 * hit):
        return (
            f"{found}, but {shares[best]:.0%} would be {best}: are predictions and reference both in LPS mm, x, y, z?"
        )
    if _look_like_indices(predictions.position_mm) and not _look_like_indices(nodules.position_mm):
        return f"{found}, and the predictions look like voxel indices: positions must be in LPS mm, x, y, z"
    if _look_like_indices(nodules.position_mm) and not _look_like_indices(predictions.position_mm):
        return f"{found}, and the reference looks like voxel indices: positions must be in LPS mm, x, y, z"
    return ""


def _of_common_scans(*tables: Marks) -> list[Marks]:
    common = set(tables[0].series).intersection(*(table.series for table in tables[1:]))
    kept = [[n for n, name in enumerate(table.series) if name in common] for table in tables]
    return [
        Marks(tuple(table.series[n] for n in rows), table.position_mm[rows], table.value[rows])
        for table, rows in zip(tables, kept, strict=True)
    ]


def _hit_share(positions: NDArray[np.float64], predictions: Marks, nodules: Marks) -> float:
    """Return the share of nodules with a mark strictly within their radius. positions: [N, 3] of the predictions."""
    of_scan: defaultdict[str, list[int]] = defaultdict(list)
    for n, name in enumerate(predictions.series):
        of_scan[name].append(n)
    radii = radius_mm(nodules.value)
    hits = 0
    for name, place, radius in zip(nodules.series, nodules.position_mm, radii, strict=True):
        away: NDArray[np.float64] = np.linalg.norm(positions[of_scan[name]] - place, axis=1)
        hits += bool((away < radius).any())
    return hits / len(nodules)


def _look_like_indices(positions: NDArray[np.float64]) -> bool:
    """Return whether all positions could be voxels; millimeters of several scans have both signs."""
    return bool((positions >= 0).all() and (positions < _LARGEST_INDEX).all())
