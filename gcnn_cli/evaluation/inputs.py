"""What is evaluated: predictions, the reference, the scans that count, and where all of it comes from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcnn_cli.detection.findings import Report
from gcnn_cli.evaluation.leakage import Leakage
from gcnn_cli.evaluation.matching import Matches, MatchRule, match
from gcnn_cli.evaluation.reports import Predictions, predictions_of, read_any_predictions
from gcnn_cli.evaluation.tables import Marks, make_marks, read_annotations, read_excluded, read_series
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.patients import patient_of


@dataclass(frozen=True, eq=False)
class EvaluationInput:
    """Predictions and reference of the listed scans.

    patients: of these scans, as far as known
    files:    what was read: role -> path
    remarks:  what a reader of the figures must know
    """

    predictions: Predictions
    nodules: Marks
    excluded: Marks
    series: tuple[str, ...]
    patients: tuple[str, ...]
    files: Mapping[str, Path]
    remarks: tuple[str, ...] = ()

    def match(self, rule: MatchRule, *, allow_unknown: bool = False) -> Matches:
        """Match by a rule. Raises InputError for predictions in scans that are not listed."""
        return match(
            self.predictions.marks, self.nodules, self.excluded, self.series, rule, allow_unknown=allow_unknown
        )

    def with_predictions(self, path: Path) -> "EvaluationInput":
        """The same scans and reference, other predictions."""
        return replace(self, predictions=read_any_predictions(path))

    def sources(self, leakage: Leakage, weights: Mapping[str, str] | None) -> dict[str, Any]:
        """What was evaluated, as data: names and checksums, no folders."""
        return {
            "weights": dict(weights) if weights else None,
            "files": {
                role: {"name": path.name, "sha256": _sha256(path)}
                for role, path in self.files.items()
                if path.is_file()
            },
            "remarks": list(self.remarks),
            "leakage": {
                "checked": leakage.known,
                "series": list(leakage.series),
                "patients": list(leakage.patients),
                "text": str(leakage),
            },
        }


def from_files(predictions: Path, annotations: Path, excluded: Path | None, series: Path | None) -> EvaluationInput:
    """From tables or reports alone. Without a list of scans those count that the reference names."""
    made = read_any_predictions(predictions)
    nodules = read_annotations(annotations)
    ignored = read_excluded(excluded) if excluded else make_marks([])
    remarks = []
    if series:
        listed = read_series(series)
        elsewhere = sum(name not in set(listed) for name in nodules.series)
        if elsewhere:
            remarks.append(f"{elsewhere} of {len(nodules)} nodules lie in scans that are not listed: left out")
    else:
        listed = tuple(sorted({*nodules.series, *ignored.series}))
        remarks.append("no --series: only the scans that the reference names count, none without any mark")
    if not excluded:
        remarks.append("no --excluded: marks on places that the readers disagreed about count as false positives")
    if made.threshold:
        remarks.append(f"the reports list nodules from {made.threshold:g} on: the curve ends there")
    files = {"predictions": predictions, "annotations": annotations, "excluded": excluded, "series": series}
    return EvaluationInput(
        made,
        nodules,
        ignored,
        listed,
        tuple(sorted({patient_of(name) for name in listed})),
        {role: path for role, path in files.items() if path},
        tuple(remarks),
    )


def from_labelled(scans: Sequence[ScanEntry], reports: Sequence[Report], folder: Path) -> EvaluationInput:
    """From the scans of a labelled folder and the reports that detection made of them."""
    nodules = [(scan.name, *mark) for scan in scans for mark in scan.nodules]
    excluded = [(scan.name, *mark) for scan in scans for mark in scan.excluded]
    remarks = [] if excluded else ["no excluded marks: places that readers disagreed about count as false positives"]
    return EvaluationInput(
        predictions_of(reports, folder),
        make_marks(nodules),
        make_marks(excluded),
        tuple(scan.name for scan in scans),
        tuple(sorted({scan.patient for scan in scans})),
        {},
        tuple(remarks),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
