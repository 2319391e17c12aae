"""Many scans, one after the other: what was done before is skipped, one failure does not stop the rest."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.pipeline import Notify, detect
from gcnn_cli.errors import BatchError, GcnnError, UsageError
from gcnn_cli.files import refuse_existing
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.network.inference import Scorer
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.output.formats import output_paths, refuse_formats, write_report
from gcnn_cli.output.json_reading import read_report
from gcnn_cli.scan.formats import read_mask
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class Request:
    """What is asked of every scan of a cohort. out: a folder, or None to write nothing."""

    scans: tuple[Path, ...]
    formats: tuple[str, ...]
    out: Path | None
    threshold: float
    series: str | None = None
    lung_mask: Path | None = None
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.resume and (self.out is None or "json" not in self.formats):
            raise UsageError("--resume compares with the JSON of an earlier run: write json to a folder")
        if len(self.scans) > 1 and (self.series or self.lung_mask):
            raise UsageError("--series and --lung-mask belong to one scan; give one scan with them")
        for scan in self.scans:
            refuse_formats(self.formats, scan)
        if self.out is None:
            return
        seen: dict[Path, Path] = {}
        for scan in self.scans:
            for path in output_paths(scan, self.out, self.formats).values():
                if path in seen:
                    raise UsageError(f"{seen[path]} and {scan} would both write {path.name}; use separate --out")
                seen[path] = scan
        if not self.resume:
            refuse_existing(list(seen), overwrite=self.overwrite)


def detect_scans(
    request: Request,
    model: TrainedModel,
    scorer: Scorer,
    *,
    notify: Callable[[Path], Notify],
    fail: Callable[[GcnnError], None],
) -> Iterator[Report]:
    """Reports in the order of the scans, each written as soon as it is made.

    One scan's error is raised. Of several, each failure goes to `fail`, and BatchError at the end
    counts them.
    """
    mask = read_mask(request.lung_mask) if request.lung_mask else None
    failures = 0
    for scan in request.scans:
        try:
            report = _detect_one(scan, request, model, scorer, mask, notify(scan))
        except GcnnError as error:
            if len(request.scans) == 1:
                raise
            failures += 1
            fail(error)
            continue
        if report is not None:
            yield report
    if failures:
        raise BatchError(f"{failures} of {len(request.scans)} scans failed; the others are done")


def detect_labelled(
    scans: Sequence[ScanEntry],
    folder: Path,
    model: TrainedModel,
    scorer: Scorer,
    *,
    overwrite: bool,
    resume: bool,
    notify: Notify,
) -> list[Report]:
    """Every scored candidate of labelled scans, in order; each report is written into the folder as JSON.

    Raises the first scan's error: an evaluation without some of its scans would be of something else.
    """
    reports = []
    for number, scan in enumerate(scans, start=1):
        request = Request(
            scans=(scan.path,),
            formats=("json",),
            out=folder,
            threshold=0.0,
            series=scan.name if scan.path.is_dir() else None,
            overwrite=overwrite,
            resume=resume,
        )

        def tell(stage: str, number: int = number, name: str = scan.path.name) -> None:
            notify(f"scan {number} of {len(scans)}, {name}: {stage}")

        made = _detect_one(scan.path, request, model, scorer, None, tell)
        reports.append(made or read_report(output_paths(scan.path, folder, ("json",))["json"]))
    return reports


def _detect_one(
    scan: Path, request: Request, model: TrainedModel, scorer: Scorer, mask: Volume | None, notify: Notify
) -> Report | None:
    """The report of one scan, written; None when an earlier run has already made the same one."""
    notify("reading")
    volume = read_volume(scan, series=request.series)
    paths = output_paths(scan, request.out, request.formats) if request.out else {}
    if request.resume and _is_done(paths, volume, model, request, scorer, mask):
        log.info("%s: done before, skipped", scan)
        return None
    report = detect(volume, model, scorer, threshold=request.threshold, lung_mask=mask, notify=notify)
    notify("writing")
    # An incomplete set of an interrupted run is completed; a complete one of something else was refused above.
    write_report(report, paths, scan=volume, overwrite=request.overwrite or request.resume)
    return report


def _is_done(
    paths: dict[str, Path],
    volume: Volume,
    model: TrainedModel,
    request: Request,
    scorer: Scorer,
    mask: Volume | None,
) -> bool:
    """Whether earlier files are of the same scan, weights and options.

    Raises UsageError where they are complete but of something else, unless overwriting was asked for.
    """
    if not all(path.is_file() for path in paths.values()):
        return False
    wanted = {
        "scan": volume.source.sha256,
        "weights": model.sha256,
        "threshold": request.threshold,
        "--average-over": scorer.average_over,
        "lung mask": mask.source.sha256 if mask else "",
    }
    try:
        earlier = json.loads(paths["json"].read_text("utf-8"))
        found = {
            "scan": earlier["input"]["sha256"],
            "weights": earlier["weights"]["sha256"],
            "threshold": earlier["threshold"],
            "--average-over": earlier["options"]["average_over"],
            "lung mask": earlier["options"]["lung_mask"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        found = {}
    changed = [name for name, value in wanted.items() if found.get(name) != value]
    if changed and not request.overwrite:
        raise UsageError(
            f"{paths['json']} exists and is of another {', '.join(changed)};"
            " give --overwrite to replace it or another --out"
        )
    return not changed
