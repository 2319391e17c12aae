"""Folders -> the scans and nodules that each fold holds out, on which its network can be measured."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.labels.entries import CutoutEntry, DataIndex, ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.samples.chunks import chunk_samples, read_chunk
from gcnn_cli.samples.donors import donor_samples, read_donor
from gcnn_cli.samples.duplicates import identify_patients
from gcnn_cli.samples.sample import Sample, SampleConfig


@dataclass(frozen=True, eq=False)
class HeldOutNodule:
    """A nodule cut-out as a sample with its nodule in the center. diameter_mm: the readers', or that of the mask."""

    sample: Sample
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Data that one fold holds out: labeled scans, and nodules in cut-outs."""

    scans: tuple[ScanEntry, ...]
    nodules: tuple[HeldOutNodule, ...]


def read_held_out(
    folders: list[Path], samples: SampleConfig, held: Sequence[Collection[str]], cache: Path | None = None
) -> list[HeldOut]:
    """Return the held-out data of each fold, in the order of the folds.

    held:  patients of each fold
    cache: folder that the trainings used (`duplicates.identify_patients`)

    Raises InputError for folders without a usable scan and for damaged cut-outs.
    """
    found = read_index(folders)
    index = DataIndex(found.scans, tuple(identify_patients(list(found.cutouts), cache)))
    nodules: list[list[HeldOutNodule]] = [[] for _ in held]
    for entry in index.cutouts:
        folds = [n for n, patients in enumerate(held) if entry.patient in patients]
        if folds and (nodule := _read_nodule(entry, samples)):
            for n in folds:
                nodules[n].append(nodule)
    return [
        HeldOut(tuple(s for s in index.scans if s.labelled and s.patient in patients), tuple(of_fold))
        for patients, of_fold in zip(held, nodules, strict=True)
    ]


def _read_nodule(entry: CutoutEntry, config: SampleConfig) -> HeldOutNodule | None:
    """Return the nodule of a cut-out; None if its mask is empty on the training grid."""
    rng = np.random.default_rng(0)
    if not entry.masked:
        chunk = read_chunk(entry, config)
        return HeldOutNodule(chunk_samples(chunk, config, rng)[0], 2 * chunk.radius_mm)
    donor = read_donor(entry, config)
    if donor is None:
        return None
    return HeldOutNodule(donor_samples(donor, config, rng)[0], _diameter_mm(donor.mask, config.spacing_zyx))


def _diameter_mm(mask: NDArray[np.bool_], spacing_zyx: Sequence[float]) -> float:
    """Return the diameter of the disc with the area of the largest axial section."""
    pixel_mm2 = spacing_zyx[1] * spacing_zyx[2]
    return float(2 * np.sqrt(mask.sum(axis=(1, 2)).max() * pixel_mm2 / np.pi))
