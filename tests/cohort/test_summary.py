"""The summary of a batch: right counts, written often, but never for most of the time."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gcnn_cli.cohort import summary
from gcnn_cli.cohort.jobs import Failure, ScanJob, ScanResult
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Cohort, Scan, SetAside
from gcnn_cli.detection.stages import Stage
from gcnn_cli.errors import InputError

MODEL = SimpleNamespace(name="some", sha256="abc", group="O")
SCANS = tuple(Scan(Path(f"{n}.mha"), f"{n}") for n in range(20))
LOST = ScanResult(failure=Failure(Stage.READING, InputError("damaged")))


class Clock:
    """Time that passes only when told to, and during each of the two files of a summary."""

    def __init__(self, writing_s):
        self.now, self.writing_s, self.written = 0.0, writing_s, 0

    def monotonic(self):
        return self.now

    def write(self, path, content, *, overwrite):
        self.now += self.writing_s / 2
        self.written += path.suffix == ".csv"


@pytest.fixture
def started(monkeypatch, tmp_path):
    def start(writing_s):
        clock = Clock(writing_s)
        monkeypatch.setattr(summary, "time", clock)
        monkeypatch.setattr(summary, "write_bytes", clock.write)
        request = Request(("csv", "json"), tmp_path, 0.5)
        return clock, request, summary.Summary(Cohort(SCANS, is_batch=True), request, MODEL)

    return start


def finish(rows, request, number):
    rows.add(ScanJob(SCANS[number], request, number=number), LOST)


def test_a_small_table_is_written_every_five_seconds(started):
    clock, request, rows = started(writing_s=0.0)
    for number in range(20):
        clock.now = number + 1.0
        finish(rows, request, number)
    assert clock.written == 1 + 4  # at the start, then after 5, 10, 15 and 20 seconds


def test_a_table_that_takes_long_is_written_seldom(started):
    clock, request, rows = started(writing_s=4.0)
    begun = clock.now
    for number in range(20):
        clock.now = begun + 10 * (number + 1)
        finish(rows, request, number)
    assert clock.written == 1 + 2  # a twentieth of the time at most: every 80 seconds


def test_counts_are_those_of_the_rows(tmp_path):
    request = Request(("csv", "json"), tmp_path, 0.5)
    cohort = Cohort(SCANS, (SetAside(Path("x.txt"), "not a scan"),), is_batch=True)
    rows = summary.Summary(cohort, request, MODEL)
    for number in (3, 7, 3):
        finish(rows, request, number)
    rows.write()
    written = json.loads((tmp_path / "cohort.json").read_text())
    assert written["counts"] == {"failed": 2, "pending": 18, "set aside": 1}
    assert rows.count("failed") == 2
    assert not written["complete"]
