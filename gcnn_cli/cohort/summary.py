"""What became of each scan of a batch, as `cohort.csv` and `cohort.json` beside the results.

The table has every scan from the first moment, as `pending`, so that it never looks whole when it is not; it is made
of nothing that differs between two runs, or between one machine and many. Times stand in the JSON.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gcnn_cli import NOTICE, __version__
from gcnn_cli.cohort.jobs import Failure, Job, Outcome
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Cohort
from gcnn_cli.files import csv_text, write_bytes
from gcnn_cli.network.weights import TrainedModel

COLUMNS = ("path", "status", "stage", "reason", "seriesuid", "nodules", "result")
SCHEMA_NAME, SCHEMA_VERSION = "gcnn-cohort", "1.0"

_BETWEEN_WRITES_S = 5.0


@dataclass(frozen=True)
class Row:
    """One line of the table: pending, done, failed or set aside. result: start of the names of its files."""

    path: str
    status: str
    result: str = ""
    stage: str = ""
    reason: str = ""
    exit_code: int = 0
    seriesuid: str = ""
    nodules: int | None = None
    done_before: bool = False
    seconds: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The row of the CSV."""
        return tuple("" if value is None else str(value) for value in (getattr(self, name) for name in COLUMNS))

    def data(self) -> dict[str, Any]:
        """The entry of the JSON."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        seconds = None if self.seconds is None else round(self.seconds, 2)
        return {**columns, "exit_code": self.exit_code, "done_before": self.done_before, "seconds": seconds}


class Summary:
    """The rows of a batch, and their files, which are written again every few seconds as rows come."""

    def __init__(self, cohort: Cohort, request: Request, model: TrainedModel) -> None:
        self._request, self._model = request, model
        self._rows = [Row(str(scan.path), "pending", scan.name) for scan in cohort.scans]
        self._others = [Row(str(s.path), "set aside", stage="finding", reason=s.reason) for s in cohort.set_aside]
        self._written_at = 0.0
        self.write()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Note what became of a scan."""
        self._rows[job.number] = _row(job, outcome)
        if time.monotonic() - self._written_at > _BETWEEN_WRITES_S:
            self.write()

    def count(self, status: str) -> int:
        """How many scans have a status."""
        return self._counts()[status]

    def write(self) -> None:
        """Bring the files up to date. Raises OutputError."""
        rows = [*self._rows, *self._others]
        data = {
            "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
            "tool": {"name": "gcnn", "version": __version__},
            "notice": NOTICE,
            "weights": {"name": self._model.name, "sha256": self._model.sha256, "group": self._model.group},
            "threshold": self._request.threshold,
            "formats": list(self._request.formats),
            "complete": not self.count("pending"),
            "counts": dict(self._counts()),
            "scans": [row.data() for row in rows],
        }
        texts = (
            csv_text(COLUMNS, [row.cells() for row in rows]),
            json.dumps(data, indent=2, ensure_ascii=False) + "\n",
        )
        for path, text in zip(self._request.summary_paths(), texts, strict=False):  # no paths where nothing is written
            write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=True)
        self._written_at = time.monotonic()

    def _counts(self) -> Mapping[str, int]:
        return Counter(row.status for row in (*self._rows, *self._others))


def _row(job: Job, outcome: Outcome) -> Row:
    path, name, report = str(job.scan.path), job.scan.name, outcome.report
    if outcome.failure:
        return _failed(path, name, outcome.failure, outcome.seconds)
    if report is not None:
        return Row(
            path,
            "done",
            name,
            seriesuid=report.scan.source.series_uid,
            nodules=len(report.nodules),
            seconds=outcome.seconds,
        )
    earlier = job.earlier
    assert earlier is not None  # for the type checker: only then is there no report
    return Row(
        path,
        "done",
        name,
        seriesuid=earlier.series_uid,
        nodules=earlier.nodules,
        done_before=True,
        seconds=outcome.seconds,
    )


def _failed(path: str, name: str, failure: Failure, seconds: float) -> Row:
    return Row(
        path,
        "failed",
        name,
        stage=failure.stage,
        reason=str(failure.error),
        exit_code=failure.error.exit_code,
        seconds=seconds,
    )
