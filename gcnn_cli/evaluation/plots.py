"""Plots of FROC curves and reliability, as PNG bytes."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from gcnn_cli.evaluation.calibration import CalibrationStudy
from gcnn_cli.evaluation.evaluation import BAND_RATES, Evaluation
from gcnn_cli.evaluation.froc import CONFIDENCE, RATES, sensitivity_at

_COLORS = ("#0b5cad", "#c2571a", "#3b7d3a", "#7a4ea3")  # distinct in gray and with color blindness
_DPI = 150


def draw_froc(evaluations: Sequence[tuple[str, Evaluation]]) -> bytes:
    """Draw curves with their bootstrap bands, on a log axis with the seven rates as ticks."""
    figure = Figure(figsize=(6.4, 4.4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for color, (name, evaluation) in zip(_COLORS, evaluations, strict=False):
        curve = evaluation.curve
        # The curve as interpolated for the figures.
        line = sensitivity_at(curve.fps_per_scan, curve.sensitivity, BAND_RATES, evaluation.config.interpolation)
        axes.plot(BAND_RATES, line, color=color, label=f"{name}: CPM {evaluation.cpm:.3f}")
        axes.plot(RATES, [p.sensitivity for p in evaluation.points], "o", color=color, markersize=4)
        if evaluation.band:
            axes.fill_between(BAND_RATES, *evaluation.band, color=color, alpha=0.18, linewidth=0)
    first = evaluations[0][1]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(RATES))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlim=(0.115, 8.7), ylim=(0, 1.02), xlabel="false positives per scan", ylabel="sensitivity")
    axes.set_title(f"{first.counts.nodules} nodules in {first.counts.scans} scans", fontsize=10)
    axes.grid(alpha=0.3)
    if any(evaluation.band for _, evaluation in evaluations):
        axes.fill_between([], [], [], color="grey", alpha=0.3, label=f"{CONFIDENCE:.0%} interval over scans")
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    return _png(figure)


def draw_reliability(study: CalibrationStudy) -> bytes:
    """Draw the share of positives against the mean probability, and below it the number of marks in each bin."""
    figure = Figure(figsize=(4.8, 5.4), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    filled = [b for b in study.bins if b.marks]
    above.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="perfect")
    x, y = [b.mean_probability for b in filled], [b.positives for b in filled]
    above.plot(x, y, "o-", color=_COLORS[0], label=f"before: error {study.error:.3f}")
    mapped = f"Platt's map: error {study.error_after:.3f} on unseen scans"
    line = np.linspace(0.001, 0.999, 199)
    above.plot(
        line,
        study.platt.apply(line),
        color=_COLORS[1],
        label=mapped if np.isfinite(study.error_after) else "Platt's map",
    )
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share of marks on a nodule")
    above.legend(fontsize=8, frameon=False)
    below.bar([(b.low + b.high) / 2 for b in study.bins], [b.marks for b in study.bins], width=0.09, color=_COLORS[0])
    below.set(yscale="symlog", ylabel="marks", xlabel="reported probability")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    """Render a figure without pyplot, which would need a display and keep state."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "gcnn"})
    return buffer.getvalue()
