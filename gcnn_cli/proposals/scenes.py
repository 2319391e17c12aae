"""Scenes: pieces of scans in which every nodule is marked, for training on maps.

A map has a value for every place. A scene therefore states for each voxel whether it belongs to a nodule, whether that
is known, and whether detection would search there. Whole scans, chunks, and cut-outs with a mask are scenes.

Lengths are in voxels of the isotropic training grid unless their names say otherwise.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.lungs import LungConfig, Mask, bounding_box, segment_lungs
from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.marks import Mark, radius_mm
from gcnn_cli.labels.problems import UNREADABLE, Problem, report_problems
from gcnn_cli.samples.chunks import Chunk, read_chunk
from gcnn_cli.samples.donors import Donor, read_donor
from gcnn_cli.samples.duplicates import identify_patients
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.split import SplitConfig, held_out_patients, with_known_names
from gcnn_cli.samples.transplant import PLACE_KINDS, choose_places, noise_hu
from gcnn_cli.scan.resample import resample, search_spacing
from gcnn_cli.scan.volume import Volume

Places = NDArray[np.float64]  # [N, 3], (z, y, x)
Marks = NDArray[np.float64]  # [N, 4], (z, y, x) and diameter

_MARGIN_MM = 24.0  # around the lungs
_AIR_HU = -500.0
_NEAR_AIR_MM = 8.0  # without a lung mask: as far from air as places in closed lungs are
_HOST_PLACES = 6000
_LUNG_PLACES = 40_000


@dataclass(frozen=True, eq=False)
class Scene:
    """One piece of a scan.

    hu:       int16 [D, H, W]
    nodules:  centers and diameters
    unsure:   excluded marks, such as those of too few readers: neither nodules nor negatives
    searched: bool [D, H, W], True where detection would search
    kind:     scan, chunk or cut-out
    labelled: whether every nodule in it is marked
    thin:     whether its slices are thin enough to be averaged to thicker ones
    lung:     places drawn from the lungs; None unless it is a scan
    hosts:    places for transplants: free, at the wall, at vessels; empty in scenes without transplants
    noise_hu: noise of the aerated lung of a scan; NaN if unknown
    donor:    the cut-out with its mask; None unless it is a cut-out
    """

    hu: NDArray[np.int16]
    nodules: Marks
    unsure: Marks
    searched: Mask
    kind: str
    patient: str
    name: str
    labelled: bool = True
    thin: bool = False
    lung: Places | None = None
    hosts: tuple[Places, ...] = ()
    noise_hu: float = float("nan")
    donor: Donor | None = None


def read_scenes(
    folders: list[Path], spacing_mm: float, split: SplitConfig, *, strict: bool = False
) -> tuple[list[Scene], tuple[str, ...], SplitConfig]:
    """Return the scenes of the training patients, the held-out patients, sorted, and the split by their known names.

    Cut-outs of unknown patients are not used. Scans that cannot be read are reported and left out; with strict, every
    problem raises InputError. Raises InputError for folders without a usable scan and for damaged cut-outs.
    """
    index = read_index(folders, strict=strict)
    cutouts = identify_patients(list(index.cutouts))
    index = replace(index, cutouts=tuple(cutouts))
    split = with_known_names(split, set(index.patients))
    out = held_out_patients(index, split)
    config = SampleConfig(spacing_mm=spacing_mm)
    scenes: list[Scene] = []
    unreadable: list[Problem] = []
    for entry in cutouts:
        if not entry.patient or entry.patient in out:
            continue
        if entry.masked:
            donor = read_donor(entry, config)
            scenes += [] if donor is None else [_cutout_scene(donor, spacing_mm)]
        else:
            scenes.append(_chunk_scene(read_chunk(entry, config), spacing_mm))
    for scan in index.scans:
        if scan.patient not in out:
            try:
                scenes.append(scan_scene(scan, config, np.random.default_rng([split.seed, 3])))
            except (InputError, GeometryError) as error:
                unreadable.append(Problem(UNREADABLE, f"{error}; left out"))
                if strict:
                    break
    report_problems(unreadable, strict=strict)
    return scenes, tuple(sorted(out)), split


def scan_scene(entry: ScanEntry, config: SampleConfig, rng: np.random.Generator) -> Scene:
    """Return the scene of a scan around its lungs. Raises as `read_volume`, and InputError without lungs."""
    volume = entry.read()
    spacing_mm = search_spacing(config.spacing_mm)
    grid = resample(volume, spacing_mm)
    lungs = segment_lungs(grid, LungConfig())
    box = bounding_box(lungs, round(_MARGIN_MM / spacing_mm))
    corner = np.array([span.start for span in box])
    hu, lungs = np.round(grid.hu[box]).astype(np.int16), lungs[box]
    thickness = float(volume.spacing_zyx.max())
    hosts: tuple[Places, ...] = ()
    if thickness <= config.max_host_spacing_mm:
        places, kinds = choose_places(hu, lungs, _HOST_PLACES, rng)
        hosts = tuple(places[kinds == kind].astype(float) for kind in range(len(PLACE_KINDS)))
    voxels = np.argwhere(lungs)
    lung = voxels[rng.choice(len(voxels), min(_LUNG_PLACES, len(voxels)), replace=False)].astype(float)
    return Scene(
        hu,
        _marks(entry.nodules, grid, corner),
        _marks(entry.excluded, grid, corner),
        lungs,
        "scan",
        entry.patient,
        entry.name,
        entry.labelled,
        thickness <= 1.5,
        lung,
        hosts,
        noise_hu(hu),
    )


def _marks(marks: tuple[Mark, ...], grid: Volume, corner: NDArray[np.int64]) -> Marks:
    values = np.array(marks, float).reshape(-1, 4)
    index = grid.index_zyx(values[:, :3]) - corner
    return np.column_stack([index, 2 * radius_mm(values[:, 3]) / float(grid.spacing_zyx[0])])


def _chunk_scene(chunk: Chunk, spacing_mm: float) -> Scene:
    nodule = np.array([[*chunk.center_zyx, 2 * chunk.radius_mm / spacing_mm]])
    searched = _near_air(chunk.hu, spacing_mm)
    return Scene(chunk.hu, nodule, np.zeros((0, 4)), searched, "chunk", chunk.patient, chunk.name)


def _cutout_scene(donor: Donor, spacing_mm: float) -> Scene:
    diameter = (6 * float(donor.mask.sum()) / np.pi) ** (1 / 3)
    nodule = np.array([[*donor.center_zyx, diameter]])
    searched = _near_air(donor.hu, spacing_mm)
    return Scene(donor.hu, nodule, np.zeros((0, 4)), searched, "cut-out", donor.patient, donor.name, donor=donor)


def _near_air(hu: NDArray[np.int16], spacing_mm: float) -> Mask:
    air = ndimage.binary_opening(hu < _AIR_HU)
    if not air.any():
        return np.ones(hu.shape, bool)
    return np.asarray(ndimage.distance_transform_edt(~air) * spacing_mm <= _NEAR_AIR_MM)
