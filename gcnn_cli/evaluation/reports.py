"""Reading predictions: CSV tables, and the JSON reports of `gcnn detect`, which name their weights and threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcnn_cli.detection.findings import Report
from gcnn_cli.errors import InputError
from gcnn_cli.labels.marks import Marks, make_marks
from gcnn_cli.labels.tables import read_rows
from gcnn_cli.output.json_reading import parse_json, parse_report

ENDING = ".nodules.json"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted marks and their origin.

    weights_sha256:   None if unknown
    threshold:        highest threshold of the reports, below which they hold no marks; None for a table
    proposals_sha256: of the weights that proposed the candidates; None if unknown
    """

    marks: Marks
    weights_sha256: str | None = None
    threshold: float | None = None
    proposals_sha256: str | None = None


def read_any_predictions(path: Path) -> Predictions:
    """Read a CSV table, a JSON report, JSON Lines of reports, or a folder of `*.nodules.json`. Raises InputError."""
    if path.is_dir():
        files = sorted(path.rglob(f"*{ENDING}"))
        if not files:
            raise InputError(f"{path}: no {ENDING} files in this folder")
        return predictions_of([report for file in files for report in read_reports(file)], path)
    if path.suffix.lower() in (".json", ".jsonl"):
        return predictions_of(read_reports(path), path)
    return Predictions(make_marks([row for _, row in read_rows(path, "probability")]))


def read_reports(path: Path) -> list[Report]:
    """Read the reports in a file: one JSON document, or one on each line. Raises InputError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not JSON in UTF-8") from None
    try:
        documents = [parse_json(text)]
    except ValueError:
        try:
            documents = [parse_json(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise InputError(f"{path}: not JSON") from None
    if not documents:
        raise InputError(f"{path}: is empty")
    return [parse_report(document, path) for document in documents]


def predictions_of(reports: Sequence[Report], path: Path) -> Predictions:
    """Return the marks of several reports. Raises InputError for two reports of one scan, or different weights.

    path: file or folder of the reports, for error messages
    """
    series = [report.scan.source.series_uid for report in reports]
    twice = {name for name in series if series.count(name) > 1}
    if twice:
        raise InputError(f"{path}: two reports of series {min(twice)}")
    weights = {report.model.sha256 for report in reports}
    if len(weights) > 1:
        raise InputError(f"{path}: reports of {len(weights)} different weights; evaluate one at a time")
    rows = [
        (name, *nodule.position_mm, nodule.probability)
        for name, report in zip(series, reports, strict=True)
        for nodule in report.nodules
    ]
    threshold = max((report.threshold for report in reports), default=0.0)
    proposers = {str(report.options.get("candidate_weights", "")).rpartition(" ")[2] for report in reports}
    proposals = proposers.pop() if len(proposers) == 1 else ""
    return Predictions(make_marks(rows), weights.pop() if weights else None, threshold, proposals or None)
