"""The entries of an index of labeled data: scans with their readers' marks, and nodule cut-outs."""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.labels.marks import Mark
from gcnn_cli.labels.problems import Problem
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Array, Volume


def no_candidates() -> Array:
    """Return an empty list of candidates, [0, 4]."""
    return np.zeros((0, 4))


@dataclass(frozen=True)
class ScanEntry:
    """One scan with its readers' marks.

    name:       SeriesInstanceUID for DICOM, the file's stem otherwise: `seriesuid` in every output
    patient:    patient as splits know them (`patients`)
    labelled:   True if readers looked for nodules; an unlabeled scan may hold nodules that nobody marked
    nodules:    reference nodules
    excluded:   marks that are neither nodules nor negatives: of too few readers, under 3 mm, or no nodule
    candidates: float64 [N, 4], x, y, z in LPS mm and class: 1 for a nodule, 0 for anything else (LUNA16's
                candidates)
    layout:     "LUNA16", "LIDC-IDRI" or "plain"
    folder:     the folder under which the scan was found, as the caller gave it
    labels:     the file that names the scan; None if no file does
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
        """Read the scan, of a DICOM folder its own series. Raises as `read_volume` does."""
        return read_volume(self.path, series=self.name if self.path.is_dir() else None)


@dataclass(frozen=True)
class CutoutEntry:
    """One nodule with its near surroundings. `patient` is empty if it is unknown.

    masked: whether the file says which voxels are the nodule's; a chunk does not
    """

    path: Path
    name: str
    patient: str
    masked: bool = True

    def read(self) -> dict[str, NDArray[Any]]:
        """Read the arrays: hu and mask [D, H, W], and spacing_zyx and centre_zyx where the file has them.

        A chunk has no mask.

        Raises InputError for a damaged file.
        """
        try:
            with np.load(self.path) as data:
                arrays = {key: data[key] for key in data.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{self.path}: not a nodule cut-out, or damaged ({error})") from None
        if arrays["hu"].ndim != 3 or (self.masked and arrays["hu"].shape != arrays["mask"].shape):
            raise InputError(f"{self.path}: hu, and mask where there is one, must have one shape [D, H, W]")
        return arrays


@dataclass(frozen=True)
class DataIndex:
    """Everything usable under one or more folders, in their order and by path, and the problems with the rest."""

    scans: tuple[ScanEntry, ...]
    cutouts: tuple[CutoutEntry, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        """Known patients, sorted."""
        named = {scan.patient for scan in self.scans} | {cutout.patient for cutout in self.cutouts}
        return tuple(sorted(named - {""}))
