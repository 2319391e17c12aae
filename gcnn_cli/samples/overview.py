"""Labeled folders before anything is preprocessed: what is on each side of the split, and what one scan costs."""

import time
from dataclasses import dataclass
from pathlib import Path

from gcnn_cli.detection.detector import Detector
from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.labels.entries import DataIndex, ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.split import SplitConfig, check_fold, held_out_patients, with_known_names


@dataclass(frozen=True)
class Side:
    """One side of the split. nodules: in its labeled scans"""

    patients: frozenset[str]
    labelled: int
    unlabelled: int
    nodules: int
    cutouts: int


@dataclass(frozen=True, eq=False)
class Overview:
    """Labeled folders.

    unknown: cut-outs whose file names no patient; used only if their voxels show whose they are
    scans:   the scans that a training reads; held out, unlabeled ones measure nothing
    """

    training: Side
    held_out: Side
    unknown: int
    scans: tuple[ScanEntry, ...]


def look_over(folders: list[Path], split: SplitConfig, *, strict: bool = False) -> Overview:
    """Read the index of labeled folders and split it as `prepare` does.

    Raises InputError as `read_index`, and as `check_fold`.
    """
    index = read_index(folders, strict=strict)
    split = with_known_names(split, set(index.patients))
    check_fold(index, split)
    held = held_out_patients(index, split)
    return Overview(
        _side(index, frozenset(index.patients) - held),
        _side(index, frozenset(index.patients) & held),
        sum(not cutout.patient for cutout in index.cutouts),
        tuple(scan for scan in index.scans if scan.labelled or scan.patient not in held),
    )


def time_one(overview: Overview, config: SampleConfig, split: SplitConfig, detector: Detector) -> tuple[float, int]:
    """Preprocess the first readable scan. Return the seconds that it took, and the bytes that the cache would hold.

    Raises InputError if none can be read.
    """
    for scan in overview.scans:
        started = time.monotonic()
        try:
            made = preprocess_scan(scan, config, split.seed, None, detector if scan.labelled else None)
        except (InputError, GeometryError):
            continue  # a training leaves it out, too
        return time.monotonic() - started, made.hu.nbytes
    raise InputError("none of the scans can be read: there is nothing to train on")


def _side(index: DataIndex, patients: frozenset[str]) -> Side:
    scans = [scan for scan in index.scans if scan.patient in patients]
    return Side(
        patients,
        sum(scan.labelled for scan in scans),
        sum(not scan.labelled for scan in scans),
        sum(len(scan.nodules) for scan in scans),
        sum(cutout.patient in patients for cutout in index.cutouts),
    )
