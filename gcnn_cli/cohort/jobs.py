"""Detection in one scan of a cohort: read, detect, render, on this machine or another. Nothing is written here.

The client, which submitted the job, writes the result. There is thus one writer, a machine that dies leaves nothing
half done, and only the scans must be visible from everywhere.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.resume import EarlierResult, is_same, read_earlier
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.stages import Notify, Stage, Step, quiet
from gcnn_cli.errors import DeviceError, GcnnError, is_out_of_memory
from gcnn_cli.output.formats import render_report
from gcnn_cli.scan.images.image_file import read_mask
from gcnn_cli.scan.reading import read_volume

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class ScanJob:
    """One scan and what is requested for it.

    number: index of the scan in the cohort
    alone:  whether the scan is not part of a batch; a bug then keeps its traceback
    """

    scan: Scan
    request: Request
    earlier: EarlierResult | None = None
    number: int = 0
    alone: bool = True


@dataclass(frozen=True)
class Failure:
    """The stage at which a scan failed, and the reason."""

    stage: Stage
    error: GcnnError


@dataclass(frozen=True)
class ScanResult:
    """The result of one job.

    report: None where the scan failed or was done before
    files:  content by format
    """

    report: Report | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    failure: Failure | None = None
    seconds: float = 0.0


Runner = Callable[[Iterable[ScanJob]], Iterator[tuple[ScanJob, ScanResult]]]


def make_job(scan: Scan, request: Request, number: int = 0, *, alone: bool = True) -> ScanJob:
    """Return the job of one scan. With `--resume` it holds what an earlier run left."""
    return ScanJob(scan, request, read_earlier(request.paths(scan)) if request.resume else None, number, alone)


def run_here(detector: Detector, notify: Callable[[Path], Notify]) -> Runner:
    """Return a runner that does one job after the other in this process. notify: of a scan's path."""

    def run(jobs: Iterable[ScanJob]) -> Iterator[tuple[ScanJob, ScanResult]]:
        return ((job, run_job(job, detector, notify(job.scan.path))) for job in jobs)

    return run


def run_job(job: ScanJob, detector: Detector, notify: Notify = quiet) -> ScanResult:
    """Do one job. A failure that the scan causes is part of the result; in a batch a bug is, too."""
    stage = Stage.READING

    def enter(step: Step) -> None:
        nonlocal stage
        stage = step.stage
        notify(step)

    started = time.monotonic()
    try:
        made = _detect(job, detector, enter)
    except Exception as error:
        failure = _expected_failure(error, job)
        if failure is None:
            if job.alone:
                raise
            failure = _bug(error, job)
        made = ScanResult(failure=Failure(stage, failure))
    return replace(made, seconds=time.monotonic() - started)


def _detect(job: ScanJob, detector: Detector, notify: Notify) -> ScanResult:
    notify(Step(Stage.READING))
    request, scan = job.request, job.scan
    path = _from_here(scan.path, request)
    found = scan.found if path == scan.path else None  # the paths in it are the user's
    volume = read_volume(path, series=scan.series, found=found, allow_gaps=request.allow_gaps)
    lung_mask = None if request.lung_mask is None else read_mask(_from_here(request.lung_mask, request))
    if job.earlier and is_same(job.earlier, volume, lung_mask, detector, request) and job.earlier.complete:
        log.info("%s: done before, skipped", scan.path)
        return ScanResult()
    report = detect(volume, detector, threshold=request.threshold, lung_mask=lung_mask, notify=notify)
    source = replace(report.scan.source, path=str(scan.path))
    report = replace(report, scan=replace(report.scan, source=source))
    notify(Step(Stage.RENDERING))
    files = render_report(report, request.formats if request.out else (), volume)
    return ScanResult(replace(report, lungs=None), files)  # the mask has served, and a cohort's would fill the memory


def _from_here(path: Path, request: Request) -> Path:
    """Return a path that this process can open. The user's own is relative to the client's folder."""
    return path if Path.cwd() == request.root else request.root / path


def _expected_failure(error: Exception, job: ScanJob) -> GcnnError | None:
    """Return the failure that names the scan as the user did; None for a bug."""
    if isinstance(error, GcnnError):
        here = Path.cwd() == job.request.root or job.scan.path.is_absolute()
        return (error if here else error.moved(job.request.root, Path())).located(job.scan.path)
    if is_out_of_memory(error):
        return DeviceError("ran out of memory", path=job.scan.path)
    return None


def _bug(error: Exception, job: ScanJob) -> GcnnError:
    """Return a bug as the failure of its scan, so that it does not end the whole batch.

    Its message is left out, as it may quote a header.
    """
    log.error("%s%s", "".join(traceback.format_tb(error.__traceback__)), type(error).__name__)
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((f for f in reversed(frames) if "gcnn_cli" in Path(f.filename).parts), frames[-1])
    place = f"{Path(ours.filename).name}, line {ours.lineno}"
    return GcnnError(f"a bug, please report it: {type(error).__name__} in {place}", path=job.scan.path)
