"""Are found positions and labels in one frame? A wrong frame looks like a detector that finds nothing.

Tools differ: MONAI and nibabel give RAS millimeters, NumPy gives z, y, x, and some tables hold voxel indices. Where
nearly no nodule is hit, the other frames are tried, and one in which many would be hit is named.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.labels.marks import Marks, radius_mm

_HARDLY_ANY, _MANY = 0.1, 0.3  # shares of the nodules
_LARGEST_INDEX = 2048
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


class FrameHits(NamedTuple):
    """Shares of the nodules that are hit by positions as they are, and in the other frame in which most are."""

    share: float
    share_in_other: float
    other: str

    @property
    def hardly_any(self) -> bool:
        """Whether positions in the right frame would hit more."""
        return self.share < _HARDLY_ANY

    @property
    def are_in_other(self) -> bool:
        """Whether the other frame is the right one."""
        return self.hardly_any and self.share_in_other >= max(_MANY, 3 * self.share)


def frame_hits(found: Marks, nodules: Marks) -> FrameHits | None:
    """Try other frames than LPS millimeters for found positions. Return None without any in a scan with nodules."""
    nodules, found = _of_common_scans(nodules, found)
    if not len(nodules) or not len(found):
        return None
    others = {
        "with x and y negated, as from RAS to LPS": found.position_mm * _LPS_TO_RAS,
        "in the order z, y, x": found.position_mm[:, ::-1],
        "in the order z, y, x with x and y negated": found.position_mm[:, ::-1] * _LPS_TO_RAS,
    }
    shares = {name: _hit_share(positions, found, nodules) for name, positions in others.items()}
    best = max(shares, key=lambda name: shares[name])
    return FrameHits(_hit_share(found.position_mm, found, nodules), shares[best], best)


def frame_warning(predictions: Marks, nodules: Marks) -> str:
    """Return a warning for predictions, or a reference, in another frame than LPS millimeters, else an empty string.

    Raises nothing: figures stay what they are.
    """
    hits = frame_hits(predictions, nodules)
    if hits is None or not hits.hardly_any:
        return ""
    found = f"{hits.share:.0%} of the nodules are hit"
    if hits.are_in_other:
        return (
            f"{found}, but {hits.share_in_other:.0%} would be {hits.other}:"
            " are predictions and reference both in LPS mm, x, y, z?"
        )
    nodules, predictions = _of_common_scans(nodules, predictions)
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
