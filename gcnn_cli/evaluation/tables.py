"""Reading the evaluation's tables: predictions, reference nodules, excluded marks, the list of scans.

LUNA16's columns, in any order, more columns allowed. Series ids are strings: '056' is not 56. Whatever
could turn into a wrong figure in silence (a header in the middle, a missing value, NaN, another separator,
a scan or nodule listed twice) is refused with the line's number.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError

_PLACE = ("seriesuid", "coordX", "coordY", "coordZ")


@dataclass(frozen=True, eq=False)
class Marks:
    """Places in scans. Row n of every array belongs together.

    series:      the scan's id
    position_mm: float64 [N, 3], (x, y, z) in LPS mm
    value:       float64 [N], score of a prediction or diameter in mm of a reference mark
    """

    series: tuple[str, ...]
    position_mm: NDArray[np.float64]
    value: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.position_mm.shape != (len(self.series), 3) or self.value.shape != (len(self.series),):
            raise ValueError("series, positions and values differ in number")

    def __len__(self) -> int:
        return len(self.series)


def make_marks(rows: Sequence[tuple[str, float, float, float, float]]) -> Marks:
    """Marks from rows of series, x, y, z, value."""
    numbers = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), 4)
    return Marks(tuple(row[0] for row in rows), numbers[:, :3], numbers[:, 3])


def read_predictions(path: Path) -> Marks:
    """A CSV with seriesuid, coordX, coordY, coordZ, probability: LUNA16's, or gcnn's. Raises InputError."""
    return make_marks([row for _, row in _read_marks(path, "probability")])


def read_annotations(path: Path) -> Marks:
    """Reference nodules: seriesuid, coordX, coordY, coordZ, diameter_mm. Raises InputError, also for a repeated row."""
    seen: dict[tuple[str, float, float, float, float], int] = {}
    for number, row in _read_marks(path, "diameter_mm"):
        if row in seen:
            raise InputError(f"{path}, line {number}: the nodule of line {seen[row]} again; it would count twice")
        if row[4] == 0:
            raise InputError(
                f"{path}, line {number}: a nodule of 0 mm can never be hit; write -1 for an unmeasured one"
            )
        seen[row] = number
    return make_marks(list(seen))


def read_excluded(path: Path) -> Marks:
    """Marks that are neither nodule nor false positive; repeated rows (LUNA16 has 11,105) change nothing."""
    return make_marks([row for _, row in _read_marks(path, "diameter_mm")])


def read_series(path: Path) -> tuple[str, ...]:
    """One series id a line, with or without a header `seriesuid`. Raises InputError for an id listed twice."""
    listed: dict[str, int] = {}
    for number, row in _rows(path):
        if len(row) != 1:
            raise InputError(f"{path}, line {number}: expected one series id a line, found {len(row)} columns")
        name = row[0].strip()
        if name == "seriesuid" and not listed:
            continue
        if name in listed:
            raise InputError(f"{path}, line {number}: series {name} is listed in line {listed[name]} already")
        listed[name] = number
    if not listed:
        raise InputError(f"{path}: lists no series")
    return tuple(listed)


def _read_marks(path: Path, value: str) -> Iterator[tuple[int, tuple[str, float, float, float, float]]]:
    """Line number and row of every mark."""
    rows = _rows(path)
    number, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{path}: is empty; expected a header {','.join(_PLACE)},{value}")
    columns = [name.strip() for name in header]
    wanted = (*_PLACE, value)
    missing = [name for name in wanted if name not in columns]
    if missing and len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        raise InputError(f"{path}, line {number}: columns are separated by commas, not by semicolons or tabs")
    if missing:
        raise InputError(f"{path}, line {number}: no column {', '.join(missing)}; found {', '.join(columns)[:120]}")
    twice = [name for name in wanted if columns.count(name) > 1]
    if twice:
        raise InputError(f"{path}, line {number}: column {twice[0]} is there twice")
    at = [columns.index(name) for name in wanted]
    for number, row in rows:
        if row == header:
            raise InputError(f"{path}, line {number}: the header again; are these several files in one?")
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: {len(row)} columns, the header has {len(header)}")
        series, *texts = (row[column].strip() for column in at)
        if not series:
            raise InputError(f"{path}, line {number}: no seriesuid")
        x, y, z, v = (_number(text, name, path, number) for text, name in zip(texts, wanted[1:], strict=True))
        yield number, (series, x, y, z, v)


def _number(text: str, column: str, path: Path, line: int) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}, line {line}: {column} is {text[:40]!r}, not a number")
    return number


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(field.strip() for field in row):
                    yield reader.line_num, row
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a CSV file in UTF-8") from None
