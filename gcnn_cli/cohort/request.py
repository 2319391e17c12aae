"""The request that applies to every scan of a cohort, checked before anything is computed."""

from dataclasses import dataclass, field
from pathlib import Path

from gcnn_cli.cohort.scans import SUMMARY_FILES, Cohort, Scan
from gcnn_cli.errors import GcnnError, UsageError
from gcnn_cli.files import check_not_existing
from gcnn_cli.output.formats import check_formats, named_paths
from gcnn_cli.scan.reading import check_scan


@dataclass(frozen=True)
class Request:
    """Options of detection and output.

    out:  folder of the results, None to write nothing
    root: folder to which the user's relative paths refer, on any machine
    """

    formats: tuple[str, ...]
    out: Path | None
    threshold: float
    lung_mask: Path | None = None
    allow_gaps: bool = False
    overwrite: bool = False
    resume: bool = False
    root: Path = field(default_factory=Path.cwd)

    def __post_init__(self) -> None:
        if self.resume and (self.out is None or "json" not in self.formats):
            raise UsageError(
                "--resume needs the JSON of the earlier run: --format must include json, and --out must be a folder"
            )

    @property
    def replaces(self) -> bool:
        """Return whether files may be replaced. --resume completes the set of an interrupted run."""
        return self.overwrite or self.resume

    def paths(self, scan: Scan) -> dict[str, Path]:
        """Return the file of each format; no files where nothing is written."""
        return named_paths(scan.name, self.out, self.formats) if self.out else {}

    def summary_paths(self) -> list[Path]:
        """Return the files of a batch's summary."""
        return [self.out / name for name in SUMMARY_FILES] if self.out else []


def check_single(request: Request, cohort: Cohort) -> None:
    """Raise the error that reading the only scan would raise for its path and headers. A batch records its own."""
    if cohort.is_batch:
        return
    (scan,) = cohort.scans
    try:
        check_scan(scan.path, series=scan.series, found=scan.found, allow_gaps=request.allow_gaps)
    except GcnnError as error:
        raise error.located(scan.path) from None


def check_request(request: Request, cohort: Cohort) -> None:
    """Raise UsageError for a format that a scan cannot have, two results of one name, or an existing file."""
    if len(cohort.scans) > 1 and request.lung_mask:
        raise UsageError(f"--lung-mask applies to a single scan, not to {len(cohort.scans)}")
    for scan in cohort.scans:
        check_formats(request.formats, scan.path)
    if request.out is None:
        return
    seen: dict[Path, Scan] = {}
    for scan in cohort.scans:
        for path in request.paths(scan).values():
            if path in seen:
                raise UsageError(
                    f"{seen[path].path} and {scan.path} would both write {path.name};"
                    " use a separate --out for each, or give their common parent folder"
                )
            seen[path] = scan
    if not request.resume:
        check_not_existing([*seen, *(request.summary_paths() if cohort.is_batch else [])], overwrite=request.overwrite)
