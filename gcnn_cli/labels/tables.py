"""Reading CSV tables of marks and lists of scans, in LUNA16's columns.

    nodules, excluded marks   seriesuid,coordX,coordY,coordZ,diameter_mm
    candidates                seriesuid,coordX,coordY,coordZ,class         1: nodule, 0: something else
    predictions               seriesuid,coordX,coordY,coordZ,probability
    lists of scans            seriesuid[,patient]                          the heading is optional
    other names of scans      seriesuid,alias

Positions are LPS mm. Columns may stand in any order and others may stand between them; their names may have other
capitals. Commas, tabs or semicolons separate them: the first line decides. A seriesuid is a string:
'056' is not 56. Anything that could silently become a wrong figure raises InputError with its line: a missing
value, NaN, a decimal comma, a heading in the middle.

Diameters: positive, or -1 where nobody measured (`marks`). Zero and other negative numbers are invalid. LUNA16's
tables do not contain them, LIDC-IDRI's reader files contain no diameters at all, and LUNA16's evaluation script
would count a nodule of 0 mm that no prediction can hit.

Repetitions: a nodule or a listed scan that repeats an earlier row is left out and reported. One that contradicts
it, with another diameter or another patient, raises InputError. Excluded marks may repeat: readers agree to the
pixel, and 11,105 rows of LUNA16's table are repetitions. At one place with two diameters both count. Predictions
may repeat, too: each row is a mark, as in LUNA16's script.
"""

import csv
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from gcnn_cli.errors import InputError
from gcnn_cli.labels.marks import UNMEASURED_MM, Row
from gcnn_cli.labels.problems import DUPLICATE_ROW, Problem

_PLACE = ("seriesuid", "coordX", "coordY", "coordZ")
_OTHER_NAMES = {  # in lower case, of other tools; their units and frames are not sure, so a person renames them
    "seriesuid": ("series_uid", "seriesinstanceuid", "series_instance_uid", "id", "scan", "file", "filename"),
    "coordX": ("x", "world_x", "coord_x", "center_x"),
    "coordY": ("y", "world_y", "coord_y", "center_y"),
    "coordZ": ("z", "world_z", "coord_z", "center_z"),
    "diameter_mm": ("diameter", "diam", "diameter (mm)", "size", "size_mm"),
    "probability": ("score", "confidence", "prob", "p"),
}
_SERIES_HEADINGS = ("series_uid", "seriesinstanceuid", "series_instance_uid")  # no scan is called so
_OTHER_PATIENTS = ("patient_id", "patientid", "patient_name", "subject", "subject_id", "subjectid", "pid")


def read_nodules(path: Path) -> tuple[list[Row], list[Problem]]:
    """Return the nodules, each place of a scan once, and the repetitions left out. Raises InputError."""
    seen: dict[tuple[str, float, float, float], tuple[int, float]] = {}
    nodules: list[Row] = []
    problems: list[Problem] = []
    for line, row in _read_diameters(path):
        place, diameter = row[:4], row[4]
        first_line, first = seen.setdefault(place, (line, diameter))
        if first_line == line:
            nodules.append(row)
        elif first == diameter:
            text = f"{path}, line {line}: repeats the nodule of line {first_line} ({row[0]}); left out"
            problems.append(Problem(DUPLICATE_ROW, text))
        else:
            raise InputError(
                f"{path}, line {line}: the nodule of line {first_line} with another diameter,"
                f" {diameter:g} instead of {first:g} mm"
            )
    return nodules, problems


def read_excluded(path: Path) -> list[Row]:
    """Return the marks that count neither as nodule nor as false positive, each row once. Raises InputError."""
    return list(dict.fromkeys(row for _, row in _read_diameters(path)))


def read_candidates(path: Path) -> list[Row]:
    """Return candidates with their class, 0 or 1. Raises InputError."""
    candidates = []
    for line, row in read_rows(path, "class"):
        if row[4] not in (0, 1):
            raise InputError(f"{path}, line {line}: class must be 0 or 1, got {row[4]:g}")
        candidates.append(row)
    return candidates


def read_series(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """Return the listed scans with their patients, "" where the list names none, and the repetitions left out.

    Raises InputError for two patients of one scan, for a row that is not `seriesuid` or `seriesuid,patient`, and for a
    heading that names one of them otherwise: a patient's scans must not be taken for those of several.
    """
    listed: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    heading: list[str] = []
    for line, fields in _read_fields(path):
        cells = [field.strip() for field in fields]
        names = [cell.lower() for cell in cells]
        if not heading:
            _check_heading(path, names)
            heading = names if "seriesuid" in names else ["seriesuid"]
            if names == heading:
                continue
        if names == heading:
            raise InputError(f"{path}, line {line}: the heading again; are these several files in one?")
        if len(cells) > len(heading):
            raise InputError(f"{path}, line {line}: {len(cells)} columns, expected {','.join(heading)}")
        row = dict(zip(heading, cells, strict=False))
        series, patient = row.get("seriesuid", ""), row.get("patient", "")
        if not series:
            raise InputError(f"{path}, line {line}: no seriesuid")
        if series not in listed:
            listed[series], lines[series] = patient, line
        elif listed[series] == patient:
            text = f"{path}, line {line}: repeats line {lines[series]} ({series}); left out"
            problems.append(Problem(DUPLICATE_ROW, text))
        else:
            raise InputError(f"{path}, line {line}: the scan of line {lines[series]} with another patient")
    return listed, problems


def _check_heading(path: Path, names: list[str]) -> None:
    """Raise InputError if the first row of a list is a heading with other names than seriesuid and patient."""
    for wanted, others in (("seriesuid", _SERIES_HEADINGS), ("patient", _OTHER_PATIENTS)):
        wrong = next((name for name in names if name in others), None)
        if wrong and wanted not in names:
            raise InputError(f"{path}: rename the column {wrong} to {wanted}")


def read_aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the other names of scans. Raises InputError for a row without both names, or one alias of two scans."""
    owners: dict[str, str] = {}
    lines = _read_fields(path)
    _, heading = next(lines, (0, []))
    if [name.strip().lower() for name in heading] != ["seriesuid", "alias"]:
        raise InputError(f"{path}: expected the heading seriesuid,alias")
    for line, fields in lines:
        cells = [field.strip() for field in fields]
        if len(cells) != 2 or not all(cells):
            raise InputError(f"{path}, line {line}: expected seriesuid,alias")
        series, alias = cells
        if owners.setdefault(alias, series) != series:
            raise InputError(f"{path}, line {line}: {alias} is the alias of another scan already")
    return {series: tuple(a for a, owner in owners.items() if owner == series) for series in owners.values()}


def read_rows(path: Path, column: str) -> Iterator[tuple[int, Row]]:
    """Yield the line number and the row of each mark; `column` is what stands beside the place. Raises InputError."""
    lines = _read_fields(path)
    line, header = next(lines, (0, []))
    if not header:
        raise InputError(f"{path}: is empty; expected a header {','.join(_PLACE)},{column}")
    wanted = (*_PLACE, column)
    at = _find_columns(wanted, header, f"{path}, line {line}")
    for line, fields in lines:
        if fields == header:
            raise InputError(f"{path}, line {line}: the heading again; are these several files in one?")
        if len(fields) != len(header):
            raise InputError(f"{path}, line {line}: {len(fields)} columns, the header has {len(header)}")
        series, *texts = (fields[n].strip() for n in at)
        if not series:
            raise InputError(f"{path}, line {line}: no seriesuid")
        x, y, z, value = (
            _number(text, name, f"{path}, line {line}") for text, name in zip(texts, wanted[1:], strict=True)
        )
        yield line, (series, x, y, z, value)


def _read_diameters(path: Path) -> Iterator[tuple[int, Row]]:
    for line, row in read_rows(path, "diameter_mm"):
        if row[4] <= 0 and row[4] != UNMEASURED_MM:
            raise InputError(f"{path}, line {line}: diameter_mm must be positive, or -1 if unmeasured; got {row[4]:g}")
        yield line, row


def _find_columns(wanted: tuple[str, ...], header: list[str], where: str) -> list[int]:
    columns = [name.strip().lower() for name in header]
    missing = [name for name in wanted if name.lower() not in columns]
    if missing:
        found = ", ".join(name.strip() for name in header)[:120]
        known = [(other, name) for name in missing for other in _OTHER_NAMES.get(name, ()) if other in columns]
        remedy = f"; rename {known[0][0]} to {known[0][1]}" if known else ""
        raise InputError(f"{where}: no column {', '.join(missing)}; found {found}{remedy}")
    repeated = [name for name in wanted if columns.count(name.lower()) > 1]
    if repeated:
        raise InputError(f"{where}: two columns {repeated[0]}")
    return [columns.index(name.lower()) for name in wanted]


def _number(text: str, column: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        remedy = "; write decimals with a point" if "," in text else ""
        raise InputError(f"{where}: {column} is {text[:40]!r}, not a number{remedy}")
    return number


def _separator(first: str) -> str:
    """Return what separates the columns, by the first line."""
    return next((mark for mark in "\t;" if mark in first and "," not in first), ",")


def _read_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            start = [file.readline()]
            while start[-1] and not start[-1].strip():
                start.append(file.readline())
            reader = csv.reader(chain(start, file), delimiter=_separator(start[-1]), strict=True)
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield reader.line_num, fields
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a CSV file in UTF-8") from None
    except csv.Error as error:  # an open quote among them, which would swallow the rows after it
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from None
