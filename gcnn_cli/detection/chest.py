"""Recognition of a chest: is a piece of air inside a body lung, and are both lungs there?

Not every pocket of air in a scan is lung. Heads lie in foam and cloth, bellies hold gas, and a thick slice has a wide
rim of half air around every surface. A piece that is large enough for a lung is lung unless it

- lies along air that is open to the border of the image: cloth, the pocket between body and holder;
- has no depth: the rim of such air;
- is pure gas inside: bowel, stomach, an empty phantom;
- is even inside: foam, a phantom's insert. A lung has vessels.

Each limit lies between what was measured on chests (eleven scans, whole and cut to slabs, bases, apices and sides) and
on drawings of what is not one. In words of the measures, chests against the others: share near open air at most 0.21,
at least 0.6; share deep inside at least 0.22, at most 0.01; gas there at most 0.26, at least 0.78; range of values at
least 88 HU, at most 30.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.scan.volume import Volume

Mask = NDArray[np.bool_]

ROOM_HU = -970.0  # air of a room is below it, and hardly any lung, however emphysematous
GAS_HU = -930.0
PURE_GAS = "are pure gas, as in a bowel"
_TISSUE_HU = -300.0
_NEAR_MM, _MOST_NEAR = 8.0, 0.4
_DEEP_MM, _LEAST_DEEP = 4.0, 0.1
_MOST_GAS = 0.75
_LEAST_RANGE_HU = 60.0  # between the 5th and the 95th percentile
_USUAL_ML = (1000.0, 10000.0)
_LEAST_SIDE = 0.15
_MOST_OUTSIDE = 0.05  # of a mask
_CHECKED = 100_000  # voxels of a mask


def why_not_lung(piece: Mask, hu: NDArray[np.float32], open_air: Mask, voxel_mm: float) -> str:
    """Return the reason why a piece of air [D, H, W] inside the body is not lung, as a verb phrase, or an empty string.

    hu:       HU of the same grid, of about 2 mm
    open_air: air below ROOM_HU that reaches the border of the image
    """
    near = _spread(open_air, _NEAR_MM / voxel_mm)
    if near[piece].mean() > _MOST_NEAR:
        return "lie open to the room"
    # The image may cut a lung; there it has no surface.
    deep = ndimage.binary_erosion(piece, iterations=max(1, round(_DEEP_MM / voxel_mm)), border_value=1)
    if deep.sum() < _LEAST_DEEP * piece.sum():
        return "are a rim without depth"
    inside = hu[deep]
    if (inside < GAS_HU).mean() > _MOST_GAS:
        return PURE_GAS
    low, high = np.percentile(inside, (5, 95))
    return "are as even as foam" if high - low < _LEAST_RANGE_HU else ""


def lung_volume_ml(lungs: Mask, spacing_mm: float) -> float:
    """Return the volume of a mask on cubic voxels, in mL."""
    return float(lungs.sum()) * spacing_mm**3 / 1000


def doubts(lungs: Mask, grid: Volume) -> tuple[str, ...]:
    """Return a warning for lungs of an unusual volume, and one where nearly all of them lie on one side.

    lungs: mask [D, H, W] on the oriented grid, not empty
    """
    volume_ml = lung_volume_ml(lungs, float(grid.spacing_zyx[0]))
    found = []
    if not _USUAL_ML[0] <= volume_ml <= _USUAL_ML[1]:
        low, high = (f"{value:g}" for value in _USUAL_ML)
        part = (
            "a part of a chest, or not a chest?" if volume_ml < _USUAL_ML[0] else "is it a chest, and in millimeters?"
        )
        found.append(f"the lungs that were found hold {volume_ml:.0f} mL, usual are {low} to {high} mL: {part}")
    left = _left_share(lungs, grid)
    if not _LEAST_SIDE <= left <= 1 - _LEAST_SIDE:
        side, other = ("left", "right") if left > 0.5 else ("right", "left")
        found.append(
            f"{100 * max(left, 1 - left):.0f} % of the lungs ({volume_ml:.0f} mL) lie on the patient's {side}:"
            f" is the {other} lung missing, filled or outside the image?"
        )
    return tuple(found)


def mask_doubts(mask: Volume, grid: Volume) -> tuple[str, ...]:
    """Return the warnings of a given mask of the lungs, and one where a part of it lies outside the scan."""
    found = [f"lung mask: {warning}" for warning in mask.source.warnings]
    inside = np.flatnonzero(mask.hu > 0)
    some = np.unravel_index(inside[:: max(1, len(inside) // _CHECKED)], mask.shape)
    outside = float((~grid.lattice.holds(mask.position_mm(np.stack(some, axis=-1)))).mean())
    if outside > _MOST_OUTSIDE:
        found.append(f"lung mask: {100 * outside:.0f} % of it lie outside the scan: is it of this scan?")
    return tuple(found)


def _left_share(lungs: Mask, grid: Volume) -> float:
    """Return the share of the lungs left of the middle of the tissue in their slices."""
    columns = np.arange(lungs.shape[2])
    # Slice by slice: their selection from the grid would be a copy of nearly all of it.
    slices = np.flatnonzero(lungs.any(axis=(1, 2)))
    tissue = np.sum([(grid.hu[n] > _TISSUE_HU).sum(axis=0) for n in slices], axis=0)
    area = lungs.sum(axis=(0, 1))
    middle = (tissue @ columns) / max(int(tissue.sum()), 1)
    return float(area[columns > middle].sum() / area.sum())


def _spread(mask: Mask, voxels: float) -> Mask:
    return np.asarray(ndimage.binary_dilation(mask, iterations=max(1, round(voxels))))
