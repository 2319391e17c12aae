"""Nodule cut-outs -> samples in their own surroundings, and donors for transplants into scans."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.lungs import Mask
from gcnn_cli.labels.entries import CutoutEntry
from gcnn_cli.samples.sample import Cube, Sample, SampleConfig
from gcnn_cli.samples.transplant import NoiseLevels, noise_levels, soften
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

_CLEAR_MM = 5.0  # negatives keep this far from the nodule
_BLOB_MM = 1.5
_APART_MM = 3.0  # between bright blobs in the plane
_INSIDE_SHARE = 3 / 8  # of a cube's side: this far from the sides of the stack, half a patch and a shift


@dataclass(frozen=True, eq=False)
class Donor:
    """A nodule cut-out on the training grid, and the cube around its center that is transplanted."""

    hu: NDArray[np.int16]  # [D, H, W]
    mask: Mask
    center_zyx: NDArray[np.float64]
    patient: str
    name: str
    first: int  # slices [first, stop) along z of the cube were measured
    stop: int
    cube: Cube  # [side, side, side]; beyond the cut-out its border is repeated
    weight: NDArray[np.float16]  # [side, side, side], the mask with a softened rim
    noise: NoiseLevels | None
    diameter_mm: float  # of the disc with the area of the mask's largest axial section

    def turned(self, axes: NDArray[np.int64], flips: tuple[int, ...]) -> tuple[Cube, NDArray[np.float16]]:
        """Return cube and weight turned by an element of Oh that keeps the shape of the cube."""
        return (
            np.ascontiguousarray(np.flip(self.cube.transpose(axes), flips)),
            np.ascontiguousarray(np.flip(self.weight.transpose(axes), flips)),
        )


def read_donor(entry: CutoutEntry, config: SampleConfig) -> Donor | None:
    """Read a stack or cube onto the training grid. Return None if its mask is empty after resampling."""
    data = entry.read()
    hu, mask = data["hu"], data["mask"]
    spacing = np.asarray(data["spacing_zyx"], float) if "spacing_zyx" in data else None
    if spacing is None:  # a cube: (y, x, z), voxels of about 1 mm
        hu, mask, spacing = np.moveaxis(hu, 2, 0), np.moveaxis(mask, 2, 0), np.ones(3)
    affine = make_affine(spacing, np.eye(3)[:, ::-1], np.zeros(3))
    grid = resample(Volume(np.ascontiguousarray(hu, np.int16), affine), config.spacing_mm)
    # Resampled as HU from 0 to 1000, above the floor of resampling; a voxel belongs to the mask from half on.
    filled = resample(Volume((mask * 1000).astype(np.int16), affine), config.spacing_mm)
    inside = filled.hu > 500
    if not inside.any():
        return None
    center = np.array(ndimage.center_of_mass(inside))
    sides = np.array(config.sides)
    start = np.floor(center - (sides - 1) / 2 + 0.5).astype(int)
    window = tuple(slice(s + n, s + 2 * n) for s, n in zip(start, config.sides, strict=True))
    # Beyond the stack the nodule's own outer slice is repeated: the softened rim must not mix in air.
    voxels = np.round(grid.hu).astype(np.int16)
    cube = _with_border(voxels, start, config.sides)
    weight = soften(np.pad(inside, [(n, n) for n in config.sides])[window]).astype(np.float16)
    return Donor(
        voxels,
        inside,
        center,
        entry.patient,
        entry.name,
        first=max(0, -int(start[0])),
        stop=min(config.sides[0], grid.shape[0] - int(start[0])),
        cube=cube,
        weight=weight,
        noise=noise_levels(voxels) if config.match_noise else None,
        diameter_mm=_diameter_mm(inside, config.spacing_zyx),
    )


def _diameter_mm(mask: Mask, spacing_zyx: Sequence[float]) -> float:
    pixel_mm2 = spacing_zyx[1] * spacing_zyx[2]
    return float(2 * np.sqrt(mask.sum(axis=(1, 2)).max() * pixel_mm2 / np.pi))


def donor_samples(donor: Donor, config: SampleConfig, rng: np.random.Generator) -> list[Sample]:
    """Return the nodule in its own surroundings and, of a stack, places beside it."""
    kind = "stack" if donor.stop - donor.first < config.sides[0] else "cube"
    positive = _sample(donor, donor.center_zyx, 1, kind, config)
    if kind == "cube":
        return [positive]
    places = _places_beside(donor, config, rng)
    return [positive, *(_sample(donor, place, 0, "beside", config) for place in places)]


def _places_beside(donor: Donor, config: SampleConfig, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Choose bright blobs of the stack away from its nodule: vessels and pieces of the wall."""
    voxel = np.array(config.spacing_zyx)
    smooth = ndimage.gaussian_filter(np.clip(donor.hu, -1000, 100).astype(np.float32), _BLOB_MM / voxel, mode="nearest")
    width = (2 * np.round(_APART_MM / voxel[1:]) + 1).astype(int)
    peaks = (smooth == ndimage.maximum_filter(smooth, size=(1, *width))) & (smooth > -750)
    away = ndimage.distance_transform_edt(~donor.mask, sampling=voxel) > _CLEAR_MM
    # A patch cut there must stay inside the stack: a repeated border would mark it as a negative.
    border = np.zeros(donor.mask.shape, bool)
    y, x = (round(_INSIDE_SHARE * side) for side in config.sides[1:])
    border[:, y:-y, x:-x] = True
    places = np.argwhere(peaks & away & border)
    if len(places) == 0:
        return []
    chosen = rng.choice(len(places), min(config.stack_negatives, len(places)), replace=False)
    return [places[c].astype(float) for c in chosen]


def _sample(donor: Donor, center: NDArray[np.float64], label: int, kind: str, config: SampleConfig) -> Sample:
    """Make a sample around a place in a cut-out; beyond its sides the border is repeated, along z marked missing."""
    index = np.round(center).astype(int)
    half = np.array(config.sides) // 2

    def cut() -> Cube:
        return _with_border(donor.hu, index - half, config.sides)

    first = max(0, int(half[0] - index[0]))
    stop = min(config.sides[0], int(half[0] - index[0]) + donor.hu.shape[0])
    diameter_mm = donor.diameter_mm if label else math.nan
    return Sample(cut, config.side, label, kind, donor.patient, donor.name, first, stop, diameter_mm)


def _with_border(hu: NDArray[Any], start: NDArray[np.int64], sides: Sequence[int]) -> Cube:
    """Cut a box at `start`; voxels outside the array repeat the nearest voxel of its border."""
    index = [np.clip(np.arange(s, s + w), 0, n - 1) for s, w, n in zip(start, sides, hu.shape, strict=True)]
    return np.asarray(hu[np.ix_(*index)], np.int16)
