"""The scans of a labelled folder, searched to be evaluated."""

from collections.abc import Sequence
from pathlib import Path

from gcnn_cli.cohort.jobs import make_job, search
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.pipeline import Notify
from gcnn_cli.files import check_not_existing
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.output.formats import write_rendered
from gcnn_cli.output.json_reading import read_report


def detect_labelled(
    scans: Sequence[ScanEntry],
    folder: Path,
    detector: Detector,
    *,
    overwrite: bool,
    resume: bool,
    notify: Notify,
) -> list[Report]:
    """Every scored candidate of labelled scans, in order; each report is written into the folder as JSON.

    Raises the first scan's error: an evaluation without some of its scans would be of something else.
    """
    request = Request(("json",), folder, threshold=0.0, overwrite=overwrite, resume=resume)
    # By the names that the index holds once each: two patients may have their series in folders of one name.
    asked = [Scan(entry.path, entry.name, entry.name if entry.path.is_dir() else None) for entry in scans]
    if not resume:
        check_not_existing([path for scan in asked for path in request.paths(scan).values()], overwrite=overwrite)
    reports = []
    for number, scan in enumerate(asked, start=1):
        paths = request.paths(scan)

        def tell(stage: str, number: int = number, name: str = scan.path.name) -> None:
            notify(f"scan {number} of {len(scans)}, {name}: {stage}")

        outcome = search(make_job(scan, request), detector, tell)
        if outcome.failure:
            raise outcome.failure.error
        if outcome.files:
            write_rendered(outcome.files, paths, overwrite=request.replaces)
        reports.append(outcome.report or read_report(paths["json"]))
    return reports
