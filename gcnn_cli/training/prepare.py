"""Folders -> training and validation samples, split by patient."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcnn_cli.training.duplicates import identify_patients
from gcnn_cli.training.layouts import DataIndex, read_index
from gcnn_cli.training.samples import Donor, Sample, SampleConfig, donor_samples, read_donor, scan_samples
from gcnn_cli.training.sampling import is_held_out

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class SplitConfig:
    """Held out: every patient named, and a share of the others."""

    hold_out: tuple[str, ...] = ()
    share: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """Samples of both sides, and who is on which."""

    training: list[Sample]
    validation: list[Sample]
    labelled_series: tuple[str, ...]
    training_series: tuple[str, ...]
    training_patients: tuple[str, ...]
    held_out_patients: tuple[str, ...]


def prepare(folders: list[Path], samples: SampleConfig, split: SplitConfig) -> Prepared:
    """Read everything once. Cut-outs whose patient stays unknown are not used: they could be anyone's."""
    index = read_index(folders)
    cutouts = identify_patients(list(index.cutouts))
    unknown = sum(not entry.patient for entry in cutouts)
    if unknown:
        log.info("%d cut-outs of unknown patients are left out", unknown)
    patients = set(DataIndex(index.scans, tuple(cutouts)).patients)
    held = {p for p in patients if p in split.hold_out or is_held_out(p, split.share, split.seed)}
    sides: dict[bool, list[Sample]] = {False: [], True: []}
    donors: list[Donor] = []
    for n, entry in enumerate(cutouts):
        donor = read_donor(entry, samples) if entry.patient else None
        if donor is None:
            continue
        sides[entry.patient in held] += donor_samples(donor, samples, np.random.default_rng([split.seed, 1, n]))
        if entry.patient not in held:
            donors.append(donor)
    log.info("%d nodule cut-outs for training", len(donors))
    for n, scan in enumerate(index.scans):
        out = scan.patient in held
        if out and not scan.labelled:
            continue  # what it holds is unknown: nothing can be learned about the network from it
        rng = np.random.default_rng([split.seed, 2, n])
        sides[out] += scan_samples(scan, [] if out else donors, samples, rng)
    return Prepared(
        sides[False],
        sides[True],
        tuple(s.name for s in index.scans if s.labelled),
        tuple(s.name for s in index.scans if s.patient not in held),
        tuple(sorted(patients - held)),
        tuple(sorted(held)),
    )
