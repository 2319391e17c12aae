"""Folders of labelled data -> one index of scans and nodule cut-outs.

Read from a folder, whatever it holds of these:

- scans: .mhd .mha .nii .nii.gz .nrrd files and folders of DICOM slices, at any depth;
- annotations.csv beside or above them, in LUNA16's columns (seriesuid, coordX, coordY, coordZ,
  diameter_mm; LPS mm), and annotations_excluded.csv, places that are neither nodule nor negative;
- nodule cut-outs, .npz with `hu` int16 and `mask`: stacks of slices through one nodule with
  `spacing_zyx`, and cubes of 1 mm voxels in (y, x, z) order without it.

`seriesuid` is the file's stem, or the folder's name or the SeriesInstanceUID for DICOM. A scan
that annotations.csv does not name is unlabelled: it may hold nodules.

Everything that is split is split by patient. LIDC's names begin with the patient; a letter after
the number is a second scan of the same patient.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from gcnn_cli.errors import InputError
from gcnn_cli.scan.formats import SUFFIXES, stem_of

Mark = tuple[float, float, float, float]  # x, y, z in LPS mm and diameter in mm

_LIDC_PATIENT = re.compile(r"^(LIDC-IDRI-\d{4})")
_UNKNOWN_DIAMETER_MM = 10.0  # LUNA16 writes -1 where no reader measured


@dataclass(frozen=True)
class ScanEntry:
    """One scan and what its readers marked."""

    path: Path
    name: str
    patient: str
    labelled: bool
    nodules: tuple[Mark, ...] = ()
    excluded: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class CutoutEntry:
    """One nodule with some of its surroundings. `patient` is empty where it is unknown."""

    path: Path
    name: str
    patient: str


@dataclass(frozen=True)
class DataIndex:
    """Everything found under one or more folders, sorted by name."""

    scans: tuple[ScanEntry, ...]
    cutouts: tuple[CutoutEntry, ...]

    @property
    def patients(self) -> tuple[str, ...]:
        """Every known patient, sorted."""
        named = {scan.patient for scan in self.scans} | {cutout.patient for cutout in self.cutouts}
        return tuple(sorted(named - {""}))


def read_index(folders: list[Path]) -> DataIndex:
    """Index all folders. Raises InputError when one is missing or none holds anything to learn from."""
    scans: list[ScanEntry] = []
    cutouts: list[CutoutEntry] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        marks = _read_marks(folder, "annotations.csv")
        excluded = _read_marks(folder, "annotations_excluded.csv")
        scans += [_scan_entry(path, marks, excluded) for path in _scan_paths(folder)]
        cutouts += [_cutout_entry(path) for path in sorted(folder.rglob("*.npz"))]
    if not scans:
        raise InputError(f"no scans under {', '.join(map(str, folders))}: training needs whole scans for negatives")
    names = [entry.name for entry in scans]
    if len(set(names)) < len(names):
        raise InputError(f"several scans are named {next(n for n in names if names.count(n) > 1)!r}")
    return DataIndex(tuple(scans), tuple(cutouts))


def patient_of(name: str) -> str:
    """The patient that a scan's or cut-out's name begins with; the whole name where it says nothing."""
    match = _LIDC_PATIENT.match(name)
    return match.group(1) if match else name


def _scan_paths(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(SUFFIXES)]
    series = {path.parent for path in folder.rglob("*.dcm")}
    return sorted([*files, *series])


def _scan_entry(path: Path, marks: dict[str, list[Mark]], excluded: dict[str, list[Mark]]) -> ScanEntry:
    name = path.name if path.is_dir() else stem_of(path)
    return ScanEntry(
        path,
        name,
        patient_of(name),
        labelled=name in marks,
        nodules=tuple(marks.get(name, ())),
        excluded=tuple(excluded.get(name, ())),
    )


def _cutout_entry(path: Path) -> CutoutEntry:
    match = _LIDC_PATIENT.match(path.stem)
    return CutoutEntry(path, path.stem, match.group(1) if match else "")


def _read_marks(folder: Path, name: str) -> dict[str, list[Mark]]:
    """Marks by series from every file of this name under the folder."""
    marks: dict[str, list[Mark]] = {}
    for path in sorted(folder.rglob(name)):
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    x, y, z, diameter = (float(row[c]) for c in ("coordX", "coordY", "coordZ", "diameter_mm"))
                    series = row["seriesuid"]
                except (KeyError, TypeError, ValueError):
                    raise InputError(
                        f"{path}, line {number}: expected seriesuid,coordX,coordY,coordZ,diameter_mm"
                    ) from None
                marks.setdefault(series, []).append((x, y, z, diameter if diameter > 0 else _UNKNOWN_DIAMETER_MM))
    return marks
