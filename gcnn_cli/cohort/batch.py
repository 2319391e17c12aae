"""Many scans: each result written as it comes, one failure does not stop the rest, one run at a time in a folder."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gcnn_cli.cohort.jobs import Failure, Job, Outcome, Search, make_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Cohort
from gcnn_cli.cohort.summary import Summary
from gcnn_cli.errors import BatchError, GcnnError, OutputError
from gcnn_cli.files import remove_parts
from gcnn_cli.locks import claimed
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.output.formats import write_rendered

LOCK_FILE = ".gcnn.lock"


@dataclass(frozen=True)
class Step:
    """One scan more: what became of it, how many have come to an end, and how many of them failed."""

    job: Job
    outcome: Outcome
    ended: int = 1
    failed: int = 0


def run_cohort(cohort: Cohort, request: Request, model: TrainedModel, search: Search) -> Generator[Step, None, None]:
    """Search all scans, in the order in which they come to an end, each written before it is told.

    The error of a single scan is raised. A batch goes on after one, and raises BatchError at its end; it holds the
    output folder's lock, or raises OutputError, and keeps a summary there.
    """
    if not cohort.is_batch:
        (scan,) = cohort.scans
        for job, outcome in search([make_job(scan, request)]):
            yield Step(job, _written(job, outcome))
        return
    with _alone_in(request.out):
        remove_parts(path for scan in cohort.scans for path in request.paths(scan).values())
        remove_parts(request.summary_paths())
        summary = Summary(cohort, request, model)
        try:
            ended = 0
            jobs = (make_job(scan, request, number, alone=False) for number, scan in enumerate(cohort.scans))
            for job, outcome in search(jobs):
                made, ended = _written_or_failed(job, outcome), ended + 1
                summary.add(job, made)
                yield Step(job, made, ended, summary.count("failed"))
        finally:
            summary.write()
    if failed := summary.count("failed"):
        told = f"; see {request.summary_paths()[0]}" if request.out else ""
        raise BatchError(f"{failed} of {len(cohort.scans)} scans failed; the others are done{told}")


def _written(job: Job, outcome: Outcome) -> Outcome:
    if outcome.failure:
        raise outcome.failure.error
    if outcome.files:
        write_rendered(outcome.files, job.request.paths(job.scan), overwrite=job.request.replaces)
    return outcome


def _written_or_failed(job: Job, outcome: Outcome) -> Outcome:
    if outcome.failure:
        return outcome
    try:
        return _written(job, outcome)
    except GcnnError as error:
        return replace(outcome, report=None, failure=Failure("writing", error))


@contextmanager
def _alone_in(folder: Path | None) -> Iterator[None]:
    """Hold the folder's lock. Raises OutputError naming the process that does."""
    if folder is None:
        yield
        return
    lock = folder / LOCK_FILE
    with claimed(lock) as holder:
        if holder:
            raise OutputError(
                f"{holder} is writing a batch here; wait for it or give another --out"
                f" (if there is no such process any more, delete {lock})",
                path=folder,
            )
        yield
