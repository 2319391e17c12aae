"""Detection in many scans: results are written as they come, a failed scan stops no other, one run per folder."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gcnn_cli.cohort.jobs import Failure, Runner, ScanJob, ScanResult, make_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Cohort
from gcnn_cli.cohort.summary import Summary
from gcnn_cli.detection.stages import Stage
from gcnn_cli.errors import BatchError, GcnnError, OutputError
from gcnn_cli.files import remove_parts
from gcnn_cli.locks import claimed
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.output.formats import write_rendered

LOCK_FILE = ".gcnn.lock"


@dataclass(frozen=True)
class FinishedScan:
    """One more scan that is done or failed. finished, failed: their numbers so far, this one included."""

    job: ScanJob
    result: ScanResult
    finished: int = 1
    failed: int = 0


def run_cohort(
    cohort: Cohort, request: Request, model: TrainedModel, runner: Runner
) -> Generator[FinishedScan, None, None]:
    """Detect nodules in all scans. Yields each scan once its files are written, in the order of completion.

    The error of a single scan is raised. A batch continues after one and raises BatchError at its end. It holds the
    lock of the output folder, or raises OutputError, and keeps a summary there.
    """
    if not cohort.is_batch:
        (scan,) = cohort.scans
        for job, result in runner([make_job(scan, request)]):
            yield FinishedScan(job, _written(job, result))
        return
    with _alone_in(request.out):
        remove_parts(path for scan in cohort.scans for path in request.paths(scan).values())
        remove_parts(request.summary_paths())
        summary = Summary(cohort, request, model)
        try:
            finished = 0
            jobs = (make_job(scan, request, number, alone=False) for number, scan in enumerate(cohort.scans))
            for job, result in runner(jobs):
                made, finished = _written_or_failed(job, result), finished + 1
                summary.add(job, made)
                yield FinishedScan(job, made, finished, summary.count("failed"))
        finally:
            summary.write()
    if failed := summary.count("failed"):
        hint = f"; see {request.summary_paths()[0]}" if request.out else ""
        done = "; the others are done" if failed < len(cohort.scans) else ""
        raise BatchError(f"{failed} of {len(cohort.scans)} scans failed{done}{hint}")


def _written(job: ScanJob, result: ScanResult) -> ScanResult:
    if result.failure:
        raise result.failure.error
    if result.files:
        write_rendered(result.files, job.request.paths(job.scan), overwrite=job.request.replaces)
    return result


def _written_or_failed(job: ScanJob, result: ScanResult) -> ScanResult:
    if result.failure:
        return result
    try:
        return _written(job, result)
    except GcnnError as error:
        return replace(result, report=None, failure=Failure(Stage.WRITING, error))


@contextmanager
def _alone_in(folder: Path | None) -> Iterator[None]:
    """Hold the folder's lock. Raises OutputError naming the process that holds it."""
    if folder is None:
        yield
        return
    lock = folder / LOCK_FILE
    with claimed(lock) as holder:
        if holder:
            raise OutputError(
                f"{holder} is writing a batch here; wait for it or give another --out"
                f" (if that process no longer exists, delete {lock})",
                path=folder,
            )
        yield
