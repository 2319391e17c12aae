"""What is asked of every scan of a cohort, refused before anything is computed where it cannot be had."""

from dataclasses import dataclass, field
from pathlib import Path

from gcnn_cli.cohort.scans import SUMMARY_FILES, Cohort, Scan
from gcnn_cli.errors import UsageError
from gcnn_cli.files import check_not_existing
from gcnn_cli.output.formats import check_formats, named_paths


@dataclass(frozen=True)
class Request:
    """out: a folder, or None to write nothing. root: what relative paths are relative to, on any machine."""

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
            raise UsageError("--resume compares with the JSON of an earlier run: write json to a folder")

    @property
    def replaces(self) -> bool:
        """Whether files may be replaced: an interrupted run's set is completed, a complete one of another is not."""
        return self.overwrite or self.resume

    def paths(self, scan: Scan) -> dict[str, Path]:
        """Where each format of a scan goes; none where nothing is written."""
        return named_paths(scan.name, self.out, self.formats) if self.out else {}

    def summary_paths(self) -> list[Path]:
        """Where the summary of a batch goes."""
        return [self.out / name for name in SUMMARY_FILES] if self.out else []


def check_request(request: Request, cohort: Cohort) -> None:
    """Raise UsageError for formats that a scan cannot have, results of one name, and files that are there already."""
    if len(cohort.scans) > 1 and request.lung_mask:
        raise UsageError(f"--lung-mask belongs to one scan, and {len(cohort.scans)} are asked for")
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
                    " use separate --out, or name the folder above both"
                )
            seen[path] = scan
    if not request.resume:
        check_not_existing([*seen, *(request.summary_paths() if cohort.is_batch else [])], overwrite=request.overwrite)
