"""Folders -> the scans and nodules that each fold holds out, on which its network can be measured."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gcnn_cli.labels.entries import CutoutEntry, DataIndex, ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.samples.chunks import chunk_samples, read_chunk
from gcnn_cli.samples.donors import donor_samples, read_donor
from gcnn_cli.samples.duplicates import identify_patients
from gcnn_cli.samples.sample import Sample, SampleConfig


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Data that one fold holds out.

    scans:     labeled scans
    nodules:   nodules of cut-outs as samples, each in the center
    set_aside: number of nodules in the scans that do not count, since their patient was trained on (`unseen_by`)
    """

    scans: tuple[ScanEntry, ...]
    nodules: tuple[Sample, ...]
    set_aside: int = 0

    def unseen_by(self, patients: Collection[str], series: Collection[str]) -> "HeldOut":
        """Return what a network was not trained on that has seen these patients and series.

        Of a scan that it has not seen, but of a patient whom it has, the marks count as excluded.
        """
        new = [scan for scan in self.scans if scan.name not in series]
        known = [scan for scan in new if scan.patient in patients]
        scans = [replace(s, nodules=(), excluded=(*s.nodules, *s.excluded)) if s in known else s for s in new]
        return HeldOut(
            tuple(scans),
            tuple(nodule for nodule in self.nodules if nodule.patient not in patients),
            self.set_aside + sum(len(scan.nodules) for scan in known),
        )


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
    nodules: list[list[Sample]] = [[] for _ in held]
    for entry in index.cutouts:
        folds = [n for n, patients in enumerate(held) if entry.patient in patients]
        if folds and (nodule := _read_nodule(entry, samples)):
            for n in folds:
                nodules[n].append(nodule)
    return [
        HeldOut(tuple(s for s in index.scans if s.labelled and s.patient in patients), tuple(of_fold))
        for patients, of_fold in zip(held, nodules, strict=True)
    ]


def _read_nodule(entry: CutoutEntry, config: SampleConfig) -> Sample | None:
    """Return the nodule of a cut-out; None if its mask is empty on the training grid."""
    rng = np.random.default_rng(0)
    if not entry.masked:
        return chunk_samples(read_chunk(entry, config), config, rng)[0]
    donor = read_donor(entry, config)
    return None if donor is None else donor_samples(donor, config, rng)[0]
