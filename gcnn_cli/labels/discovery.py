"""Finding the scans and cut-outs under a folder by their headers.

Scans are .mhd .mha .nii .nii.gz .nrrd files and DICOM series, at any depth. A folder with files such as
`subset0/SERIESUID.mhd` has LUNA16's layout. Images outside its subsets are not scans: LUNA16 ships a lung mask
for each scan under the scan's own name.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcnn_cli.errors import GcnnError
from gcnn_cli.labels.entries import CutoutEntry
from gcnn_cli.labels.patients import lidc_patient, patient_of, pseudonym
from gcnn_cli.labels.problems import UNREADABLE, Problem
from gcnn_cli.scan.dicom.series import Series, series_among
from gcnn_cli.scan.folders import is_subset, select_images, visible_files
from gcnn_cli.scan.images.image_file import read_lattice, stem_of
from gcnn_cli.scan.lattice import Lattice

_CHUNK = {"hu.npy", "spacing_zyx.npy", "centre_zyx.npy", "diameter_mm.npy"}


@dataclass(frozen=True, eq=False)
class FoundScan:
    """One scan, not yet joined with its labels.

    ids:       names that labels may use: `seriesuid` first, then for DICOM the folder's name, then aliases
    in_subset: True if it lies in one of LUNA16's subsets
    grid:      None if the scan cannot be read
    series:    DICOM only
    problem:   the reason why the scan cannot be read, or an empty string
    """

    path: Path
    ids: tuple[str, ...]
    patient: str
    in_subset: bool = False
    grid: Lattice | None = None
    series: Series | None = None
    problem: str = ""


def find_scans(folder: Path) -> list[FoundScan]:
    """Return every scan below a folder, as `scans_among`."""
    return scans_among(visible_files(folder))


def scans_among(below: Sequence[Path]) -> list[FoundScan]:
    """Return every scan among some files, readable or not, sorted by path."""
    files = select_images(below)
    in_subset = bool(files) and files[0].suffix == ".mhd" and is_subset(files[0].parent)
    found = [_image(path, in_subset) for path in files]
    series = [s for s in series_among(below) if s.is_ct and s.part < 2]
    homes = [s.folder for s in series]
    for home, one in zip(homes, series, strict=True):
        alone = sum(home.name == other.name for other in homes) == 1
        found.append(_dicom(home, one, alias=home.name if alone else ""))
    return sorted(found, key=lambda scan: (scan.path, scan.ids))


def cutouts_among(files: Sequence[Path]) -> tuple[list[CutoutEntry], list[Problem]]:
    """Return nodule stacks, cubes (.npz with `hu` and `mask`) and chunks (`_CHUNK`), and a problem for any other .npz.

    Both are in the order of the files.
    """
    cutouts, problems = [], []
    for path in (path for path in files if path.suffix == ".npz"):
        try:
            with zipfile.ZipFile(path) as archive:
                arrays = set(archive.namelist())
        except (OSError, zipfile.BadZipFile):
            arrays = set()
        masked = {"hu.npy", "mask.npy"} <= arrays
        if masked or arrays >= _CHUNK:
            cutouts.append(CutoutEntry(path, path.stem, lidc_patient(path.stem), masked))
        else:
            problems.append(Problem(UNREADABLE, f"{path}: not a nodule cut-out (an .npz with hu and mask); left out"))
    return cutouts, problems


def _image(path: Path, in_subset: bool) -> FoundScan:
    name = stem_of(path)
    try:
        return FoundScan(path, (name,), patient_of(name), in_subset, read_lattice(path))
    except GcnnError as error:
        return FoundScan(path, (name,), patient_of(name), in_subset, problem=str(error))


def _dicom(home: Path, series: Series, alias: str) -> FoundScan:
    # A folder may be named after a person: its name is compared with labels and kept only if it is a pseudonym.
    patient = pseudonym(series.patient_id) if series.patient_id else lidc_patient(home.name) or series.uid
    ids = tuple(dict.fromkeys(name for name in (series.uid, alias) if name))
    problem, grid = series.unusable, None
    if series.part:
        problem = "several acquisitions share one SeriesInstanceUID, so that labels cannot tell them apart"
    if not problem:
        try:
            verdict = series.verdict
        except GcnnError as error:
            return FoundScan(home, ids, patient, series=series, problem=str(error))
        problem = verdict.problem
        if verdict.to_world is not None:
            plane = series.slices[0].plane
            grid = Lattice((len(verdict.order), plane.rows, plane.columns), verdict.to_world)
    return FoundScan(home, ids, patient, grid=grid, series=series, problem=f"{home}: {problem}" if problem else "")
