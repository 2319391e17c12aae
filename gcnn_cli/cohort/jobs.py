"""One scan of a cohort: read, searched and rendered, here or on another machine. Nothing is written.

Whoever asked writes what comes back, so that there is one writer, a machine that dies leaves nothing half done, and
only the scans must be seen from everywhere.
"""

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.pipeline import Notify, detect, quiet
from gcnn_cli.errors import GcnnError, UsageError
from gcnn_cli.output.formats import render_report
from gcnn_cli.scan.images.image_file import read_mask
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class Earlier:
    """What an earlier run left of a scan: what it was made from, and its outcome for the summary.

    complete: whether every file that is asked for is there
    """

    json: Path
    complete: bool = True
    made_from: Mapping[str, Any] = field(default_factory=dict)
    series_uid: str = ""
    nodules: int = 0


@dataclass(frozen=True)
class Job:
    """One scan and what is asked of it.

    number: its place in the cohort; alone: no batch, whose other scans are worth more than a traceback
    """

    scan: Scan
    request: Request
    earlier: Earlier | None = None
    number: int = 0
    alone: bool = True


@dataclass(frozen=True)
class Failure:
    """At which stage a scan was lost, and why."""

    stage: str
    error: GcnnError


@dataclass(frozen=True)
class Outcome:
    """What became of one scan. report: None where it failed, or was done before; files: by format."""

    report: Report | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    failure: Failure | None = None
    seconds: float = 0.0


Search = Callable[[Iterable[Job]], Iterator[tuple[Job, Outcome]]]


def search(job: Job, detector: Detector, notify: Notify = quiet) -> Outcome:
    """Search one scan. Its own fault is in the outcome, and in a batch a bug that it strikes too."""
    stage = ""

    def tell(what: str) -> None:
        nonlocal stage
        stage = what.split()[0]
        notify(what)

    started = time.monotonic()
    try:
        made = _search(job, detector, tell)
    except GcnnError as error:
        named = error if str(job.scan.path) in str(error) else type(error)(f"{job.scan.path}: {error}")
        made = Outcome(failure=Failure(stage, named))
    except Exception as error:
        # A night's work does not end at one scan that nobody has thought of. It is recorded as what it is; its
        # message is not, as it may quote a header.
        if job.alone:
            raise
        log.error("%s%s", "".join(traceback.format_tb(error.__traceback__)), type(error).__name__)
        text = f"{job.scan.path}: a bug, please report it: {type(error).__name__} in {_where(error)}"
        made = Outcome(failure=Failure(stage, GcnnError(text)))
    return replace(made, seconds=time.monotonic() - started)


def _where(error: Exception) -> str:
    """The last of our own lines on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "gcnn_cli" in Path(f.filename).parts), frames[-1])
    return f"{Path(place.filename).name}, line {place.lineno}"


def search_here(detector: Detector, notify: Callable[[Path], Notify]) -> Search:
    """One scan after the other, in this process."""

    def run(jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        return ((job, search(job, detector, notify(job.scan.path))) for job in jobs)

    return run


def make_job(scan: Scan, request: Request, number: int = 0, *, alone: bool = True) -> Job:
    """The job of one scan, with what an earlier run left of it where that may count."""
    return Job(scan, request, _read_earlier(request.paths(scan)) if request.resume else None, number, alone)


def _search(job: Job, detector: Detector, notify: Notify) -> Outcome:
    notify("reading")
    root, lung_mask = job.request.root, job.request.lung_mask
    scan, allow_gaps = job.scan, job.request.allow_gaps
    found = scan.found if Path.cwd() == root else None  # its paths are as the user named them
    volume = _read(
        scan.path, root, lambda path: read_volume(path, series=scan.series, found=found, allow_gaps=allow_gaps)
    )
    mask = None if lung_mask is None else _read(lung_mask, root, read_mask)
    if job.earlier and _is_same(job, job.earlier, volume, mask, detector) and job.earlier.complete:
        log.info("%s: done before, skipped", job.scan.path)
        return Outcome()
    report = detect(
        volume,
        detector,
        threshold=job.request.threshold,
        lung_mask=mask,
        notify=notify,
    )
    notify("rendering")
    formats = job.request.formats if job.request.out else ()
    return Outcome(report, render_report(report, formats, volume))


def _read(path: Path, root: Path, read: Callable[[Path], Volume]) -> Volume:
    """A volume whose path, and errors whose text, name files as the user did, whatever folder this process is in."""
    if path.is_absolute() or Path.cwd() == root:
        return read(path)
    try:
        volume = read(root / path)
    except GcnnError as error:
        raise type(error)(str(error).replace(f"{root}/", "")) from None
    return Volume(volume.hu, volume.to_world, replace(volume.source, path=str(path)))


def _read_earlier(paths: Mapping[str, Path]) -> Earlier | None:
    """What the JSON of an earlier run says; it is the last of a set to be written. None where there is none."""
    path = paths["json"]
    if not path.is_file():
        return None
    complete = all(path.is_file() for path in paths.values())
    try:
        data = json.loads(path.read_text("utf-8"))
        made_from = {
            "scan": data["input"]["sha256"],
            "weights": data["weights"]["sha256"],
            "threshold": data["threshold"],
            "--average-over": data["options"]["average_over"],
            "candidate weights": data["options"]["candidate_weights"],
            "lung mask": data["options"]["lung_mask"],
        }
        return Earlier(path, complete, made_from, str(data["input"]["seriesuid"]), len(data["nodules"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Earlier(path, complete)


def _is_same(job: Job, earlier: Earlier, volume: Volume, mask: Volume | None, detector: Detector) -> bool:
    """Whether an earlier run's files are of the same scan, weights and options.

    Raises UsageError where they are of something else, unless overwriting was asked for.
    """
    wanted = {
        "scan": volume.source.sha256,
        "weights": detector.model.sha256,
        "threshold": job.request.threshold,
        "--average-over": detector.scorer.average_over,
        "candidate weights": detector.proposer.name,
        "lung mask": mask.source.sha256 if mask else "",
    }
    changed = [name for name, value in wanted.items() if earlier.made_from.get(name) != value]
    if changed and not job.request.overwrite:
        raise UsageError(
            f"{earlier.json} exists and is of another {', '.join(changed)};"
            " give --overwrite to replace it or another --out"
        )
    return not changed
