"""Detection in the scans of a labeled folder, for their evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gcnn_cli.cohort.jobs import make_job, run_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.stages import Step
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
    notify: Callable[[str], None],
) -> list[Report]:
    """Detect in labeled scans and write each report into the folder as JSON. Returns the reports, in order.

    The reports hold every scored candidate. Raises the first scan's error: figures without that scan would be those
    of another data set.
    """
    request = Request(("json",), folder, threshold=0.0, overwrite=overwrite, resume=resume)
    # Results are named by the index, whose names are unique: series of two patients may lie in folders of one name.
    asked = [Scan(entry.path, entry.name, entry.name if entry.path.is_dir() else None) for entry in scans]
    if not resume:
        check_not_existing([path for scan in asked for path in request.paths(scan).values()], overwrite=overwrite)
    reports = []
    for number, scan in enumerate(asked, start=1):
        paths = request.paths(scan)

        def show(step: Step, number: int = number, name: str = scan.path.name) -> None:
            notify(f"scan {number} of {len(scans)}, {name}: {step}")

        result = run_job(make_job(scan, request), detector, show)
        if result.failure:
            raise result.failure.error
        if result.files:
            write_rendered(result.files, paths, overwrite=request.replaces)
        reports.append(result.report or read_report(paths["json"]))
    return reports
