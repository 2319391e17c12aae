"""Labeled folders -> training and validation samples, split by patient."""

import logging
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.proposals import DEFAULT_PROPOSALS, load_proposer
from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.labels.entries import DataIndex, ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.problems import UNREADABLE, Problem, report_problems
from gcnn_cli.samples.chunks import chunk_samples, read_chunk
from gcnn_cli.samples.donors import Donor, donor_samples, read_donor
from gcnn_cli.samples.duplicates import identify_patients
from gcnn_cli.samples.label_frame import label_frame_problems
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import Sample, SampleConfig
from gcnn_cli.samples.scan_samples import scan_samples, scored_samples
from gcnn_cli.samples.split import SplitConfig, check_fold, held_out_patients, with_known_names

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class Prepared:
    """Samples on both sides of the split, with their series and patients.

    split:    as given, with patients by the names that the index has for them
    scored:   false candidates among those that detection scores, of every labeled scan; empty without a detector
    origin:   labels of the scans, and the proposal network's name and checksum, on which the samples depend
    contents: names and checksums of the cut-outs, with their patients, and of the scans
    """

    training: list[Sample]
    validation: list[Sample]
    labelled_series: tuple[str, ...]
    training_series: tuple[str, ...]
    training_patients: tuple[str, ...]
    held_out_patients: tuple[str, ...]
    split: SplitConfig
    scored: list[Sample]
    origin: tuple[Any, ...]
    contents: tuple[Any, ...] = ()

    @property
    def candidate_weights(self) -> str:
        """Name and checksum of the proposal network, as reports state them."""
        return str(self.origin[0])


def prepare(
    folders: list[Path],
    samples: SampleConfig,
    split: SplitConfig,
    *,
    strict: bool = False,
    cache: Path | None = None,
    held_out_transplants: bool = False,
    detector: Detector | None = None,
    proposals: str = DEFAULT_PROPOSALS,
    combined: bool = False,
) -> Prepared:
    """Read labeled folders and make their samples; with a cache, scans are preprocessed once.

    held_out_transplants: put held-out nodules into held-out scans too, as test samples
    detector:             also collect the candidates that it scores in labeled scans, for operating points
    proposals:            network that proposes candidates: name of shipped weights, or path of a weights file
    combined:             refuse a fold of which no committee can be made (`split.check_fold`)

    Cut-outs of unknown patients are left out, since they could belong to either side. Scans that cannot be read
    are reported and left out, labels in another frame are reported; with strict, every problem raises InputError.
    """
    index = read_index(folders, strict=strict)
    cutouts = identify_patients(list(index.cutouts), cache)
    unknown = sum(not entry.patient for entry in cutouts)
    if unknown:
        log.info("%d cut-outs of unknown patients are left out", unknown)
    index = replace(index, cutouts=tuple(cutouts))
    split = with_known_names(split, set(index.patients))
    if combined:
        check_fold(index, split)
    held = held_out_patients(index, split)
    sides: dict[bool, list[Sample]] = {False: [], True: []}
    donors: dict[bool, list[Donor]] = {False: [], True: []}
    for n, entry in enumerate(cutouts):
        side = sides[entry.patient in held]
        if entry.patient and not entry.masked:
            side += chunk_samples(read_chunk(entry, samples), samples, np.random.default_rng([split.seed, 1, n]))
            continue
        donor = read_donor(entry, samples) if entry.patient else None
        if donor is None:
            continue
        side += donor_samples(donor, samples, np.random.default_rng([split.seed, 1, n]))
        donors[entry.patient in held].append(donor)
    log.info("%d nodule cut-outs for training", len(donors[False]))
    if not held_out_transplants:
        donors[True] = []
    contents: list[tuple[str, ...]] = [
        (e.name, e.patient, sha256(e.path.read_bytes()).hexdigest()) for e in cutouts if e.patient
    ]
    proposer = load_proposer(torch.device("cpu"), proposals)
    scans: list[ScanEntry] = []
    scored: list[Sample] = []
    found: dict[str, NDArray[np.float64]] = {}
    problems: list[Problem] = []
    for scan in index.scans:
        out = scan.patient in held
        if not out or scan.labelled:  # held out, an unlabeled scan measures nothing
            try:
                scoring = detector if scan.labelled else None
                preprocessed = preprocess_scan(scan, samples, split.seed, cache, scoring, proposer)
                sides[out] += scan_samples(preprocessed, scan, donors[out], samples, split.seed, held_out=out)
                contents.append((scan.name, preprocessed.content))
                scored += scored_samples(preprocessed, scan, samples)
                found[scan.name] = preprocessed.position_mm(preprocessed.candidates)
            except (InputError, GeometryError) as error:
                problems.append(Problem(UNREADABLE, f"{error}; left out"))
                if strict:
                    break
                continue
        scans.append(scan)
    problems += label_frame_problems(scans, found)
    report_problems(problems, strict=strict)
    patients = set(DataIndex(tuple(scans), tuple(cutouts)).patients)
    return Prepared(
        sides[False],
        sides[True],
        tuple(s.name for s in scans if s.labelled),
        tuple(s.name for s in scans if s.patient not in held),
        tuple(sorted(patients - held)),
        tuple(sorted(patients & held)),
        split,
        scored,
        (proposer.name, *((s.name, s.nodules, s.excluded) for s in scans)),
        tuple(contents),
    )
