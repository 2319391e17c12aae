"""Folders of labeled data -> one index of scans and nodule cut-outs.

The layout of a folder is recognized from its content and logged. One folder may hold several:

LUNA16     `subset*/SERIESUID.mhd` with annotations.csv, and optionally annotations_excluded.csv,
           candidates.csv or candidates_V2.csv, seriesuids.csv (`label_sets`). Readers looked at the scans in
           seriesuids.csv, or without that list at every scan in the subsets. A scan without a row has no nodules.
LIDC-IDRI  DICOM series as TCIA delivers them, with the readers' XML beside them, above them or in another folder:
           each XML names its series. `lidc` and `consensus` make one list of four readers' marks.
plain      scans with the same CSV files. Readers looked at the scans that annotations.csv,
           annotations_excluded.csv, seriesuids.csv or scans.csv names. Any other scan may hold nodules.
cut-outs   .npz with `hu` int16 and `mask`: stacks of slices through one nodule with `spacing_zyx`, and cubes of
           1 mm voxels in (y, x, z) order without it. Chunks, boxes of a scan's own voxels around a nodule, have
           `hu`, `spacing_zyx`, `centre_zyx` and `diameter_mm` and no mask.

`scopes` says which CSV files label which scans. The CSV files of one folder label a scan: the nearest ones come
first, then those further up, then an XML. Marks in the other files are excluded.

Labels name a scan by its SeriesInstanceUID, its file's stem or another name that aliases.csv gives it. They may name
a DICOM series by its folder, if no other series lies in a folder of that name.

The following problems are listed and counted (`problems`) and left out, or with `strict` raise an error:

- labels without a scan
- a scan with an unreadable header or an unreadable mark
- a scan with a nodule outside its voxels: its labels may be in another frame, so that none can be trusted
- a repeated id or nodule, and a scan with two sets of labels

Voxels are read later.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcnn_cli.errors import InputError
from gcnn_cli.labels.consensus import agree
from gcnn_cli.labels.discovery import FoundScan
from gcnn_cli.labels.entries import CutoutEntry, DataIndex, ScanEntry, no_candidates
from gcnn_cli.labels.label_sets import LabelSet
from gcnn_cli.labels.lidc import Reading, place_marks
from gcnn_cli.labels.marks import Mark
from gcnn_cli.labels.patients import pseudonym
from gcnn_cli.labels.problems import (
    DUPLICATE_ID,
    LABELLED_TWICE,
    MISSING,
    OUTSIDE,
    UNREADABLE,
    Problem,
    report_problems,
)
from gcnn_cli.labels.scopes import LabelledFolder, Scope, find_scopes, read_folders
from gcnn_cli.scan.dicom.series import Series

log = logging.getLogger("gcnn")

_UID = re.compile(r"[0-2](\.\d+){2,}")


def read_index(folders: Sequence[Path], *, strict: bool = False) -> DataIndex:
    """Index all folders and log the problems.

    Raises InputError for a missing folder, for damaged labels, if no scan is usable, and with `strict` for any
    problem.
    """
    found = read_folders(folders)
    scans, problems = _index_scans(found)
    cutouts, others = _index_cutouts(found)
    for folder in found:
        _log_layouts(folder, [scan for scan in scans if scan.folder == folder.path])
    index = DataIndex(tuple(scans), tuple(cutouts), (*problems, *others))
    report_problems(index.problems, strict=strict)
    if not scans:
        raise InputError(f"no usable scan under {', '.join(map(str, folders))}")
    if any(_UID.fullmatch(s.patient) for s in scans) and any(c.patient for c in cutouts):
        log.warning("the patients of scans named by series are unknown: cut-outs may come from the same patients")
    return index


def _index_scans(found: Sequence[LabelledFolder]) -> tuple[list[ScanEntry], list[Problem]]:
    scopes = find_scopes(found)
    readings, problems = _by_series([reading for folder in found for reading in folder.readings])
    problems += [p for folder in found for labels in folder.label_sets for p in labels.problems]
    problems += _missing(found, readings)
    entries: list[ScanEntry] = []
    for folder in found:
        for scan in folder.scans:
            entry, found_here = _entry(folder, scan, scopes, readings.get(scan.ids[0]))
            entries += [] if entry is None else [entry]
            problems += found_here
    scans, repeated = _once(entries)
    return scans, problems + repeated


def _index_cutouts(found: Sequence[LabelledFolder]) -> tuple[list[CutoutEntry], list[Problem]]:
    cutouts: dict[str, CutoutEntry] = {}
    problems = [problem for folder in found for problem in folder.not_cutouts]
    for cutout in (cutout for folder in found for cutout in folder.cutouts):
        first = cutouts.setdefault(cutout.name, cutout)
        if first is not cutout:
            problems.append(
                Problem(DUPLICATE_ID, f"{cutout.name}: {first.path}, {cutout.path}; only the first is used")
            )
    return list(cutouts.values()), problems


def _by_series(readings: Sequence[Reading]) -> tuple[dict[str, Reading], list[Problem]]:
    """Return the first reader file of each series, and a problem for each further one."""
    chosen: dict[str, Reading] = {}
    problems = []
    for reading in readings:
        first = chosen.setdefault(reading.series_uid, reading)
        if first is not reading:
            problems.append(
                Problem(LABELLED_TWICE, f"{reading.path}: {first.path} labels the same series; only that one is used")
            )
    return chosen, problems


def _missing(found: Sequence[LabelledFolder], readings: dict[str, Reading]) -> list[Problem]:
    """Return a problem for each series that labels name and no folder holds."""
    present = {name for folder in found for scan in folder.scans for name in scan.ids}
    wanted: dict[str, Path] = {}
    for labels in (labels for folder in found for labels in folder.label_sets):
        for name in labels.named:
            wanted.setdefault(name, labels.source_of([name]))
    for name, reading in readings.items():
        wanted.setdefault(name, reading.path)
    return [Problem(MISSING, f"{path}: no scan of {name}") for name, path in wanted.items() if name not in present]


def _entry(
    folder: LabelledFolder, scan: FoundScan, scopes: Sequence[Scope], reading: Reading | None
) -> tuple[ScanEntry | None, list[Problem]]:
    """Return the scan with its labels, None if it is left out, and its problems."""
    if scan.problem or scan.grid is None:
        return None, [Problem(UNREADABLE, f"{scan.problem}; left out")]
    problems: list[Problem] = []
    if reading is not None and scan.series is None:
        text = f"{reading.path}: places its marks by DICOM slices, which {scan.path} lacks; these marks are left out"
        problems.append(Problem(UNREADABLE, text))
    naming = [s for s in scopes if s.names(scan)] or [s for s in scopes if s.applies_to(scan)][:1]
    sources = [_from_tables(folder, scan, scope.labels) for scope in naming]
    if reading is not None and scan.series is not None:
        try:
            sources.append(_from_readers(folder, scan, reading, scan.series))
        except InputError as error:
            left_out = "these marks are" if sources else "the scan is"
            problems.append(Problem(UNREADABLE if reading.problem else OUTSIDE, f"{error}; {left_out} left out"))
            if not sources:
                return None, problems
    if not sources:
        unlabeled = ScanEntry(scan.path, scan.ids[0], scan.patient, False, layout=_layout(scan), folder=folder.path)
        return unlabeled, problems
    others = sources[1:]
    patient = next((source.patient for source in sources if source.patient != scan.patient), scan.patient)
    entry = replace(sources[0], patient=patient)
    if others:
        unused = ", ".join(str(other.labels) for other in others)
        text = f"{entry.name}: the nodules of {entry.labels} are used, not those of {unused}"
        problems.append(Problem(LABELLED_TWICE, text))
        # No negative may lie where any reader left a mark.
        marked = (mark for other in others for mark in (*other.nodules, *other.excluded))
        entry = replace(entry, excluded=tuple(dict.fromkeys((*entry.excluded, *marked))))
    centers = np.array(entry.nodules).reshape(-1, 4)[:, :3]
    outside = int((~scan.grid.holds(centers)).sum())
    if outside:
        text = f"{entry.labels}: {outside} of {len(centers)} nodules of {entry.name} lie outside it"
        return None, [*problems, Problem(OUTSIDE, f"{text}; the scan is left out")]
    return entry, problems


def _layout(scan: FoundScan) -> str:
    return "LUNA16" if scan.in_subset else "plain"


def _from_readers(folder: LabelledFolder, scan: FoundScan, reading: Reading, series: Series) -> ScanEntry:
    nodules, excluded = agree(place_marks(reading, series))
    return ScanEntry(
        scan.path,
        scan.ids[0],
        scan.patient,
        labelled=True,
        nodules=nodules,
        excluded=excluded,
        layout="LIDC-IDRI",
        folder=folder.path,
        labels=reading.path,
    )


def _from_tables(folder: LabelledFolder, scan: FoundScan, labels: LabelSet) -> ScanEntry:
    def marks(by_series: dict[str, tuple[Mark, ...]]) -> tuple[Mark, ...]:
        return tuple(mark for name in scan.ids for mark in by_series.get(name, ()))

    named = next((labels.patients[name] for name in scan.ids if name in labels.patients), "")
    return ScanEntry(
        scan.path,
        scan.ids[0],
        pseudonym(named) if named else scan.patient,
        labelled=True,
        nodules=marks(labels.nodules),
        excluded=marks(labels.excluded),
        candidates=next((labels.candidates[n] for n in scan.ids if n in labels.candidates), no_candidates()),
        layout=_layout(scan),
        folder=folder.path,
        labels=labels.source_of(scan.ids),
    )


def _once(entries: Sequence[ScanEntry]) -> tuple[list[ScanEntry], list[Problem]]:
    """Return the entries with each name once, and a problem for each repeated name.

    Entries with the same UID are copies of one series: the first is kept. Of files that share a stem the first is
    kept, too, if each has labels of its own. If one label file names them all, the labels are ambiguous and no
    entry is kept.
    """
    kept: list[ScanEntry] = []
    problems = []
    for name, count in Counter(entry.name for entry in entries).items():
        same = [entry for entry in entries if entry.name == name]
        sources = [entry.labels for entry in same if entry.labels is not None]
        unclear = not _UID.fullmatch(name) and len(set(sources)) < len(sources)
        if _UID.fullmatch(name):
            # LUNA16's file of a series does not name the patient; TCIA's slices of it do.
            patient = next((entry.patient for entry in same if entry.patient != name), name)
            same[0] = replace(same[0], patient=patient)
        kept += [] if unclear else same[:1]
        where = ", ".join(str(entry.path) for entry in same)
        if count > 1:
            problems.append(
                Problem(DUPLICATE_ID, f"{name}: {where}; {'all are left out' if unclear else 'only the first is used'}")
            )
    return kept, problems


def _log_layouts(folder: LabelledFolder, scans: Sequence[ScanEntry]) -> None:
    """Log the layouts of a folder."""
    for layout in dict.fromkeys(scan.layout for scan in scans):
        part = [scan for scan in scans if scan.layout == layout]
        log.info(
            "%s: %s layout, %d scans: %d labeled, with %d nodules, %d excluded marks, %d candidates",
            folder.path, layout, len(part), sum(s.labelled for s in part), sum(len(s.nodules) for s in part),
            sum(len(s.excluded) for s in part), sum(len(s.candidates) for s in part),
        )  # fmt: skip
    if folder.cutouts:
        log.info("%s: %d nodule cut-outs", folder.path, len(folder.cutouts))
