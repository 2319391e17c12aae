"""An evaluation as table rows and lines of text."""

import math
from typing import Any

from gcnn_cli.evaluation.evaluation import Evaluation
from gcnn_cli.evaluation.froc import CONFIDENCE, RATES, Difference

_RATE_NAMES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


def rate_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one row for each rate, and one for the CPM."""
    rows = [
        {
            "FPs/scan": name,
            "sensitivity": f"{point.sensitivity:.3f}",
            f"{CONFIDENCE:.0%} interval": _interval(point.interval),
            "threshold": "-" if point.threshold is None else f"{point.threshold:.4g}",
        }
        for name, point in zip(_RATE_NAMES, evaluation.points, strict=True)
    ]
    last = ("CPM", f"{evaluation.cpm:.3f}", _interval(evaluation.cpm_interval), "")
    return [*rows, dict(zip(rows[0], last, strict=True))]


def stratum_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one row for each stratum with nodules."""
    return [
        {
            "diameter mm": _range(stratum.low_mm, stratum.high_mm),
            "nodules": stratum.nodules,
            **{
                f"at {name}": f"{value:.3f}"
                for name, rate, value in zip(_RATE_NAMES, RATES, stratum.sensitivities, strict=True)
                if rate in (0.125, 1.0, 8.0)
            },
            "CPM": f"{stratum.cpm:.3f}",
        }
        for stratum in evaluation.strata
        if stratum.nodules
    ]


def summary_lines(evaluation: Evaluation, difference: Difference | None) -> list[str]:
    """Return the rule, the counts, the comparison and the calibration, a line each."""
    c = evaluation.counts
    unmeasured = f" ({c.unmeasured} unmeasured, in no stratum)" if c.unmeasured else ""
    lines = [
        f"rule: {evaluation.config.name}",
        f"scans: {c.scans} ({c.scans_without_nodules} without nodules, {c.scans_without_marks} without marks);"
        f" nodules: {c.nodules}{unmeasured}, hit by no mark: {c.missed}",
        f"marks: {c.marks}: {c.hits} hits ({c.double_hits} double), {c.ignored} ignored in excluded places,"
        f" {c.false_positives} false positives, {c.over_the_cap} over the cap",
    ]
    if evaluation.cpm_interval is None:
        lines.append("no intervals: they need at least two scans and --bootstraps above 0")
    if difference is not None and difference.interval is None:
        lines.append(f"CPM difference: {difference.cpm:+.3f}")
    elif difference is not None:
        lines.append(
            f"CPM difference: {difference.cpm:+.3f}, {CONFIDENCE:.0%} interval {_interval(difference.interval)},"
            f" p = {difference.p:.3g} (paired bootstrap over scans)"
        )
    if evaluation.calibration is not None:
        study = evaluation.calibration
        after = "too few scans" if math.isnan(study.error_after) else f"{study.error_after:.4f}"
        lines.append(
            f"expected calibration error {study.error:.4f}; after Platt's map, on unseen scans: {after}"
            f" (slope {study.platt.slope:.3f}, offset {study.platt.offset:+.3f})"
        )
    return lines


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _range(low: float, high: float) -> str:
    if low == 0:
        return f"< {high:g}"
    return f">= {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
