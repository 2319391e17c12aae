"""Results of `gcnn detect` -> the cases to look through: each a report and the place of its scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcnn_cli.detection.findings import Report
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.labels.discovery import find_scans
from gcnn_cli.output.formats import FORMATS
from gcnn_cli.output.json_reading import read_report

_ENDING = FORMATS["json"].ending


@dataclass(frozen=True)
class Case:
    """One scan with its findings.

    result:  the report's file
    scan:    path of the scan, as far as known
    problem: why the scan cannot be opened, in words; empty otherwise
    """

    result: Path
    report: Report
    scan: Path
    problem: str = ""

    @property
    def name(self) -> str:
        """Name of the result: that of the scan's file or folder."""
        return self.result.name.removesuffix(_ENDING)


def find_cases(results: Sequence[Path], scan: Path | None = None) -> list[Case]:
    """Return the cases of result files and of folders with results, in this order.

    scan: the scan of a single result, or for several results a folder in which their scans lie at any depth;
          None: the places that the results name

    Raises InputError for a damaged result, without any result, and if no scan at all can be found; UsageError for two
    results of one scan.
    """
    paths = [path for result in results for path in _result_files(result)]
    reports = [(path, read_report(path)) for path in dict.fromkeys(paths)]
    first: dict[str, tuple[Path, str]] = {}
    for path, report in reports:
        source = report.scan.source
        other, checksum = first.setdefault(source.series_uid, (path, source.sha256))
        if other == path:
            continue
        if checksum == source.sha256:
            raise UsageError(f"{other} and {path} are results of one scan ({source.series_uid}); give one of them")
        raise UsageError(
            f"{other} and {path} are results of two scans that are both called {source.series_uid}, which no table"
            " could tell apart; rename one scan and detect again, or review each into its own --out"
        )
    if scan is None:
        cases = [_case(path, report, Path(report.scan.source.path)) for path, report in reports]
    elif len(reports) == 1:
        cases = [_case(path, report, scan) for path, report in reports]
    else:
        cases = _cases_in(scan, reports)
    if all(case.problem for case in cases):
        raise InputError(cases[0].problem)
    return cases


def _result_files(path: Path) -> list[Path]:
    """Return a result itself, or the results in a folder at any depth."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob(f"*{_ENDING}"))
    if not found:
        raise InputError(f"holds no result ({_ENDING}); run gcnn detect first", path=path)
    return found


def _case(path: Path, report: Report, scan: Path) -> Case:
    problem = "" if scan.exists() else f"{scan}: the scan of {path} is not there; give its place with --scan"
    return Case(path, report, scan, problem)


def _cases_in(folder: Path, reports: Sequence[tuple[Path, Report]]) -> list[Case]:
    if not folder.is_dir():
        raise UsageError(f"--scan {folder}: give the folder of the scans, since there are {len(reports)} results")
    places: dict[str, Path] = {}
    for scan in find_scans(folder):
        for name in scan.ids:
            places.setdefault(name, scan.path)
    cases = []
    for path, report in reports:
        uid = report.scan.source.series_uid
        problem = "" if uid in places else f"{folder}: no scan of {path} ({uid}) in it"
        cases.append(Case(path, report, places.get(uid, folder), problem))
    return cases
