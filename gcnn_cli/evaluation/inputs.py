"""The input of an evaluation: predictions, the reference, the evaluated scans, and the origin of each."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcnn_cli.detection.findings import Report
from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.matching import Matches, MatchRule, match
from gcnn_cli.evaluation.reports import Predictions, predictions_of, read_any_predictions
from gcnn_cli.files import reading
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.marks import Marks, make_marks
from gcnn_cli.labels.patients import patient_of, pseudonym
from gcnn_cli.labels.problems import Problem, count_problems, report_problems
from gcnn_cli.labels.tables import read_excluded, read_nodules, read_series


@dataclass(frozen=True, eq=False)
class EvaluationInput:
    """Predictions and reference of the evaluated scans.

    series:   seriesuid of every evaluated scan
    patients: patients of these scans, as far as known
    files:    the files that were read, by role
    remarks:  notes without which the figures could be misread
    """

    predictions: Predictions
    nodules: Marks
    excluded: Marks
    series: tuple[str, ...]
    patients: tuple[str, ...]
    files: Mapping[str, Path]
    remarks: tuple[str, ...] = ()

    def match(self, rule: MatchRule, *, allow_unknown: bool = False) -> Matches:
        """Match by a rule. Raises InputError for predictions in scans that are not evaluated."""
        return match(
            self.predictions.marks, self.nodules, self.excluded, self.series, rule, allow_unknown=allow_unknown
        )

    def with_predictions(self, path: Path) -> "EvaluationInput":
        """Return the same scans and reference with other predictions, and the remarks on these. Raises InputError."""
        predictions = read_any_predictions(path)
        return replace(self, predictions=predictions, remarks=_threshold_remarks(predictions, f"{path.name}: "))

    def sources(self) -> dict[str, Any]:
        """Return names and checksums of the files, without their folders, and the remarks."""
        files = {role: path for role, path in self.files.items() if path.is_file()}
        return {
            "files": {role: {"name": path.name, "sha256": _sha256(path)} for role, path in files.items()},
            "remarks": list(self.remarks),
        }


def from_files(predictions: Path, annotations: Path, excluded: Path | None, series: Path | None) -> EvaluationInput:
    """Read tables or reports. Without a list of series, the scans that the reference names are evaluated.

    Raises InputError.
    """
    inputs = _with_reference(read_any_predictions(predictions), annotations, excluded, series)
    return replace(inputs, files={"predictions": predictions, **inputs.files})


def from_reports(
    reports: Sequence[Report], annotations: Path, excluded: Path | None, series: Path | None
) -> EvaluationInput:
    """Join reports with tables. Without a list of series, the scans of the reports are evaluated.

    Raises InputError as `from_files`, and without reports.
    """
    if not reports:
        raise InputError("no reports to evaluate")
    scans = {report.scan.source.series_uid: "" for report in reports}
    return _with_reference(predictions_of(reports, Path("reports")), annotations, excluded, series, scans)


def _with_reference(
    predicted: Predictions,
    annotations: Path,
    excluded: Path | None,
    series: Path | None,
    scans: Mapping[str, str] | None = None,
) -> EvaluationInput:
    """Join predictions with the tables of a reference.

    scans: the evaluated scans, by seriesuid, with their patients as far as known; used where `series` is not given
    """
    rows, problems = read_nodules(annotations)
    nodules = make_marks(rows)
    ignored = make_marks(read_excluded(excluded) if excluded else [])
    remarks = []
    if series or scans:
        listed, repeated = read_series(series) if series else (dict(scans or {}), [])
        if not listed:
            raise InputError(f"{series}: lists no series")
        problems += repeated
        elsewhere = sum(name not in listed for name in nodules.series)
        if elsewhere:
            remarks.append(f"{elsewhere} of {len(nodules)} nodules lie in scans that are not listed; left out")
    else:
        listed = dict.fromkeys(sorted({*nodules.series, *ignored.series}), "")
        remarks.append("no --series: scans without nodules and excluded marks are missing")
    if not excluded:
        remarks.append("no --excluded: marks where readers disagreed count as false positives")
    remarks += _threshold_remarks(predicted)
    report_problems(problems, strict=False)
    files = {"annotations": annotations, "excluded": excluded, "series": series}
    return EvaluationInput(
        predicted,
        nodules,
        ignored,
        tuple(listed),
        tuple(sorted({pseudonym(given) if given else patient_of(name) for name, given in listed.items()})),
        {role: path for role, path in files.items() if path},
        (*remarks, *_problem_remarks(problems)),
    )


def from_labelled(
    scans: Sequence[ScanEntry], reports: Sequence[Report], folder: Path, problems: Sequence[Problem] = ()
) -> EvaluationInput:
    """Join the scans of a labeled folder with the reports of detection. Raises InputError.

    problems: problems of the folder's index
    """
    nodules = [(scan.name, *mark) for scan in scans for mark in scan.nodules]
    excluded = [(scan.name, *mark) for scan in scans for mark in scan.excluded]
    remarks = [] if excluded else ["no excluded marks: marks where readers disagreed count as false positives"]
    return EvaluationInput(
        predictions_of(reports, folder),
        make_marks(nodules),
        make_marks(excluded),
        tuple(scan.name for scan in scans),
        tuple(sorted({scan.patient for scan in scans})),
        {},
        (*remarks, *_problem_remarks(problems)),
    )


def _threshold_remarks(predicted: Predictions, name: str = "") -> tuple[str, ...]:
    if not predicted.threshold:
        return ()
    return (f"{name}the reports hold nodules from probability {predicted.threshold:g} on: the curve ends there",)


def _problem_remarks(problems: Sequence[Problem]) -> list[str]:
    return [f"left out of the labeled data: {count_problems(problems)}"] if problems else []


def _sha256(path: Path) -> str:
    with reading(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
