"""Nodule chunks -> samples: nodules with their surroundings in all directions, and places beside them.

A chunk is a box of the scan's own voxels around one nodule of LUNA16's reference. It has no mask, so its nodule is a
positive in its surroundings but not a donor for transplants. The box is about as wide as a patch. A cube around a
nodule therefore reaches beyond it, where the box's border is repeated. `rims` does the same to complete cubes of both
classes, equally often.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import CutoutEntry
from gcnn_cli.samples.sample import Cube, Sample, SampleConfig
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

_CLEAR_MM = 5.0  # negatives keep this far from the nodule's rim
_OFF_CENTER_MM = 4.0  # in the plane: the largest distance of nodules from the center of their chunk
_PATCH_SHARE = 2 / 3  # side of a patch as a share of the cube's, which leaves room to turn, scale and shift it
_BLOB_MM = 1.5
_APART_MM = 2.0
_BRIGHTER_HU = -750.0


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk on the training grid. hu: int16 [D, H, W], along +z, +y, +x; center_zyx: voxels."""

    hu: NDArray[np.int16]
    center_zyx: NDArray[np.float64]
    radius_mm: float
    patient: str
    name: str


def read_chunk(entry: CutoutEntry, config: SampleConfig) -> Chunk:
    """Return the chunk on the training grid. Raises InputError for a file without a usable chunk."""
    data = entry.read()
    hu, spacing = data["hu"], np.asarray(data["spacing_zyx"], float)
    center, diameter = np.asarray(data["centre_zyx"], float), float(data["diameter_mm"])
    if spacing.shape != (3,) or not (np.isfinite(spacing).all() and spacing.min() > 0):
        raise InputError(f"{entry.path}: spacing_zyx must be three positive lengths in mm")
    if center.shape != (3,) or not ((center >= 0) & (center <= np.array(hu.shape) - 1)).all():
        raise InputError(f"{entry.path}: centre_zyx must lie inside the chunk")
    if not 0 < diameter < np.inf:
        raise InputError(f"{entry.path}: diameter_mm must be a positive length, got {diameter:g}")
    volume = Volume(np.ascontiguousarray(hu, np.int16), make_affine(spacing, np.eye(3)[:, ::-1], np.zeros(3)))
    grid = resample(volume, config.spacing_mm)
    return Chunk(
        np.round(grid.hu).astype(np.int16),
        grid.index_zyx(volume.position_mm(center)),
        diameter / 2,
        entry.patient,
        entry.name,
    )


def chunk_samples(chunk: Chunk, config: SampleConfig, rng: np.random.Generator) -> list[Sample]:
    """Return the nodule as a positive, and up to `stack_negatives` bright places above and below it."""
    places = _places_beside(chunk, config, rng)
    return [
        _sample(chunk, chunk.center_zyx, 1, "chunk", config),
        *(_sample(chunk, place, 0, "chunk beside", config) for place in places),
    ]


def _places_beside(chunk: Chunk, config: SampleConfig, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return local maxima of the smoothed chunk that are clear of the nodule.

    A patch there lacks no more voxels than a nodule's patch does: missing voxels must say nothing about the class.
    """
    voxel = np.array(config.spacing_zyx)
    smooth = ndimage.gaussian_filter(np.clip(chunk.hu, -1000, 100).astype(np.float32), _BLOB_MM / voxel, mode="nearest")
    width = (2 * np.round(_APART_MM / voxel) + 1).astype(int)
    peaks = (smooth == ndimage.maximum_filter(smooth, size=tuple(width))) & (smooth > _BRIGHTER_HU)
    places = np.argwhere(peaks).astype(float)
    middle, half_mm = (np.array(chunk.hu.shape) - 1) / 2, np.array(chunk.hu.shape) * voxel / 2
    room_mm = np.maximum(half_mm - np.array(config.sides) * voxel * _PATCH_SHARE / 2, 0) + _OFF_CENTER_MM
    inside = (np.abs(places - middle) * voxel <= room_mm).all(axis=1)
    distance = np.linalg.norm((places - chunk.center_zyx) * voxel, axis=1)
    usable = places[inside & (distance > chunk.radius_mm + _CLEAR_MM)]
    return list(usable[rng.permutation(len(usable))[: config.stack_negatives]])


def _sample(chunk: Chunk, center: NDArray[np.float64], label: int, kind: str, config: SampleConfig) -> Sample:
    start = np.floor(center - (np.array(config.sides) - 1) / 2 + 0.5).astype(int)

    def cut() -> Cube:
        spans = zip(start, config.sides, chunk.hu.shape, strict=True)
        index = [np.clip(np.arange(s, s + side), 0, n - 1) for s, side, n in spans]
        return np.asarray(chunk.hu[np.ix_(*index)], np.int16)

    # The border is repeated on every side, so no slice is marked missing.
    diameter_mm = 2 * chunk.radius_mm if label else math.nan
    return Sample(cut, config.side, label, kind, chunk.patient, chunk.name, 0, config.sides[0], diameter_mm)
