"""The summary of a batch: `cohort.csv` and `cohort.json` beside the results.

The table lists every scan from the start, as `pending`, so that an interrupted batch never looks complete. It holds
nothing that differs between two runs, or between one machine and many; times are in the JSON only.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from gcnn_cli import NOTICE, __version__
from gcnn_cli.cohort.jobs import Failure, ScanJob, ScanResult
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Cohort
from gcnn_cli.detection.stages import Stage
from gcnn_cli.files import csv_text, write_bytes
from gcnn_cli.network.weights import TrainedModel

COLUMNS = ("path", "status", "stage", "reason", "seriesuid", "nodules", "lungs_ml", "result")
SCHEMA_NAME, SCHEMA_VERSION = "gcnn-cohort", "1.0"

_BETWEEN_WRITES_S = 5.0
_WRITING_SHARE = 0.05  # of the time at most: the table of 100,000 scans takes seconds to write


@dataclass(frozen=True)
class Row:
    """One line of the table.

    status: pending, done, failed or set aside
    result: start of the names of the scan's files
    stage:  empty, or the stage at which the scan was lost
    """

    path: str
    status: str
    result: str = ""
    stage: Stage | None = None
    reason: str = ""
    exit_code: int = 0
    seriesuid: str = ""
    nodules: int | None = None
    lungs_ml: int | None = None
    done_before: bool = False
    seconds: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the row of the CSV."""
        return tuple("" if value is None else str(value) for value in (getattr(self, name) for name in COLUMNS))

    def data(self) -> dict[str, Any]:
        """Return the entry of the JSON."""
        columns = {name: getattr(self, name) for name in COLUMNS} | {"stage": self.stage or ""}
        seconds = None if self.seconds is None else round(self.seconds, 2)
        return {**columns, "exit_code": self.exit_code, "done_before": self.done_before, "seconds": seconds}


class Summary:
    """The rows of a batch and their files, which are rewritten every few seconds."""

    def __init__(self, cohort: Cohort, request: Request, model: TrainedModel) -> None:
        self._request, self._model = request, model
        self._rows = [Row(str(scan.path), "pending", scan.name) for scan in cohort.scans]
        self._others = [Row(str(s.path), "set aside", stage=Stage.FINDING, reason=s.reason) for s in cohort.set_aside]
        self._counts = Counter(row.status for row in (*self._rows, *self._others))
        self._write_next_at = 0.0
        self.write()

    def add(self, job: ScanJob, result: ScanResult) -> None:
        """Record the result of a scan."""
        row = _row(job, result)
        self._counts.subtract([self._rows[job.number].status])
        self._counts.update([row.status])
        self._rows[job.number] = row
        if time.monotonic() >= self._write_next_at:
            self.write()

    def count(self, status: str) -> int:
        """Return the number of scans that have a status."""
        return self._counts[status]

    def write(self) -> None:
        """Write both files. Raises OutputError."""
        begun = time.monotonic()
        rows = [*self._rows, *self._others]
        data = {
            "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
            "tool": {"name": "gcnn", "version": __version__},
            "notice": NOTICE,
            "weights": {"name": self._model.name, "sha256": self._model.sha256, "group": self._model.group},
            "threshold": self._request.threshold,
            "formats": list(self._request.formats),
            "complete": not self.count("pending"),
            "counts": dict(sorted((+self._counts).items())),
            "scans": [row.data() for row in rows],
        }
        texts = (
            csv_text(COLUMNS, [row.cells() for row in rows], inert=True),
            json.dumps(data, indent=2, ensure_ascii=False) + "\n",
        )
        for path, text in zip(self._request.summary_paths(), texts, strict=False):  # no paths where nothing is written
            write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=True)
        now = time.monotonic()
        self._write_next_at = now + max(_BETWEEN_WRITES_S, (now - begun) / _WRITING_SHARE)


def _row(job: ScanJob, result: ScanResult) -> Row:
    row = Row(str(job.scan.path), "done", job.scan.name, seconds=result.seconds)
    if failure := result.failure:
        return _failed(row, failure)
    if report := result.report:
        found = replace(row, seriesuid=report.scan.source.series_uid, nodules=len(report.nodules))
        return replace(found, lungs_ml=_whole(report.lungs_ml))
    assert job.earlier is not None  # for the type checker: only then is there no report
    earlier = job.earlier
    row = replace(row, seriesuid=earlier.series_uid, nodules=earlier.nodules, done_before=True)
    return replace(row, lungs_ml=_whole(earlier.lungs_ml))


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _failed(row: Row, failure: Failure) -> Row:
    error = failure.error
    return replace(row, status="failed", stage=failure.stage, reason=str(error), exit_code=error.exit_code)
