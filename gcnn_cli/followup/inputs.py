"""What can be known of a follow-up before torch is loaded: its inputs, as far as headers tell, and its file names."""

import math
from pathlib import Path

from gcnn_cli.errors import UsageError
from gcnn_cli.output.formats import output_name
from gcnn_cli.output.json_reading import read_report
from gcnn_cli.scan.images.image_file import suffix_of
from gcnn_cli.scan.reading import check_scan

FORMATS = {"csv": ".follow.csv", "html": ".follow.html", "json": ".follow.json"}
_RESULT = ".json"


def is_result(path: Path) -> bool:
    """Return whether a path is a result of `gcnn detect` and not a scan."""
    return path.suffix == _RESULT and path.is_file()


def check_options(path: Path, *, scan: Path | None, series: str | None, threshold: float | None) -> None:
    """Raise UsageError for options that do not fit a result, or a scan. As for `read_exam`."""
    if is_result(path):
        if series is not None or threshold is not None:
            raise UsageError("a result has its series and threshold; leave these options out", path=path)
    elif scan is not None:
        raise UsageError("is a scan itself; the options that name the scan go with a result", path=path)


def check_days(days: float | None) -> None:
    """Raise UsageError for days between two scans that cannot be."""
    if days is not None and not 0 < days < math.inf:
        raise UsageError(f"the days between the scans must be more than 0, got {days:g}")


def check_exam(
    path: Path, *, scan: Path | None = None, series: str | None = None, threshold: float | None = None
) -> None:
    """Raise what `read_exam` would for the options, the result, and the headers of the scan. Reads no voxels."""
    check_options(path, scan=scan, series=series, threshold=threshold)
    if not is_result(path):
        check_scan(path, series=series)
        return
    report = read_report(path)
    if report.options.get("lung_mask"):
        raise UsageError("was made within a given lung mask and cannot be followed; detect without one", path=path)
    source = report.scan.source
    place = scan or Path(source.path)
    check_scan(place, series=None if suffix_of(place) else source.series_choice, allow_gaps=source.gaps_filled)


def follow_paths(prior: Path, current: Path, folder: Path) -> dict[str, Path]:
    """Return the file of each format, named after both scans or results."""
    name = f"{_name(prior)}_to_{_name(current)}"
    return {fmt: folder / (name + ending) for fmt, ending in FORMATS.items()}


def _name(path: Path) -> str:
    return path.name.removesuffix(".json").removesuffix(".nodules") if path.suffix == ".json" else output_name(path)
