"""What an index of labelled data holds: scans with what their readers marked, and nodule cut-outs."""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.labels.problems import Problem
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Array, Volume

Mark = tuple[float, float, float, float]  # x, y, z in LPS mm and diameter in mm

UNKNOWN_DIAMETER_MM = 10.0  # of a mark that no reader measured, as LUNA16's evaluation takes its -1


def no_candidates() -> Array:
    """An empty list of candidates, [0, 4]."""
    return np.zeros((0, 4))


@dataclass(frozen=True)
class ScanEntry:
    """One scan and what its readers marked.

    name:       the SeriesInstanceUID for DICOM, the file's stem otherwise: `seriesuid` in every output
    patient:    whom splits keep together (`patients`)
    labelled:   whether readers looked for nodules in it; if not, it may hold some that nobody marked
    excluded:   places that count neither as nodule nor as none: too few readers, under 3 mm, no nodule
    candidates: float64 [N, 4], x, y, z in LPS mm and class: 1 a nodule, 0 something else that a
                candidate detector proposed (LUNA16's candidates)
    layout:     "LUNA16", "LIDC-IDRI" or "plain"; folder: the one that was asked for
    labels:     the file that names the nodules, None where none does
    """

    path: Path
    name: str
    patient: str
    labelled: bool
    nodules: tuple[Mark, ...] = ()
    excluded: tuple[Mark, ...] = ()
    candidates: Array = field(default_factory=no_candidates, compare=False, repr=False)
    layout: str = "plain"
    folder: Path | None = None
    labels: Path | None = None

    def read(self) -> Volume:
        """The scan; raises as read_volume. A DICOM folder may hold other series besides."""
        return read_volume(self.path, series=self.name if self.path.is_dir() else None)


@dataclass(frozen=True)
class CutoutEntry:
    """One nodule with some of its surroundings. `patient` is empty where it is unknown."""

    path: Path
    name: str
    patient: str

    def read(self) -> dict[str, NDArray[Any]]:
        """The arrays of the file: hu and mask [D, H, W], and spacing_zyx and centre_zyx where it has them.

        Raises InputError for a damaged file.
        """
        try:
            with np.load(self.path) as data:
                arrays = {key: data[key] for key in data.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{self.path}: not a nodule cut-out, or damaged ({error})") from None
        if arrays["hu"].ndim != 3 or arrays["hu"].shape != arrays["mask"].shape:
            raise InputError(f"{self.path}: hu and mask of a cut-out must be of one shape [D, H, W]")
        return arrays


@dataclass(frozen=True)
class DataIndex:
    """Everything usable under one or more folders, in their order and by path, and what was not usable."""

    scans: tuple[ScanEntry, ...]
    cutouts: tuple[CutoutEntry, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        """Every known patient, sorted."""
        named = {scan.patient for scan in self.scans} | {cutout.patient for cutout in self.cutouts}
        return tuple(sorted(named - {""}))
