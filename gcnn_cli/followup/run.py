"""Two scans of one patient -> what became of each nodule."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Nodule, Report
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.followup.inputs import check_days, check_options, is_result
from gcnn_cli.followup.matching import Found, Pair, Status, match_nodules
from gcnn_cli.followup.registration import Alignment, align
from gcnn_cli.network.contract import Calibration
from gcnn_cli.output.json_reading import read_report, read_same_scan
from gcnn_cli.output.pictures.saved_lungs import with_lungs
from gcnn_cli.scan.dicom.dates import Visit, read_visit
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume

_DECISIVE = ("pipeline", "candidate_weights", "grid_mm", "average_over")  # options, beside weights and threshold
_LEAST_IN_COMMON = 0.8
_FAINT_RATE = 8.0  # false positives per scan at which a fainter finding still counts as the same nodule


@dataclass(frozen=True, eq=False)
class Exam:
    """One date: the scan, its report, and the fainter findings that serve matching alone.

    report: with its lungs, and the nodules from the threshold on
    faint:  findings below the threshold, most probable first
    """

    volume: Volume
    report: Report
    faint: tuple[Nodule, ...] = ()

    @property
    def found(self) -> Found:
        """Everything that matching uses."""
        return Found(self.report.scan, (*self.report.nodules, *self.faint), self.report.threshold)


@dataclass(frozen=True, eq=False)
class FollowUp:
    """What became of each nodule. days: between the scans, None if unknown; warnings: notes for the reader"""

    prior: Exam
    current: Exam
    alignment: Alignment
    pairs: tuple[Pair, ...]
    days: float | None
    warnings: tuple[str, ...] = ()


def read_exam(
    path: Path,
    detector: Callable[[], Detector],
    *,
    scan: Path | None = None,
    series: str | None = None,
    threshold: float | None = None,
) -> Exam:
    """Detect in a scan, or read a result of `gcnn detect` and its scan again.

    path:     a scan, or a .nodules.json
    detector: makes the networks, where they are needed
    scan:     the scan of a result, if it is no longer where it was

    Raises as `detect` and `read_report` do, UsageError for options that do not fit.
    """
    check_options(path, scan=scan, series=series, threshold=threshold)
    if is_result(path):
        report = read_report(path)
        report, volume = read_same_scan(report, scan or Path(report.scan.source.path))
        report = with_lungs(report, volume)
        if report.lungs is None:
            raise InputError("the scan shows no lung to align it by", path=path)
        return Exam(volume, report)
    volume = read_volume(path, series=series)
    ready = detector()
    calibration = ready.model.calibration
    shown = calibration.threshold if threshold is None else threshold
    report = detect(volume, ready, threshold=min(shown, faint_threshold(calibration)))
    faint = tuple(n for n in report.nodules if n.probability < shown)
    kept = tuple(n for n in report.nodules if n.probability >= shown)
    return Exam(volume, replace(report, nodules=kept, threshold=shown), faint)


def faint_threshold(calibration: Calibration) -> float:
    """Return the probability from which a finding can be the same nodule as one of the other date."""
    points = dict(calibration.operating_points)
    return points.get(_FAINT_RATE, calibration.threshold / 4)


def follow(prior: Exam, current: Exam, days: float | None = None) -> FollowUp:
    """Align two exams and match their nodules. days: between the scans (default: by the dates of DICOM headers).

    Raises InputError where the scans cannot be laid on each other, UsageError for one scan given twice and for dates in
    the other order.
    """
    sources = prior.report.scan.source, current.report.scan.source
    if sources[0].sha256 and sources[0].sha256 == sources[1].sha256:
        raise UsageError("both scans are the same", path=sources[1].path)
    check_days(days)
    visits = read_visit(prior.volume.source), read_visit(current.volume.source)  # as read, not as the results name them
    between = _days_between(*visits) if days is None else days
    lungs = prior.report.lungs, current.report.lungs
    if lungs[0] is None or lungs[1] is None:
        raise InputError("one of the scans shows no lung to align it by")
    alignment = align(prior.volume, lungs[0], current.volume, lungs[1])
    pairs = match_nodules(prior.found, current.found, alignment, between)
    unmeasured = sum(pair.status is Status.MATCHED and pair.growth is None for pair in pairs)
    warnings = [*_warnings(prior, current, alignment, between), *_scan_warnings(prior, current)]
    if visits[0].patient and visits[1].patient and visits[0].patient != visits[1].patient:
        warnings.append("the headers name two patients (PatientID): are the scans of one?")
    if unmeasured:
        warnings.append(f"nodules that stand out too little to be measured, without a change of volume: {unmeasured}")
    return FollowUp(prior, current, alignment, tuple(pairs), between, tuple(warnings))


def _days_between(prior: Visit, current: Visit) -> float | None:
    if prior.acquired is None or current.acquired is None:
        return None
    days = (current.acquired - prior.acquired).days
    if days == 0:  # made up, as in data without dates, or two series of one visit
        return None
    if days < 0:
        raise UsageError(
            f"the first scan was made {-days} days after the second by their headers; give the earlier one first, or"
            " the true number of days with --days"
        )
    return float(days)


def _warnings(prior: Exam, current: Exam, alignment: Alignment, days: float | None) -> tuple[str, ...]:
    notes = []
    if days is None:
        notes.append("the days between the scans are unknown: no doubling time; give them with --days")
    if not alignment.affine:
        notes.append("the scans were aligned without stretching: nodules near the diaphragm may be paired wrongly")
    if alignment.in_common < _LEAST_IN_COMMON:
        notes.append(
            f"only {100 * alignment.in_common:.0f} % of the lungs are in both scans, which makes it likelier that they"
            " are laid on each other wrongly: look whether the pictures of a nodule show one place"
        )
    models = prior.report.model, current.report.model
    if models[0].sha256 != models[1].sha256:
        notes.append("the two results are of different weights: a nodule may be new to the weights alone")
    thresholds = prior.report.threshold, current.report.threshold
    if thresholds[0] != thresholds[1]:
        notes.append(
            f"the results list nodules from probabilities of {thresholds[0]:.3g} and {thresholds[1]:.3g} on: what only"
            " one of them lists may be new or gone for that reason"
        )
    options = prior.report.options, current.report.options
    differing = [name for name in _DECISIVE if options[0].get(name) != options[1].get(name)]
    if differing:
        notes.append(f"the results were made in different ways ({', '.join(differing)}): volumes may differ by that")
    slices = prior.found.slice_mm, current.found.slice_mm
    if max(slices) > 1.25 * min(slices):
        notes.append(
            f"the scans have voxels of {slices[0]:.3g} and {slices[1]:.3g} mm: thicker slices measure larger volumes"
            " of small nodules"
        )
    return tuple(notes)


def _scan_warnings(prior: Exam, current: Exam) -> list[str]:
    """Return what the reading of each scan and its detection warned of, such as filled gaps."""
    exams = (("earlier", prior), ("later", current))
    return [f"the {name} scan: {text}" for name, exam in exams for text in exam.report.warnings]
