"""Label sets: the CSV files of one folder, which belong together (`tables` gives their columns).

- annotations.csv            nodules
- annotations_excluded.csv   marks that are neither nodules nor negatives
- candidates_V2.csv          candidates with their class; candidates.csv is read where the former is missing
                             (LUNA16's second list holds the nodules of the first and more)
- seriesuids.csv, scans.csv  scans that readers looked at, and their patients
- aliases.csv                other names by which labels call a scan, such as its SeriesInstanceUID after the file was
                             renamed; labels in any folder may use them
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gcnn_cli.labels.marks import Mark, Row
from gcnn_cli.labels.problems import Problem
from gcnn_cli.labels.tables import read_aliases, read_candidates, read_excluded, read_nodules, read_series
from gcnn_cli.scan.volume import Array

ANNOTATIONS = "annotations.csv"
EXCLUDED = "annotations_excluded.csv"
CANDIDATES = ("candidates_V2.csv", "candidates.csv")
LISTS = ("seriesuids.csv", "scans.csv")
ALIASES = "aliases.csv"


@dataclass(frozen=True, eq=False)
class LabelSet:
    """The labels in one folder, by the name that they give a scan.

    nodules, excluded: marks of each scan
    listed:            scans of seriesuids.csv and scans.csv, with the file that lists them first
    patients:          patients, of the scans whose patient is listed
    aliases:           other names of scans
    problems:          rows that were left out
    """

    folder: Path
    nodules: dict[str, tuple[Mark, ...]]
    excluded: dict[str, tuple[Mark, ...]]
    listed: dict[str, Path]
    patients: dict[str, str]
    aliases: dict[str, tuple[str, ...]]
    problems: tuple[Problem, ...] = ()

    @property
    def has_annotations(self) -> bool:
        """True if there is an annotations.csv, with or without nodules."""
        return (self.folder / ANNOTATIONS).is_file()

    @cached_property
    def named(self) -> tuple[str, ...]:
        """Every scan with a nodule, an excluded mark or a line in a list, once, in this order."""
        return tuple(dict.fromkeys((*self.nodules, *self.excluded, *self.listed)))

    def source_of(self, names: Collection[str]) -> Path:
        """Return the file that names a scan, by any of its names; annotations.csv if none does."""
        for file, series in ((ANNOTATIONS, self.nodules), (EXCLUDED, self.excluded)):
            if not series.keys().isdisjoint(names):
                return self.folder / file
        return next((self.listed[name] for name in names if name in self.listed), self.folder / ANNOTATIONS)

    @cached_property
    def candidates(self) -> dict[str, Array]:
        """Candidates by scan, float64 [N, 4]: x, y, z in LPS mm and class. Read on first use. Raises InputError."""
        path = next((self.folder / name for name in CANDIDATES if (self.folder / name).is_file()), None)
        by_series = _by_series(read_candidates(path)) if path else {}
        return {series: np.unique(np.array(marks), axis=0) for series, marks in by_series.items()}


def read_label_sets(files: Sequence[Path]) -> list[LabelSet]:
    """Return the label sets among some files, those nearest to the top first. Raises InputError."""
    names = (ANNOTATIONS, EXCLUDED, *LISTS, ALIASES)
    holders = {path.parent for path in files if path.name in names}
    return [_read_label_set(holder) for holder in sorted(holders, key=lambda p: (len(p.parts), p))]


def _read_label_set(folder: Path) -> LabelSet:
    nodules: list[Row] = []
    problems: list[Problem] = []
    if (folder / ANNOTATIONS).is_file():
        nodules, problems = read_nodules(folder / ANNOTATIONS)
    excluded = read_excluded(folder / EXCLUDED) if (folder / EXCLUDED).is_file() else []
    aliases = read_aliases(folder / ALIASES) if (folder / ALIASES).is_file() else {}
    listed: dict[str, Path] = {}
    patients: dict[str, str] = {}
    for path in (folder / name for name in LISTS):
        if path.is_file():
            series, repeated = read_series(path)
            problems += repeated
            listed |= {name: path for name in series if name not in listed}
            patients |= {name: patient for name, patient in series.items() if patient}
    return LabelSet(folder, _by_series(nodules), _by_series(excluded), listed, patients, aliases, tuple(problems))


def _by_series(rows: Iterable[Row]) -> dict[str, tuple[Mark, ...]]:
    marks: dict[str, list[Mark]] = {}
    for series, *mark in rows:
        x, y, z, value = mark
        marks.setdefault(series, []).append((x, y, z, value))
    return {series: tuple(found) for series, found in marks.items()}
