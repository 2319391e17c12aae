"""Planes through a nodule, cut from the scan's own voxels without interpolation.

Pictures follow the radiological convention: the patient's right is on the left of axial and coronal
pictures, the front on the left of sagittal ones, and the head at the top. Axes are the array's,
nearest to the patient's (`scan.resample.orient`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.detection.findings import Nodule
from gcnn_cli.scan.resample import AIR_HU, orient
from gcnn_cli.scan.volume import Volume

LUNG_WINDOW = (-1350.0, 150.0)  # HU: width 1500, level -600
STRIP = 5  # slices in a strip, the nodule's own in the middle

_FIELD_MM = 50.0
_FIELD_PER_DIAMETER = 2.5

# Plane by the array axis (z, y, x) of its normal: name, and letters of the left, right, top and bottom edge.
_PLANES = {0: ("axial", "RLAP"), 1: ("coronal", "RLHF"), 2: ("sagittal", "APHF")}


@dataclass(frozen=True, eq=False)
class View:
    """A square field of side field_mm around a point: its voxels and their position in it.

    hu:        [rows, columns], top row and left column first; covers the field, with air outside the scan
    pixel_mm:  (height, width) of a pixel
    corner_mm: (down, right) from the top left corner of the field to that of the first pixel, 0 or less
    letters:   patient directions at the left, right, top and bottom edge (R L A P H F)
    """

    plane: str
    hu: NDArray[np.float32]
    pixel_mm: tuple[float, float]
    corner_mm: tuple[float, float]
    field_mm: float
    letters: str


@dataclass(frozen=True, eq=False)
class SliceView:
    """One slice around the nodule's position. number: from 1, in the order of the array."""

    number: int
    view: View


def field_mm(nodule: Nodule) -> float:
    """Return the side of a nodule's pictures: 50 mm, more for a large nodule."""
    return max(_FIELD_MM, _FIELD_PER_DIAMETER * nodule.diameter_mm)


def nodule_views(volume: Volume, nodule: Nodule) -> tuple[View, View, View]:
    """Return the axial, coronal and sagittal plane through the voxel nearest to the nodule's center."""
    oriented = orient(volume)
    index = oriented.index_zyx(np.array(nodule.position_mm))
    axial, coronal, sagittal = (_view(oriented, index, normal, field_mm(nodule)) for normal in range(3))
    return axial, coronal, sagittal


def neighboring_slices(volume: Volume, nodule: Nodule) -> list[SliceView]:
    """Return the nodule's slice and slices on both sides of it, spread over about its diameter."""
    oriented = orient(volume)
    # The scan's own slices may have any orientation: a coronal stack has coronal slices.
    normal = int(np.abs(oriented.direction.T @ volume.direction[:, 0]).argmax())
    index = np.array(nodule.index_zyx)
    step = max(1, round(nodule.diameter_mm / (STRIP - 1) / float(volume.spacing_zyx[0])))
    slices = []
    for offset in range(-(STRIP // 2), STRIP // 2 + 1):
        number = nodule.slice + offset * step
        if 1 <= number <= volume.shape[0]:
            at = oriented.index_zyx(volume.position_mm(np.array([number - 1, index[1], index[2]])))
            slices.append(SliceView(number, _view(oriented, at, normal, field_mm(nodule))))
    return slices


def to_gray(hu: NDArray[np.float32], window: tuple[float, float] = LUNG_WINDOW) -> NDArray[np.uint8]:
    """Convert HU to 8-bit gray, black at the lower end of the window and white at the upper end."""
    low, high = window
    return np.asarray(np.clip((hu - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


def _view(oriented: Volume, index: NDArray[np.float64], normal: int, field: float) -> View:
    """Return the plane nearest to a fractional index (z, y, x), cut to the field around that index."""
    down, right = (axis for axis in range(3) if axis != normal)
    plane = np.take(oriented.hu, int(np.clip(round(index[normal]), 0, oriented.shape[normal] - 1)), normal)
    middle, spacing = index[[down, right]], oriented.spacing_zyx[[down, right]]
    if down == 0:  # rows run from head to feet, array slices from feet to head
        plane, middle = plane[::-1], np.array([plane.shape[0] - 1 - middle[0], middle[1]])
    first = np.floor(middle - field / 2 / spacing + 0.5).astype(int)
    last = np.ceil(middle + field / 2 / spacing - 0.5).astype(int)
    hu = np.full(last - first + 1, AIR_HU, np.float32)
    start, stop = np.maximum(first, 0), np.minimum(last + 1, plane.shape)
    if (start < stop).all():
        inside = tuple(slice(a, b) for a, b in zip(start - first, stop - first, strict=True))
        hu[inside] = plane[start[0] : stop[0], start[1] : stop[1]]
    corner = (first - 0.5 - middle) * spacing + field / 2
    name, letters = _PLANES[normal]
    return View(
        name,
        hu,
        (float(spacing[0]), float(spacing[1])),
        (float(corner[0]), float(corner[1])),
        field,
        letters,
    )
