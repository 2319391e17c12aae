"""Format name -> file: the list of what a report can be written as."""

from collections.abc import Callable
from pathlib import Path

from gcnn_cli.detection.findings import Report
from gcnn_cli.errors import UsageError
from gcnn_cli.output.csv_format import luna16_csv, rich_csv
from gcnn_cli.output.files import write_text
from gcnn_cli.output.json_format import report_json
from gcnn_cli.scan.formats import stem_of

FORMATS: dict[str, tuple[str, Callable[[Report], str]]] = {  # name: (ending of the file, text of the report)
    "csv": (".nodules.csv", rich_csv),
    "json": (".nodules.json", report_json),
    "luna16": (".luna16.csv", luna16_csv),
}


def parse_formats(names: str) -> tuple[str, ...]:
    """'csv,json' -> ('csv', 'json'). Raises UsageError for an unknown one."""
    parsed = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in parsed:
        if name not in FORMATS:
            raise UsageError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}")
    if not parsed:
        raise UsageError(f"no format given: choose from {', '.join(FORMATS)}")
    return parsed


def output_paths(scan: Path, folder: Path, formats: tuple[str, ...]) -> dict[str, Path]:
    """Where each format of a scan's report goes: named after the scan's file or folder."""
    name = stem_of(Path(scan.resolve().name)) if scan.is_dir() else stem_of(scan)
    return {fmt: folder / (name + FORMATS[fmt][0]) for fmt in formats}


def write_report(report: Report, paths: dict[str, Path], *, overwrite: bool) -> None:
    """Write a report in every format of `output_paths`."""
    for fmt, path in paths.items():
        write_text(path, FORMATS[fmt][1](report), overwrite=overwrite)
