"""Labelled scans and cut-outs -> training samples: cubes of HU, larger than a patch, with a label.

Positives: nodules in their own surroundings (cut-outs, and the marks in labelled scans), and
nodules transplanted into the scans. Negatives: the candidate stage's own output in the scans, away
from every mark; places off the nodule in the same stacks; shams (`transplant`). In unlabelled
scans the strongest candidates are left out: they may be nodules that nobody marked.

Cubes are cut with `detection.patches.cut_patch`, as in detection.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.candidates import CandidateConfig, find_candidates
from gcnn_cli.detection.lungs import LungConfig, Mask, segment_lungs
from gcnn_cli.detection.patches import cut_patch
from gcnn_cli.labels.entries import CutoutEntry, ScanEntry
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine
from gcnn_cli.training.transplant import blend, choose_places, soften

log = logging.getLogger("gcnn")

Cube = NDArray[np.int16]

_CLEAR_MM = 5.0  # negatives keep this far from the rim of every mark
_UNLABELLED_SKIP = 30  # strongest candidates of a scan without labels that are not used


@dataclass(frozen=True)
class SampleConfig:
    """How many of what, and how large."""

    spacing_mm: float = 1.0
    side: int = 48  # voxels: room for turning, scaling and shifting a patch of 32
    candidates_per_scan: int = 1500
    transplants_per_scan: int = 160
    shams_per_scan: int = 80
    stack_negatives: int = 3  # of each stack
    max_host_spacing_mm: float = 3.0  # scans with thicker slices get no transplants


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled cube. The slices [first, stop) along z were measured; outside them is a stand-in."""

    hu: Cube  # int16 [side, side, side]
    label: int
    kind: str
    patient: str
    series: str  # name of the scan or cut-out
    first: int
    stop: int

    @property
    def complete(self) -> bool:
        """Whether every slice was measured."""
        return self.first == 0 and self.stop == len(self.hu)


def scan_samples(
    entry: ScanEntry, donors: list["Donor"], config: SampleConfig, rng: np.random.Generator
) -> list[Sample]:
    """Everything that one scan gives: its marks, its candidates, transplants into it and shams."""
    volume = entry.read()
    grid = resample(volume, config.spacing_mm)
    lungs = segment_lungs(grid, LungConfig())
    samples = [_cut(grid.hu, grid.index_zyx(np.array(m[:3])), 1, "mark", entry, config) for m in entry.nodules]

    candidates = find_candidates(grid, lungs, CandidateConfig(max_candidates=config.candidates_per_scan))
    positions = np.array([c.position_mm for c in candidates]).reshape(-1, 3)
    clear = np.ones(len(positions), bool)
    if not entry.labelled:
        clear[:_UNLABELLED_SKIP] = False
    for x, y, z, diameter in (*entry.nodules, *entry.excluded):
        clear &= np.linalg.norm(positions - (x, y, z), axis=1) > diameter / 2 + _CLEAR_MM
    indices = grid.index_zyx(positions[clear])
    samples += [_cut(grid.hu, index, 0, "candidate", entry, config) for index in indices]

    # A sharp nodule in a scan blurred by thick slices would be known by its sharpness.
    if donors and volume.spacing_zyx.max() <= config.max_host_spacing_mm:
        samples += _transplants(grid, lungs, entry, donors, config, rng)
    log.info(
        "%s: %d marks, %d candidates, %d transplants, %d shams",
        entry.name,
        *(sum(s.kind == kind for s in samples) for kind in ("mark", "candidate", "transplant", "sham")),
    )
    return samples


@dataclass(frozen=True, eq=False)
class Donor:
    """A nodule cut-out on the isotropic grid."""

    hu: NDArray[np.float32]  # [D, H, W]
    mask: Mask
    center_zyx: NDArray[np.float64]
    patient: str
    name: str
    first: int  # the measured slices along z within the cube around the center
    stop: int


def read_donor(entry: CutoutEntry, config: SampleConfig) -> Donor | None:
    """A stack or cube on the training grid; None where its mask is empty after resampling."""
    data = entry.read()
    hu, mask = data["hu"], data["mask"]
    spacing = np.asarray(data["spacing_zyx"], float) if "spacing_zyx" in data else None
    if spacing is None:  # a cube: (y, x, z), voxels of about 1 mm
        hu, mask, spacing = np.moveaxis(hu, 2, 0), np.moveaxis(mask, 2, 0), np.ones(3)
    affine = make_affine(spacing, np.eye(3)[:, ::-1], np.zeros(3))
    grid = resample(Volume(np.ascontiguousarray(hu, np.int16), affine), config.spacing_mm)
    # The mask as HU-like values above the floor of the resampling, halved again at its rim.
    filled = resample(Volume((mask * 1000).astype(np.int16), affine), config.spacing_mm)
    inside = filled.hu > 500
    if not inside.any():
        return None
    center = np.array(ndimage.center_of_mass(inside))
    start = int(np.floor(center[0] - (config.side - 1) / 2 + 0.5))
    first = max(0, -start)
    stop = min(config.side, grid.shape[0] - start)
    return Donor(grid.hu, inside, center, entry.patient, entry.name, first, stop)


def donor_samples(donor: Donor, config: SampleConfig, rng: np.random.Generator) -> list[Sample]:
    """The nodule in its own surroundings, and places beside it."""
    kind = "stack" if donor.stop - donor.first < config.side else "cube"
    positive = _cut_donor(donor, donor.center_zyx, 1, kind, config)
    if kind == "cube":
        return [positive]
    places = _places_beside(donor, config.stack_negatives, rng)
    return [positive, *(_cut_donor(donor, place, 0, "beside", config) for place in places)]


def _places_beside(donor: Donor, count: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Bright blobs of the stack away from its nodule: vessels and pieces of the wall."""
    smooth = ndimage.gaussian_filter(np.clip(donor.hu, -1000, 100), 1.5, mode="nearest")
    peaks = (smooth == ndimage.maximum_filter(smooth, size=(1, 7, 7))) & (smooth > -750)
    away = ndimage.distance_transform_edt(~donor.mask) > _CLEAR_MM
    border = np.zeros(donor.mask.shape, bool)
    border[:, 8:-8, 8:-8] = True
    places = np.argwhere(peaks & away & border)
    if len(places) == 0:
        return []
    chosen = rng.choice(len(places), min(count, len(places)), replace=False)
    return [places[c].astype(float) for c in chosen]


def _cut_donor(donor: Donor, center: NDArray[np.float64], label: int, kind: str, config: SampleConfig) -> Sample:
    """A cube around a place in a cut-out; beyond its sides the border is repeated, along z marked missing."""
    index = np.round(center).astype(int)
    half = config.side // 2
    padded = np.pad(donor.hu, half, mode="edge")
    cube = padded[tuple(slice(i, i + config.side) for i in index)]
    first = max(0, half - int(index[0]))
    stop = min(config.side, half - int(index[0]) + donor.hu.shape[0])
    return Sample(np.round(cube).astype(np.int16), label, kind, donor.patient, donor.name, first, stop)


def _cut(
    hu: NDArray[Any],
    index: NDArray[np.float64],
    label: int,
    kind: str,
    entry: ScanEntry,
    config: SampleConfig,
) -> Sample:
    cube = np.round(cut_patch(hu, index, config.side)).astype(np.int16)
    return Sample(cube, label, kind, entry.patient, entry.name, 0, config.side)


def _transplants(
    grid: Volume,
    lungs: Mask,
    entry: ScanEntry,
    donors: list[Donor],
    config: SampleConfig,
    rng: np.random.Generator,
) -> list[Sample]:
    hu = np.asarray(grid.hu, np.float32)
    count = config.transplants_per_scan + config.shams_per_scan
    places = choose_places(hu, lungs, count, rng)
    pieces = choose_places(hu, lungs, count, rng)
    samples = []
    for n, (place, piece) in enumerate(zip(places, pieces, strict=False)):
        donor = donors[rng.integers(len(donors))]
        nodule, mask = _centered(donor, config.side, rng)
        host = np.asarray(cut_patch(hu, place.astype(float), config.side), np.float32)
        sham = n >= config.transplants_per_scan
        if sham:
            nodule = np.asarray(cut_patch(hu, piece.astype(float), config.side), np.float32)
        cube = np.round(blend(host, nodule, soften(mask))).astype(np.int16)
        kind = "sham" if sham else "transplant"
        patient = entry.patient if sham else donor.patient
        samples.append(Sample(cube, int(not sham), kind, patient, entry.name, 0, config.side))
    return samples


def _centered(donor: Donor, side: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Mask]:
    """The donor's voxels and mask around its center, turned at random by an element of Oh."""
    axes = rng.permutation(3)
    flips = tuple(axis for axis in range(3) if rng.integers(2))
    start = np.floor(donor.center_zyx - (side - 1) / 2 + 0.5).astype(int)

    def turned(array: NDArray[Any], mode: Literal["edge", "constant"]) -> NDArray[Any]:
        window = tuple(slice(s + side, s + 2 * side) for s in start)
        cube = np.pad(array, side, mode=mode)[window]
        return np.ascontiguousarray(np.flip(cube.transpose(axes), flips))

    # Beyond the stack the nodule's own outer slice goes on: the softened rim must not mix in air.
    return np.asarray(turned(donor.hu, "edge"), np.float32), np.asarray(turned(donor.mask, "constant"), bool)
