"""Labels in another frame than LPS millimeters, noticed before a network learns from the wrong places.

A label outside its scan is refused while the labels are read. Chests are nearly symmetric, so that many a label in
RAS lies inside: the proposals tell, which find nearly all nodules of labels in the right frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.frames import frame_hits
from gcnn_cli.labels.marks import Marks, make_marks
from gcnn_cli.labels.problems import FRAME, Problem

_STRONGEST = 100  # candidates of a scan: among many more, some would be near any place
_FEWEST_NODULES = 3  # chance may miss one and hit it in another frame


def label_frame_problems(scans: Sequence[ScanEntry], found: Mapping[str, NDArray[np.float64]]) -> list[Problem]:
    """Return a problem if the nodules are where the candidates would be in another frame.

    found: by scan, positions of its candidates [N, 3] in LPS mm, strongest first
    """
    nodules = make_marks([(scan.name, *nodule) for scan in scans for nodule in scan.nodules])
    if len(nodules) < _FEWEST_NODULES:
        return []
    rows = [(scan.name, place) for scan in scans for place in found.get(scan.name, ())[:_STRONGEST]]
    places = np.array([place for _, place in rows]).reshape(-1, 3)
    hits = frame_hits(Marks(tuple(name for name, _ in rows), places, np.zeros(len(rows))), nodules)
    if hits is None or not hits.are_in_other:
        return []
    labels = ", ".join(sorted({str(scan.labels) for scan in scans if scan.nodules}))
    text = (
        f"{labels}: {hits.share:.0%} of {len(nodules)} nodules are among the {_STRONGEST} strongest candidates of"
        f" their scans, but {hits.share_in_other:.0%} would be {hits.other}: positions must be in LPS mm, x, y, z"
    )
    return [Problem(FRAME, text)]
