"""CSV files of labels, in LUNA16's columns. Those of one folder belong together: a label set.

- annotations.csv           seriesuid,coordX,coordY,coordZ,diameter_mm   nodules, LPS mm
- annotations_excluded.csv  the same                                     neither nodule nor negative
- candidates_V2.csv         seriesuid,coordX,coordY,coordZ,class         1 a nodule, 0 something else;
  or else candidates.csv    (LUNA16's second list of candidates holds the first's nodules and more)
- seriesuids.csv            one seriesuid per line, with or without that heading: scans that were read
- scans.csv                 the same with the heading seriesuid or seriesuid,patient

A diameter of 0 or less means that nobody measured; 10 mm is taken for it, as in LUNA16's evaluation.
Raises InputError with file and line for a row that is not as it says.
"""

import csv
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import UNKNOWN_DIAMETER_MM, Mark
from gcnn_cli.labels.problems import DUPLICATE_ROW, Problem
from gcnn_cli.scan.volume import Array

ANNOTATIONS = "annotations.csv"
EXCLUDED = "annotations_excluded.csv"
CANDIDATES = ("candidates_V2.csv", "candidates.csv")
LISTS = ("seriesuids.csv", "scans.csv")

_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ")


@dataclass(frozen=True, eq=False)
class LabelSet:
    """What the label files of one folder say, by series.

    listed:   series that were read, from seriesuids.csv or scans.csv, in order; patients: of some of them
    """

    folder: Path
    nodules: dict[str, tuple[Mark, ...]]
    excluded: dict[str, tuple[Mark, ...]]
    listed: tuple[str, ...]
    patients: dict[str, str]
    problems: tuple[Problem, ...] = ()

    @property
    def has_annotations(self) -> bool:
        """Whether there is an annotations.csv, be it empty."""
        return (self.folder / ANNOTATIONS).is_file()

    @cached_property
    def named(self) -> tuple[str, ...]:
        """Every series with a nodule, an excluded mark or a line in a list, once, in order."""
        return tuple(dict.fromkeys((*self.nodules, *self.excluded, *self.listed)))

    def source_of(self, names: Collection[str]) -> Path:
        """The file that names a series, under one of its names; annotations.csv where none does."""
        for file, series in ((ANNOTATIONS, self.nodules), (EXCLUDED, self.excluded)):
            if not series.keys().isdisjoint(names):
                return self.folder / file
        lists = [path for file in LISTS if (path := self.folder / file).is_file()]
        return lists[0] if lists and not set(self.listed).isdisjoint(names) else self.folder / ANNOTATIONS

    @cached_property
    def candidates(self) -> dict[str, Array]:
        """float64 [N, 4] by series: x, y, z in LPS mm and class; read when first asked for."""
        path = next((self.folder / name for name in CANDIDATES if (self.folder / name).is_file()), None)
        rows: dict[str, list[tuple[float, ...]]] = {}
        for _, series, values in _numbers(path, "class") if path else ():
            if values[3] not in (0, 1):
                raise InputError(f"{path}: class {values[3]:g} of a candidate in {series}; 0 and 1 are known")
            rows.setdefault(series, []).append(values)
        return {series: np.unique(np.array(values), axis=0) for series, values in rows.items()}


def read_label_sets(folder: Path) -> list[LabelSet]:
    """The label sets at any depth; those nearest to the top come first."""
    names = (ANNOTATIONS, EXCLUDED, *LISTS)
    holders = {path.parent for name in names for path in folder.rglob(name) if path.is_file()}
    return [_read_label_set(holder) for holder in sorted(holders, key=lambda p: (len(p.parts), p))]


def _read_label_set(folder: Path) -> LabelSet:
    problems: list[Problem] = []
    nodules = _marks(folder / ANNOTATIONS, problems)
    # Readers agree on a place to the pixel: of LUNA16's 35,192 excluded marks thousands are there twice.
    excluded = _marks(folder / EXCLUDED, None)
    patients: dict[str, str] = {}
    listed: dict[str, None] = {}
    for name in LISTS:
        for series, patient in _list(folder / name):
            listed[series] = None
            if patient:
                patients[series] = patient
    return LabelSet(folder, nodules, excluded, tuple(listed), patients, tuple(problems))


def _marks(path: Path, problems: list[Problem] | None) -> dict[str, tuple[Mark, ...]]:
    """Marks by series, each place once; what was left out goes to `problems`."""
    places: dict[str, dict[tuple[float, ...], Mark]] = {}
    for number, series, (x, y, z, diameter) in _numbers(path, "diameter_mm") if path.is_file() else ():
        known = places.setdefault(series, {})
        if (x, y, z) not in known:
            known[x, y, z] = (x, y, z, diameter if diameter > 0 else UNKNOWN_DIAMETER_MM)
        elif problems is not None:
            problems.append(Problem(DUPLICATE_ROW, f"{path}, line {number}: a nodule of {series} for the second time"))
    return {series: tuple(marks.values()) for series, marks in places.items()}


def _numbers(path: Path, last: str) -> Iterator[tuple[int, str, tuple[float, float, float, float]]]:
    """Line number, series, and x, y, z and the last column of every row."""
    for number, row in _rows(path):
        try:
            series = row["seriesuid"].strip()
            x, y, z, value = (float(row[column]) for column in (*_COLUMNS[1:], last))
        except (KeyError, TypeError, ValueError, AttributeError):
            series, x, y, z, value = "", math.nan, 0.0, 0.0, 0.0
        if not series or not all(map(math.isfinite, (x, y, z, value))):
            raise InputError(f"{path}, line {number}: expected {','.join(_COLUMNS)},{last}")
        yield number, series, (x, y, z, value)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows by heading, with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({str(error).splitlines()[0]})") from None


def _list(path: Path) -> Iterator[tuple[str, str]]:
    """Series, and patient or an empty string, of each line."""
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    heading = [cell.strip() for cell in lines[0].split(",")] if lines else []
    if "seriesuid" in heading:
        lines = lines[1:]
    else:
        heading = ["seriesuid"]
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not any(cells):
            continue
        row = dict(zip(heading, cells, strict=False))
        if not row.get("seriesuid") or len(cells) > len(heading):
            raise InputError(f"{path}, entry {number}: expected {','.join(heading)}")
        yield row["seriesuid"], row.get("patient", "")
